"""Between Gymnasium spaces and tensors: observations in, actions out, and spaces as JSON."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from palaestra.agents.nn.networks import Observation


def to_tensor(observation: Any, device: torch.device) -> Observation:
    """Return a batch of NumPy observations as tensors; float64 becomes float32."""
    if isinstance(observation, dict):
        return {key: _array_to_tensor(value, device) for key, value in observation.items()}
    return _array_to_tensor(observation, device)


def _array_to_tensor(array: Any, device: torch.device) -> Tensor:
    array = np.asarray(array)
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    return torch.as_tensor(array, device=device)


def take_rows(observation: Any, rows: np.ndarray) -> Any:
    """Return the given rows of a batch of NumPy observations."""
    return (
        {key: value[rows] for key, value in observation.items()} if isinstance(observation, dict) else observation[rows]
    )


class ActionMap:
    """Translates between the space agents act in and the env's own actions.

    A bounded Box is mapped affinely to [-1, 1] per dimension and flattened; an unbounded one is only flattened;
    Discrete starts are shifted to 0.

    Args:
        space: The env's (single) action space.
    """

    def __init__(self, space: gym.Space[Any]) -> None:
        self.space = space
        if isinstance(space, spaces.Box):
            self.dim = math.prod(space.shape)
            self.bounded = bool(np.all(np.isfinite(space.low)) and np.all(np.isfinite(space.high)))
            low = space.low.astype(np.float64) if self.bounded else np.full(space.shape, -1.0)
            high = space.high.astype(np.float64) if self.bounded else np.full(space.shape, 1.0)
            self.centre, self.half_range = (low + high) / 2, (high - low) / 2
        elif isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
            self.start = np.asarray(space.start)

    def to_env(self, action: np.ndarray) -> np.ndarray:
        """Return env actions `[batch, *shape]` for agent actions `[batch, dim]` (clipped to a bounded box)."""
        if isinstance(self.space, spaces.Box):
            action = action.reshape(-1, *self.space.shape).astype(np.float64)
            if not self.bounded:
                return action.astype(self.space.dtype)
            scaled = self.centre + self.half_range * np.clip(action, -1.0, 1.0)
            return np.clip(scaled.astype(self.space.dtype), self.space.low, self.space.high)
        return (action + self.start).astype(self.space.dtype)

    def from_env(self, action: np.ndarray) -> np.ndarray:
        """Return agent actions `[batch, dim]`, or `[batch, ...]` of integers, for env actions `[batch, *shape]`."""
        if isinstance(self.space, spaces.Box):
            return ((action - self.centre) / self.half_range).reshape(-1, self.dim).astype(np.float32)
        return np.asarray(action - self.start, np.int64)


def space_to_json(space: gym.Space[Any]) -> dict[str, Any]:
    """Return a space as a JSON tree, for checkpoints.

    Raises:
        TypeError: If the kind of space is not one that agents take.
    """
    if isinstance(space, spaces.Box):
        return {
            "kind": "Box",
            "shape": list(space.shape),
            "dtype": str(space.dtype),
            "low": _bound_to_json(space.low),
            "high": _bound_to_json(space.high),
        }
    if isinstance(space, spaces.Discrete):
        return {"kind": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete):
        return {
            "kind": "MultiDiscrete",
            "nvec": space.nvec.tolist(),
            "start": space.start.tolist(),
            "dtype": str(space.dtype),
        }
    if isinstance(space, spaces.MultiBinary):
        return {"kind": "MultiBinary", "n": list(space.shape)}
    if isinstance(space, spaces.Dict):
        return {"kind": "Dict", "spaces": [[key, space_to_json(sub)] for key, sub in space.spaces.items()]}
    raise TypeError(f"space_to_json: space={space}; expected Box, Discrete, MultiDiscrete, MultiBinary or Dict")


def _bound_to_json(bound: np.ndarray) -> Any:
    flat = bound.ravel()
    uniform = flat.size > 0 and bool(np.all(flat == flat[0]))
    return _number_to_json(flat[0]) if uniform else [_number_to_json(value) for value in flat]


def _number_to_json(value: Any) -> float | int | str:
    if isinstance(value, np.integer):
        return int(value)
    return float(value) if np.isfinite(value) else str(float(value))


def space_from_json(tree: dict[str, Any]) -> gym.Space[Any]:
    """Return the space that `space_to_json` described."""
    kind = tree["kind"]
    if kind == "Box":
        shape, dtype = tuple(tree["shape"]), np.dtype(tree["dtype"])
        low, high = (_bound_from_json(tree[name], shape, dtype) for name in ("low", "high"))
        return spaces.Box(low, high, shape, dtype.type)
    if kind == "Discrete":
        return spaces.Discrete(tree["n"], start=tree["start"])
    if kind == "MultiDiscrete":
        return spaces.MultiDiscrete(tree["nvec"], dtype=np.dtype(tree["dtype"]).type, start=tree["start"])
    if kind == "MultiBinary":
        return spaces.MultiBinary(tree["n"])
    if kind == "Dict":
        return spaces.Dict([(key, space_from_json(sub)) for key, sub in tree["spaces"]])
    raise ValueError(f"space_from_json: kind={kind!r}; expected Box, Discrete, MultiDiscrete, MultiBinary or Dict")


def _bound_from_json(bound: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    values = [float(v) if isinstance(v, str) else v for v in (bound if isinstance(bound, list) else [bound])]
    return (
        np.broadcast_to(np.asarray(values, dtype), shape).copy()
        if len(values) == 1
        else np.reshape(np.asarray(values, dtype), shape)
    )
