"""Agents that pursue one objective within bounds that others set."""
