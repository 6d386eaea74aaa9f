"""How BabyAI's levels of one instruction are drawn; every function takes a draft and returns the missions `[batch]`.

They follow the `minigrid` package 3.2, oddities included: where it means to keep the key and the distractors out of the
locked room (`go_to_behind_lock`, `unlock`), it compares numbers by identity, so that they may lie anywhere.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from palaestra.envs.grid.cells import (
    BALL,
    BOX,
    BOX_CONTENTS,
    CLOSED_DOOR,
    COLORS,
    DOOR_TYPE,
    ENCODING,
    NUM_CODES,
    OPEN_DOOR,
)
from palaestra.envs.grid.key_corridor import draw_key_corridor
from palaestra.envs.grid.level import other_than, put
from palaestra.envs.grid.missions import (
    ANY_COLOR,
    BALL_KIND,
    BOX_KIND,
    DOOR_KIND,
    GO_TO,
    KEY_KIND,
    OBJECT_KIND,
    OPEN,
    PICK,
    PLACES,
    errand,
)
from palaestra.envs.grid.rooms import (
    BALL_THING,
    KEY_THING,
    NUM_THINGS,
    RIGHT,
    THING_CODE,
    UP,
    Draft,
)
from palaestra.envs.grid.tables import table_on
from palaestra.envs.grid.unlock import draw_unlock_pickup
from palaestra.envs.grid.view import DIRECTIONS
from palaestra.protocols import Array

_COLORS = len(COLORS)
_KINDS = np.array([KEY_KIND, BALL_KIND, BOX_KIND])
_RED, _BLUE, _GREY = (COLORS.index(name) for name in ("red", "blue", "grey"))
_RED_BALL, _BLUE_BALL = BALL_THING * _COLORS + _RED, BALL_THING * _COLORS + _BLUE
_DOOR_COLOR = np.where(ENCODING[:, 0] == DOOR_TYPE, ENCODING[:, 1], ANY_COLOR).astype(np.int64)
_COLOR_NAMES = ANY_COLOR + 1
_AHEAD = np.array(DIRECTIONS).T


def _names() -> np.ndarray:
    """Whether a thing fits a name `kind * 7 + color`, color 6 for any: `[18, 21]`."""
    thing, name = np.ogrid[:NUM_THINGS, : 3 * _COLOR_NAMES]
    color = name % _COLOR_NAMES
    return (thing // _COLORS == name // _COLOR_NAMES) & ((thing % _COLORS == color) | (color == ANY_COLOR))


def _greyed() -> np.ndarray:
    """Every code with things made grey."""
    codes = np.arange(NUM_CODES).astype(np.uint8)
    codes[THING_CODE] = THING_CODE[np.arange(NUM_THINGS) // _COLORS * _COLORS + _GREY]
    return codes


_FITS, _GREYED = _names(), _greyed()


def _matching_things(draft: Draft, thing: Array) -> Array:
    """The cells that hold a thing like the given one `[batch]`."""
    return draft.cells == draft.xp.astype(table_on(THING_CODE, thing)[thing], draft.cells.dtype)[:, None]


def _matching_doors(draft: Draft, color: Array) -> Array:
    """The cells that hold a door of a colour `[batch]`, in whatever state."""
    return table_on(_DOOR_COLOR, color)[draft.xp.astype(draft.cells, draft.xp.int64)] == color[:, None]


def _thing_errand(draft: Draft, verb: int, thing: Array) -> Array:
    """Make all things like the given one the targets."""
    several = draft.mark(_matching_things(draft, thing))
    return errand(verb, several, thing % _COLORS, table_on(_KINDS, thing)[thing // _COLORS])


def _door_errand(draft: Draft, verb: int, color: Array) -> Array:
    """Make all doors of a colour the targets."""
    return errand(verb, draft.mark(_matching_doors(draft, color)), color, DOOR_KIND)


def _one(draft: Draft, several: Array) -> Array:
    """One of several things in every row `[batch, count]`."""
    return several[draft.draws.rows, draft.draws.below(int(several.shape[1]))]


def red_ball(draft: Draft, distractors: int, grey: bool = False) -> Array:
    """Go to the red ball of one room; with `grey` all distractors are grey."""
    draft.place_agent()
    red = draft.draws.full(_RED_BALL)
    place = draft.place_thing(0, red)
    draft.add_distractors(distractors)
    if grey:
        draft.cells = table_on(_GREYED, red)[draft.xp.astype(draft.cells, draft.xp.int64)]
        put(draft.cells, draft.draws.rows, place, BALL + _RED)
    draft.require_reach()
    return _thing_errand(draft, GO_TO, red)


def red_or_blue_ball(draft: Draft, distractors: int) -> Array:
    """Go to the only red or blue ball of one room."""
    draft.place_agent()
    things = draft.add_distractors(distractors)
    draft.valid = draft.valid & ~draft.xp.any((things == _RED_BALL) | (things == _BLUE_BALL), axis=1)
    ball = _RED_BALL + (_BLUE_BALL - _RED_BALL) * draft.draws.below(2)
    draft.place_thing(0, ball)
    draft.require_reach()
    return _thing_errand(draft, GO_TO, ball)


def go_to_thing(draft: Draft, distractors: int, doors_open: bool = False) -> Array:
    """Go to one of the things of all rooms."""
    thing = _thing_of_rooms(draft, distractors, blocked=False)
    if doors_open:
        closed = (draft.cells >= CLOSED_DOOR) & (draft.cells < CLOSED_DOOR + _COLORS)
        draft.cells = draft.cells - (CLOSED_DOOR - OPEN_DOOR) * draft.xp.astype(closed, draft.cells.dtype)
    return _thing_errand(draft, GO_TO, thing)


def pick_up_thing(draft: Draft, distractors: int, blocked: bool = False) -> Array:
    """Pick up one of the things of all rooms; with `blocked` some thing or door is out of reach at first."""
    return _thing_errand(draft, PICK, _thing_of_rooms(draft, distractors, blocked))


def _thing_of_rooms(draft: Draft, distractors: int, blocked: bool) -> Array:
    draft.place_agent()
    draft.connect_all()
    things = draft.add_distractors(distractors)
    draft.require_reach(not blocked)
    return _one(draft, things)


def go_to_behind_lock(draft: Draft, distractors: int) -> Array:
    """Go to a thing in a room behind a locked door."""
    locked_room, _color = _locked_room(draft)
    draft.connect_all()
    _furnish(draft, locked_room, distractors)
    return _thing_errand(draft, GO_TO, draft.add_distractors(1, locked_room)[:, 0])


def unlock(draft: Draft, distractors: int) -> Array:
    """Open a locked door; half the time no other door is of its colour."""
    locked_room, color = _locked_room(draft)
    draft.connect_all(draft.xp.where(draft.draws.below(2) == 0, color, 0 * color - 1))
    _furnish(draft, locked_room, distractors)
    return _door_errand(draft, OPEN, color)


def _locked_room(draft: Draft) -> tuple[Array, Array]:
    """Lock a room by one door and put the key anywhere; return the room and the door's colour."""
    room = draft.room()
    _door, color = draft.add_door(room, locked=True)
    draft.place_thing(draft.room(), KEY_THING * _COLORS + color)
    return room, color


def _furnish(draft: Draft, locked_room: Array, distractors: int) -> None:
    """Add distractors to every room, and the agent to one that is not locked, from where all is within reach."""
    rooms = draft.plan.rows * draft.plan.columns
    for room in range(rooms):
        draft.add_distractors(distractors, room)
    draft.place_agent(other_than(draft.draws.below(rooms - 1), locked_room))
    draft.require_reach()


def go_to_door(draft: Draft) -> Array:
    """Go to one of the four doors of the middle room."""
    middle = _middle(draft)
    colors = draft.xp.stack([draft.add_door(middle)[1] for _ in range(4)], axis=1)
    draft.place_agent(middle)
    return _door_errand(draft, GO_TO, _one(draft, colors))


def go_to_thing_or_door(draft: Draft, distractors: int) -> Array:
    """Go to a thing or a door of the middle room."""
    middle = _middle(draft)
    draft.place_agent(middle)
    things = draft.add_distractors(distractors, middle)
    colors = draft.xp.stack([draft.add_door(middle)[1] for _ in range(4)], axis=1)
    draft.require_reach()
    return _either(draft, things, colors, draft.draws.full(GO_TO), draft.draws.full(GO_TO))


def act_on_thing_or_door(draft: Draft, distractors: int) -> Array:
    """Go to or pick up a thing, or go to or open a door, of the middle room."""
    middle = _middle(draft)
    things = draft.add_distractors(distractors, middle, unique=True)
    colors = draft.xp.stack([draft.add_door(middle, locked=False)[1] for _ in range(4)], axis=1)
    draft.place_agent(middle)
    goes = draft.draws.below(2) == 0
    go = draft.draws.full(GO_TO)
    return _either(
        draft, things, colors, draft.xp.where(goes, go, PICK + 0 * go), draft.xp.where(goes, go, OPEN + 0 * go)
    )


def _either(draft: Draft, things: Array, colors: Array, thing_verb: Array, door_verb: Array) -> Array:
    """Make one of the things `[batch, n]` or of the doors `[batch, m]` the target, and all like it."""
    xp, draws = draft.xp, draft.draws
    number = int(things.shape[1])
    index = draws.below(number + int(colors.shape[1]))
    is_thing = index < number
    thing = things[draws.rows, xp.where(is_thing, index, 0 * index)]
    color = colors[draws.rows, xp.where(is_thing, 0 * index, index - number)]
    several = draft.mark(xp.where(is_thing[:, None], _matching_things(draft, thing), _matching_doors(draft, color)))
    kind = table_on(_KINDS, thing)[thing // _COLORS]
    thing_mission = errand(thing_verb, several, thing % _COLORS, kind)
    return xp.where(is_thing, thing_mission, errand(door_verb, several, color, DOOR_KIND))


def open_in_rooms(draft: Draft, distractors: int) -> Array:
    """Open one of the doors between all rooms."""
    draft.place_agent()
    draft.connect_all()
    draft.add_distractors(distractors)
    draft.require_reach()
    edge, _found = draft.draws.choose(draft.joined)
    place = draft.door_place[draft.draws.rows, edge]
    code = draft.xp.astype(draft.cells[draft.draws.rows, place], draft.xp.int64)
    return _door_errand(draft, OPEN, table_on(_DOOR_COLOR, code)[code])


def open_red_door(draft: Draft) -> Array:
    """Open the red door between two rooms."""
    draft.add_door(0, RIGHT, draft.draws.full(_RED), locked=False)
    draft.place_agent(0)
    return _door_errand(draft, OPEN, draft.draws.full(_RED))


def open_one_of_four(draft: Draft, select_by: Literal["color", "place", "either"]) -> Array:
    """Open one of four doors of different colours, named by its colour or by where it lies from the agent's start."""
    xp, draws, middle = draft.xp, draft.draws, _middle(draft)
    colors = xp.argsort(draws.uniform(_COLORS), axis=1)
    doors = [draft.add_door(middle, side, colors[:, side], locked=False)[0] for side in range(4)]
    by_place = draws.below(2) == 0 if select_by == "either" else draws.always() == (select_by == "place")
    where = 1 + draws.below(len(PLACES) - 1)
    draft.place_agent(middle)
    places = xp.stack(doors, axis=1)
    color = colors[:, 0]
    lies = _lies(draft, places)[draws.rows, :, where]
    several = draft.mark_places(places, xp.where(by_place[:, None], lies, colors[:, :4] == color[:, None]))
    named = errand(OPEN, several, color, DOOR_KIND)
    return xp.where(by_place, errand(OPEN, several, ANY_COLOR, DOOR_KIND, where), named)


def _lies(draft: Draft, places: Array) -> Array:
    """Whether cells `[batch, n]` fit each of `PLACES`, seen from the agent, `[batch, n, 5]`."""
    xp, height = draft.xp, draft.plan.height
    x = places // height - (draft.agent // height)[:, None]
    y = places % height - (draft.agent % height)[:, None]
    ahead_x, ahead_y = (part[:, None] for part in table_on(_AHEAD, x)[:, draft.direction])
    ahead, right = x * ahead_x + y * ahead_y, y * ahead_x - x * ahead_y
    return xp.stack((places >= 0, right < 0, right > 0, ahead > 0, ahead < 0), axis=2)


def unlock_beside(draft: Draft, distractors: int = 0, in_box: bool = False) -> Array:
    """Open the locked door of the middle room, whose key lies there too, with `in_box` in a box."""
    middle = _middle(draft)
    door, color = draft.add_door(middle, locked=True)
    if in_box:
        draft.place_code(middle, BOX + BOX_CONTENTS * draft.color() + 1 + color)
    else:
        draft.place_thing(middle, KEY_THING * _COLORS + color)
    if distractors:
        draft.add_distractors(distractors, middle, unique=True)
    draft.place_agent(middle)
    draft.mark_place(door)
    return draft.draws.full(0) + errand(OPEN, ~draft.draws.always(), ANY_COLOR, DOOR_KIND)


def pick_up_by_place(draft: Draft, distractors: int) -> Array:
    """Pick up a thing of one room that is named by kind, and perhaps by colour and by where it lies."""
    xp, draws = draft.xp, draft.draws
    things, places = draft.add_distractors_at(distractors)
    draft.place_agent()
    draft.require_reach()
    # Kind, colour or any, and place, which half the time is left open: of the names that fit something, one is drawn.
    fits, lies = table_on(_FITS, things)[things], _lies(draft, places)
    exists = xp.any(fits[:, :, :, None] & lies[:, :, None, :], axis=1)
    open_places = len(PLACES) - 1
    slots = xp.concat((xp.tile(exists[:, :, :1], (1, 1, open_places)), exists[:, :, 1:]), axis=2)
    index, found = draws.choose(xp.reshape(slots, (draws.batch, -1)))
    draft.valid = draft.valid & found
    name, slot = index // (2 * open_places), index % (2 * open_places)
    place = xp.maximum(slot - (open_places - 1), 0 * slot)
    chosen = fits[draws.rows, :, name] & lies[draws.rows, :, place]
    kind = table_on(_KINDS, name)[name // _COLOR_NAMES]
    return errand(PICK, draft.mark_places(places, chosen), name % _COLOR_NAMES, kind, place)


def pick_up_by_look(draft: Draft, distractors: int) -> Array:
    """Pick up a thing of one room that is named by its kind, its colour or both."""
    xp, draws = draft.xp, draft.draws
    things, places = draft.add_distractors_at(distractors, unique=True)
    draft.place_agent(0)
    thing = _one(draft, things)
    select = draws.below(3)
    by_kind, by_color = select != 1, select != 0
    color = xp.where(by_color, thing % _COLORS, 0 * thing + ANY_COLOR)
    kind = xp.where(by_kind, table_on(_KINDS, thing)[thing // _COLORS], 0 * thing + OBJECT_KIND)
    chosen = (things // _COLORS == (thing // _COLORS)[:, None]) | ~by_kind[:, None]
    chosen = chosen & ((things % _COLORS == (thing % _COLORS)[:, None]) | ~by_color[:, None])
    several = draft.mark_places(places, chosen)
    # The walls are grey objects too.
    return errand(PICK, several | (~by_kind & (color == _GREY)), color, kind)


def pick_up_above(draft: Draft) -> Array:
    """Pick up the thing in the room above the middle one."""
    middle, thing = _middle(draft), draft.draws.below(NUM_THINGS)
    draft.place_thing(draft.plan.room(1, 0), thing)
    draft.add_door(middle, UP, locked=False)
    draft.place_agent(middle)
    draft.connect_all()
    return _thing_errand(draft, PICK, thing)


def find_thing(draft: Draft) -> Array:
    """Pick up the only thing of all rooms, named by its kind."""
    thing = draft.draws.below(NUM_THINGS)
    place = draft.place_thing(draft.room(), thing)
    draft.place_agent(_middle(draft))
    draft.connect_all()
    draft.mark_place(place)
    return errand(PICK, ~draft.draws.always(), ANY_COLOR, table_on(_KINDS, thing)[thing // _COLORS])


def pick_up_ball(draft: Draft) -> Array:
    """Pick up the ball of one room."""
    place = draft.place_thing(0, BALL_THING * _COLORS + draft.color())
    draft.place_agent()
    return _place_errand(draft, place, BALL_KIND)


def pick_up_locked_box(draft: Draft, distractors: int = 0, blocked: bool = False, by_color: bool = True) -> Array:
    """Pick up the box behind the locked door of two rooms."""
    box, color = draw_unlock_pickup(draft, blocked)
    if distractors:
        draft.add_distractors_at(distractors, unique=True)
    draft.place_agent(0)
    return _place_errand(draft, box, BOX_KIND, color if by_color else ANY_COLOR)


def unlock_to_unlock(draft: Draft) -> Array:
    """Pick up the ball in the left of three rooms, behind a locked door whose key is behind another."""
    colors = draft.xp.argsort(draft.draws.uniform(_COLORS), axis=1)
    draft.add_door(0, RIGHT, colors[:, 0], locked=True)
    draft.place_thing(2, KEY_THING * _COLORS + colors[:, 0])
    draft.add_door(1, RIGHT, colors[:, 1], locked=True)
    draft.place_thing(1, KEY_THING * _COLORS + colors[:, 1])
    place = draft.place_thing(0, BALL_THING * _COLORS + draft.color())
    draft.place_agent(1)
    return _place_errand(draft, place, BALL_KIND)


def key_corridor(draft: Draft) -> Array:
    """Pick up the ball behind the locked door of a corridor."""
    ball, _color = draw_key_corridor(draft)
    return _place_errand(draft, ball, BALL_KIND)


def _place_errand(draft: Draft, place: Array, kind: int, color: Array | int = ANY_COLOR) -> Array:
    """Pick up what lies in a cell, the only one of its name."""
    draft.mark_place(place)
    return errand(PICK, ~draft.draws.always(), color, kind)


def _middle(draft: Draft) -> int:
    return draft.plan.room(1, 1)
