"""Levels of the `minigrid` package as states of ours: the same grid, agent, hand, clock and mission."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from palaestra.envs.grid.cells import EMPTY, TARGET, code_of
from palaestra.envs.grid.world import GridState, GridWorld


def from_minigrid(world: GridWorld, env: gym.Env[Any, Any]) -> GridState:
    """Return the present state of one of MiniGrid's envs, a batch of one row.

    Stepped by the same actions, the state and the env then yield the same observations, rewards and terminations.

    Args:
        world: Our world of the same kind and size.
        env: A MiniGrid or BabyAI env after its reset, possibly wrapped.

    Raises:
        ValueError: If the env's grid is of another size, or holds a cell or a mission that the world does not know.
    """
    inner: Any = env.unwrapped
    if (inner.width, inner.height) != (world.width, world.height):
        raise ValueError(
            f"from_minigrid: env is of {inner.width} x {inner.height} cells; expected {world.width} x {world.height}"
        )
    targets = _targets(inner)
    cells = np.array([_code(thing, targets) for thing in inner.grid.grid], np.uint8)
    x, y = (int(part) for part in inner.agent_pos)
    words = {
        "place": x * world.height + y,
        "direction": int(inner.agent_dir),
        "carried": _code(inner.carrying, targets),
        "elapsed": int(inner.step_count),
        "mission": world.missions.number_of(inner.mission),
    }
    return GridState(
        cells=np.ascontiguousarray(cells.reshape(world.height, world.width).T)[None],
        **{name: np.array([word]) for name, word in words.items()},
    )


def _targets(inner: Any) -> list[Any]:
    """The objects that the mission is about, as `minigrid` keeps them: by identity."""
    if hasattr(inner, "instrs"):
        return list(inner.instrs.desc.obj_set)
    return [getattr(inner, name) for name in ("obj", "door") if hasattr(inner, name)]


def _code(thing: Any, targets: list[Any]) -> int:
    if thing is None:
        return EMPTY
    inside = getattr(thing, "contains", None)
    content = None if inside is None else int(inside.encode()[1])
    return code_of(thing.encode(), content) + (TARGET if any(thing is target for target in targets) else 0)
