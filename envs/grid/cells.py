"""What a cell of a grid world holds, as one byte, and what MiniGrid's encoding makes of it.

The low seven bits name the content; bit 7 (`TARGET`) marks an object that the mission is about, so that one of two
equal objects can be the one that counts. Code 0 is a cell that is not seen; bit 6 (`OPAQUE`) is set in what blocks the
view.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

COLORS = ("red", "green", "blue", "purple", "yellow", "grey")
"""Colours in the order of MiniGrid's encoding."""

SORTED_COLORS = tuple(COLORS.index(name) for name in sorted(COLORS))
"""Colours in the alphabetical order in which MiniGrid names them when it draws one."""

EMPTY_TYPE, WALL_TYPE, DOOR_TYPE, KEY_TYPE, BALL_TYPE, BOX_TYPE, GOAL_TYPE, LAVA_TYPE = 1, 2, 4, 5, 6, 7, 8, 9
AGENT_TYPE = 10
"""Types of MiniGrid's encoding."""

_GREY, _GREEN = COLORS.index("grey"), COLORS.index("green")

EMPTY, GOAL, LAVA = 1, 2, 3
KEY, BALL, BOX = 4, 10, 16
"""Code of the red one; `KEY + color`, `BALL + color`, and `BOX + 7 * color + content`, where content 0 is nothing and
content 1 + color is a key."""

OPEN_DOOR, CLOSED_DOOR, LOCKED_DOOR = 58, 64, 70
"""Code of the red one; add the colour."""

WALL = 76
AGENT = 80
"""The agent facing right, in full views; add the direction."""

TARGET = 128
CONTENT = 127
"""Mask of the content's bits."""

OPAQUE = 64
"""Bit of what blocks the view."""

NUM_CODES = 256
BOX_CONTENTS = 7


def _encodings() -> np.ndarray:
    table = np.zeros((NUM_CODES, 3), np.uint8)
    table[EMPTY] = EMPTY_TYPE, 0, 0
    table[GOAL] = GOAL_TYPE, _GREEN, 0
    table[LAVA] = LAVA_TYPE, 0, 0
    table[WALL] = WALL_TYPE, _GREY, 0
    for color in range(len(COLORS)):
        table[KEY + color] = KEY_TYPE, color, 0
        table[BALL + color] = BALL_TYPE, color, 0
        table[BOX + BOX_CONTENTS * color : BOX + BOX_CONTENTS * (color + 1)] = BOX_TYPE, color, 0
        for state, door in enumerate((OPEN_DOOR, CLOSED_DOOR, LOCKED_DOOR)):
            table[door + color] = DOOR_TYPE, color, state
    for direction in range(4):
        table[AGENT + direction] = AGENT_TYPE, 0, direction
    table[TARGET:] = table[:TARGET]
    return table


ENCODING = _encodings()
"""MiniGrid's (type, colour, state) of every code, uint8 `[256, 3]`."""


def codes_of(first: int, count: int = len(COLORS)) -> np.ndarray:
    """Return the mask `[256]` of the codes from `first` on, marked as targets or not."""
    codes = np.arange(NUM_CODES) & CONTENT
    return (codes >= first) & (codes < first + count)


IS_KEY, IS_BALL, IS_BOX = codes_of(KEY), codes_of(BALL), codes_of(BOX, len(COLORS) * BOX_CONTENTS)
IS_OPEN_DOOR, IS_CLOSED_DOOR, IS_LOCKED_DOOR = codes_of(OPEN_DOOR), codes_of(CLOSED_DOOR), codes_of(LOCKED_DOOR)
IS_DOOR = IS_OPEN_DOOR | IS_CLOSED_DOOR | IS_LOCKED_DOOR
IS_PORTABLE = IS_KEY | IS_BALL | IS_BOX
IS_WALKABLE = codes_of(EMPTY, 1) | codes_of(GOAL, 1) | codes_of(LAVA, 1) | IS_OPEN_DOOR


def code_of(encoding: Iterable[int], content_color: int | None = None) -> int:
    """Return the code of an encoded cell.

    Args:
        encoding: (type, colour, state).
        content_color: Colour of the key inside a box, or None.

    Raises:
        ValueError: If a grid world of this family knows no such cell.
    """
    wanted = tuple(int(part) for part in encoding)
    matches = np.flatnonzero((ENCODING[:TARGET] == np.array(wanted)).all(axis=1))
    if matches.size == 0 or wanted == (0, 0, 0):
        raise ValueError(f"code_of: encoding={wanted}; expected a wall, door, key, ball, box, goal or lava")
    return int(matches[0]) + (0 if content_color is None else 1 + content_color)
