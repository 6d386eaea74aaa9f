"""MiniGrid's four rooms, joined by one opening in each wall between them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from palaestra.envs.grid.cells import EMPTY, GOAL, WALL
from palaestra.envs.grid.level import Level, LevelDraws, copies, other_than, put, walled
from palaestra.envs.grid.missions import fixed_mission
from palaestra.envs.grid.planner import Planner
from palaestra.envs.grid.tables import table_on
from palaestra.envs.grid.world import GridWorld, MissionMode, Observation
from palaestra.protocols import Actor, Array

SIZE = 19
_MIDDLE, _ROOM = 9, 8


class FourRooms(GridWorld):
    """Four rooms of 8 x 8 cells; every wall between two of them has one opening.

    **Level**: openings, agent, its direction and the goal are uniform; agent and goal lie on different cells.
    **Mission**: "reach the goal".
    **Observation, action, reward, end, info**: as of every `GridWorld`.

    **Oracle**: none.

    **Version history**: v0, first release; equals MiniGrid 3.2's `FourRooms`.

    Args:
        max_steps: Time limit.
        observation: "partial" or "full".
        mission: "tokens" or "text".

    Raises:
        ValueError: If an argument is outside its range.
    """

    draws_per_level = 4

    def __init__(
        self, max_steps: int = 100, observation: Observation = "partial", mission: MissionMode = "tokens"
    ) -> None:
        super().__init__(SIZE, SIZE, max_steps, fixed_mission("reach the goal"), observation, mission)

    def experts(self) -> Mapping[str, Actor]:
        """Return "planner", which sees the whole state and takes a shortest way."""
        return {"planner": Planner()}

    def draw_level(self, draws: LevelDraws) -> Level:
        """Return a level for every row; all are valid."""
        xp = draws.xp
        cells = copies(_rooms(), draws)
        north, south, west, east = draws.among(_ROOM, _ROOM, _ROOM, _ROOM)
        openings = xp.stack(
            (
                _MIDDLE * SIZE + 1 + north,
                _MIDDLE * SIZE + _MIDDLE + 1 + south,
                (1 + west) * SIZE + _MIDDLE,
                (_MIDDLE + 1 + east) * SIZE + _MIDDLE,
            ),
            axis=1,
        )
        put(cells, draws.rows[:, None], openings, EMPTY)
        inside = table_on(_inside(), draws.rows)
        free = int(inside.shape[0]) + 4

        def place_of(index: Array) -> Array:
            opening = xp.take_along_axis(openings, xp.maximum(index - (free - 4), 0 * index)[:, None], axis=1)[:, 0]
            return xp.where(index < free - 4, inside[xp.minimum(index, 0 * index + free - 5)], opening)

        agent, direction = draws.below(free), draws.below(4)
        goal = other_than(draws.below(free - 1), agent)
        put(cells, draws.rows, place_of(goal), GOAL)
        return Level(cells, place_of(agent), direction, draws.full(0), draws.always())


@lru_cache(maxsize=1)
def _rooms() -> np.ndarray:
    cells = walled(SIZE, SIZE)
    cells[_MIDDLE] = cells[:, _MIDDLE] = WALL
    return cells


@lru_cache(maxsize=1)
def _inside() -> np.ndarray:
    """Flat indices of the cells of the four rooms, openings aside."""
    return np.flatnonzero(_rooms() == EMPTY)
