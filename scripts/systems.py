"""`palaestra systems`: list the published systems that the suite implements, with their tests and verdicts."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from palaestra import systems


@dataclass(frozen=True)
class SystemsOptions:
    """Print the table of systems."""

    json: bool = False
    """Print JSON instead of text."""
    write: bool = False
    """First make the table anew from the rows in results/; in a checkout of the suite."""


def main(arguments: list[str]) -> int:
    """Print the table."""
    options = tyro.cli(SystemsOptions, prog="palaestra systems", args=arguments)
    if options.write:
        try:
            systems.write_table(Path("results"))
        except (ValueError, OSError) as error:
            print(f"palaestra systems: {error}", file=sys.stderr)
            return 2
    print(systems.render(options.json))
    return 0
