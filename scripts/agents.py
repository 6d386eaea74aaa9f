"""`palaestra agents`: list the agents, or describe one with all its settings."""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass, fields
from typing import Annotated

import tyro
from rich.table import Table

from palaestra.agents.registry import agent_class, agent_ids, import_agent
from palaestra.agents.training.config import field_help
from palaestra.scripts.options import console


@dataclass(frozen=True)
class AgentsOptions:
    """List the agents, or print what one does and every setting with its default."""

    agent: Annotated[str | None, tyro.conf.Positional] = None
    """Agent id to describe."""


def main(arguments: list[str]) -> int:
    """Print the list or the description."""
    options = tyro.cli(AgentsOptions, prog="palaestra agents", args=arguments)
    screen = console()
    if options.agent is None:
        table = Table("id", "what it is", "action spaces", box=None, pad_edge=False)
        for agent_id in agent_ids():
            kind = agent_class(agent_id)
            summary = (inspect.getdoc(kind) or "").partition("\n")[0]
            table.add_row(agent_id, summary, ", ".join(space.__name__ for space in kind.action_spaces))
        screen.print(table)
        return 0
    try:
        kind = agent_class(import_agent(options.agent))
    except ValueError as error:
        print(f"palaestra agents: {error}", file=sys.stderr)
        return 2
    print(inspect.getdoc(kind), end="\n\n")
    helps = field_help(kind.config_class)
    table = Table("setting", "default", "meaning", box=None, pad_edge=False)
    for field in fields(kind.config_class):
        table.add_row(field.name, repr(field.default), helps.get(field.name, ""))
    screen.print(table)
    return 0
