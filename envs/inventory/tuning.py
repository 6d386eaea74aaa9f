"""Rules of thumb for whose parameters no formula is known: chosen by simulation on fixed noise."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palaestra.envs.rollout import long_run_reward
from palaestra.envs.simulator import Simulator
from palaestra.protocols import Actor, Array, Key
from palaestra.seeding import row_seeds

_PATHS, _PERIODS, _IGNORED = 8, 700, 100


class Tuned:
    """The policy of those on a list that earns most in the long run, found at first use, all on the same noise.

    Args:
        world: The world, without termination.
        policy: The actor of parameters, one argument each: a number, or an array `[rows]` of one for each row.
        candidates: Parameters to choose from, float64 `[candidates, parameters]`.
    """

    def __init__(self, world: Simulator[Any], policy: Callable[..., Actor], candidates: NDArray[np.float64]) -> None:
        self.world, self.policy, self.candidates = world, policy, candidates

    @cached_property
    def parameters(self) -> tuple[float, ...]:
        """Return the best candidate."""
        seeds = np.tile(row_seeds(0, "data", _PATHS), len(self.candidates))
        actor = self.policy(*np.repeat(self.candidates, _PATHS, axis=0).T)
        reward = long_run_reward(self.world, actor, seeds, _PERIODS, _IGNORED)
        best = int(np.argmax(reward.reshape(len(self.candidates), _PATHS).mean(axis=1)))
        return tuple(self.candidates[best].tolist())

    def __call__(self, state: Any, observation: Array, key: Key) -> Array:
        """Return the actions of the best candidate."""
        return self._actor(state, observation, key)

    @cached_property
    def _actor(self) -> Actor:
        return self.policy(*self.parameters)
