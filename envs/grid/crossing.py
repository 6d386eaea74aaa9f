"""MiniGrid's crossings: straight rivers of lava, or walls, each with one opening on the way to the goal."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

import numpy as np

from palaestra.envs.checks import check_count
from palaestra.envs.grid.cells import EMPTY, GOAL, LAVA, WALL
from palaestra.envs.grid.level import Level, LevelDraws, copies, put, walled
from palaestra.envs.grid.missions import fixed_mission
from palaestra.envs.grid.planner import Planner
from palaestra.envs.grid.tables import table_on
from palaestra.envs.grid.world import GridWorld, MissionMode, Observation
from palaestra.protocols import Actor, Array

_TEXTS = {
    "lava": "avoid the lava and get to the green goal square",
    "wall": "find the opening and get to the green goal square",
}


class Crossing(GridWorld):
    """Walk from the top left to the bottom right through the openings of some rivers.

    **Level**: rivers cross the room on even columns and rows; `crossings` of them are drawn without replacement. A
    monotone path over the areas between them is drawn uniformly, and each of its crossings opens at a uniform place.
    The agent starts at the top left, facing right.
    **Mission**: "avoid the lava and get to the green goal square", or "find the opening and ..." where rivers are
    walls.
    **Observation, action, reward, end, info**: as of every `GridWorld`.

    **Oracle**: none.

    **Version history**: v0, first release; equals MiniGrid 3.2's `LavaCrossingS<size>N<crossings>` and
    `SimpleCrossing...`.

    Args:
        size: Cells of a side, walls included, odd and at least 5.
        crossings: Number of rivers, 1 to `size - 3`.
        obstacle: "lava" or "wall".
        max_steps: Time limit; by default `4 * size**2`.
        observation: "partial" or "full".
        mission: "tokens" or "text".

    Raises:
        ValueError: If an argument is outside its range.
    """

    def __init__(
        self,
        size: int = 9,
        crossings: int = 1,
        obstacle: Literal["lava", "wall"] = "lava",
        max_steps: int | None = None,
        observation: Observation = "partial",
        mission: MissionMode = "tokens",
    ) -> None:
        check_count("Crossing", "size", size, 5)
        check_count("Crossing", "crossings", crossings)
        if size % 2 == 0:
            raise ValueError(f"Crossing: size={size}; expected an odd number")
        if crossings > size - 3:
            raise ValueError(f"Crossing: crossings={crossings}; expected at most size - 3 = {size - 3}")
        if obstacle not in _TEXTS:
            raise ValueError(f"Crossing: obstacle={obstacle!r}; expected 'lava' or 'wall'")
        limit = 4 * size**2 if max_steps is None else max_steps
        super().__init__(size, size, limit, fixed_mission(_TEXTS[obstacle]), observation, mission)
        self.crossings = crossings
        self.obstacle = LAVA if obstacle == "lava" else WALL
        self.draws_per_level = 3 * crossings

    def experts(self) -> Mapping[str, Actor]:
        """Return "planner", which sees the whole state and takes a shortest way."""
        return {"planner": Planner()}

    def draw_level(self, draws: LevelDraws) -> Level:
        """Return a level for every row; all are valid."""
        xp, size = draws.xp, self.width
        lines = (size - 3) // 2
        chosen = self._rivers(draws, 2 * lines)
        at = xp.arange(2, size - 2, 2, device=draws.rows.device)
        vertical, horizontal = chosen[:, :lines], chosen[:, lines:]
        cells = copies(_room(size), draws)
        river = xp.zeros((draws.batch, size), dtype=xp.bool, device=draws.rows.device)
        columns, rows = xp.asarray(river, copy=True), river
        columns[:, at], rows[:, at] = vertical, horizontal
        inside = table_on(_inside(size), draws.rows)
        flooded = xp.reshape((columns[:, :, None] | rows[:, None, :]) & inside, (draws.batch, -1))
        cells = xp.where(flooded, xp.asarray(self.obstacle, dtype=xp.uint8, device=draws.rows.device), cells)
        self._open(draws, cells, at, vertical, horizontal)
        return Level(cells, draws.full(size + 1), draws.full(0), draws.full(0), draws.always())

    def _rivers(self, draws: LevelDraws, lines: int) -> Array:
        """Whether each line is a river `[batch, lines]`, `crossings` of them in every row."""
        xp = draws.xp
        chosen = xp.zeros((draws.batch, lines), dtype=xp.bool, device=draws.rows.device)
        for _ in range(self.crossings):
            line, _found = draws.choose(~chosen)
            chosen[draws.rows, line] = True
        return chosen

    def _open(self, draws: LevelDraws, cells: Array, at: Array, vertical: Array, horizontal: Array) -> None:
        """Open the rivers along a way from area to area, to the right or down at each step."""
        xp, size = draws.xp, self.width
        edge = 0 * at + size - 1
        # Places of the rivers in rising order, then the far wall.
        columns = xp.sort(xp.where(vertical, at, edge), axis=1)
        rows = xp.sort(xp.where(horizontal, at, edge), axis=1)
        wall = draws.full(0)[:, None]
        columns = xp.concat((wall, columns, wall + size - 1), axis=1)
        rows = xp.concat((wall, rows, wall + size - 1), axis=1)
        number = [xp.sum(xp.astype(part, xp.int64), axis=1) for part in (vertical, horizontal)]
        right, down = draws.full(0), draws.full(0)
        for _ in range(self.crossings):
            left = number[0] - right, number[1] - down
            goes_right = draws.below(left[0] + left[1]) < left[0]
            x, beyond_x = columns[draws.rows, right], columns[draws.rows, right + 1]
            y, beyond_y = rows[draws.rows, down], rows[draws.rows, down + 1]
            along = draws.below(xp.where(goes_right, beyond_y - y, beyond_x - x) - 1) + 1
            place = xp.where(goes_right, beyond_x * size + y + along, (x + along) * size + beyond_y)
            put(cells, draws.rows, place, EMPTY)
            step = xp.astype(goes_right, xp.int64)
            right, down = right + step, down + 1 - step


@lru_cache(maxsize=16)
def _room(size: int) -> np.ndarray:
    cells = walled(size, size)
    cells[-2, -2] = GOAL
    return cells


@lru_cache(maxsize=16)
def _inside(size: int) -> np.ndarray:
    return walled(size, size) == EMPTY
