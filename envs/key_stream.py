"""The noise clock of a running world: where every row stands, and its keys, drawn many steps ahead."""

from __future__ import annotations

from typing import Any

import numpy as np

from palaestra.envs.noise import NoiseBlock
from palaestra.protocols import Array, Key

_LANES = 16384
"""Lanes drawn ahead at a time, over all rows, while all rows start their episodes together."""

_UNEVEN_LANES = 4096
"""The same where they do not: part of what is drawn ahead is then thrown away."""

_MAX_SLOTS = 256


class KeyStream:
    """Where every row of a running world stands, and the keys of its next moments, drawn many steps ahead.

    Drawing ahead changes no value: it only spares single steps the cost of some hundred array calls.

    Args:
        batch: Number of rows.

    Attributes:
        seed, episode, step, branch: int64 arrays `[batch]`; replaced by every change, never written to.
    """

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.seed = self.episode = self.step = self.branch = np.zeros(batch, np.int64)
        self._slots = _slots(_LANES, batch)
        self._longest = 0
        self._uneven = False
        self._steps: NoiseBlock | None = None
        self._starts: NoiseBlock | None = None
        self._start_episode = self._first_episode = self.episode
        self._length = 0
        # Slot of each row's next transition and end of its present episode in the block: ints while all rows agree.
        self._cursor: Any = 0
        self._end: Any = 0

    def place(self, seed: Array, episode: Array = 0, step: Array = 0, branch: Array = 0) -> None:
        """Put the rows at the given moments; scalars hold for all rows."""
        self.seed, self.episode, self.step, self.branch = (
            np.broadcast_to(np.asarray(word, dtype=np.int64), (self.batch,)).copy()
            for word in (seed, episode, step, branch)
        )
        self._steps = self._starts = None

    def start(self, ahead: int = 0) -> Key:
        """Return the key of the start of the present episode, or of the one `ahead` of it."""
        index = self.episode + ahead - self._start_episode
        first, last = (int(index[0]),) * 2 if self.batch == 1 else (int(index.min()), int(index.max()))
        if self._starts is None or first < 0 or last >= self._starts.slots:
            self._starts = self._block(self._slots, self.episode + ahead, 0)
            self._start_episode = self.episode + ahead
            return self._starts.at(0)
        return self._starts.at(first if first == last else index)

    def transition(self) -> Key:
        """Return the key of the next transition of every row."""
        if self._steps is None or (
            self._cursor >= self._end if isinstance(self._cursor, int) else bool((self._cursor >= self._end).any())
        ):
            self._draw_ahead()
        assert self._steps is not None
        return self._steps.at(self._cursor)

    def advance(self) -> None:
        """Move every row one step on."""
        self.step = self.step + 1
        self._cursor = self._cursor + 1

    def restart(self, rows: np.ndarray | None = None) -> None:
        """Move the rows where the mask `[batch]` holds (None: all) to the start of their next episode."""
        everywhere = rows is None or bool(rows.all())
        self._longest = max(self._longest, int(self.step.max() if rows is None else self.step[rows].max(initial=0)))
        if everywhere:
            self.episode = self.episode + 1
            self.step = np.zeros(self.batch, np.int64)
        else:
            assert rows is not None
            self._uneven = True
            self.episode = self.episode + rows
            self.step = np.where(rows, 0, self.step)
        if self._steps is None:
            return
        length, slots = self._length, self._steps.slots
        if everywhere and isinstance(self._cursor, int):
            self._end = int(self.episode[0] - self._first_episode[0] + 1) * length
            self._cursor = self._end - length if self._end <= slots else self._end
            return
        end = (self.episode - self._first_episode + 1) * length
        fresh = np.where(end <= slots, end - length, end)
        self._cursor = fresh if rows is None else np.where(rows, fresh, self._cursor)
        self._end = end if rows is None else np.where(rows, end, self._end)

    def __getstate__(self) -> dict[str, Any]:
        # What was drawn ahead is a function of the rest.
        return {name: getattr(self, name) for name in ("batch", "seed", "episode", "step", "branch")}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        self.__init__(saved["batch"])  # type: ignore[misc]
        self.place(saved["seed"], saved["episode"], saved["step"], saved["branch"])

    def _draw_ahead(self) -> None:
        """Draw the coming steps of the present episode and, where episodes are short, the first steps of the next."""
        if self._uneven:
            slots = _slots(_UNEVEN_LANES, self.batch)
            # With fewer than eight slots, drawing each step when it comes is cheaper than drawing ahead.
            length = max(1, min(self._longest, slots // 4)) if slots >= 8 else 1
            slots = slots if slots >= 8 else 1
        else:
            slots = self._slots
            length = self._longest if 0 < 2 * self._longest <= slots else slots
        episodes = slots // length
        offset, step = (part.reshape(-1, 1) for part in np.divmod(np.arange(episodes * length), length))
        # The present episode goes on from the present step; the following ones begin at their first.
        self._steps = self._block(
            episodes * length, self.episode, 1 + step + np.where(offset == 0, self.step, 0), offset
        )
        self._first_episode = self.episode
        self._length, self._cursor, self._end = length, 0, length

    def _block(self, slots: int, episode: Array, step: Any, offset: Any = None) -> NoiseBlock:
        offset = np.arange(slots).reshape(-1, 1) if offset is None else offset
        shape = (slots, self.batch)
        moments = (self.seed, episode + offset, step, self.branch)
        return NoiseBlock(*(np.broadcast_to(np.asarray(word, np.int64), shape) for word in moments))


def _slots(lanes: int, batch: int) -> int:
    return max(1, min(_MAX_SLOTS, lanes // max(batch, 1)))
