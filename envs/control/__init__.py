"""Continuous-control worlds."""
