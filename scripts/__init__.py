"""The commands behind `palaestra`: one command a file."""

if not __name__.startswith("palaestra."):
    raise ImportError("import palaestra.scripts, not scripts: a bare import would load a second copy of every module")
