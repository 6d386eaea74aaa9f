"""The view of the agent against MiniGrid's own slicing, turning and lighting, on any grid."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import minigrid  # noqa: F401  (registers its ids)
import numpy as np
import pytest
import torch
from minigrid.core.grid import Grid
from minigrid.core.world_object import WorldObj

from palaestra.envs.grid.cells import (
    BALL,
    BOX,
    CLOSED_DOOR,
    EMPTY,
    ENCODING,
    GOAL,
    IS_CLOSED_DOOR,
    IS_LOCKED_DOOR,
    KEY,
    LAVA,
    LOCKED_DOOR,
    NUM_CODES,
    OPAQUE,
    OPEN_DOOR,
    TARGET,
    WALL,
    codes_of,
)
from palaestra.envs.grid.view import LIGHT, full_view, partial_view, window_table

CONTENTS = (EMPTY, GOAL, LAVA, KEY + 3, BALL + 1, BOX + 14, OPEN_DOOR + 4, CLOSED_DOOR + 5, LOCKED_DOOR, WALL)


def random_grids(rows: int, width: int, height: int, seed: int, opaque: float) -> dict[str, np.ndarray]:
    """Grids with walls around and anything inside; the agent on an empty cell, anywhere inside."""
    rng = np.random.default_rng(seed)
    share = np.array([0.6 - opaque, *[0.4 / 6] * 6, *[opaque / 3] * 3])
    cells = np.full((rows, width, height), WALL, np.uint8)
    inside = rng.choice(np.array(CONTENTS), (rows, width - 2, height - 2), p=share / share.sum())
    cells[:, 1:-1, 1:-1] = inside + TARGET * (rng.random(inside.shape) < 0.2) * (inside != EMPTY)
    x, y = rng.integers(1, width - 1, rows), rng.integers(1, height - 1, rows)
    cells[np.arange(rows), x, y] = EMPTY
    return {
        "cells": cells,
        "place": x * height + y,
        "direction": rng.integers(0, 4, rows),
        "carried": rng.choice([EMPTY, KEY + 2, BOX + 7, BALL + 4 + TARGET], rows),
    }


def their_image(env: Any, grids: dict[str, np.ndarray], row: int, see_through: bool) -> np.ndarray:
    cells = grids["cells"][row]
    env.grid = Grid.decode(ENCODING[cells])[0]
    env.width, env.height = cells.shape
    env.agent_pos = tuple(int(part) for part in divmod(grids["place"][row], cells.shape[1]))
    env.agent_dir = int(grids["direction"][row])
    env.carrying = WorldObj.decode(*ENCODING[grids["carried"][row]])
    env.see_through_walls = see_through
    image: np.ndarray = env.gen_obs()["image"]
    return image


@pytest.mark.parametrize(("width", "height", "opaque"), [(8, 8, 0.1), (5, 9, 0.3), (25, 25, 0.2), (3, 3, 0.0)])
@pytest.mark.parametrize("see_through", [False, True])
def test_images_are_those_of_minigrid(width: int, height: int, opaque: float, see_through: bool) -> None:
    env: Any = gym.make("MiniGrid-Empty-8x8-v0", disable_env_checker=True).unwrapped
    env.reset(seed=0)
    grids = random_grids(101, width, height, seed=width, opaque=opaque)
    images = partial_view(**grids, see_through=see_through)
    assert (images.dtype, images.shape, images.flags.c_contiguous) == (np.uint8, (101, 7, 7, 3), True)
    for row in range(101):
        np.testing.assert_array_equal(images[row], their_image(env, grids, row, see_through))


@pytest.mark.parametrize("rows", [1, 2, 7, 8, 1023, 1024, 1025, 2051])
def test_rows_do_not_depend_on_the_batch_nor_on_the_library(rows: int) -> None:
    grids = random_grids(2051, 9, 7, seed=5, opaque=0.15)
    whole = partial_view(**grids)
    part = {name: array[:rows] for name, array in grids.items()}
    np.testing.assert_array_equal(partial_view(**part), whole[:rows])
    tensors = {name: torch.as_tensor(array) for name, array in part.items()}
    for see_through in (False, True):
        ours, theirs = partial_view(**part, see_through=see_through), partial_view(**tensors, see_through=see_through)
        np.testing.assert_array_equal(theirs.numpy(), ours)


def test_arguments_are_left_as_they_are() -> None:
    grids = random_grids(9, 8, 8, seed=1, opaque=0.2)
    kept = {name: array.copy() for name, array in grids.items()}
    partial_view(**grids)
    full_view(grids["cells"], grids["place"], grids["direction"])
    for name, array in grids.items():
        np.testing.assert_array_equal(array, kept[name])


def test_light_passes_no_opaque_cell_and_all_others() -> None:
    """From one lit cell: without obstacles the whole row and three cells ahead of each; a blocked one lights itself."""
    spread = sum(1 << 7 * i for i in range(7))
    assert LIGHT[(0b0001000 << 7) | 0] == spread | 0b1111111 << 50
    assert LIGHT[(0b0001000 << 7) | 0b0001000] == 1 << 21
    # Light that comes from the left stops at an opaque cell, which is lit itself, and passes it on no side.
    assert LIGHT[(0b0000001 << 7) | 0b0000100] == (1 | 1 << 7 | 1 << 14) | 0b0000111 << 50


def test_windows_are_turned_with_the_agent() -> None:
    table = window_table(20, 20).reshape(20, 20, 4, 7, 7)
    here = 10 * 20 + 10
    assert (table[10, 10, :, 3, 6] == here).all()
    ahead = table[10, 10, :, 3, 5] - here
    np.testing.assert_array_equal(ahead, [20, 1, -20, -1])
    np.testing.assert_array_equal(table[10, 10, :, 4, 6] - here, [1, -20, -1, 20])
    assert table[1, 1, 2, 3, 0] == 0


def test_full_views_show_the_agent() -> None:
    grids = random_grids(5, 6, 9, seed=2, opaque=0.1)
    images = full_view(grids["cells"], grids["place"], grids["direction"])
    for row in range(5):
        expected = ENCODING[grids["cells"][row]]
        expected.reshape(-1, 3)[grids["place"][row]] = 10, 0, grids["direction"][row]
        np.testing.assert_array_equal(images[row], expected)
    tensors = [torch.as_tensor(grids[name]) for name in ("cells", "place", "direction")]
    np.testing.assert_array_equal(full_view(*tensors).numpy(), images)


def test_the_bit_of_opacity_is_that_of_walls_and_shut_doors() -> None:
    opaque = (np.arange(NUM_CODES) & OPAQUE) > 0
    known = ENCODING[:, 0] > 0
    expected = codes_of(WALL, 1) | IS_CLOSED_DOOR | IS_LOCKED_DOOR
    # The agent's own codes are made for full views, which nothing blocks.
    others = known & (ENCODING[:, 0] != 10)
    np.testing.assert_array_equal(opaque[others], expected[others])
