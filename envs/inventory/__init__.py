"""Inventory and supply-network worlds."""
