"""MiniGrid's chain of rooms of any size, joined by closed doors."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from palaestra.envs.arrays import namespace_of
from palaestra.envs.checks import check_count
from palaestra.envs.grid.cells import CLOSED_DOOR, COLORS, EMPTY, GOAL, SORTED_COLORS, WALL
from palaestra.envs.grid.level import Level, LevelDraws, copies, other_than, put
from palaestra.envs.grid.missions import fixed_mission
from palaestra.envs.grid.planner import Planner
from palaestra.envs.grid.tables import table_on
from palaestra.envs.grid.world import GridWorld, MissionMode, Observation
from palaestra.protocols import Actor, Array

SIZE = 25
_SMALLEST, _TRIES = 4, 8
_WALLS = 4
_ENTRY_WALL = 2
_PALETTE = np.array(SORTED_COLORS)


class _Rooms(NamedTuple):
    """Rooms in the making: corner, width and height, and the entry door, int64 `[batch]` each."""

    left: Array
    top: Array
    width: Array
    height: Array
    door_x: Array
    door_y: Array


class MultiRoom(GridWorld):
    """Walk through a chain of rooms to the goal in the last one.

    **Level**: rooms of 4 to `max_room_size` cells a side, walls included, are laid one after another on a grid of
    25 x 25; a room's exit is on any wall but its entry's, and eight places are tried for the room beyond. Chains that
    end early are drawn anew. Doors are closed, each of another colour than the one before. The agent starts anywhere in
    the first room, facing anywhere.
    **Mission**: "traverse the rooms to get to the goal".
    **Observation, action, reward, end, info**: as of every `GridWorld`.

    **Oracle**: none.

    **Version history**: v0, first release; equals MiniGrid 3.2's `MultiRoom-N...`.

    Args:
        rooms: Number of rooms, at least 1.
        max_room_size: Largest side of a room, 4 to 12.
        max_steps: Time limit; by default `20 * rooms`.
        observation: "partial" or "full".
        mission: "tokens" or "text".

    Raises:
        ValueError: If an argument is outside its range.
    """

    def __init__(
        self,
        rooms: int = 6,
        max_room_size: int = 10,
        max_steps: int | None = None,
        observation: Observation = "partial",
        mission: MissionMode = "tokens",
    ) -> None:
        check_count("MultiRoom", "rooms", rooms)
        if check_count("MultiRoom", "max_room_size", max_room_size, _SMALLEST) > SIZE // 2:
            raise ValueError(f"MultiRoom: max_room_size={max_room_size}; expected at most {SIZE // 2}")
        limit = 20 * rooms if max_steps is None else max_steps
        missions = fixed_mission("traverse the rooms to get to the goal")
        super().__init__(SIZE, SIZE, limit, missions, observation, mission)
        self.rooms, self.max_room_size = rooms, max_room_size
        self.draws_per_level = 4 + (3 * _TRIES + 1) * (rooms - 1)

    def experts(self) -> Mapping[str, Actor]:
        """Return "planner", which sees the whole state and takes a shortest way."""
        return {"planner": Planner()}

    def draw_level(self, draws: LevelDraws) -> Level:
        """Return one chain for every row, valid where all rooms found a place."""
        xp = draws.xp
        sides = self.max_room_size - _SMALLEST + 1
        x, y, width, height = draws.among(SIZE - 2, SIZE - 2, sides, sides)
        room = _Rooms(x, y, _SMALLEST + width, _SMALLEST + height, x, y)
        entry = draws.full(_ENTRY_WALL)
        valid = _fits(room)
        chain = [room]
        for _ in range(1, self.rooms):
            room, entry, found = self._beyond(draws, chain, entry)
            valid = valid & found
            chain.append(room)
        first, last = chain[0], chain[-1]
        colors = [draws.below(len(COLORS) - (number > 0)) for number in range(self.rooms - 1)]
        agent, direction = draws.below((first.width - 2) * (first.height - 2)), draws.below(4)
        if self.rooms == 1:
            goal = other_than(draws.below((last.width - 2) * (last.height - 2) - 1), agent)
        else:
            goal = draws.below((last.width - 2) * (last.height - 2))
        cells = copies(_nothing(), draws)
        # Most chains fail; only the others are worth drawing.
        kept = xp.nonzero(valid)[0]
        cells[kept] = _drawn(
            draws, cells[kept], [_Rooms(*(part[kept] for part in room)) for room in chain], [c[kept] for c in colors]
        )
        rows, place = draws.rows[kept], _inner_place(last, goal)[kept]
        put(cells, rows, place, GOAL)
        start = xp.where(valid, _inner_place(first, agent), 0 * agent)
        return Level(cells, start, direction, draws.full(0), valid)

    def _beyond(self, draws: LevelDraws, chain: list[_Rooms], entry: Array) -> tuple[_Rooms, Array, Array]:
        """Return the next room, its entry wall and whether it fits: the first of eight tries that does."""
        xp = draws.xp
        tries, wall = self._candidates(draws, chain[-1], entry)
        fits = _fits(tries)
        for other in chain[:-1]:
            fits = fits & _apart(tries, _Rooms(*(part[:, None] for part in other)))
        first = xp.argmax(xp.astype(fits, xp.int64), axis=1)
        room, wall = _Rooms(*(part[draws.rows, first] for part in tries)), wall[draws.rows, first]
        return room, wall, fits[draws.rows, first]

    def _candidates(self, draws: LevelDraws, room: _Rooms, entry: Array) -> tuple[_Rooms, Array]:
        """Return eight rooms `[batch, 8]` beyond random doors of another one, and the walls of their entries."""
        xp, sides = draws.xp, self.max_room_size - _SMALLEST + 1
        room = _Rooms(*(part[:, None] for part in room))
        other, width, height = draws.among(_WALLS - 1, sides, sides, size=_TRIES)
        wall, width, height = other_than(other, entry[:, None]), width + _SMALLEST, height + _SMALLEST
        # Walls: 0 right, 1 bottom, 2 left, 3 top. A door never lies in a corner, of either room.
        sideways = wall % 2 == 0
        along = 1 + draws.below(xp.where(sideways, room.height, room.width) - 2, _TRIES)
        back = 1 + draws.below(xp.where(sideways, height, width) - 2, _TRIES)
        door_x = room.left + xp.where(sideways, (room.width - 1) * (wall == 0), along)
        door_y = room.top + xp.where(sideways, along, (room.height - 1) * (wall == 1))
        left = door_x - xp.where(sideways, (width - 1) * (wall == 2), back)
        top = door_y - xp.where(sideways, back, (height - 1) * (wall == 3))
        return _Rooms(left, top, width, height, door_x, door_y), (wall + 2) % _WALLS


def _drawn(draws: LevelDraws, cells: Array, chain: list[_Rooms], colors: list[Array]) -> Array:
    """Return the cells of chains with walls and doors; each colour is drawn among those that the door may have."""
    xp = draws.xp
    rows, line = draws.rows[: cells.shape[0]], xp.arange(SIZE, device=draws.rows.device)
    palette, color = table_on(_PALETTE, draws.rows), None
    for number, room in enumerate(chain):
        across, down = _zones(line, room.left, room.width), _zones(line, room.top, room.height)
        # A cell of the outline is on an edge along one axis at least, and outside along none.
        outline = across[:, :, None] * down[:, None, :] > 1
        cells[xp.reshape(outline, cells.shape)] = WALL
        if number:
            color = colors[number - 1] if color is None else other_than(colors[number - 1], color)
            put(cells, rows, room.door_x * SIZE + room.door_y, CLOSED_DOOR + palette[color])
    return cells


def _inner_place(room: _Rooms, index: Array) -> Array:
    """The flat index of a cell inside a room."""
    inner = room.height - 2
    return (room.left + 1 + index // inner) * SIZE + room.top + 1 + index % inner


def _zones(line: Array, start: Array, length: Array) -> Array:
    """For every coordinate, 0 outside a room, 1 inside, 2 on its edge; uint8 `[batch, 25]`."""
    xp = namespace_of(line)
    offset = line - start[:, None]
    end = length[:, None] - 1
    inside, edge = (offset >= 0) & (offset <= end), (offset == 0) | (offset == end)
    return xp.astype(inside, xp.uint8) + xp.astype(edge, xp.uint8)


def _fits(room: _Rooms) -> Array:
    """Whether a room lies on the grid; as in MiniGrid, the lowest row stays free."""
    return (room.left >= 0) & (room.top >= 0) & (room.left + room.width <= SIZE) & (room.top + room.height < SIZE)


def _apart(room: _Rooms, other: _Rooms) -> Array:
    """Whether two rooms do not meet; to the left and above a row is left free, as in MiniGrid."""
    return (
        (room.left + room.width < other.left)
        | (other.left + other.width <= room.left)
        | (room.top + room.height < other.top)
        | (other.top + other.height <= room.top)
    )


@lru_cache(maxsize=1)
def _nothing() -> np.ndarray:
    return np.full((SIZE, SIZE), EMPTY, np.uint8)
