"""Whether the agent can get to every thing without moving any."""

from __future__ import annotations

import numpy as np

from palaestra.envs.arrays import namespace_of
from palaestra.envs.grid.cells import EMPTY, IS_DOOR, WALL
from palaestra.envs.grid.tables import table_on
from palaestra.protocols import Array


def all_reached(cells: Array, place: Array) -> Array:
    """Return whether every door and thing is beside, or on, a cell that the agent can walk to.

    As in BabyAI, doors of any kind are walked through and things are not.

    Args:
        cells: Codes, uint8 `[batch, width, height]`.
        place: The agent's cell `[batch]`.

    Returns:
        Bools `[batch]`.
    """
    xp = namespace_of(cells)
    passable = (cells == EMPTY) | table_on(IS_DOOR, cells)[xp.astype(cells, xp.int64)]
    walked = _walked_by_labels(passable, place) if isinstance(cells, np.ndarray) else _walked(passable, place)
    wanted = (cells != EMPTY) & (cells != WALL)
    return ~xp.any(xp.reshape(wanted & ~spread(walked), (cells.shape[0], -1)), axis=1)


def _walked_by_labels(passable: np.ndarray, place: np.ndarray) -> np.ndarray:
    """The cells `[batch, width, height]` connected with the agent's, by one pass of SciPy over the whole batch."""
    from scipy.ndimage import label

    within_row = np.zeros((3, 3, 3), int)
    within_row[1, 1], within_row[1, :, 1] = 1, 1
    regions, _count = label(passable, within_row)
    own = regions.reshape(len(place), -1)[np.arange(len(place)), place]
    return regions == own[:, None, None]


def _walked(passable: Array, place: Array) -> Array:
    """The same on any array library, step by step."""
    xp = namespace_of(passable)
    rows, width, height = passable.shape
    walked = xp.zeros((rows, width * height), dtype=xp.bool, device=passable.device)
    walked[xp.arange(rows, device=passable.device), place] = True
    walked = xp.reshape(walked, passable.shape)
    while True:
        further = spread(walked) & passable
        if bool(xp.all(further == walked)):
            return walked
        walked = further


def spread(cells: Array) -> Array:
    """Return the true cells of `[batch, width, height]` and their four neighbours."""
    xp = namespace_of(cells)
    wide = xp.asarray(cells, copy=True)
    wide[:, 1:] |= cells[:, :-1]
    wide[:, :-1] |= cells[:, 1:]
    wide[:, :, 1:] |= cells[:, :, :-1]
    wide[:, :, :-1] |= cells[:, :, 1:]
    return wide
