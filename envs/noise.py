"""Counter-keyed noise: every random number of a world is a pure function of where and when it is drawn.

A draw is keyed by the row's seed, the episode, the step, the branch and its own name, through Philox4x32-10
(Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011). So a row of a batch draws
what the single world with the same seed draws, a restored state replays its noise or branches off it, and adding a
draw to a world shifts no other. NumPy and torch give the same words bit for bit.

Layout of one Philox block, in 32-bit words:

    key      (seed low, seed high)
    counter  (block index, step, episode, crc32(name) low half << 16 | branch)

A block yields two doubles of 53 bits, or two integers from 64 bits each. Step 0 is the start of an episode; the
transition number t of the episode (t = 1, 2, ...) draws at step t.
"""

from __future__ import annotations

import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from palaestra.protocols import Array, Key

MAX_SEED = 2**63 - 1
MAX_BRANCH = 2**16 - 1
_MASK = 0xFFFFFFFF
_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_TWO_PI = 2.0 * math.pi
_CHUNK = 4096
"""Lanes drawn at a time on NumPy: the temporaries of one chunk stay inside the processor's cache."""

_MAX_BLOCK = 1 << 22
"""Values above which a block is not drawn ahead: it would not pay for its memory."""

Words = tuple[Array, Array, Array, Array]
Pair = Callable[[Words, ModuleType, bool], tuple[Array, Array | None]]


@lru_cache(maxsize=4096)
def stream_code(name: str) -> int:
    """Return the 16-bit code of a named draw, the low half of its CRC-32."""
    return zlib.crc32(name.encode()) & 0xFFFF


def child_branch(branch: Array, choice: Array) -> Array:
    """Return the branch `[batch]` that a restored state continues in.

    Choice 0 keeps the snapshot's own branch, and so replays it; each other choice leads to a branch of its own,
    different from the snapshot's and from that of every other choice.

    Args:
        branch: Branch of the snapshot, 0 to 65535.
        choice: 0 to 65535.
    """
    return (branch + choice * (2 * 40503 * branch + 1)) & 0xFFFF


def check_branch(branch: Any) -> np.ndarray:
    """Return branches as an int64 array.

    Raises:
        ValueError: If a branch lies outside 0 to 65535 or is no integer.
    """
    array = np.asarray(branch)
    if array.dtype.kind not in "iu" or array.size == 0 or int(array.min()) < 0 or int(array.max()) > MAX_BRANCH:
        raise ValueError(f"branch={branch!r}; expected integers from 0 to {MAX_BRANCH}")
    return array.astype(np.int64)


def philox4x32(counter: Words, key: tuple[Array, Array], rounds: int = 10) -> Words:
    """Return the four output words of Philox4x32 for every lane.

    Args:
        counter: Four arrays of equal shape holding 32-bit words, as int64 (torch) or int64 or uint64 (NumPy).
        key: Two such arrays.
        rounds: Number of rounds; 10 is the published generator.

    Returns:
        Four int64 arrays with values from 0 to 2**32 - 1.
    """
    if isinstance(counter[0], np.ndarray):
        c0, c1, c2, c3, k0, k1 = (word.astype(np.uint64) for word in (*counter, *key))
        return _philox_in_place((c0, c1, c2, c3), (k0, k1), rounds)
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(rounds):
        first, second = c0 * _M0, c2 * _M1
        c0, c1, c2, c3 = (
            (second >> 32) & _MASK ^ c1 ^ k0,
            second & _MASK,
            (first >> 32) & _MASK ^ c3 ^ k1,
            first & _MASK,
        )
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return c0, c1, c2, c3


def _philox_in_place(counter: Words, key: tuple[Array, Array], rounds: int = 10) -> Words:
    """The same on NumPy arrays of uint64, which it uses up: without temporaries, for most of noise's cost is here."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    # Kept in the upper halves, the keys wrap around at 32 bits by themselves.
    k0 <<= 32
    k1 <<= 32
    first, second = np.empty_like(c0), np.empty_like(c0)
    for _ in range(rounds):
        np.multiply(c0, _M0, first)
        np.multiply(c2, _M1, second)
        for product, word, low, round_key in ((second, c0, c1, k0), (first, c2, c3, k1)):
            np.bitwise_xor(product, round_key, word)
            np.right_shift(word, 32, word)
            np.bitwise_xor(word, low, word)
            np.bitwise_and(product, _MASK, low)
        np.add(k0, _W0 << 32, k0)
        np.add(k1, _W1 << 32, k1)
    return c0.view(np.int64), c1.view(np.int64), c2.view(np.int64), c3.view(np.int64)


def _double(high: Array, low: Array, xp: ModuleType) -> Array:
    bits = ((high >> 5) << 26) | (low >> 6)
    return xp.astype(bits, xp.float64) * 2.0**-53


def _uniform_pair(words: Words, xp: ModuleType, both: bool) -> tuple[Array, Array | None]:
    return _double(words[0], words[1], xp), _double(words[2], words[3], xp) if both else None


def _normal_pair(words: Words, xp: ModuleType, both: bool) -> tuple[Array, Array | None]:
    # Box and Muller (1958); 1 - u lies in (0, 1], where the logarithm is finite.
    radius = xp.sqrt(-2.0 * xp.log(1.0 - _double(words[0], words[1], xp)))
    angle = _TWO_PI * _double(words[2], words[3], xp)
    return radius * xp.cos(angle), radius * xp.sin(angle) if both else None


def _integer_pair(bound: int) -> Pair:
    def scale(high: Array, low: Array) -> Array:
        # floor(bound * word / 2**64) for the 64-bit word (high, low): each value's probability is off by < 2**-64.
        return (high * bound + ((low * bound) >> 32)) >> 32

    def pair(words: Words, xp: ModuleType, both: bool) -> tuple[Array, Array | None]:
        return scale(words[0], words[1]), scale(words[2], words[3]) if both else None

    return pair


def _transform(kind: str, bound: int) -> Pair:
    if kind == "uniform":
        return _uniform_pair
    if kind == "normal":
        return _normal_pair
    if not 1 <= bound <= 2**31:
        raise ValueError(f"integers: high={bound}; expected an integer from 1 to 2**31")
    return _integer_pair(bound)


class Draws(ABC):
    """The three methods of `Key`, over one method `_draw(kind, name, size, bound)`."""

    __slots__ = ()

    @abstractmethod
    def _draw(self, kind: str, name: str, size: tuple[int, ...], bound: int) -> Array:
        """Return a draw of the given kind ("uniform", "normal" or "integers", below `bound`), `[batch, *size]`."""

    def uniform(self, name: str, size: tuple[int, ...] = ()) -> Array:
        """Return float64 draws, uniform on [0, 1) with 53 bits, of shape `[batch, *size]`."""
        return self._draw("uniform", name, size, 0)

    def normal(self, name: str, size: tuple[int, ...] = ()) -> Array:
        """Return float64 standard normal draws of shape `[batch, *size]`."""
        return self._draw("normal", name, size, 0)

    def integers(self, name: str, high: int, size: tuple[int, ...] = ()) -> Array:
        """Return int64 draws, uniform on {0, ..., high - 1} with 1 <= high <= 2**31, of shape `[batch, *size]`."""
        return self._draw("integers", name, size, high)


class CounterKey(Draws):
    """The noise of one moment (seed, episode, step, branch) of every row; implements `palaestra.protocols.Key`.

    Args:
        seed: Row seeds `[batch]`, 0 to 2**63 - 1: a sequence of ints, a NumPy array or a torch tensor.
        episode: Episode number `[batch]` or one for all rows, 0 to 2**32 - 1.
        step: Step of the episode `[batch]` or one for all rows, 0 to 2**32 - 1.
        branch: Branch `[batch]` or one for all rows, 0 to 65535.
        xp: Array namespace of the draws; by default that of `seed`, and NumPy for a sequence of ints.
    """

    __slots__ = ("branch", "episode", "seed", "step", "xp")

    def __init__(
        self, seed: Array | Sequence[int], episode: Array = 0, step: Array = 0, branch: Array = 0, xp: Any = None
    ) -> None:
        xp = _namespace(seed, xp)
        self.xp = xp
        self.seed = _int64(seed, xp, None)
        rows = self.seed.shape
        self.episode = _int64(episode, xp, self.seed)
        self.step = _int64(step, xp, self.seed)
        self.branch = _int64(branch, xp, self.seed)
        if len(rows) != 1:
            raise ValueError(f"CounterKey: seed has shape {tuple(rows)}; expected [batch]")
        for name in ("episode", "step", "branch"):
            shape = tuple(getattr(self, name).shape)
            if shape not in ((), tuple(rows)):
                raise ValueError(f"CounterKey: {name} has shape {shape}; expected () or {tuple(rows)}")

    @property
    def batch(self) -> int:
        """Number of rows."""
        return int(self.seed.shape[0])

    def at(self, *, episode: Array = None, step: Array = None, branch: Array = None) -> CounterKey:
        """Return the key of the same rows at another moment."""
        return CounterKey(
            self.seed,
            self.episode if episode is None else episode,
            self.step if step is None else step,
            self.branch if branch is None else branch,
            self.xp,
        )

    def _draw(self, kind: str, name: str, size: tuple[int, ...], bound: int) -> Array:
        rows, count = self.batch, math.prod(size)
        pair, blocks, code = _transform(kind, bound), (count + 1) // 2, stream_code(name) << 16
        chunk = max(rows if self.xp is not np or rows * blocks <= 2 * _CHUNK else _CHUNK // blocks, 1)
        parts = [
            self._draw_rows(slice(start, start + chunk), blocks, code, pair, count > 1)
            for start in range(0, max(rows, 1), chunk)
        ]
        values = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return self.xp.reshape(values[:, :count], (rows, *size))

    def _draw_rows(self, rows: slice, blocks: int, code: int, pair: Pair, both: bool) -> Array:
        """Return the values of some rows, one for each block or, where `both` are wanted, two, `[rows, values]`."""
        xp, shape = self.xp, (self.seed[rows].shape[0], blocks)

        def lanes(word: Array) -> Array:
            word = word & _MASK
            return _spread(word[rows][:, None] if word.ndim else word, shape, xp)

        block = _spread(_arange(blocks, xp, self.seed), shape, xp)
        counter = (block, lanes(self.step), lanes(self.episode), lanes(self.branch | code))
        key = (lanes(self.seed), lanes(self.seed >> 32))
        words = _philox_in_place(counter, key) if xp is np else philox4x32(counter, key)
        first, second = pair(words, xp, both)
        if second is None:
            return first
        if xp is not np:
            return xp.reshape(xp.stack((first, second), -1), (shape[0], 2 * blocks))
        values = np.empty((shape[0], blocks, 2), first.dtype)
        values[..., 0], values[..., 1] = first, second
        return values.reshape(shape[0], 2 * blocks)


def _namespace(seed: Any, xp: Any) -> Any:
    if xp is None:
        return np if isinstance(seed, np.ndarray) or not hasattr(seed, "ndim") else array_namespace(seed)
    # Plain torch is accepted in place of its array-API namespace.
    return array_namespace(xp.zeros(0)) if xp is not np else np


def _int64(value: Any, xp: Any, like: Array | None) -> Array:
    if xp is np:
        if isinstance(value, np.ndarray) and value.dtype == np.int64:
            return value
        array = np.asarray(value)
        if array.dtype.kind not in "iu" or (array.size and (int(array.min()) < 0 or int(array.max()) > MAX_SEED)):
            raise ValueError(f"CounterKey: received {value!r}; expected integers from 0 to 2**63 - 1")
        return array.astype(np.int64)
    device = None if like is None else like.device
    return xp.asarray(value, dtype=xp.int64, **({} if device is None else {"device": device}))


def _spread(word: Array, shape: tuple[int, int], xp: Any) -> Array:
    """Return a word for every lane, `[rows, blocks]`; on NumPy in fresh unsigned memory."""
    if xp is not np:
        return xp.broadcast_to(word, shape)
    lanes = np.empty(shape, np.uint64)
    lanes[...] = word
    return lanes


def _arange(count: int, xp: Any, like: Array) -> Array:
    return np.arange(count, dtype=np.int64) if xp is np else xp.arange(count, dtype=xp.int64, device=like.device)


class NoiseBlock:
    """The noise of many moments at once: each named draw is made for all of them when it is first asked for.

    Args:
        seed, episode, step, branch: int64 arrays `[slots, batch]`, the moment of each slot of each row.
    """

    __slots__ = ("_key", "_rows", "_values", "batch", "slots")

    def __init__(self, seed: Array, episode: Array, step: Array, branch: Array, xp: Any = None) -> None:
        self.slots, self.batch = seed.shape
        self._key = CounterKey(seed.reshape(-1), episode.reshape(-1), step.reshape(-1), branch.reshape(-1), xp)
        self._values: dict[tuple[str, str, tuple[int, ...], int], Array] = {}
        self._rows = _arange(self.batch, self._key.xp, self._key.seed)

    def at(self, slot: int | Array, rows: Array | None = None) -> BlockKey:
        """Return the key of one slot, the same for all rows or one for each.

        Args:
            slot: The slot, or slots, one for each row of the key.
            rows: Numbers of the rows that are the rows of the key; None for all.
        """
        return BlockKey(self, slot, rows)

    def draw(
        self, slot: int | Array, rows: Array | None, kind: str, name: str, size: tuple[int, ...], bound: int
    ) -> Array:
        """Return the draw at a slot, `[batch, *size]`."""
        address = (kind, name, size, bound)
        values = self._values.get(address)
        if values is None:
            if self.slots * self.batch * math.prod(size) > _MAX_BLOCK:
                key = self._key
                flat = self._flat(slot, rows)
                moment = CounterKey(key.seed[flat], key.episode[flat], key.step[flat], key.branch[flat], key.xp)
                return moment._draw(kind, name, size, bound)
            values = self._key._draw(kind, name, size, bound)
            self._values[address] = values
        if rows is None and isinstance(slot, int):
            return values[slot * self.batch : (slot + 1) * self.batch]
        return values[self._flat(slot, rows)]

    def _flat(self, slot: int | Array, rows: Array | None) -> Array:
        return slot * self.batch + (self._rows if rows is None else rows)


class BlockKey(Draws):
    """The key of one slot of a `NoiseBlock`; its values equal those of the `CounterKey` of that moment."""

    __slots__ = ("_block", "_rows", "_slot")

    def __init__(self, block: NoiseBlock, slot: int | Array, rows: Array | None = None) -> None:
        self._block = block
        self._slot = slot
        self._rows = rows

    @property
    def batch(self) -> int:
        """Number of rows."""
        return int(self._block.batch if self._rows is None else self._rows.shape[0])

    def _draw(self, kind: str, name: str, size: tuple[int, ...], bound: int) -> Array:
        return self._block.draw(self._slot, self._rows, kind, name, size, bound)


class NoiseTape:
    """The noise of one whole episode of every row, drawn beforehand: for batched rollouts and paired evaluation.

    Args:
        seeds: Row seeds `[batch]` (a sequence, a NumPy array or a torch tensor; the draws live beside it).
        steps: Number of transitions.
        episode: Episode number.
        branch: Branch, 0 to 65535.
        xp: Array namespace of the draws; by default that of `seeds`.
    """

    def __init__(self, seeds: Array | Sequence[int], steps: int, episode: int = 0, branch: int = 0, xp: Any = None):
        if steps < 1:
            raise ValueError(f"NoiseTape: steps={steps}; expected at least 1")
        self._start = CounterKey(seeds, episode, 0, branch, xp)
        namespace, rows = self._start.xp, self._start.seed
        self.steps, self.batch = steps, self._start.batch
        step = _arange(steps, namespace, rows)[:, None] + 1
        zeros = namespace.zeros_like(rows)[None, :] + namespace.zeros_like(step)
        self._block = NoiseBlock(zeros + rows, zeros + episode, zeros + step, zeros + branch, namespace)

    def at(self, step: int) -> Key:
        """Return the key of transition `step` (1 to `steps`), or of the start of the episode (0)."""
        if not 0 <= step <= self.steps:
            raise ValueError(f"NoiseTape.at: step={step}; expected 0 to {self.steps}")
        return self._start if step == 0 else self._block.at(step - 1)


def draw_tape(
    seeds: Array | Sequence[int], steps: int, *, episode: int = 0, branch: int = 0, xp: Any = None
) -> NoiseTape:
    """Return the tape of the noise that the rows with these seeds meet in one episode; arguments as `NoiseTape`."""
    return NoiseTape(seeds, steps, episode, branch, xp)


class Tape(Draws):
    """A key whose values are given: recorded demand, a hand-made sequence, noise shared between methods.

    Args:
        values: Arrays `[batch, *size]` by name; a draw of any kind returns the array of its name.
    """

    def __init__(self, values: Mapping[str, Array]) -> None:
        batches = {name: int(array.shape[0]) for name, array in values.items()}
        if len(set(batches.values())) != 1:
            raise ValueError(f"Tape: values have batches {batches}; expected at least one array, all of one batch")
        self._values = dict(values)
        self._batch = next(iter(batches.values()))

    @property
    def batch(self) -> int:
        """Number of rows."""
        return self._batch

    def _draw(self, kind: str, name: str, size: tuple[int, ...], bound: int) -> Array:
        if name not in self._values:
            raise KeyError(f"Tape: no values for the draw {name!r}; the tape holds {sorted(self._values)}")
        array = self._values[name]
        if tuple(array.shape[1:]) != tuple(size):
            raise ValueError(f"Tape: {name!r} has shape {tuple(array.shape)}; expected {(self._batch, *size)}")
        return array


class TapeBlock:
    """Given values of many transitions, `[steps, batch, *size]` by name, and of the start, `[batch, *size]`."""

    def __init__(self, values: Mapping[str, Array], start: Mapping[str, Array] | None = None) -> None:
        lengths = {name: int(array.shape[0]) for name, array in values.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(
                f"TapeBlock: values have lengths {lengths}; expected at least one array, all of one length"
            )
        self._values = dict(values)
        self._start = dict(start or {})
        self.steps = next(iter(lengths.values()))
        self.batch = int(next(iter(values.values())).shape[1])

    def at(self, step: int) -> Key:
        """Return the key of transition `step` (1 to `steps`), or of the start of the episode (0)."""
        if step == 0:
            if not self._start:
                raise ValueError("TapeBlock.at: step=0, but the tape holds no values for the start of an episode")
            return Tape(self._start)
        if not 1 <= step <= self.steps:
            raise ValueError(f"TapeBlock.at: step={step}; expected 0 to {self.steps}")
        return Tape({name: array[step - 1] for name, array in self._values.items()})
