"""Recommendation: users whose interests are moved by what they are shown."""
