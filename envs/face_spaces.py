"""Between a user and a simulator's arrays: checks of actions on the way in, dtypes of observations on the way out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from palaestra.protocols import Array

TOLERANCE = 1e-6
"""How far a Box action may lie outside its bounds (float32 rounding) before it is an error; within, it is clipped."""

_SMALL = 8
"""Elements up to which a Python loop checks bounds in less time than NumPy does."""

Reader = Callable[[Any], Any]


def holds_text(space: gym.Space[Any]) -> bool:
    """Return whether a space is, or contains, a Text space, and so is not made of arrays alone."""
    if isinstance(space, gym.spaces.Dict):
        return any(holds_text(part) for part in space.values())
    if isinstance(space, gym.spaces.Tuple):
        return any(holds_text(part) for part in space)
    return isinstance(space, gym.spaces.Text)


def action_reader(space: gym.Space[Any], num_envs: int | None, owner: str, name: str = "action") -> Reader:
    """Return the function that checks a user's action and returns it as the simulator's arrays `[batch, ...]`.

    Args:
        space: Action space of one row: Box, Discrete, MultiDiscrete, MultiBinary, or a Dict or Tuple of them.
        num_envs: Number of rows of a vector action, or None for a single action, which becomes a batch of one.
        owner: Name of the world, for errors.
        name: Name of the argument, for errors.

    Returns:
        A function that returns float64 (Box of floats) or int64 arrays, or a dict or tuple of them, and raises
        TypeError for a wrong dtype and ValueError for a wrong shape, a value that is not finite or out of range.

    Raises:
        TypeError: If the space is of another kind.
    """
    if isinstance(space, gym.spaces.Dict):
        parts = {key: action_reader(part, num_envs, owner, f"{name}[{key!r}]") for key, part in space.items()}

        def read_dict(action: Any) -> dict[str, Any]:
            if not isinstance(action, dict) or set(action) != set(parts):
                raise TypeError(f"{owner}: {name}={_shown(action)}; expected a dict with keys {sorted(parts)}")
            return {key: read(action[key]) for key, read in parts.items()}

        return read_dict
    if isinstance(space, gym.spaces.Tuple):
        readers = [action_reader(part, num_envs, owner, f"{name}[{index}]") for index, part in enumerate(space)]

        def read_tuple(action: Any) -> tuple[Any, ...]:
            if not isinstance(action, tuple | list) or len(action) != len(readers):
                raise TypeError(f"{owner}: {name}={_shown(action)}; expected a tuple of {len(readers)}")
            return tuple(read(part) for read, part in zip(readers, action, strict=True))

        return read_tuple
    if isinstance(space, gym.spaces.Box):
        return _Range(space.low, space.high, space.dtype, num_envs, owner, name)
    if isinstance(space, gym.spaces.Discrete):
        low, high = np.asarray(space.start), np.asarray(space.start + space.n - 1)
        return _Range(low, high, np.dtype(np.int64), num_envs, owner, name)
    if isinstance(space, gym.spaces.MultiDiscrete):
        return _Range(space.start, space.start + space.nvec - 1, np.dtype(np.int64), num_envs, owner, name)
    if isinstance(space, gym.spaces.MultiBinary):
        zeros = np.zeros(space.shape, np.int64)
        return _Range(zeros, zeros + 1, np.dtype(np.int64), num_envs, owner, name)
    raise TypeError(f"{owner}: action_space={space}; expected Box, Discrete, MultiDiscrete, MultiBinary, Dict or Tuple")


class _Range:
    """Checks one array of actions against elementwise bounds."""

    def __init__(self, low: Array, high: Array, dtype: Any, num_envs: int | None, owner: str, name: str) -> None:
        self._integer = np.dtype(dtype).kind in "iu"
        self._dtype = np.int64 if self._integer else np.float64
        self._kinds = "iu" if self._integer else "fiu"
        self._low, self._high = low.astype(self._dtype), high.astype(self._dtype)
        self._single = num_envs is None
        self._shape = low.shape if num_envs is None else (num_envs, *low.shape)
        self._bounds: list[tuple[float, float]] | None = None
        if self._single and low.size <= _SMALL:
            self._bounds = list(zip(self._low.ravel().tolist(), self._high.ravel().tolist(), strict=True))
        self._owner, self._name = owner, name

    def __call__(self, action: Any) -> np.ndarray:
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
        return values[None] if self._single else values

    def _inside(self, values: np.ndarray) -> bool:
        if self._bounds is not None:
            # A NaN fails every comparison, so it never counts as inside.
            return all(
                low <= value <= high for value, (low, high) in zip(values.ravel().tolist(), self._bounds, strict=True)
            )
        return bool(((values >= self._low) & (values <= self._high)).all())

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
