"""Several primitive actions as one action."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np


class ActionChunk(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Executes `length` primitive actions a step, until the episode ends.

    The reward is the sum of the primitive ones. Info is that of the last primitive step taken, and of all of them:

    - `chunk_reward`: the primitive rewards, float64 `[length]`, 0 where none was taken;
    - `chunk_valid`: bools `[length]`, true for the steps that were taken: not for those after the episode's end.

    A Box `[...]` of actions becomes a Box `[length, ...]`, Discrete and MultiDiscrete a MultiDiscrete with `length` in
    front. An `action_mask` is left out of infos: it says nothing of the later actions.

    Args:
        env: The env; a wrapper outside of this one counts time in chunks, one inside in primitive steps.
        length: Primitive actions a step, at least 1.

    Raises:
        ValueError: If `length` is below 1.
        TypeError: If the env's actions are of another space.
    """

    def __init__(self, env: gym.Env[Any, Any], length: int) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, length=length)
        super().__init__(env)
        if length < 1:
            raise ValueError(f"ActionChunk: length={length}; expected an integer of at least 1")
        self.length = length
        self._primitive = env.action_space
        self.action_space = _repeated(env.action_space, length)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode; no step has been taken, so no entry of the chunk is valid."""
        observation, info = self.env.reset(seed=seed, options=options)
        return observation, self._with_chunk(info, np.zeros(self.length), 0)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take the primitive actions of a chunk `[length, ...]`.

        Raises:
            ValueError: If there are not `length` of them.
        """
        chunk = np.asarray(action)
        if chunk.shape != self.action_space.shape:
            raise ValueError(f"ActionChunk: action of shape {chunk.shape}; expected {self.action_space.shape}")
        rewards = np.zeros(self.length)
        for taken, primitive in enumerate(chunk, start=1):
            if isinstance(self._primitive, gym.spaces.Discrete):
                primitive = self._primitive.dtype.type(primitive)
            observation, reward, terminated, truncated, info = self.env.step(primitive)
            rewards[taken - 1] = reward
            if terminated or truncated:
                break
        return observation, float(rewards.sum()), terminated, truncated, self._with_chunk(info, rewards, taken)

    def _with_chunk(self, info: dict[str, Any], rewards: np.ndarray, taken: int) -> dict[str, Any]:
        kept = {name: value for name, value in info.items() if name != "action_mask"}
        return {**kept, "chunk_reward": rewards, "chunk_valid": np.arange(self.length) < taken}


def _repeated(space: gym.Space[Any], length: int) -> gym.Space[Any]:
    if isinstance(space, gym.spaces.Box):
        low, high = (np.repeat(bound[None], length, axis=0) for bound in (space.low, space.high))
        return gym.spaces.Box(low, high, dtype=space.dtype.type)
    if isinstance(space, gym.spaces.Discrete):
        kind, counts, starts = space.dtype.type, [int(space.n)] * length, [int(space.start)] * length
        return gym.spaces.MultiDiscrete(counts, dtype=kind, start=starts)
    if isinstance(space, gym.spaces.MultiDiscrete):
        nvec, start = (np.repeat(part[None], length, axis=0) for part in (space.nvec, space.start))
        return gym.spaces.MultiDiscrete(nvec, dtype=space.dtype.type, start=start)
    raise TypeError(f"ActionChunk: action space {space}; expected Box, Discrete or MultiDiscrete")
