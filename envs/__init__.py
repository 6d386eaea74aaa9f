"""Worlds: registered Gymnasium environments. They know nothing of agents."""

if not __name__.startswith("palaestra."):
    raise ImportError("import palaestra.envs, not envs: a bare import would load a second copy of every module")
