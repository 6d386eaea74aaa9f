"""Which world of ours, with which arguments, is which id of MiniGrid and BabyAI."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palaestra.envs.grid.babyai import LEVELS

_ROOM = "palaestra.envs.grid."
_DOOR_KEY, _EMPTY, _CROSSING = _ROOM + "door_key:DoorKey", _ROOM + "empty:Empty", _ROOM + "crossing:Crossing"
_MULTI_ROOM, _KEY_CORRIDOR = _ROOM + "multi_room:MultiRoom", _ROOM + "key_corridor:KeyCorridor"
_UNLOCK_PICKUP, _MAZE = _ROOM + "unlock:UnlockPickup", _ROOM + "unlock:ObstructedMaze"
_LATER_VERSIONS = {"GoToObjS6": "v1"}


@dataclass(frozen=True)
class MiniGridId:
    """A world that equals an id of the `minigrid` package.

    Attributes:
        simulator: Where the simulator's class stands, "package.module:Class".
        kwargs: Arguments that make it that id's world.
        arguments: Names of the id's own arguments that the class takes with the same meaning.
    """

    simulator: str
    kwargs: Mapping[str, Any]
    arguments: frozenset[str]


def _rows() -> dict[str, MiniGridId]:
    sized = frozenset({"size", "max_steps"})
    limited = frozenset({"max_steps"})
    table: dict[str, MiniGridId] = {}

    def add(name: str, simulator: str, arguments: frozenset[str] = limited, **kwargs: Any) -> None:
        table[f"MiniGrid-{name}"] = MiniGridId(simulator, kwargs, arguments)

    for size in (5, 6, 8, 16):
        add(f"DoorKey-{size}x{size}-v0", _DOOR_KEY, sized, size=size)
        add(f"Empty-{size}x{size}-v0", _EMPTY, sized, size=size, random_start=False)
    for size in (5, 6):
        add(f"Empty-Random-{size}x{size}-v0", _EMPTY, sized, size=size, random_start=True)
    add("FourRooms-v0", _ROOM + "four_rooms:FourRooms")
    for size, crossings in ((9, 1), (9, 2), (9, 3), (11, 5)):
        for kind, obstacle in (("Lava", "lava"), ("Simple", "wall")):
            name = f"{kind}CrossingS{size}N{crossings}-v0"
            add(name, _CROSSING, sized, size=size, crossings=crossings, obstacle=obstacle)
    add("MultiRoom-N2-S4-v0", _MULTI_ROOM, rooms=2, max_room_size=4)
    # The first version of this id has six rooms, in spite of its name.
    add("MultiRoom-N4-S5-v0", _MULTI_ROOM, rooms=6, max_room_size=5)
    add("MultiRoom-N4-S5-v1", _MULTI_ROOM, rooms=4, max_room_size=5)
    add("MultiRoom-N6-v0", _MULTI_ROOM, rooms=6)
    for size, rows in ((3, 1), (3, 2), (3, 3), (4, 3), (5, 3), (6, 3)):
        add(f"KeyCorridorS{size}R{rows}-v0", _KEY_CORRIDOR, room_size=size, rows=rows)
    add("Unlock-v0", _ROOM + "unlock:Unlock")
    add("UnlockPickup-v0", _UNLOCK_PICKUP)
    add("BlockedUnlockPickup-v0", _UNLOCK_PICKUP, blocked=True)
    add("ObstructedMaze-1Dl-v0", _MAZE)
    add("ObstructedMaze-1Dlh-v0", _MAZE, key_in_box=True)
    add("ObstructedMaze-1Dlhb-v0", _MAZE, key_in_box=True, blocked=True)
    for level in LEVELS:
        row = MiniGridId(_ROOM + "babyai:BabyAI", {"level": level}, limited)
        table[f"BabyAI-{level}-{_LATER_VERSIONS.get(level, 'v0')}"] = row
    return table


MINIGRID_IDS = _rows()
"""All ids of the `minigrid` package that we have."""
