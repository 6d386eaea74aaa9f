"""What an action does to the cell ahead, the hand and the agent: one table for all three.

The content of the cell ahead, what the hand holds and the action decide everything that MiniGrid's rules say, so a step
is one look-up of `(7 * 8 * 256)` outcomes, each a word of flags.
"""

from __future__ import annotations

import numpy as np

from palaestra.envs.grid.cells import (
    BOX,
    BOX_CONTENTS,
    CLOSED_DOOR,
    COLORS,
    CONTENT,
    EMPTY,
    GOAL,
    IS_BOX,
    IS_CLOSED_DOOR,
    IS_DOOR,
    IS_LOCKED_DOOR,
    IS_OPEN_DOOR,
    IS_PORTABLE,
    IS_WALKABLE,
    KEY,
    LAVA,
    LOCKED_DOOR,
    NUM_CODES,
    OPEN_DOOR,
    TARGET,
)

LEFT, RIGHT, FORWARD, PICK_UP, DROP, TOGGLE, DONE = range(7)
ACTIONS = ("left", "right", "forward", "pick up", "drop", "toggle", "done")

HANDS = 8
"""Classes of what a hand holds: nothing, a key of one of six colours, anything else."""

CELL = 0xFF
"""Bits of the new content of the cell ahead, unless it changes places with the hand."""

TURN_BIT = 8
"""First of two bits: quarter turns to the right."""

MOVE_BIT, SWAP_BIT = 10, 11
"""The agent steps ahead; the cell ahead and the hand change their contents."""

AT_GOAL, IN_LAVA, PICKED_TARGET, PICKED_OTHER, OPENED_TARGET, OPENED_OTHER = (1 << bit for bit in range(12, 18))
"""Events: `PICKED_OTHER` is any try to pick up that ends with something in the hand that is not the mission's;
`OPENED_OTHER` any use of a door that does not leave a door of the mission open."""

FACED_TARGET = 1 << 18
"""Event of the moment after the step: the agent stands before a place that held an object of the mission."""


def _hand_classes() -> np.ndarray:
    classes = np.full(NUM_CODES, HANDS - 1)
    classes[EMPTY] = 0
    for color in range(len(COLORS)):
        classes[[KEY + color, KEY + color + TARGET]] = 1 + color
    return classes


HAND_CLASS = _hand_classes()
"""Class of every code in the hand, int64 `[256]`."""


def _outcomes() -> np.ndarray:
    table = np.zeros((len(ACTIONS), HANDS, NUM_CODES), np.int64)
    code, hand = np.arange(NUM_CODES)[None, :], np.arange(HANDS)[:, None]
    content, mark = code & CONTENT, code & TARGET
    table[:] = code
    table[LEFT] |= 3 << TURN_BIT
    table[RIGHT] |= 1 << TURN_BIT
    table[FORWARD] |= (
        np.where(IS_WALKABLE, 1 << MOVE_BIT, 0)
        | np.where(content == GOAL, AT_GOAL, 0)
        | np.where(content == LAVA, IN_LAVA, 0)
    )
    picked, full = IS_PORTABLE & (hand == 0), hand > 0
    table[PICK_UP] |= np.where(picked, 1 << SWAP_BIT | np.where(mark > 0, PICKED_TARGET, PICKED_OTHER), 0)
    table[PICK_UP] |= np.where(full, PICKED_OTHER, 0)
    table[DROP] |= np.where((code == EMPTY) & full, 1 << SWAP_BIT, 0)
    color = content - LOCKED_DOOR
    unlocked = IS_LOCKED_DOOR & (hand == 1 + color)
    opened = unlocked | IS_CLOSED_DOOR
    inside = (content - BOX) % BOX_CONTENTS
    toggled = code + 0 * hand
    toggled = np.where(IS_CLOSED_DOOR, code + OPEN_DOOR - CLOSED_DOOR, toggled)
    toggled = np.where(unlocked, code + OPEN_DOOR - LOCKED_DOOR, toggled)
    toggled = np.where(IS_OPEN_DOOR, code + CLOSED_DOOR - OPEN_DOOR, toggled)
    toggled = np.where(IS_BOX, np.where(inside == 0, EMPTY, KEY + inside - 1), toggled)
    right_one = opened & (mark > 0)
    table[TOGGLE] = toggled | np.where(right_one, OPENED_TARGET, np.where(IS_DOOR, OPENED_OTHER, 0))
    return table.reshape(-1)


OUTCOME = _outcomes()
"""Outcomes by `(action * 8 + hand class) * 256 + code ahead`, int64 `[14336]`."""
