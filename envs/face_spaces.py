"""Between a user and a simulator's arrays: checks of actions on the way in, dtypes of observations on the way out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from palaestra.envs.arrays import rows_replaced
from palaestra.protocols import Array

TOLERANCE = 1e-6
"""How far a Box action may lie outside its bounds (float32 rounding) before it is an error; within, it is clipped."""

Reader = Callable[[Any], Any]


def holds_text(space: gym.Space[Any]) -> bool:
    """Return whether a space is, or contains, a Text space, and so is not made of arrays alone."""
    if isinstance(space, gym.spaces.Dict):
        return any(holds_text(part) for part in space.values())
    if isinstance(space, gym.spaces.Tuple):
        return any(holds_text(part) for part in space)
    return isinstance(space, gym.spaces.Text)


def action_reader(
    space: gym.Space[Any], num_envs: int | None, owner: str, name: str = "action", *, batched: bool = True
) -> Reader:
    """Return the function that checks a user's action and returns it as the simulator's arrays `[batch, ...]`.

    Args:
        space: Action space of one row: Box, Discrete, MultiDiscrete, MultiBinary, or a Dict or Tuple of them.
        num_envs: Number of rows of a vector action, or None for a single action, which becomes a batch of one.
        owner: Name of the world, for errors.
        name: Name of the argument, for errors.
        batched: Whether a single action becomes a batch of one; else it keeps its shape, a scalar where that is ().

    Returns:
        A function that returns float64 (Box of floats) or int64 arrays, or a dict or tuple of them, and raises
        TypeError for a wrong dtype and ValueError for a wrong shape, a value that is not finite or out of range.

    Raises:
        TypeError: If the space is of another kind.
    """
    if isinstance(space, gym.spaces.Dict):
        parts = {
            key: action_reader(part, num_envs, owner, f"{name}[{key!r}]", batched=batched)
            for key, part in space.items()
        }

        def read_dict(action: Any) -> dict[str, Any]:
            if not isinstance(action, dict) or set(action) != set(parts):
                raise TypeError(f"{owner}: {name}={_shown(action)}; expected a dict with keys {sorted(parts)}")
            return {key: read(action[key]) for key, read in parts.items()}

        return read_dict
    if isinstance(space, gym.spaces.Tuple):
        readers = [
            action_reader(part, num_envs, owner, f"{name}[{index}]", batched=batched)
            for index, part in enumerate(space)
        ]

        def read_tuple(action: Any) -> tuple[Any, ...]:
            if not isinstance(action, tuple | list) or len(action) != len(readers):
                raise TypeError(f"{owner}: {name}={_shown(action)}; expected a tuple of {len(readers)}")
            return tuple(read(part) for read, part in zip(readers, action, strict=True))

        return read_tuple
    if isinstance(space, gym.spaces.Box):
        return _Range(space.low, space.high, space.dtype, num_envs, owner, name, batched)
    if isinstance(space, gym.spaces.Discrete):
        low, high = np.asarray(space.start), np.asarray(space.start + space.n - 1)
        check = _Range(low, high, np.dtype(np.int64), num_envs, owner, name, batched)
        return check if num_envs is not None else _quick_discrete(int(low), int(high), check, batched)
    if isinstance(space, gym.spaces.MultiDiscrete):
        return _Range(space.start, space.start + space.nvec - 1, np.dtype(np.int64), num_envs, owner, name, batched)
    if isinstance(space, gym.spaces.MultiBinary):
        zeros = np.zeros(space.shape, np.int64)
        return _Range(zeros, zeros + 1, np.dtype(np.int64), num_envs, owner, name, batched)
    raise TypeError(f"{owner}: action_space={space}; expected Box, Discrete, MultiDiscrete, MultiBinary, Dict or Tuple")


def _quick_discrete(low: int, high: int, check: Reader, batched: bool) -> Reader:
    def read(action: Any) -> Any:
        # Nearly every action is a good one of these two types; all else, and all errors, are left to the full check.
        if (type(action) is int or type(action) is np.int64) and low <= action <= high:
            return np.array((action,)) if batched else np.int64(action)
        return check(action)

    return read


class _Range:
    """Checks one array of actions against elementwise bounds."""

    def __init__(
        self, low: Array, high: Array, dtype: Any, num_envs: int | None, owner: str, name: str, batched: bool
    ) -> None:
        self._integer = np.dtype(dtype).kind in "iu"
        self._dtype = np.int64 if self._integer else np.float64
        self._kinds = "iu" if self._integer else "fiu"
        self._low, self._high = low.astype(self._dtype), high.astype(self._dtype)
        self._single, self._batched = num_envs is None, batched
        self._shape = low.shape if num_envs is None else (num_envs, *low.shape)
        # Where all elements have the same bounds, two reductions check them.
        same = low.size > 0 and bool(
            (self._low == self._low.flat[0]).all() and (self._high == self._high.flat[0]).all()
        )
        self._bounds = (self._low.flat[0].item(), self._high.flat[0].item()) if same else None
        self._owner, self._name = owner, name

    def __call__(self, action: Any) -> Any:
        array = np.asarray(action)
        if array.dtype.kind not in self._kinds:
            wanted = "integers" if self._integer else "real numbers"
            raise TypeError(f"{self._owner}: {self._name}={_shown(action)} of dtype {array.dtype}; expected {wanted}")
        if array.shape != self._shape:
            raise ValueError(
                f"{self._owner}: {self._name}={_shown(action)} of shape {array.shape}; expected shape {self._shape}"
            )
        # Astype copies: what the simulator gets is never the user's own memory.
        values = array.astype(self._dtype)
        if not self._inside(values):
            values = self._clipped(values, action)
        if not self._single:
            return values
        return values[None] if self._batched else values[()]

    def _inside(self, values: np.ndarray) -> bool:
        # A NaN is the result of a reduction that meets one, and fails every comparison, so it never counts as inside.
        if self._bounds is None:
            return bool(((values >= self._low) & (values <= self._high)).all())
        low, high = self._bounds
        if values.size == 1:
            return bool(low <= values.item() <= high)
        return bool(low <= np.minimum.reduce(values, axis=None) and np.maximum.reduce(values, axis=None) <= high)

    def _clipped(self, values: np.ndarray, action: Any) -> np.ndarray:
        tolerance = 0.0 if self._integer else TOLERANCE
        wrong = ~((values >= self._low - tolerance) & (values <= self._high + tolerance))
        if wrong.any():
            where = tuple(int(i) for i in np.argwhere(wrong)[0])
            low, high = (np.broadcast_to(bound, values.shape)[where] for bound in (self._low, self._high))
            place = f" at index {list(where)}" if where else ""
            raise ValueError(
                f"{self._owner}: {self._name}={_shown(action)} holds {values[where]}{place}; "
                f"expected a {'value' if self._integer else 'finite value'} from {low} to {high}"
            )
        return np.clip(values, self._low, self._high)


def observation_writer(space: gym.Space[Any]) -> Callable[[Any], Any]:
    """Return the function that copies a simulator's observation arrays `[batch, ...]` into the dtypes of a space."""
    if isinstance(space, gym.spaces.Dict):
        parts = {key: observation_writer(part) for key, part in space.items()}
        return lambda observation: {key: write(observation[key]) for key, write in parts.items()}
    if isinstance(space, gym.spaces.Tuple):
        writers = [observation_writer(part) for part in space]
        return lambda observation: tuple(write(part) for write, part in zip(writers, observation, strict=True))
    dtype = space.dtype
    return lambda observation: np.array(observation, dtype=dtype)


def row_reader(space: gym.Space[Any]) -> Callable[[Any], Any]:
    """Return the function that takes the only row out of a written batch of one."""
    if isinstance(space, gym.spaces.Dict):
        parts = {key: row_reader(part) for key, part in space.items()}
        return lambda batch: {key: read(batch[key]) for key, read in parts.items()}
    if isinstance(space, gym.spaces.Tuple):
        readers = [row_reader(part) for part in space]
        return lambda batch: tuple(read(part) for read, part in zip(readers, batch, strict=True))
    if isinstance(space, gym.spaces.Discrete):
        return lambda batch: int(batch[0])
    return lambda batch: batch[0]


def rows_replacer(space: gym.Space[Any]) -> Callable[[Any, np.ndarray, Any], Any]:
    """Return the function `(observation, rows, part)` that gives a copy with the numbered rows taken from `part`."""
    if isinstance(space, gym.spaces.Dict):
        parts = {key: rows_replacer(part) for key, part in space.items()}
        return lambda whole, rows, part: {key: put(whole[key], rows, part[key]) for key, put in parts.items()}
    if isinstance(space, gym.spaces.Tuple):
        putters = [rows_replacer(part) for part in space]
        return lambda whole, rows, part: tuple(
            put(old, rows, new) for put, old, new in zip(putters, whole, part, strict=True)
        )
    return _texts_replaced if isinstance(space, gym.spaces.Text) else rows_replaced


def _texts_replaced(whole: tuple[str, ...], rows: np.ndarray, part: tuple[str, ...]) -> tuple[str, ...]:
    texts = list(whole)
    for row, text in zip(rows, part, strict=True):
        texts[row] = text
    return tuple(texts)


def join_rows(space: gym.Space[Any], rows: list[Any]) -> Any:
    """Return one vector observation of single observations that hold Text (a tuple of strings in its place)."""
    empty: Any = gym.vector.utils.create_empty_array(space, len(rows), fn=np.zeros)
    return gym.vector.utils.concatenate(space, rows, empty)


def split_rows(space: gym.Space[Any], num_envs: int, actions: Any, owner: str) -> list[Any]:
    """Return the single actions of a vector action that holds Text.

    Raises:
        ValueError: If there is not one action for each row.
    """
    rows = list(gym.vector.utils.iterate(gym.vector.utils.batch_space(space, num_envs), actions))
    if isinstance(actions, str) or len(rows) != num_envs:
        raise ValueError(f"{owner}: action={_shown(actions)}; expected {num_envs} actions, one for each row")
    return rows


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 120 else f"{text[:117]}..."
