"""What the agent sees: the 7 x 7 cells ahead of it, hidden where walls and closed doors block the light.

A window of 49 cells is kept in the order of MiniGrid's image, column `i` (left to right) before row `j` (far to near);
the agent stands in column 3 of row 6. Sight is one machine word a row: bit `7 i + j` says whether a cell is opaque, and
a table of `2^14` entries carries the light of one row to the next.
"""

from __future__ import annotations

import sys
from functools import lru_cache

import numpy as np

from palaestra.envs.arrays import namespace_of
from palaestra.envs.grid.cells import AGENT, ENCODING, OPAQUE
from palaestra.envs.grid.tables import table_on
from palaestra.protocols import Array

VIEW = 7
CELLS = VIEW * VIEW
AGENT_CELL = (VIEW // 2) * VIEW + VIEW - 1
DIRECTIONS = ((1, 0), (0, 1), (-1, 0), (0, -1))
"""Steps (x, y) of facing right, down, left and up; y points down."""

_CHUNK = 1024
"""Rows viewed at a time on NumPy: their temporaries stay inside the processor's cache."""

_ROW_BITS = sum(1 << VIEW * i for i in range(VIEW))
_NEXT = 50
_GATHER = sum(1 << 36 - 6 * i for i in range(VIEW))
_COLUMNS = np.arange(VIEW)


@lru_cache(maxsize=64)
def window_table(width: int, height: int) -> np.ndarray:
    """Return the flat indices of the cells in view, int64 `[width * height * 4, 49]`; row `4 * place + direction`.

    What lies beyond the grid is given as cell 0, a corner: in every world it is a wall or out of sight.
    """
    table = np.zeros((width, height, 4, VIEW, VIEW), np.int64)
    x, y, i, j = np.ogrid[:width, :height, :VIEW, :VIEW]
    for direction, (dx, dy) in enumerate(DIRECTIONS):
        ahead, aside = VIEW - 1 - j, i - VIEW // 2
        seen_x, seen_y = x + dx * ahead - dy * aside, y + dy * ahead + dx * aside
        inside = (seen_x >= 0) & (seen_x < width) & (seen_y >= 0) & (seen_y < height)
        table[:, :, direction] = np.where(inside, seen_x * height + seen_y, 0)
    return table.reshape(-1, CELLS)


def _light_table() -> np.ndarray:
    """Where light that enters a row goes: index `lit << 7 | opaque`, both by column.

    Each entry holds the cells of the row that end up lit, at bits `7 i`, and at bits 50 to 56 those of the next row
    that light passes on to. As in MiniGrid, light spreads sideways to the right first, then to the left.
    """
    lit, opaque = np.divmod(np.arange(1 << 2 * VIEW), 1 << VIEW)
    passed = np.zeros_like(lit)
    for order, side in ((range(VIEW - 1), 1), (range(VIEW - 1, 0, -1), -1)):
        for i in order:
            shines = (lit >> i & 1) & ~(opaque >> i) & 1
            lit |= shines << (i + side)
            passed |= shines << i | shines << (i + side)
    spread = sum((lit >> i & 1) << VIEW * i for i in range(VIEW))
    return spread | passed << _NEXT


LIGHT = _light_table()
_LIT, _PASSED_ON = LIGHT & (1 << _NEXT) - 1, LIGHT >> _NEXT << VIEW
_NEAR_FIRST, _EIGHT = np.arange(VIEW - 1, -1, -1)[:, None], np.arange(8)


def _pair_table() -> np.ndarray:
    """The encodings of two neighbouring cells as the six low bytes of a word, by their codes `first | second << 8`."""
    words = np.zeros((256, 256, 8), np.uint8)
    words[:, :, :3], words[:, :, 3:6] = ENCODING[None, :], ENCODING[:, None]
    return words.reshape(-1).view(np.uint64)


_PAIRS = _pair_table()
_PACKED = sys.byteorder == "little"


def partial_view(cells: Array, place: Array, direction: Array, carried: Array, see_through: bool = False) -> Array:
    """Return MiniGrid's image of every row, uint8 `[batch, 7, 7, 3]`.

    Args:
        cells: Codes, uint8 `[batch, width, height]`.
        place: Flat index of the agent's cell, int64 `[batch]`.
        direction: int64 `[batch]`.
        carried: Code of what is carried, or `EMPTY`, int64 `[batch]`; shown in the agent's cell.
        see_through: Whether nothing blocks the view.
    """
    rows, width, height = cells.shape
    if not (_PACKED and isinstance(cells, np.ndarray)):
        return _any_view(cells, place, direction, carried, see_through)
    windows, flat = window_table(width, height), cells.reshape(-1)
    pose = place * 4 + direction
    # Room for the words that reach over the end of the last row.
    image = np.empty(_whole(rows * CELLS, 8) * 3, np.uint8)
    for start in range(0, rows, _CHUNK):
        part = slice(start, min(start + _CHUNK, rows))
        first = start * width * height
        count = part.stop - start
        index = windows.take(pose[part], axis=0, mode="clip")
        index += np.arange(first, first + count * width * height, width * height)[:, None]
        size = _whole(count, 8) * CELLS
        codes = np.empty(size + 64, np.uint8)
        window = codes[: count * CELLS].reshape(count, CELLS)
        flat.take(index, out=window, mode="clip")
        if not see_through:
            window *= _sight(codes, count)
        window[:, AGENT_CELL] = carried[part]
        cells_out = _whole(count * CELLS, 8)
        _encode(codes[:cells_out], image[start * CELLS * 3 : start * CELLS * 3 + cells_out * 3])
    return image[: rows * CELLS * 3].reshape(rows, VIEW, VIEW, 3)


def _whole(count: int, unit: int) -> int:
    return -(-count // unit) * unit


def _sight(codes: np.ndarray, rows: int) -> np.ndarray:
    """Whether each cell of the windows in `codes` is seen, uint8 `[rows, 49]`."""
    packed = np.packbits(codes & OPAQUE, bitorder="little")
    # Eight windows take 49 bytes; window r of them begins at bit r of byte 6 r.
    groups = _whole(rows, 8) // 8
    board = np.lib.stride_tricks.as_strided(packed, (groups, 8, 8), (CELLS, 6, 1))
    opaque = (np.ascontiguousarray(board).view(np.int64).reshape(groups, 8) >> _EIGHT).reshape(-1)[:rows]
    # The rows of the view, the near one first; the product brings the bits 0, 7, ..., 42 of each together.
    light = opaque >> _NEAR_FIRST
    light &= _ROW_BITS
    light *= _GATHER
    light >>= 36
    light &= 127
    light[0] |= 1 << VIEW // 2 << VIEW
    for row in range(VIEW - 1):
        light[row + 1] |= _PASSED_ON.take(light[row], mode="clip")
    lit = _LIT.take(light, mode="clip")
    lit <<= _NEAR_FIRST
    seen = np.bitwise_or.reduce(lit, axis=0)
    return np.unpackbits(seen.view(np.uint8).reshape(rows, 8), axis=1, count=CELLS, bitorder="little")


def _encode(codes: np.ndarray, image: np.ndarray) -> None:
    """Write three bytes for each code; both of whole groups of eight codes."""
    pairs = _PAIRS.take(codes.view(np.uint16), mode="clip").reshape(-1, 4)
    first, second, third, fourth = (pairs[:, k] for k in range(4))
    words = image.view(np.uint64).reshape(-1, 3)
    np.bitwise_or(first, second << 48, out=words[:, 0])
    np.bitwise_or(second >> 16, third << 32, out=words[:, 1])
    np.bitwise_or(third >> 32, fourth << 16, out=words[:, 2])


def _any_view(cells: Array, place: Array, direction: Array, carried: Array, see_through: bool) -> Array:
    """The same image on any array library, without the machine words."""
    xp = namespace_of(cells)
    rows, width, height = cells.shape
    first = xp.arange(rows, device=cells.device)[:, None] * (width * height)
    index = table_on(window_table(width, height), cells)[place * 4 + direction] + first
    window = xp.astype(xp.reshape(cells, (-1,))[index], xp.int64)
    if not see_through:
        columns = table_on(_COLUMNS, cells)
        opaque = xp.sum(xp.reshape((window & OPAQUE) // OPAQUE, (rows, VIEW, VIEW)) << columns[:, None], axis=1)
        light = xp.full((rows,), 1 << (VIEW // 2 + _NEXT), dtype=xp.int64, device=cells.device)
        lit = []
        for j in range(VIEW - 1, -1, -1):
            light = table_on(LIGHT, cells)[(light >> (_NEXT - VIEW) & 127 << VIEW) | opaque[:, j]]
            lit.append(light[:, None] >> VIEW * columns & 1)
        window = window * xp.reshape(xp.stack(lit[::-1], axis=2), (rows, CELLS))
    window[:, AGENT_CELL] = carried
    return xp.reshape(table_on(ENCODING, cells)[window], (rows, VIEW, VIEW, 3))


def full_view(cells: Array, place: Array, direction: Array) -> Array:
    """Return the encoding of the whole grid, uint8 `[batch, width, height, 3]`; arguments as for `partial_view`.

    The agent's cell is (10, 0, direction), whatever else it holds.
    """
    xp = namespace_of(cells)
    rows, width, height = cells.shape
    codes = xp.astype(xp.reshape(cells, (rows, -1)), xp.int64)
    codes[xp.arange(rows, device=cells.device), place] = AGENT + direction
    return xp.reshape(table_on(ENCODING, cells)[codes], (rows, width, height, 3))
