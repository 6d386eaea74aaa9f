"""One byte a cell, and MiniGrid's encoding of it."""

from __future__ import annotations

import numpy as np
import pytest
from minigrid.core.constants import COLOR_NAMES, IDX_TO_COLOR, OBJECT_TO_IDX
from minigrid.core.world_object import Ball, Box, Door, Goal, Key, Lava, Wall

from palaestra.envs.grid import cells
from palaestra.envs.grid.cells import COLORS, ENCODING, TARGET, code_of


def test_colours_and_types_are_numbered_as_in_minigrid() -> None:
    assert [IDX_TO_COLOR[index] for index in range(6)] == list(COLORS)
    assert [COLORS[index] for index in cells.SORTED_COLORS] == COLOR_NAMES
    for name in ("empty", "wall", "door", "key", "ball", "box", "goal", "lava", "agent"):
        assert getattr(cells, f"{name.upper()}_TYPE") == OBJECT_TO_IDX[name]


@pytest.mark.parametrize("color", COLORS)
def test_things_have_codes_that_encode_as_they_do(color: str) -> None:
    index = COLORS.index(color)
    doors = [Door(color, is_open=True), Door(color), Door(color, is_locked=True)]
    codes = [code_of(thing.encode()) for thing in (Key(color), Ball(color), *doors)]
    first = (cells.KEY, cells.BALL, cells.OPEN_DOOR, cells.CLOSED_DOOR, cells.LOCKED_DOOR)
    assert codes == [code + index for code in first]
    boxes = [code_of(Box(color).encode()), *(code_of(Box(color).encode(), content) for content in range(6))]
    assert boxes == [cells.BOX + 7 * index + content for content in range(7)]
    for code in codes + boxes:
        np.testing.assert_array_equal(ENCODING[code], ENCODING[code + TARGET])


def test_codes_of_all_cells_differ() -> None:
    plain = [thing.encode() for thing in (Wall(), Goal(), Lava())]
    assert [code_of(encoding) for encoding in plain] == [cells.WALL, cells.GOAL, cells.LAVA]
    kinds = [cells.IS_KEY, cells.IS_BALL, cells.IS_BOX, cells.IS_DOOR, *(cells.codes_of(code, 1) for code in (1, 2, 3))]
    kinds += [cells.codes_of(cells.WALL, 1), cells.codes_of(cells.AGENT, 4)]
    assert np.sum(kinds, axis=0).max() == 1
    assert [int(kind.sum()) for kind in kinds] == [12, 12, 84, 36, 2, 2, 2, 2, 8]


def test_unknown_cells_are_named() -> None:
    with pytest.raises(ValueError, match=r"encoding=\(3, 2, 0\); expected a wall, door, key"):
        code_of(np.array((3, 2, 0)))
    with pytest.raises(ValueError, match=r"encoding=\(0, 0, 0\)"):
        code_of((0, 0, 0))
