"""Trunks, heads and critics."""
