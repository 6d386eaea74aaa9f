"""What levels look like, one label a level and feature, and whether two sets of levels could be of one distribution."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import minigrid  # noqa: F401  (registers its ids)
import numpy as np
from scipy.stats import chi2_contingency

from palaestra.envs.grid.cells import (
    BALL_TYPE,
    BOX_TYPE,
    DOOR_TYPE,
    EMPTY_TYPE,
    ENCODING,
    GOAL_TYPE,
    KEY_TYPE,
    LAVA_TYPE,
    WALL_TYPE,
)
from palaestra.envs.grid.world import GridWorld
from palaestra.envs.noise import CounterKey

TYPES = {"door": DOOR_TYPE, "key": KEY_TYPE, "ball": BALL_TYPE, "box": BOX_TYPE, "goal": GOAL_TYPE, "lava": LAVA_TYPE}
NONE = -1


@dataclass(frozen=True)
class Levels:
    """Levels, one a row: `cells` encoded `[n, width, height, 3]`, `x`, `y` and `direction` `[n]`, texts `[n]`."""

    cells: np.ndarray
    x: np.ndarray
    y: np.ndarray
    direction: np.ndarray
    mission: np.ndarray


def our_levels(world: GridWorld, count: int, seed: int) -> Levels:
    state = world.initial(CounterKey(np.arange(count) + (seed << 32)))
    texts = np.array(world.missions.texts)[state.mission]
    x, y = np.divmod(state.place, world.height)
    return Levels(ENCODING[state.cells], x, y, state.direction, texts)


def their_levels(env_id: str, count: int, seed: int) -> Levels:
    env: Any = gym.make(env_id, disable_env_checker=True).unwrapped
    # The first observation is not needed, and takes most of a reset's time.
    env.gen_obs = dict
    cells, agent, missions = [], [], []
    with contextlib.redirect_stdout(io.StringIO()):
        env.reset(seed=seed)
        for _ in range(count):
            env.reset()
            cells.append([(1, 0, 0) if thing is None else thing.encode() for thing in env.grid.grid])
            agent.append((*env.agent_pos, env.agent_dir))
            missions.append(env.mission)
    grid = np.array(cells, np.uint8).reshape(count, env.height, env.width, 3).transpose(0, 2, 1, 3)
    x, y, direction = np.array(agent).T
    return Levels(grid, x, y, direction, np.array(missions))


def features(levels: Levels) -> dict[str, np.ndarray]:
    """Return labels `[n]` by the name of the feature."""
    kinds, colors, states = (levels.cells[..., part].reshape(len(levels.x), -1) for part in range(3))
    height = levels.cells.shape[2]
    rows, width = np.arange(len(levels.x)), levels.cells.shape[1]
    found: dict[str, np.ndarray] = {
        "agent": levels.x * height + levels.y,
        "direction": levels.direction,
        "mission": np.unique(levels.mission, return_inverse=True)[1],
        "walls": (kinds == WALL_TYPE).sum(axis=1),
        "walls left": (kinds[:, : width // 2 * height] == WALL_TYPE).sum(axis=1),
        "first wall": np.argmax(kinds == WALL_TYPE, axis=1),
    }
    blocked = (levels.cells[..., 0] == WALL_TYPE) | (levels.cells[..., 0] == LAVA_TYPE)
    for line in (2, 4, width // 2):
        found[f"column {line}"] = patterns(blocked[:, min(line, width - 1)])
        found[f"row {line}"] = patterns(blocked[:, :, min(line, height - 1)])
    cells_x, cells_y = np.divmod(np.arange(kinds.shape[1]), height)
    step = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])[levels.direction]
    ahead = (levels.x + step[:, 0]) * height + levels.y + step[:, 1]
    found["ahead"] = kinds[rows, ahead]
    distance = np.abs(cells_x - levels.x[:, None]) + np.abs(cells_y - levels.y[:, None])
    for name, kind in TYPES.items():
        here = kinds == kind
        count = here.sum(axis=1)
        found[f"{name}s"] = count
        first, last = np.argmax(here, axis=1), kinds.shape[1] - 1 - np.argmax(here[:, ::-1], axis=1)
        for which, place in (("first", first), ("last", last)):
            found[f"{which} {name}"] = np.where(count > 0, place, NONE)
            found[f"{which} {name} looks"] = np.where(count > 0, colors[rows, place] * 3 + states[rows, place], NONE)
        found[f"{name} distance"] = np.where(here, distance, 99).min(axis=1)
        of_a_color = [(here & (colors == color)).sum(axis=1) for color in range(6)]
        found[f"most {name}s of a color"] = np.max(of_a_color, axis=0)
    things = (kinds != WALL_TYPE) & (kinds != EMPTY_TYPE) & (kinds != DOOR_TYPE)
    found["things left"] = things[:, : width // 2 * height].sum(axis=1)
    found["crowding"] = np.where(things & (distance == 2), 1, 0).sum(axis=1)
    return found


def patterns(bits: np.ndarray) -> np.ndarray:
    """One number for each row of bits `[n, length]`."""
    return bits @ (1 << np.arange(bits.shape[1]))


def p_values(ours: Levels, theirs: Levels) -> dict[str, float]:
    """Return the p-values of the chi-square tests of homogeneity, of the features that are not constant."""
    # Missions are numbered in common.
    both = np.concatenate([ours.mission, theirs.mission])
    number = np.unique(both, return_inverse=True)[1]
    sets = [features(levels) for levels in (ours, theirs)]
    sets[0]["mission"], sets[1]["mission"] = np.split(number, [len(ours.mission)])
    found = {}
    for name in sets[0]:
        table = _counts(sets[0][name], sets[1][name])
        if table.shape[1] > 1:
            found[name] = float(chi2_contingency(table, correction=False).pvalue)
    return found


def _counts(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Counts `[2, labels]`; labels seen less than 12 times in both together become one."""
    labels, index = np.unique(np.concatenate([ours, theirs]), return_inverse=True)
    counts = np.stack([np.bincount(part, minlength=len(labels)) for part in np.split(index, [len(ours)])])
    rare = counts.sum(axis=0) < 12
    merged = np.concatenate([counts[:, ~rare], counts[:, rare].sum(axis=1, keepdims=True)], axis=1)
    return merged[:, merged.sum(axis=0) > 0]
