"""Optimal costs and policies of inventory systems, by closed form or dynamic programming, without simulation."""
