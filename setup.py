"""The package list, computed: a new folder needs no line here. All metadata stand in pyproject.toml."""

from setuptools import find_namespace_packages, setup

ROOTS = ("envs", "agents", "wrappers", "scripts")
FOUND = find_namespace_packages(include=[*ROOTS, *(f"{root}.*" for root in ROOTS)], exclude=["*.__pycache__"])

setup(
    packages=["palaestra", *(f"palaestra.{package}" for package in FOUND)],
    package_dir={"palaestra": "palaestra", **{f"palaestra.{root}": root for root in ROOTS}},
    package_data={"": ["py.typed", "*.yaml", "*.json", "*.txt"]},
)
