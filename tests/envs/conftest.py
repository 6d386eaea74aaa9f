"""Random actions for any world, from counter-keyed noise: the same on every machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from palaestra.envs.noise import CounterKey


def admissible_actions(space: gym.Space[Any], rows: int, step: int, masks: np.ndarray | None = None) -> Any:
    """Return one random action per row `[rows, ...]`; with masks `[rows, n]`, uniform over the admissible ones."""
    key = CounterKey(np.arange(rows) + 17, step=step)
    if isinstance(space, gym.spaces.Box):
        if space.dtype is not None and space.dtype.kind in "iu":
            span = int(space.high.flat[0] - space.low.flat[0]) + 1
            return (int(space.low.flat[0]) + key.integers("action", span, space.shape)).astype(space.dtype)
        return (space.low + (space.high - space.low) * key.uniform("action", space.shape)).astype(space.dtype)
    if isinstance(space, gym.spaces.Discrete):
        scores = key.uniform("action", (int(space.n),))
        return np.argmax(scores if masks is None else np.where(masks, scores, -1.0), axis=-1) + int(space.start)
    if isinstance(space, gym.spaces.MultiDiscrete):
        return (key.uniform("action", space.shape) * space.nvec).astype(np.int64) + space.start
    raise TypeError(f"admissible_actions: space={space}; teach it this kind")


@pytest.fixture
def random_actions() -> Callable[..., Any]:
    """Return `admissible_actions`."""
    return admissible_actions
