"""What several commands read from their command lines."""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """Return {name: value} for texts NAME=VALUE; values are Python literals, anything else stays a string.

    Raises:
        ValueError: If a text has no equals sign or no name.
    """
    values: dict[str, Any] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"env_kwargs: {text!r}; expected NAME=VALUE, e.g. lead_time=2")
        try:
            values[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            values[name] = value
    return values


def console() -> Console:
    """Return a console as wide as the terminal, or 120 columns where the output goes elsewhere."""
    return Console(width=None if sys.stdout.isatty() else 120)
