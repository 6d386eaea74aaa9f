"""MiniGrid's corridor with rooms on both sides, one of them locked."""

from __future__ import annotations

from palaestra.envs.checks import check_count
from palaestra.envs.grid.cells import COLORS
from palaestra.envs.grid.level import Level, LevelDraws
from palaestra.envs.grid.missions import colored_missions
from palaestra.envs.grid.rooms import BALL_THING, KEY_THING, LEFT, UP, Draft, floor_plan
from palaestra.envs.grid.world import GridWorld, MissionMode, Observation
from palaestra.protocols import Array

_COLORS = len(COLORS)


class KeyCorridor(GridWorld):
    """Fetch a ball from a locked room; the key lies in a room on the other side of the corridor.

    **Level**: three columns of rooms, of which the middle one is a corridor. The ball lies behind a locked door on the
    right, the key in a room on the left; closed doors join all rooms. The agent starts in the corridor's middle room.
    The key must be laid down before the ball is picked up.
    **Mission**: "pick up the <color> ball".
    **Observation, action, reward, end, info**: as of every `GridWorld`.

    **Oracle**: none.

    **Version history**: v0, first release; equals MiniGrid 3.2's `KeyCorridorS<room_size>R<rows>`.

    Args:
        room_size: Cells of a room's side, walls included, at least 3.
        rows: Rooms on each side, at least 1.
        max_steps: Time limit; by default `30 * room_size**2`.
        observation: "partial" or "full".
        mission: "tokens" or "text".

    Raises:
        ValueError: If an argument is outside its range.
    """

    def __init__(
        self,
        room_size: int = 6,
        rows: int = 3,
        max_steps: int | None = None,
        observation: Observation = "partial",
        mission: MissionMode = "tokens",
    ) -> None:
        check_count("KeyCorridor", "room_size", room_size, 3)
        check_count("KeyCorridor", "rows", rows)
        limit = 30 * room_size**2 if max_steps is None else max_steps
        self._plan = floor_plan(rows, 3, room_size)
        missions = colored_missions("pick up the", "ball")
        super().__init__(self._plan.width, self._plan.height, limit, missions, observation, mission)
        self.draws_per_level = 16 + 3 * len(self._plan.edge_rooms)

    def draw_level(self, draws: LevelDraws) -> Level:
        """Return a level for every row."""
        draft = Draft(draws, self._plan)
        ball, color = draw_key_corridor(draft)
        draft.mark_place(ball)
        return draft.level(color)


def draw_key_corridor(draft: Draft) -> tuple[Array, Array]:
    """Draw all of a key corridor; return the cell and the colour of the ball."""
    plan, draws = draft.plan, draft.draws
    for row in range(1, plan.rows):
        draft.remove_wall(plan.room(1, row), UP)
    locked_room = plan.columns * draws.below(plan.rows) + 2
    _door, door_color = draft.add_door(locked_room, LEFT, locked=True)
    color = draft.color()
    ball = draft.place_thing(locked_room, BALL_THING * _COLORS + color)
    draft.place_thing(plan.columns * draws.below(plan.rows), KEY_THING * _COLORS + door_color)
    draft.place_agent(plan.room(1, plan.rows // 2))
    draft.connect_all()
    return ball, color
