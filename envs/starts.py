"""The next starts of the rows of a vector face, drawn when they are needed or, for costly ones, many together."""

from __future__ import annotations

from typing import Any

import numpy as np

from palaestra.envs.key_stream import KeyStream
from palaestra.envs.noise import CounterKey
from palaestra.envs.simulator import Simulator, map_arrays, take_rows


class Starts:
    """Yields the starts of the next episodes of rows that end; drawing them ahead changes none.

    Args:
        simulator: The world; its `starts_ahead` says how many rows are drawn together.
        noise: Where every row stands.
    """

    def __init__(self, simulator: Simulator[Any], noise: KeyStream) -> None:
        self._simulator, self._noise = simulator, noise
        self._drawn: Any = None
        # Number of the episode whose start is at hand, for each row.
        self._episode = np.full(noise.batch, -1)

    def forget(self) -> None:
        """Drop what was drawn ahead: seeds or branches have changed."""
        self._drawn = None
        self._episode = np.full(self._noise.batch, -1)

    def take(self, rows: np.ndarray) -> Any:
        """Return the starts of the next episodes of some rows, `[len(rows), ...]` each array.

        Args:
            rows: Their indices, int64, in ascending order.
        """
        if not self._simulator.starts_ahead:
            everywhere = len(rows) == self._noise.batch
            return self._simulator.initial(self._noise.start(1, None if everywhere else rows))
        wanted = self._noise.episode + 1
        missing = self._episode != wanted
        if missing[rows].any():
            self._draw_ahead(rows, missing, wanted)
        return take_rows(self._drawn, rows)

    def _draw_ahead(self, rows: np.ndarray, missing: np.ndarray, wanted: np.ndarray) -> None:
        """Draw the missing starts of the given rows, and of others: first of those whose episode is oldest."""
        noise = self._noise
        needed = np.zeros(noise.batch, bool)
        needed[rows] = True
        order = np.argsort(np.where(missing, np.where(needed, -1 - noise.step.max(), -noise.step), 1), kind="stable")
        chosen = order[: min(int(missing.sum()), max(int((missing & needed).sum()), self._simulator.starts_ahead))]
        key = CounterKey(noise.seed[chosen], wanted[chosen], 0, noise.branch[chosen])
        drawn = self._simulator.initial(key)
        if self._drawn is None:
            self._drawn = map_arrays(lambda part: np.zeros((noise.batch, *part.shape[1:]), part.dtype), drawn)

        def put(array: np.ndarray, part: np.ndarray) -> np.ndarray:
            array[chosen] = part
            return array

        self._drawn = map_arrays(put, self._drawn, drawn)
        self._episode[chosen] = wanted[chosen]
