"""Worlds of power systems: how much water to keep and how much to turn into power, before the inflow is known."""
