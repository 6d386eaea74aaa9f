"""How levels are drawn: numbers for a whole batch at once, choices among cells, and tries until a level is valid."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from palaestra.envs.arrays import namespace_of
from palaestra.envs.grid.cells import EMPTY, WALL
from palaestra.envs.grid.tables import table_on
from palaestra.envs.noise import CounterKey
from palaestra.envs.simulator import map_arrays, take_rows
from palaestra.protocols import Array, Key

_LANES = 256
"""Rows up to which further tries are made side by side: fewer cost the same time."""

_MAX_TRIES = 100_000


@dataclass(frozen=True)
class Level:
    """Levels, one a row.

    Attributes:
        cells: Codes, uint8 `[batch, width * height]`.
        place: The agent's cell, int64 `[batch]`.
        direction: int64 `[batch]`.
        mission: Number of the mission, int64 `[batch]`.
        valid: Bool `[batch]`: whether the level may be played; where not, it is drawn anew.
    """

    cells: Array
    place: Array
    direction: Array
    mission: Array
    valid: Array


class LevelDraws:
    """Random numbers for one try at a level of every row, each a new one.

    Args:
        seed: int64 `[batch]`, the level's own.
        attempt: Number of the try, `[batch]` or one for all.
        ahead: Numbers drawn at a time.
    """

    def __init__(self, seed: Array, attempt: Array, ahead: int) -> None:
        self._key = CounterKey(seed, attempt)
        self.xp = namespace_of(self._key.seed)
        self.batch = self._key.batch
        self.rows = self.xp.arange(self.batch, device=self._key.seed.device)
        self._ahead, self._drawn, self._used = ahead, 0, 0
        self._block: Array | None = None

    def uniform(self, size: int | None = None) -> Array:
        """Return numbers uniform on [0, 1), float64 `[batch]`, or `[batch, size]`."""
        count = size or 1
        if self._block is None or self._used + count > self._block.shape[1]:
            self._block = self._key.at(step=self._drawn + 0 * self._key.seed).uniform(
                "level", (max(self._ahead, count),)
            )
            self._drawn, self._used = self._drawn + 1, 0
        self._used += count
        return self._block[:, self._used - 1 if size is None else slice(self._used - count, self._used)]

    def below(self, count: int | Array, size: int | None = None) -> Array:
        """Return integers uniform on {0, ..., count - 1}, int64 `[batch]`, or `[batch, size]`.

        Args:
            count: One for all, or an array that fits the shape.
            size: Numbers for each row, or None for one without an axis of its own.
        """
        return self.xp.astype(self.uniform(size) * count, self.xp.int64)

    def among(self, *counts: int, size: int | None = None) -> list[Array]:
        """Return independent integers, each below one of the counts, of a single uniform number; shapes as `below`."""
        rest, parts = self.below(math.prod(counts), size), []
        for count in counts:
            parts.append(rest % count)
            rest = rest // count
        return parts

    def choose(self, mask: Array) -> tuple[Array, Array]:
        """Return the index of a column of `mask` `[batch, n]` drawn among the true ones, and whether there is one."""
        xp = self.xp
        counts = xp.cumulative_sum(xp.astype(mask, xp.int32), axis=1)
        total = counts[:, -1]
        index = xp.sum(xp.astype(counts <= self.below(total)[:, None], xp.int64), axis=1)
        found = total > 0
        return xp.where(found, index, 0 * index), found

    def full(self, value: int) -> Array:
        """Return int64 `[batch]` of one value."""
        return 0 * self.rows + value

    def always(self) -> Array:
        """Return bools `[batch]`, all true."""
        return self.rows >= 0


def draw_levels(draw: Callable[[LevelDraws], Level], ahead: int, key: Key) -> Level:
    """Return a valid level for every row.

    The tries of a row are numbered and the first valid one counts, whatever other rows are drawn beside it.

    Args:
        draw: Makes one try.
        ahead: Numbers that a try takes.
        key: Noise of the start of the episode; draw "level".

    Raises:
        RuntimeError: If a hundred thousand tries at a level fail.
    """
    words = key.integers("level", 2**31, (2,))
    seed = (words[:, 0] << 31) | words[:, 1]
    xp = namespace_of(seed)
    level = draw(LevelDraws(seed, 0 * seed, ahead))
    missing, tried = xp.nonzero(~level.valid)[0], 1
    while missing.shape[0]:
        if tried > _MAX_TRIES:
            raise RuntimeError(f"draw_levels: no valid level in {_MAX_TRIES} tries; expected a roomier world")
        width = max(1, _LANES // int(missing.shape[0]))
        rows = xp.reshape(xp.broadcast_to(missing[:, None], (missing.shape[0], width)), (-1,))
        attempts = xp.arange(tried, tried + width, device=seed.device)
        attempts = xp.reshape(xp.broadcast_to(attempts, (missing.shape[0], width)), (-1,))
        more = draw(LevelDraws(seed[rows], attempts, ahead))
        valid = xp.astype(xp.reshape(more.valid, (-1, width)), xp.int64)
        best, found = xp.argmax(valid, axis=1), xp.max(valid, axis=1) > 0
        source = (xp.arange(best.shape[0], device=seed.device) * width + best)[found]
        level = _with_rows(level, missing[found], take_rows(more, source))
        missing, tried = missing[~found], tried + width
    return level


def _with_rows(level: Level, rows: Array, other: Level) -> Level:
    def put(array: Array, part: Array) -> Array:
        array[rows] = part
        return array

    return map_arrays(put, level, other)


def walled(width: int, height: int) -> np.ndarray:
    """Return an empty grid with walls around, uint8 `[width, height]`."""
    cells = np.full((width, height), WALL, np.uint8)
    cells[1:-1, 1:-1] = EMPTY
    return cells


def copies(template: np.ndarray, draws: LevelDraws) -> Array:
    """Return a template `[width, height]` for every row, uint8 `[batch, width * height]`."""
    one = table_on(template, draws.rows)
    return draws.xp.tile(draws.xp.reshape(one, (1, -1)), (draws.batch, 1))


def other_than(index: Array, taken: Array) -> Array:
    """Return an index drawn below `n - 1` as one below `n` that is not `taken`."""
    return index + namespace_of(index).astype(index >= taken, index.dtype)


def put(cells: Array, rows: Array, place: Any, code: Any) -> None:
    """Write a code into one cell of every row of fresh levels."""
    cells[rows, place] = namespace_of(cells).astype(code, cells.dtype) if hasattr(code, "dtype") else code
