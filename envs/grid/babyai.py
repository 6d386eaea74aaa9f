"""BabyAI's levels of one instruction: go to, pick up or open something in rooms, as the mission says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from palaestra.envs.grid import babyai_levels as levels
from palaestra.envs.grid.level import Level, LevelDraws
from palaestra.envs.grid.missions import GO_TO, OPEN, PICK, errands
from palaestra.envs.grid.rooms import Draft, floor_plan
from palaestra.envs.grid.world import GridWorld, MissionMode, Observation
from palaestra.protocols import Array


@dataclass(frozen=True)
class BabyAILevel:
    """One level of BabyAI.

    Attributes:
        draw: LevelDraws it, and returns the mission.
        arguments: Arguments of `draw`.
        rooms: Rows and columns of rooms.
        room_size: Cells of a room's side, walls included.
        time: Time limit in cells of one room, `time * room_size**2`; by default the number of rooms.
        verbs: What missions may ask for.
        strict: Whether the wrong thing or door ends the episode.
    """

    draw: Callable[..., Array]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    rooms: tuple[int, int] = (3, 3)
    room_size: int = 8
    time: int | None = None
    verbs: tuple[int, ...] = (GO_TO,)
    strict: bool = False


def _levels() -> dict[str, BabyAILevel]:
    one, pair = (1, 1), (1, 2)
    table = {
        "GoToRedBallGrey": BabyAILevel(levels.red_ball, {"distractors": 7, "grey": True}, one),
        "GoToRedBall": BabyAILevel(levels.red_ball, {"distractors": 7}, one),
        "GoToRedBallNoDists": BabyAILevel(levels.red_ball, {"distractors": 0}, one),
        "GoToRedBlueBall": BabyAILevel(levels.red_or_blue_ball, {"distractors": 7}, one),
        "GoToObj": BabyAILevel(levels.go_to_thing, {"distractors": 1}, one),
        "GoToObjS4": BabyAILevel(levels.go_to_thing, {"distractors": 1}, one, 4),
        "GoToObjS6": BabyAILevel(levels.go_to_thing, {"distractors": 1}, one, 6),
        "GoToLocal": BabyAILevel(levels.go_to_thing, {"distractors": 8}, one),
        "GoTo": BabyAILevel(levels.go_to_thing, {"distractors": 18}),
        "GoToOpen": BabyAILevel(levels.go_to_thing, {"distractors": 18, "doors_open": True}),
        "GoToObjMaze": BabyAILevel(levels.go_to_thing, {"distractors": 1}),
        "GoToObjMazeOpen": BabyAILevel(levels.go_to_thing, {"distractors": 1, "doors_open": True}),
        "GoToObjMazeS4R2": BabyAILevel(levels.go_to_thing, {"distractors": 1}, (2, 2), 4),
        "GoToImpUnlock": BabyAILevel(levels.go_to_behind_lock, {"distractors": 2}),
        "GoToDoor": BabyAILevel(levels.go_to_door, room_size=7),
        "GoToObjDoor": BabyAILevel(levels.go_to_thing_or_door, {"distractors": 8}),
        "ActionObjDoor": BabyAILevel(
            levels.act_on_thing_or_door, {"distractors": 5}, room_size=7, verbs=(GO_TO, PICK, OPEN)
        ),
        "Pickup": BabyAILevel(levels.pick_up_thing, {"distractors": 18}, verbs=(PICK,)),
        "UnblockPickup": BabyAILevel(levels.pick_up_thing, {"distractors": 20, "blocked": True}, verbs=(PICK,)),
        "PickupLoc": BabyAILevel(levels.pick_up_by_place, {"distractors": 8}, one, verbs=(PICK,)),
        "PickupDist": BabyAILevel(levels.pick_up_by_look, {"distractors": 5}, one, 7, verbs=(PICK,)),
        "PickupDistDebug": BabyAILevel(levels.pick_up_by_look, {"distractors": 5}, one, 7, verbs=(PICK,), strict=True),
        "PickupAbove": BabyAILevel(levels.pick_up_above, room_size=6, time=8, verbs=(PICK,)),
        "UnlockPickup": BabyAILevel(levels.pick_up_locked_box, {}, pair, 6, verbs=(PICK,)),
        "UnlockPickupDist": BabyAILevel(levels.pick_up_locked_box, {"distractors": 4}, pair, 6, verbs=(PICK,)),
        "BlockedUnlockPickup": BabyAILevel(
            levels.pick_up_locked_box, {"blocked": True, "by_color": False}, pair, 6, 16, verbs=(PICK,)
        ),
        "UnlockToUnlock": BabyAILevel(levels.unlock_to_unlock, {}, (1, 3), 6, 30, verbs=(PICK,)),
        "KeyCorridor": BabyAILevel(levels.key_corridor, {}, (3, 3), 6, 30, verbs=(PICK,)),
        "Open": BabyAILevel(levels.open_in_rooms, {"distractors": 18}, verbs=(OPEN,)),
        "OpenRedDoor": BabyAILevel(levels.open_red_door, {}, pair, 5, verbs=(OPEN,)),
        "OpenDoor": BabyAILevel(levels.open_one_of_four, {"select_by": "either"}, verbs=(OPEN,)),
        "OpenDoorDebug": BabyAILevel(levels.open_one_of_four, {"select_by": "either"}, verbs=(OPEN,), strict=True),
        "OpenDoorColor": BabyAILevel(levels.open_one_of_four, {"select_by": "color"}, verbs=(OPEN,)),
        "OpenDoorLoc": BabyAILevel(levels.open_one_of_four, {"select_by": "place"}, verbs=(OPEN,)),
        "Unlock": BabyAILevel(levels.unlock, {"distractors": 3}, verbs=(OPEN,)),
        "UnlockLocal": BabyAILevel(levels.unlock_beside, {}, verbs=(OPEN,)),
        "UnlockLocalDist": BabyAILevel(levels.unlock_beside, {"distractors": 3}, verbs=(OPEN,)),
        "KeyInBox": BabyAILevel(levels.unlock_beside, {"in_box": True}, verbs=(OPEN,)),
    }
    for size, count in ((5, 2), (6, 2), (6, 3), (6, 4), (7, 4), (7, 5), *((8, count) for count in range(2, 8))):
        table[f"GoToLocalS{size}N{count}"] = BabyAILevel(levels.go_to_thing, {"distractors": count}, one, size)
    for size in (4, 5, 6, 7):
        table[f"GoToObjMazeS{size}"] = BabyAILevel(levels.go_to_thing, {"distractors": 1}, room_size=size)
    for size in (5, 6, 7):
        table[f"FindObjS{size}"] = BabyAILevel(levels.find_thing, room_size=size, time=20, verbs=(PICK,))
    for size in (8, 12, 16, 20):
        table[f"OneRoomS{size}"] = BabyAILevel(levels.pick_up_ball, {}, one, size, verbs=(PICK,))
    for size, rows in ((3, 1), (3, 2), (3, 3), (4, 3), (5, 3), (6, 3)):
        table[f"KeyCorridorS{size}R{rows}"] = BabyAILevel(levels.key_corridor, {}, (rows, 3), size, 30, verbs=(PICK,))
    return table


LEVELS = _levels()
"""BabyAI's levels of one instruction by their names, that is, their ids without "BabyAI-" and the version."""


class BabyAI(GridWorld):
    """A level of BabyAI in which one instruction is to be followed (Chevalier-Boisvert et al., ICLR 2019).

    Left out are the levels of several instructions (GoToSeq, OpenTwoDoors, OpenRedBlueDoors, OpenDoorsOrder,
    MoveTwoAcross, Synth, SynthLoc, SynthSeq, MiniBossLevel, BossLevel) and those that ask to put one thing next to
    another (PutNext, PutNextLocal).

    **Level**: as the `minigrid` package draws it, by the level's name.
    **Mission**: "go to the red ball", "pick up a key on your left", "open the grey door", ...: "a" where several
    objects fit. Places are those seen from the agent's start, and what fits is decided there.
    **Observation, action, reward, end, info**: as of every `GridWorld`. To go to an object means to stand before it,
    facing it. In the levels whose name ends with "Debug", picking up a wrong thing or using a wrong door ends the
    episode with reward 0.

    **Oracle**: none.

    **Version history**: v0, first release; equals the levels of MiniGrid 3.2.

    Args:
        level: A name of `LEVELS`: BabyAI's id without "BabyAI-" and the version.
        max_steps: Time limit; by default the level's own.
        observation: "partial" or "full".
        mission: "tokens" or "text".

    Raises:
        ValueError: If an argument is outside its range.
    """

    def __init__(
        self,
        level: str = "GoToLocal",
        max_steps: int | None = None,
        observation: Observation = "partial",
        mission: MissionMode = "tokens",
    ) -> None:
        if level not in LEVELS:
            raise ValueError(f"BabyAI: level={level!r}; expected one of {sorted(LEVELS)}")
        self.level = row = LEVELS[level]
        self._plan = floor_plan(*row.rooms, row.room_size)
        time = row.rooms[0] * row.rooms[1] if row.time is None else row.time
        limit = time * row.room_size**2 if max_steps is None else max_steps
        missions = errands(frozenset(row.verbs), row.strict)
        super().__init__(self._plan.width, self._plan.height, limit, missions, observation, mission)
        self.draws_per_level = 16 + 3 * len(self._plan.edge_rooms) + 3 * row.arguments.get("distractors", 0)

    def draw_level(self, draws: LevelDraws) -> Level:
        """Return one try at a level for every row."""
        draft = Draft(draws, self._plan)
        mission = self.level.draw(draft, **self.level.arguments)
        return draft.level(mission)
