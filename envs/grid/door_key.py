"""MiniGrid's room with a locked door: fetch the key, open the door, walk to the goal."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from palaestra.envs.checks import check_count
from palaestra.envs.grid.cells import COLORS, GOAL, KEY, LOCKED_DOOR, WALL
from palaestra.envs.grid.level import Level, LevelDraws, other_than, put, walled
from palaestra.envs.grid.missions import fixed_mission
from palaestra.envs.grid.planner import Planner, make_plan
from palaestra.envs.grid.tables import table_on
from palaestra.envs.grid.world import GridWorld, MissionMode, Observation
from palaestra.protocols import Actor, Estimand, Oracle

_YELLOW = COLORS.index("yellow")


class DoorKey(GridWorld):
    """A wall splits the room; the key to its locked door lies on the agent's side, the goal on the other.

    **Level**: the wall's column is uniform on 2, ..., size - 3; the door's row on 1, ..., size - 3. Agent and key lie
    on different cells left of the wall, both uniform; the agent faces anywhere. Door and key are yellow; the goal is at
    the bottom right.
    **Mission**: "use the key to open the door and then get to the goal".
    **Observation, action, reward, end, info**: as of every `GridWorld`.

    **Oracle**: a bound, the mean return of the shortest ways in all levels of one who sees the whole grid, by dynamic
    programming.

    **Version history**: v0, first release; equals MiniGrid 3.2's `DoorKey-<size>x<size>`.

    Args:
        size: Cells of a side, walls included, at least 5.
        max_steps: Time limit; by default `10 * size**2`.
        observation: "partial" or "full".
        mission: "tokens" or "text".

    Raises:
        ValueError: If an argument is outside its range.
    """

    draws_per_level = 4

    def __init__(
        self,
        size: int = 8,
        max_steps: int | None = None,
        observation: Observation = "partial",
        mission: MissionMode = "tokens",
    ) -> None:
        check_count("DoorKey", "size", size, 5)
        limit = 10 * size**2 if max_steps is None else max_steps
        missions = fixed_mission("use the key to open the door and then get to the goal")
        super().__init__(size, size, limit, missions, observation, mission)

    def experts(self) -> Mapping[str, Actor]:
        """Return "planner", which sees the whole state and takes a shortest way."""
        return {"planner": Planner()}

    def oracle(self) -> Oracle:
        """Return the mean return, over all levels, of the shortest ways of one who sees the whole grid."""
        size, inner = self.width, self.width - 2
        columns = []
        for column in range(size - 4):
            places = (1 + np.arange((1 + column) * inner) // inner) * size + 1 + np.arange((1 + column) * inner) % inner
            door, key = (part.ravel() for part in np.meshgrid(np.arange(1, size - 2), places))
            cells = np.repeat(_rooms(size)[column][None], len(key), axis=0)
            cells[np.arange(len(key)), (2 + column) * size + door] = LOCKED_DOOR + _YELLOW
            cells[np.arange(len(key)), key] = KEY + _YELLOW
            plan = make_plan(cells.reshape(-1, size, size), np.zeros(len(key), bool))
            starts = self.returns_after(plan.steps[:, places])
            columns.append(starts[:, places[:, None] != key].mean())
        return Oracle(float(np.mean(columns)), Estimand(), "bound", "shortest ways in all levels, by one who sees all")

    def draw_level(self, draws: LevelDraws) -> Level:
        """Return a level for every row; all are valid."""
        size, inner = self.width, self.width - 2
        column, door_row = draws.among(size - 4, size - 3)
        cells = table_on(_rooms(size), draws.rows)[column]
        put(cells, draws.rows, (2 + column) * size + 1 + door_row, LOCKED_DOOR + _YELLOW)
        free = (1 + column) * inner
        agent, direction = draws.below(free), draws.below(4)
        key = other_than(draws.below(free - 1), agent)
        put(cells, draws.rows, (1 + key // inner) * size + 1 + key % inner, KEY + _YELLOW)
        place = (1 + agent // inner) * size + 1 + agent % inner
        return Level(cells, place, direction, draws.full(0), draws.always())


@lru_cache(maxsize=16)
def _rooms(size: int) -> np.ndarray:
    """Rooms without door and key, one for each column of the wall, uint8 `[size - 4, size * size]`."""
    rooms = np.tile(walled(size, size), (size - 4, 1, 1))
    rooms[:, -2, -2] = GOAL
    for column in range(size - 4):
        rooms[column, 2 + column] = WALL
    return rooms.reshape(size - 4, -1)
