"""The noise clock of a running world: where every row stands, and its keys, drawn many steps ahead."""

from __future__ import annotations

from typing import Any

import numpy as np

from palaestra.envs.noise import BlockKey, CounterKey, Draws, NoiseBlock
from palaestra.protocols import Array, Key

_LANES = 16384
"""Lanes drawn ahead at a time, over all rows, while all rows start their episodes together."""

_UNEVEN_LANES = 4096
"""The same where they do not: part of what is drawn ahead is then thrown away."""

_MAX_SLOTS = 256

_MIN_SLOTS = 8
"""With fewer slots (batches of many hundred rows that do not start together), steps are drawn when they come."""

_MIN_STARTS = 4
"""With fewer slots (batches of thousands of rows), starts are drawn when they come, for the rows that start alone."""


class KeyStream:
    """Where every row of a running world stands, and the keys of its next moments, drawn many steps ahead.

    Nothing is drawn before a key is asked for a draw, and drawing ahead changes no value: it only spares single steps
    the cost of some hundred array calls.

    Args:
        batch: Number of rows.

    Attributes:
        seed, episode, step, branch: int64 arrays `[batch]`; replaced by every change, never written to.
    """

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.seed = self.episode = self.branch = np.zeros(batch, np.int64)
        # The step of each row is its base plus the number of steps that all rows have made since the stream was
        # placed, so that a step without an end costs no array operation; `_highest` is no base's less.
        self._base, self._ahead, self._highest = self.seed, 0, 0
        self._slots, self._uneven_slots = _slots(_LANES, batch), _slots(_UNEVEN_LANES, batch)
        self._longest = 0
        self._uneven = False
        self._forget()

    def _forget(self) -> None:
        """Drop what was drawn ahead."""
        self._steps: NoiseBlock | None = None
        self._starts: NoiseBlock | None = None
        self._start_episode = self._first_episode = self.episode
        self._length = 0
        # Slot of each row's next transition less `_ahead`, and end of its present episode in the block: ints while all
        # rows agree.
        self._cursor: Any = 0
        self._end: Any = 0

    @property
    def step(self) -> np.ndarray:
        """Transitions made in the present episode, int64 `[batch]`."""
        return self._base + self._ahead

    def place(self, seed: Array, episode: Array = 0, step: Array = 0, branch: Array = 0) -> None:
        """Put the rows at the given moments; scalars hold for all rows."""
        self.seed, self.episode, self._base, self.branch = (
            np.broadcast_to(np.asarray(word, dtype=np.int64), (self.batch,)).copy()
            for word in (seed, episode, step, branch)
        )
        self._ahead, self._highest = 0, int(self._base.max())
        self._forget()

    def start(self, ahead: int = 0, rows: np.ndarray | None = None) -> Key:
        """Return the key of the start of the present episode, or of the one `ahead` of it.

        Args:
            ahead: Number of episodes ahead.
            rows: Numbers of the rows `[rows]` that start, which are the rows of the key; None for all.
        """
        if rows is not None and self._slots < _MIN_STARTS:
            return CounterKey(self.seed[rows], self.episode[rows] + ahead, 0, self.branch[rows])
        index = (self.episode if rows is None else self.episode[rows]) + ahead
        index = index - (self._start_episode if rows is None else self._start_episode[rows])
        first, last = (int(index[0]),) * 2 if len(index) == 1 else (int(index.min()), int(index.max()))
        if self._starts is None or first < 0 or last >= self._starts.slots:
            self._starts = self._block(self._slots, self.episode + ahead, 0)
            self._start_episode = self.episode + ahead
            return self._starts.at(0, rows)
        return self._starts.at(first if first == last else index, rows)

    def transition(self) -> Key:
        """Return the key of the next transition of every row."""
        return _NextKey(self)

    def advance(self) -> None:
        """Move every row one step on."""
        self._ahead += 1

    def reached(self, step: int) -> np.ndarray | None:
        """Return which rows have made `step` transitions of their episode or more `[batch]`; None where none has."""
        if self._highest + self._ahead < step:
            return None
        self._highest = int(self._base.max())
        return None if self._highest + self._ahead < step else self._base >= step - self._ahead

    def restart(self, rows: np.ndarray | None = None) -> None:
        """Move rows to the start of their next episode: a mask `[batch]`, numbers of rows, or None for all."""
        if rows is not None and rows.dtype == bool:
            rows = np.flatnonzero(rows)
        if rows is None or len(rows) == self.batch:
            self._longest = max(self._longest, int(self._base.max()) + self._ahead)
            self.episode = self.episode + 1
            self._base = np.full(self.batch, -self._ahead)
            self._highest = -self._ahead
        else:
            self._uneven = True
            self._longest = max(self._longest, int(self._base[rows].max(initial=-self._ahead)) + self._ahead)
            self.episode, self._base = self.episode.copy(), self._base.copy()
            self.episode[rows] += 1
            self._base[rows] = -self._ahead
            if self._uneven_slots < _MIN_SLOTS:
                self._steps = None
        if self._steps is not None:
            self._move_cursor(rows, self._steps.slots)

    def _move_cursor(self, rows: np.ndarray | None, slots: int) -> None:
        length = self._length
        everywhere = rows is None or len(rows) == self.batch
        if everywhere and isinstance(self._end, int):
            end = int(self.episode[0] - self._first_episode[0] + 1) * length
            self._end, self._cursor = end, (end - length if end <= slots else end) - self._ahead
            return
        chosen = np.arange(self.batch) if rows is None else rows
        ends = (self.episode[chosen] - self._first_episode[chosen] + 1) * length
        self._end, self._cursor = (np.array(np.broadcast_to(part, (self.batch,))) for part in (self._end, self._cursor))
        self._end[chosen] = ends
        self._cursor[chosen] = np.where(ends <= slots, ends - length, ends) - self._ahead

    def __getstate__(self) -> dict[str, Any]:
        # What was drawn ahead is a function of the rest.
        return {name: getattr(self, name) for name in ("batch", "seed", "episode", "step", "branch")}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        self.__init__(saved["batch"])  # type: ignore[misc]
        self.place(saved["seed"], saved["episode"], saved["step"], saved["branch"])

    def next_key(self) -> BlockKey | CounterKey:
        """Return the key of the next transition, out of the block of steps drawn ahead where drawing ahead pays."""
        if self._uneven and self._uneven_slots < _MIN_SLOTS:
            return CounterKey(self.seed, self.episode, self.step + 1, self.branch)
        slot = self._cursor + self._ahead
        if self._steps is None or (slot >= self._end if isinstance(slot, int) else bool((slot >= self._end).any())):
            self._steps = self._draw_ahead()
            slot = 0
        return self._steps.at(slot)

    def _draw_ahead(self) -> NoiseBlock:
        """Draw the coming steps of the present episode and, where episodes are short, the first steps of the next."""
        if self._uneven:
            slots = self._uneven_slots
            length = max(1, min(self._longest, slots // 4))
        else:
            slots = self._slots
            length = self._longest if 0 < 2 * self._longest <= slots else slots
        episodes = slots // length
        offset, step = (part.reshape(-1, 1) for part in np.divmod(np.arange(episodes * length), length))
        self._first_episode = self.episode
        self._length, self._cursor, self._end = length, -self._ahead, length
        # The present episode goes on from the present step; the following ones begin at their first.
        return self._block(episodes * length, self.episode, 1 + step + np.where(offset == 0, self.step, 0), offset)

    def _block(self, slots: int, episode: Array, step: Any, offset: Any = None) -> NoiseBlock:
        offset = np.arange(slots).reshape(-1, 1) if offset is None else offset
        shape = (slots, self.batch)
        moments = (self.seed, episode + offset, step, self.branch)
        return NoiseBlock(*(np.broadcast_to(np.asarray(word, np.int64), shape) for word in moments))


class _NextKey(Draws):
    """The key of a stream's next transition, found when it is first asked for a draw: most steps of most worlds ask."""

    __slots__ = ("_found", "_moment", "_stream")

    def __init__(self, stream: KeyStream) -> None:
        self._stream = stream
        self._moment = (stream.seed, stream.episode, stream._base, stream.branch, stream._ahead)
        self._found: BlockKey | CounterKey | None = None

    @property
    def batch(self) -> int:
        """Number of rows."""
        return self._stream.batch

    def _draw(self, kind: str, name: str, size: tuple[int, ...], bound: int) -> Array:
        if self._found is None:
            self._found = self._find()
        return self._found._draw(kind, name, size, bound)

    def _find(self) -> BlockKey | CounterKey:
        stream = self._stream
        seed, episode, base, branch, ahead = self._moment
        if base is stream._base and ahead == stream._ahead:
            return stream.next_key()
        # The stream has moved on; the key has not.
        return CounterKey(seed, episode, base + (ahead + 1), branch)


def _slots(lanes: int, batch: int) -> int:
    return max(1, min(_MAX_SLOTS, lanes // max(batch, 1)))
