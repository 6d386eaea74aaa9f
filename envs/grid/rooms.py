"""Levels of rooms in rows and columns, drawn as MiniGrid's `RoomGrid` draws them, for a whole batch at once.

Where MiniGrid tries places until one is free, a place is drawn among the free ones: the same distribution. Where it
gives up and starts the level anew, the row's level is marked as not valid.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from palaestra.envs.grid.cells import (
    BALL,
    BOX,
    BOX_CONTENTS,
    CLOSED_DOOR,
    COLORS,
    EMPTY,
    KEY,
    LOCKED_DOOR,
    SORTED_COLORS,
    TARGET,
    WALL,
)
from palaestra.envs.grid.level import Level, LevelDraws, copies, put
from palaestra.envs.grid.reach import all_reached
from palaestra.envs.grid.tables import table_on
from palaestra.envs.grid.view import DIRECTIONS
from palaestra.protocols import Array

RIGHT, DOWN, LEFT, UP = range(4)
"""Sides of a room, in MiniGrid's order."""

KEY_THING, BALL_THING, BOX_THING = range(3)
"""Kinds of things that can be placed; a thing is numbered `kind * 6 + color`."""

NUM_THINGS = 3 * len(COLORS)
THING_CODE = np.array(
    [KEY + color for color in range(len(COLORS))]
    + [BALL + color for color in range(len(COLORS))]
    + [BOX + BOX_CONTENTS * color for color in range(len(COLORS))]
)
"""Code of each thing `[18]`."""

_PALETTE = np.array(SORTED_COLORS)


@dataclass(frozen=True)
class FloorPlan:
    """The fixed part of a grid of rooms; edges are the walls between two rooms.

    Attributes:
        rows, columns, size: Rooms down and across, and cells of a room's side, walls included.
        width, height: Cells of the grid.
        walls: The rooms without doors, uint8 `[width, height]`.
        room_cells: Flat indices of the cells of each room, walls included, `[rooms, size * size]`.
        inner_cells: The same without the walls, `[rooms, (size - 2)**2]`.
        edge_of: Edge at each side of a room, -1 at the outer walls, `[rooms, 4]`.
        edge_rooms: The rooms on both sides of each edge `[edges, 2]`.
        edge_cells: Flat indices of the cells of each edge, corners aside, `[edges, size - 2]`.
        strides: Distances of the flat indices of a cell's neighbours, right, down, left and up, `[4]`.
    """

    rows: int
    columns: int
    size: int
    width: int
    height: int
    walls: np.ndarray
    room_cells: np.ndarray
    inner_cells: np.ndarray
    edge_of: np.ndarray
    edge_rooms: np.ndarray
    edge_cells: np.ndarray
    strides: np.ndarray

    def room(self, column: int, row: int) -> int:
        """Return the number of a room."""
        return row * self.columns + column


@lru_cache(maxsize=64)
def floor_plan(rows: int, columns: int, size: int) -> FloorPlan:
    """Return the plan of `rows * columns` rooms of `size * size` cells that share their walls."""
    step = size - 1
    width, height = columns * step + 1, rows * step + 1
    x, y = np.mgrid[:width, :height]
    walls = np.where((x % step == 0) | (y % step == 0), WALL, EMPTY).astype(np.uint8)
    side, inner = np.arange(size), np.arange(1, size - 1)
    corners = [(column * step, row * step) for row in range(rows) for column in range(columns)]
    room_cells, inner_cells = (
        np.stack([((a + line)[:, None] * height + b + line).ravel() for a, b in corners]) for line in (side, inner)
    )
    edge_of = np.full((rows * columns, 4), -1)
    edge_rooms: list[tuple[int, int]] = []
    edge_cells: list[np.ndarray] = []
    for room, (a, b) in enumerate(corners):
        for way, exists, other, cells in (
            (RIGHT, a + step < width - 1, room + 1, (a + step) * height + b + inner),
            (DOWN, b + step < height - 1, room + columns, (a + inner) * height + b + step),
        ):
            if exists:
                edge_of[room, way] = edge_of[other, way + 2] = len(edge_rooms)
                edge_rooms.append((room, other))
                edge_cells.append(cells)
    return FloorPlan(
        rows,
        columns,
        size,
        width,
        height,
        walls,
        room_cells,
        inner_cells,
        edge_of,
        np.array(edge_rooms, int).reshape(-1, 2),
        np.array(edge_cells, int).reshape(-1, size - 2),
        np.array([dx * height + dy for dx, dy in DIRECTIONS]),
    )


class Draft:
    """Levels in the making, one a row.

    Args:
        draws: Random numbers of the try.
        plan: The rooms.

    Attributes:
        cells: Codes, uint8 `[batch, width * height]`.
        agent: The agent's cell `[batch]`: before it is placed, the middle of the middle room, as in MiniGrid.
        direction: int64 `[batch]`.
        door_place: Cell of each edge's door, made or not, `[batch, edges]`.
        joined: Whether each edge has a door or no wall, bool `[batch, edges]`.
        locked: Whether each room counts as locked, bool `[batch, rooms]`.
        things: Whether each thing has been placed, bool `[batch, 18]`.
        valid: Whether all went well so far, bool `[batch]`.
    """

    def __init__(self, draws: LevelDraws, plan: FloorPlan) -> None:
        xp = draws.xp
        self.draws, self.plan, self.xp = draws, plan, xp
        self.cells = copies(plan.walls, draws)
        edges, rooms, device = len(plan.edge_rooms), plan.rows * plan.columns, draws.rows.device
        self.door_place = xp.zeros((draws.batch, 0), dtype=xp.int64, device=device)
        if edges:
            offset = draws.below(plan.size - 2, edges)
            edge = xp.arange(edges, device=device)
            self.door_place = table_on(plan.edge_cells, draws.rows)[edge, offset]
        self.joined = xp.zeros((draws.batch, edges), dtype=xp.bool, device=device)
        self.locked = xp.zeros((draws.batch, rooms), dtype=xp.bool, device=device)
        self.things = xp.zeros((draws.batch, NUM_THINGS), dtype=xp.bool, device=device)
        middle_x = plan.columns // 2 * (plan.size - 1) + plan.size // 2
        middle_y = plan.rows // 2 * (plan.size - 1) + plan.size // 2
        self.agent, self.direction = draws.full(middle_x * plan.height + middle_y), draws.full(0)
        self.valid = draws.always()
        # Walls are never free but where they have been taken away.
        self._room_cells = plan.inner_cells

    def color(self) -> Array:
        """Return a random colour `[batch]`."""
        return self.draws.below(len(COLORS))

    def room(self) -> Array:
        """Return a random room `[batch]`."""
        return self.draws.below(self.plan.rows * self.plan.columns)

    def place_code(self, room: int | Array, code: Array) -> Array:
        """Put something into a random free cell of a room, not next to the agent; return the cell `[batch]`."""
        cells = self._cells_of(room)
        agent = self.agent[:, None]
        near = cells == agent
        for stride in self.plan.strides.tolist():
            near = near | (cells == agent + stride)
        free = (self._contents(cells) == EMPTY) & ~near
        index, found = self.draws.choose(free)
        place = cells[self.draws.rows, index]
        # Where no cell is free the level is thrown away, and must only stay in one piece until then.
        put(self.cells, self.draws.rows, place, self.xp.where(found, code, self._contents(place)))
        self.valid = self.valid & found
        return place

    def place_thing(self, room: int | Array, thing: Array) -> Array:
        """Put a thing `[batch]` into a room; return its cell `[batch]`."""
        self.things[self.draws.rows, thing] = True
        return self.place_code(room, table_on(THING_CODE, thing)[thing])

    def place_agent(self, room: int | Array | None = None) -> None:
        """Put the agent into a free cell of a room (by default a random one), facing nothing or a wall."""
        cells = self._cells_of(self.room() if room is None else room)
        free = self._contents(cells) == EMPTY
        strides = table_on(self.plan.strides, cells)
        ahead = self.xp.clip(cells[:, :, None] + strides, 0, self.cells.shape[1] - 1)
        front = self._contents(ahead)
        fits = free[:, :, None] & ((front == EMPTY) | (front == WALL))
        index, found = self.draws.choose(self.xp.reshape(fits, (self.draws.batch, -1)))
        self.agent, self.direction = cells[self.draws.rows, index // 4], index % 4
        self.valid = self.valid & found

    def add_door(
        self, room: int | Array, side: int | None = None, color: Array | None = None, locked: bool | None = None
    ) -> tuple[Array, Array]:
        """Add a door to a room, by default on a random side that has none, of a random colour, locked or not.

        Returns:
            The door's cell and colour, `[batch]` each.
        """
        xp, draws = self.xp, self.draws
        edges = table_on(self.plan.edge_of, draws.rows)[draws.full(0) + room]
        if side is None:
            possible = (edges >= 0) & ~self.joined[draws.rows[:, None], xp.maximum(edges, 0 * edges)]
            chosen, found = draws.choose(possible)
            self.valid = self.valid & found
            edge = edges[draws.rows, chosen]
        else:
            edge = edges[:, side]
        color = self.color() if color is None else color
        barred = draws.below(2) == 0 if locked is None else (draws.always() if locked else ~draws.always())
        place = self.door_place[draws.rows, edge]
        put(self.cells, draws.rows, place, xp.where(barred, LOCKED_DOOR + color, CLOSED_DOOR + color))
        self.joined[draws.rows, edge] = True
        self.locked[draws.rows, draws.full(0) + room] = barred
        return place, color

    def remove_wall(self, room: int, side: int) -> None:
        """Take away the wall between a room and its neighbour, corners aside."""
        edge = int(self.plan.edge_of[room, side])
        self.cells[:, table_on(self.plan.edge_cells, self.cells)[edge]] = EMPTY
        self.joined[:, edge] = True
        self._room_cells = self.plan.room_cells

    def connect_all(self, avoided: Array | None = None) -> None:
        """Add closed doors between rooms that are not locked, in random order, until every room can be reached.

        Args:
            avoided: Colour `[batch]` that no door may have; -1 for none.
        """
        xp, draws, edges = self.xp, self.draws, len(self.plan.edge_rooms)
        first, second = table_on(self.plan.edge_rooms.T, draws.rows)
        numbers = xp.arange(self.plan.rows * self.plan.columns, device=draws.rows.device)
        everything = (1 << len(numbers)) - 1
        # Each room knows, as a word of bits, the rooms that it is joined with.
        group = draws.full(1)[:, None] << numbers
        for edge in range(edges):
            group = self._joined_groups(group, self.joined[:, edge], first[edge], second[edge], numbers)
        open_edge = ~(self.joined | self.locked[:, first] | self.locked[:, second])
        order = xp.argsort(xp.where(open_edge, draws.uniform(edges), 2.0 + 0.0 * self.joined), axis=1)
        colors = self._door_colors(edges, avoided)
        for turn in range(edges):
            edge = order[:, turn]
            wanted = (group[:, 0] != everything) & open_edge[draws.rows, edge]
            group = self._joined_groups(group, wanted, first[edge], second[edge], numbers)
            place = self.door_place[draws.rows, edge]
            before = self.cells[draws.rows, place]
            put(self.cells, draws.rows, place, xp.where(wanted, CLOSED_DOOR + colors[:, turn], 0 * place + before))
            self.joined[draws.rows, edge] = self.joined[draws.rows, edge] | wanted
        self.valid = self.valid & (group[:, 0] == everything)

    def _door_colors(self, count: int, avoided: Array | None) -> Array:
        """Random colours `[batch, count]`, without the avoided one where there is one."""
        xp = self.xp
        if avoided is None:
            return self.draws.below(len(COLORS), count)
        several = len(COLORS) - xp.astype(avoided >= 0, xp.int64)
        color = self.draws.below(several[:, None], count)
        return color + xp.astype((avoided >= 0)[:, None] & (color >= avoided[:, None]), xp.int64)

    def _joined_groups(self, group: Array, wanted: Array, first: Array, second: Array, numbers: Array) -> Array:
        """Groups `[batch, rooms]` after two rooms are joined in the rows where it is wanted."""
        rows = self.draws.rows
        union = (group[rows, first] | group[rows, second])[:, None]
        return self.xp.where(wanted[:, None] & ((union >> numbers & 1) == 1), union, group)

    def add_distractors(self, count: int, room: int | Array | None = None, unique: bool = False) -> Array:
        """Add random things; return them. Arguments as for `add_distractors_at`."""
        return self.add_distractors_at(count, room, unique)[0]

    def add_distractors_at(
        self, count: int, room: int | Array | None = None, unique: bool = False
    ) -> tuple[Array, Array]:
        """Add random things to a room, by default each to a random one.

        Args:
            count: Number of things.
            room: The room.
            unique: Whether no two things of the level may be equal.

        Returns:
            The things and their cells, int64 `[batch, count]` each.
        """
        shape = (self.draws.batch, count)
        things, places = (self.xp.zeros(shape, dtype=self.xp.int64, device=self.agent.device) for _ in range(2))
        for number in range(count):
            if unique:
                thing, found = self.draws.choose(~self.things)
                self.valid = self.valid & found
            else:
                thing = self.draws.below(NUM_THINGS)
            things[:, number] = thing
            places[:, number] = self.place_thing(self.room() if room is None else room, thing)
        return things, places

    def require_reach(self, wanted: bool = True) -> None:
        """Demand that the agent can get to all things and doors without moving any, or that it cannot."""
        grid = self.xp.reshape(self.cells, (-1, self.plan.width, self.plan.height))
        self.valid = self.valid & (all_reached(grid, self.agent) == wanted)

    def mark(self, matches: Array) -> Array:
        """Make the cells where `matches` `[batch, width * height]` targets; return whether they are several."""
        self.cells = self.cells | self.xp.astype(matches, self.cells.dtype) * TARGET
        return self.xp.sum(self.xp.astype(matches, self.xp.int64), axis=1) > 1

    def mark_places(self, places: Array, chosen: Array) -> Array:
        """Make the things in those cells `[batch, n]` that are chosen targets; return whether they are several."""
        marks = self.xp.astype(chosen, self.xp.int64)
        put(self.cells, self.draws.rows[:, None], places, self._contents(places) | marks * TARGET)
        return self.xp.sum(marks, axis=1) > 1

    def mark_place(self, place: Array) -> None:
        """Make what lies in a cell `[batch]` the target."""
        put(self.cells, self.draws.rows, place, self._contents(place) | TARGET)

    def level(self, mission: Array) -> Level:
        """Return the finished levels."""
        return Level(self.cells, self.agent, self.direction, mission, self.valid)

    def _cells_of(self, room: int | Array) -> Array:
        return table_on(self._room_cells, self.draws.rows)[self.draws.full(0) + room]

    def _contents(self, places: Array) -> Array:
        first = self.draws.rows * self.cells.shape[1]
        return self.xp.reshape(self.cells, (-1,))[places + self.xp.reshape(first, (-1,) + (1,) * (places.ndim - 1))]
