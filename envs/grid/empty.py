"""The empty room of MiniGrid: walk to the far corner."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

import numpy as np

from palaestra.envs.checks import check_count
from palaestra.envs.grid.cells import GOAL
from palaestra.envs.grid.level import Level, LevelDraws, copies, walled
from palaestra.envs.grid.missions import fixed_mission
from palaestra.envs.grid.planner import Planner, make_plan
from palaestra.envs.grid.world import GridWorld, MissionMode, Observation
from palaestra.protocols import Actor, Estimand, Oracle


class Empty(GridWorld):
    """An empty square room with the goal in the corner at the bottom right.

    **Level**: the agent starts on any cell but the goal, facing anywhere; without `random_start` at the top left,
    facing right. Nothing blocks the view.
    **Mission**: "get to the green goal square".
    **Observation, action, reward, end, info**: as of every `GridWorld`.

    **Oracle**: the mean return of the shortest ways over all starts, by dynamic programming: the optimum, but a bound
    with random starts and the partial view.

    **Version history**: v0, first release; equals MiniGrid 3.2's `Empty-<size>x<size>` and `Empty-Random-...`.

    Args:
        size: Cells of a side, walls included, at least 4.
        random_start: Whether the start is drawn.
        max_steps: Time limit; by default `4 * size**2`.
        observation: "partial" or "full".
        mission: "tokens" or "text".

    Raises:
        ValueError: If an argument is outside its range.
    """

    draws_per_level = 1

    def __init__(
        self,
        size: int = 8,
        random_start: bool = True,
        max_steps: int | None = None,
        observation: Observation = "partial",
        mission: MissionMode = "tokens",
    ) -> None:
        check_count("Empty", "size", size, 4)
        limit = 4 * size**2 if max_steps is None else max_steps
        missions = fixed_mission("get to the green goal square")
        super().__init__(size, size, limit, missions, observation, mission, see_through=True)
        self.random_start = random_start

    def experts(self) -> Mapping[str, Actor]:
        """Return "planner", which sees the whole state and takes a shortest way."""
        return {"planner": Planner()}

    def oracle(self) -> Oracle:
        """Return the mean return of the shortest ways: a bound where starts differ that look alike."""
        plan = make_plan(_room(self.width)[None], np.array([False]))
        steps = plan.steps.reshape(4, self.width, self.height)
        starts = steps[:, 1:-1, 1:-1].reshape(4, -1)[:, :-1] if self.random_start else steps[0, 1, 1]
        kind: Literal["optimum", "bound"] = (
            "bound" if self.random_start and self.observation == "partial" else "optimum"
        )
        return Oracle(float(self.returns_after(starts).mean()), Estimand(), kind, "shortest ways from all starts")

    def draw_level(self, draws: LevelDraws) -> Level:
        """Return a level for every row; all are valid."""
        size, inner = self.width, self.width - 2
        cells = copies(_room(size), draws)
        if not self.random_start:
            return Level(cells, draws.full(size + 1), draws.full(0), draws.full(0), draws.always())
        # The goal is the last cell inside.
        cell, direction = draws.among(inner * inner - 1, 4)
        place = (1 + cell // inner) * size + 1 + cell % inner
        return Level(cells, place, direction, draws.full(0), draws.always())


@lru_cache(maxsize=16)
def _room(size: int) -> np.ndarray:
    cells = walled(size, size)
    cells[-2, -2] = GOAL
    return cells
