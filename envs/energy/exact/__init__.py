"""Optimal costs and exact expected costs of power systems, by dynamic programming and by enumeration."""
