"""Shortest ways to a goal, through doors, with the key fetched first: the expert "planner" of the simpler worlds.

A pose is a direction and a cell. Steps to go solve the shortest-path equations over the poses of one grid; a locked
door and its key add two grids more, each entered by one action from the grid before. Arrays have the batch last, so
that what is ahead of a pose is fetched for all rows at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from palaestra.envs.arrays import namespace_of
from palaestra.envs.grid.cells import (
    CONTENT,
    EMPTY,
    GOAL,
    IS_CLOSED_DOOR,
    IS_KEY,
    IS_LOCKED_DOOR,
    IS_OPEN_DOOR,
    NUM_CODES,
)
from palaestra.envs.grid.dynamics import DONE, FORWARD, LEFT, PICK_UP, RIGHT, TOGGLE
from palaestra.envs.grid.tables import table_on
from palaestra.envs.grid.view import DIRECTIONS
from palaestra.envs.grid.world import GridState
from palaestra.protocols import Array, Key

NEVER = 10_000
"""Steps to what cannot be reached."""


def _entry_costs() -> np.ndarray:
    """Steps that walking into a cell takes: a closed door is opened first."""
    costs = np.full(NUM_CODES, NEVER, np.int16)
    codes = np.arange(NUM_CODES) & CONTENT
    costs[(codes == EMPTY) | (codes == GOAL) | IS_OPEN_DOOR] = 1
    costs[IS_CLOSED_DOOR] = 2
    return costs


def _replaced(kinds: np.ndarray) -> np.ndarray:
    """Every code, with some kinds of cells empty."""
    return np.where(kinds, EMPTY, np.arange(NUM_CODES))


_ENTRY_COST = _entry_costs()
_AT_GOAL = np.where((np.arange(NUM_CODES) & CONTENT) == GOAL, 0, NEVER).astype(np.int16)
_WITHOUT_KEY, _OPENED = _replaced(IS_KEY), _replaced(IS_KEY | IS_LOCKED_DOOR)
_RIGHT_OF, _LEFT_OF = np.array([1, 2, 3, 0]), np.array([3, 0, 1, 2])


@lru_cache(maxsize=32)
def _cells_ahead(width: int, height: int) -> np.ndarray:
    """Flat index of the cell ahead of every pose `[4, cells]`; at the border, the cell itself."""
    x, y = np.divmod(np.arange(width * height), height)
    return np.stack([np.clip(x + dx, 0, width - 1) * height + np.clip(y + dy, 0, height - 1) for dx, dy in DIRECTIONS])


@dataclass(frozen=True)
class Plan:
    """Steps to success from every pose of a grid.

    Attributes:
        steps: From a pose on, int16 `[4, cells, batch]`; `NEVER` or more where there is no way.
        special: The same where the next action takes the key, or turns it in the lock.
    """

    steps: Array
    special: Array


def make_plan(cells: Array, has_key: Array, unlocking: bool = False) -> Plan:
    """Return the shortest ways of worlds with at most one locked door and one key.

    Args:
        cells: Codes, uint8 `[batch, width, height]`.
        has_key: Whether the agent carries the key, bool `[batch]`.
        unlocking: Whether success is to unlock the door, not to reach the goal.
    """
    xp = namespace_of(cells)
    rows, width, height = cells.shape
    ahead = table_on(_cells_ahead(width, height), cells)
    codes = xp.astype(xp.permute_dims(xp.reshape(cells, (rows, -1)), (1, 0)), xp.int64)
    never = xp.zeros((4, *codes.shape), dtype=xp.int16, device=cells.device) + NEVER
    is_locked = table_on(IS_LOCKED_DOOR, cells)[codes]
    if not bool(xp.any(is_locked)):
        return Plan(_solve(codes, ahead, never), never)
    beyond = 0 * never if unlocking else _solve(table_on(_OPENED, cells)[codes], ahead, never)
    with_key = xp.where(is_locked[ahead], beyond + 1, never)
    carrying = _solve(table_on(_WITHOUT_KEY, cells)[codes], ahead, with_key)
    to_fetch = xp.where(table_on(IS_KEY, cells)[codes][ahead], carrying + 1, never)
    fetching = _solve(codes, ahead, to_fetch)
    return Plan(xp.where(has_key, carrying, fetching), xp.where(has_key, with_key, to_fetch))


def _solve(codes: Array, ahead: Array, special: Array) -> Array:
    """Return the steps to go from every pose, given those of the poses with a special action.

    Args:
        codes: `[cells, batch]`.
        ahead: Cell ahead of every pose `[4, cells]`.
        special: `[4, cells, batch]`.
    """
    xp = namespace_of(codes)
    cost = table_on(_ENTRY_COST, codes)[codes][ahead]
    right, left = table_on(_RIGHT_OF, codes), table_on(_LEFT_OF, codes)
    steps = xp.minimum(special, table_on(_AT_GOAL, codes)[codes])
    while True:
        turned = xp.minimum(steps[right], steps[left]) + 1
        onward = xp.stack([steps[direction][ahead[direction]] for direction in range(4)]) + cost
        better = xp.minimum(steps, xp.minimum(turned, onward))
        if bool(xp.all(better == steps)):
            return steps
        steps = better


@dataclass(frozen=True)
class Planner:
    """Takes a shortest way; where there is none, it does nothing.

    Args:
        unlocking: Whether success is to unlock the door, not to reach the goal.
    """

    unlocking: bool = False

    def __call__(self, state: GridState, observation: Any, key: Key) -> Array:
        """Return actions int64 `[batch]`."""
        place, direction, cells = state.place, state.direction, state.cells
        xp = namespace_of(place)
        has_key = table_on(IS_KEY, place)[state.carried]
        plan = make_plan(cells, has_key, self.unlocking)
        rows = xp.arange(cells.shape[0], device=place.device)
        ahead = table_on(_cells_ahead(*cells.shape[1:]), place)[direction, place]
        front = xp.astype(xp.reshape(cells, (cells.shape[0], -1))[rows, ahead], xp.int64)
        choices = (
            plan.special[direction, place, rows],
            plan.steps[direction, ahead, rows] + table_on(_ENTRY_COST, front)[front],
            plan.steps[(direction + 1) % 4, place, rows] + 1,
            plan.steps[(direction + 3) % 4, place, rows] + 1,
        )
        nothing = 0 * place
        special = xp.where(has_key, nothing + TOGGLE, nothing + PICK_UP)
        onward = xp.where(table_on(IS_CLOSED_DOOR, front)[front], nothing + TOGGLE, nothing + FORWARD)
        actions = xp.stack((special, onward, nothing + RIGHT, nothing + LEFT))
        action = actions[xp.argmin(xp.stack(choices), axis=0), rows]
        return xp.where(plan.steps[direction, place, rows] < NEVER, action, nothing + DONE)
