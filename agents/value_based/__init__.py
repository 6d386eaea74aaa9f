"""Agents that learn the values of discrete actions."""
