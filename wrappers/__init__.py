"""What stands between a world and an agent, and Gymnasium lacks."""

if not __name__.startswith("palaestra."):
    raise ImportError("import palaestra.wrappers, not wrappers: a bare import would load a second copy of every module")
