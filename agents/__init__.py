"""Learners and what they share. They know spaces, not worlds."""

if not __name__.startswith("palaestra."):
    raise ImportError("import palaestra.agents, not agents: a bare import would load a second copy of every module")
