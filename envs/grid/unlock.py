"""MiniGrid's two rooms with a locked door between them."""

from __future__ import annotations

from collections.abc import Mapping

from palaestra.envs.grid.cells import BALL, BOX, BOX_CONTENTS, COLORS
from palaestra.envs.grid.dynamics import OPENED_TARGET, PICKED_TARGET
from palaestra.envs.grid.level import Level, LevelDraws, put
from palaestra.envs.grid.missions import colored_missions, fixed_mission
from palaestra.envs.grid.planner import Planner
from palaestra.envs.grid.rooms import BALL_THING, BOX_THING, KEY_THING, RIGHT, Draft, floor_plan
from palaestra.envs.grid.world import GridWorld, MissionMode, Observation
from palaestra.protocols import Actor, Array

SIZE = 6
_COLORS = len(COLORS)
_BLUE, _GREEN, _GREY = (COLORS.index(name) for name in ("blue", "green", "grey"))


class Unlock(GridWorld):
    """Two rooms of 6 x 6 cells; open the locked door between them with the key that lies beside the agent.

    **Level**: the door's place and colour, the key's place and the agent's are uniform; the agent faces nothing or a
    wall.
    **Mission**: "open the door".
    **Observation, action, reward, end, info**: as of every `GridWorld`.

    **Oracle**: none.

    **Version history**: v0, first release; equals MiniGrid 3.2's `Unlock`.

    Args:
        max_steps: Time limit.
        observation: "partial" or "full".
        mission: "tokens" or "text".

    Raises:
        ValueError: If an argument is outside its range.
    """

    def __init__(
        self, max_steps: int = 288, observation: Observation = "partial", mission: MissionMode = "tokens"
    ) -> None:
        self._plan = floor_plan(1, 2, SIZE)
        missions = fixed_mission("open the door", OPENED_TARGET)
        super().__init__(self._plan.width, self._plan.height, max_steps, missions, observation, mission)

    def experts(self) -> Mapping[str, Actor]:
        """Return "planner", which sees the whole state and takes a shortest way."""
        return {"planner": Planner(unlocking=True)}

    def draw_level(self, draws: LevelDraws) -> Level:
        """Return a level for every row."""
        draft = Draft(draws, self._plan)
        door, color = draft.add_door(0, RIGHT, locked=True)
        draft.place_thing(0, KEY_THING * _COLORS + color)
        draft.place_agent(0)
        draft.mark_place(door)
        return draft.level(draws.full(0))


class UnlockPickup(GridWorld):
    """Two rooms of 6 x 6 cells: fetch the box from behind the locked door.

    **Level**: as of `Unlock`, with a box in the other room; the key must be laid down before the box is picked up.
    With `blocked`, a ball lies before the door.
    **Mission**: "pick up the <color> box".
    **Observation, action, reward, end, info**: as of every `GridWorld`.

    **Oracle**: none.

    **Version history**: v0, first release; equals MiniGrid 3.2's `UnlockPickup` and `BlockedUnlockPickup`.

    Args:
        blocked: Whether a ball lies before the door.
        max_steps: Time limit; by default 288, and 576 with `blocked`.
        observation: "partial" or "full".
        mission: "tokens" or "text".

    Raises:
        ValueError: If an argument is outside its range.
    """

    def __init__(
        self,
        blocked: bool = False,
        max_steps: int | None = None,
        observation: Observation = "partial",
        mission: MissionMode = "tokens",
    ) -> None:
        self._plan = floor_plan(1, 2, SIZE)
        limit = (16 if blocked else 8) * SIZE**2 if max_steps is None else max_steps
        missions = colored_missions("pick up the", "box")
        super().__init__(self._plan.width, self._plan.height, limit, missions, observation, mission)
        self.blocked = blocked

    def draw_level(self, draws: LevelDraws) -> Level:
        """Return a level for every row."""
        draft = Draft(draws, self._plan)
        box, color = draw_unlock_pickup(draft, self.blocked)
        draft.place_agent(0)
        draft.mark_place(box)
        return draft.level(color)


def draw_unlock_pickup(draft: Draft, blocked: bool) -> tuple[Array, Array]:
    """Put a box, a locked door and its key into two rooms; return the cell and the colour of the box."""
    color = draft.color()
    box = draft.place_thing(1, BOX_THING * _COLORS + color)
    door, door_color = draft.add_door(0, RIGHT, locked=True)
    if blocked:
        put(draft.cells, draft.draws.rows, door - draft.plan.height, BALL + draft.color())
    draft.place_thing(0, KEY_THING * _COLORS + door_color)
    return box, color


class ObstructedMaze(GridWorld):
    """Two rooms of 6 x 6 cells: fetch the blue ball from behind the locked door, whose key may be hidden.

    **Level**: as of `Unlock`, with a blue ball in the other room. With `key_in_box` the key lies in a grey box, which
    opens when it is toggled; with `blocked` a green ball lies before the door.
    **Mission**: "pick up the blue ball".
    **Observation, action, reward, end, info**: as of every `GridWorld`.

    **Oracle**: none.

    **Version history**: v0, first release; equals MiniGrid 3.2's `ObstructedMaze-1Dl`, `-1Dlh` and `-1Dlhb`.

    Args:
        key_in_box: Whether the key is hidden.
        blocked: Whether a ball lies before the door.
        max_steps: Time limit.
        observation: "partial" or "full".
        mission: "tokens" or "text".

    Raises:
        ValueError: If an argument is outside its range.
    """

    def __init__(
        self,
        key_in_box: bool = False,
        blocked: bool = False,
        max_steps: int = 288,
        observation: Observation = "partial",
        mission: MissionMode = "tokens",
    ) -> None:
        self._plan = floor_plan(1, 2, SIZE)
        missions = fixed_mission("pick up the blue ball", PICKED_TARGET)
        super().__init__(self._plan.width, self._plan.height, max_steps, missions, observation, mission)
        self.key_in_box, self.blocked = key_in_box, blocked

    def draw_level(self, draws: LevelDraws) -> Level:
        """Return a level for every row."""
        draft = Draft(draws, self._plan)
        door, color = draft.add_door(0, RIGHT, locked=True)
        if self.blocked:
            put(draft.cells, draws.rows, door - self._plan.height, BALL + _GREEN)
        if self.key_in_box:
            draft.place_code(0, BOX + BOX_CONTENTS * _GREY + 1 + color)
        else:
            draft.place_thing(0, KEY_THING * _COLORS + color)
        ball = draft.place_thing(1, draws.full(BALL_THING * _COLORS + _BLUE))
        draft.place_agent(0)
        draft.mark_place(ball)
        return draft.level(draws.full(0))
