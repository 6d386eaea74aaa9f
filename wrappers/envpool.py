"""EnvPool as a vector env of Gymnasium's, for those who ask for it: fast, not resumable, with noise of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from palaestra.envs.threads import default_threads

_SEEDS = 2**31 - 1
"""EnvPool takes seeds of 31 bits."""


class EnvPoolVectorEnv(gym.vector.VectorEnv[Any, Any, np.ndarray]):
    """An id of EnvPool, stepped by its threads; rows that end begin anew in the next step, whose action is ignored.

    The spaces are those that EnvPool declares. What differs from Gymnasium's own envs stands in `docs/backends.md`.

    Args:
        env_id: An id that both Gymnasium and EnvPool know.
        num_envs: Number of rows.
        threads: EnvPool's threads; None for the number of cores that this process may use.
        **arguments: EnvPool's arguments of the env.

    Raises:
        ModuleNotFoundError: If EnvPool is not installed.
        ValueError: If EnvPool has no such id, or a render mode is given.
    """

    def __init__(self, env_id: str, num_envs: int, threads: int | None = None, **arguments: Any) -> None:
        import envpool

        if "render_mode" in arguments:
            raise ValueError("EnvPoolVectorEnv: render_mode is given; expected none, EnvPool cannot draw")
        if env_id not in envpool.list_all_envs():
            raise ValueError(f"EnvPoolVectorEnv: env_id={env_id!r}; expected one of envpool.list_all_envs()")
        self._make = envpool.make_gymnasium
        self._arguments = {
            "task_id": env_id,
            "num_envs": num_envs,
            "num_threads": default_threads() if threads is None else threads,
            **arguments,
        }
        self._pool: Any = self._make(**self._arguments)
        self.num_envs = num_envs
        self.single_observation_space = self._pool.observation_space
        self.single_action_space = self._pool.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode in every row; with seeds, in a new pool, since EnvPool takes them only then."""
        if options:
            raise ValueError(f"reset: options={options!r}; expected None, EnvPool has none")
        if seed is not None:
            seeds = [seed + row for row in range(self.num_envs)] if isinstance(seed, int) else list(seed)
            self._pool.close()
            self._pool = self._make(**self._arguments, env_seed=[int(one) % _SEEDS for one in seeds])
        observation, info = self._pool.reset()
        return observation, _named(info)

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Take one action in every row; rows that ended in the step before are reset instead, for a reward of 0."""
        typed = np.ascontiguousarray(actions, dtype=self.single_action_space.dtype)
        observation, reward, terminated, truncated, info = self._pool.step(typed)
        return observation, np.asarray(reward, np.float64), terminated, truncated, _named(info)

    def close_extras(self, **kwargs: Any) -> None:
        """End EnvPool's threads."""
        self._pool.close()


def _named(info: dict[str, Any]) -> dict[str, Any]:
    """Return the entries that have one value for each row."""
    return {name: value for name, value in info.items() if isinstance(value, np.ndarray)}
