"""`palaestra envs`: list the suite's worlds, or describe one."""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass
from typing import Annotated

import gymnasium as gym
import tyro
from rich.table import Table

from palaestra.envs.registration import make_simulator, own_env_ids
from palaestra.scripts.options import console


@dataclass(frozen=True)
class EnvsOptions:
    """List the suite's own worlds, or print the specification of one. Any other Gymnasium id trains too."""

    env: Annotated[str | None, tyro.conf.Positional] = None
    """Env id to describe."""


def main(arguments: list[str]) -> int:
    """Print the list or the description."""
    options = tyro.cli(EnvsOptions, prog="palaestra envs", args=arguments)
    screen = console()
    if options.env is None:
        table = Table("id", "what it is", "observation", "action", box=None, pad_edge=False)
        for env_id in own_env_ids():
            world = make_simulator(env_id)
            table.add_row(env_id, _summary(world), _short(world.observation_space), _short(world.action_space))
        screen.print(table)
        return 0
    try:
        world = make_simulator(options.env)
    except (ValueError, gym.error.Error) as error:
        print(f"palaestra envs: {error}", file=sys.stderr)
        return 2
    print(inspect.getdoc(type(world)))
    return 0


def _summary(world: object) -> str:
    return (inspect.getdoc(type(world)) or "").partition("\n")[0]


def _short(space: gym.Space) -> str:  # type: ignore[type-arg]
    return (
        f"{type(space).__name__}{space.shape or ''}"
        if not isinstance(space, gym.spaces.Discrete)
        else f"Discrete({space.n})"
    )
