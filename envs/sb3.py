"""Our vector faces under stable-baselines3: `PPO("MlpPolicy", sb3_vec_env(gym.make_vec(id, 64)))`.

Importing this module needs stable-baselines3 (extra `sb3`); nothing else of the worlds does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from palaestra.envs.faces import SimulatorVectorEnv

try:
    from stable_baselines3.common.vec_env import VecEnv
except ImportError as error:
    raise ImportError(
        "palaestra.envs.sb3 needs stable-baselines3; install it with: pip install 'palaestra[sb3]'"
    ) from error


class SB3VecEnv(VecEnv):
    """A stable-baselines3 `VecEnv` whose rows are those of one vector face.

    Infos follow its rules: in a step that ends a row's episode, the row's info is the last of that episode, with
    `terminal_observation`, `TimeLimit.truncated` and, where the world tells success, `is_success`. `env_method`
    knows "action_masks", which masked PPO asks for.

    Args:
        vector_env: A vector face, from `gym.make_vec` with an own id.
        step_infos: Whether rows that go on get their info too; by default they get an empty one, which saves a Python
            loop over all rows and is all that stable-baselines3 itself reads.

    Raises:
        TypeError: If `vector_env` is not a vector face.
    """

    def __init__(self, vector_env: gym.vector.VectorEnv[Any, Any, Any], step_infos: bool = False) -> None:
        if not isinstance(vector_env, SimulatorVectorEnv):
            raise TypeError(
                f"SB3VecEnv: vector_env={vector_env!r}; expected a vector face, such as "
                "gym.make_vec('palaestra/OneStoreBacklog-v0', 64)"
            )
        self.vector_env = vector_env
        self._step_infos = step_infos
        self._actions: Any = None
        super().__init__(vector_env.num_envs, vector_env.single_observation_space, vector_env.single_action_space)

    def reset(self) -> Any:
        """Start an episode in every row, with the seeds given to `seed` if there are any."""
        seeds = None if self._seeds[0] is None else [int(seed) for seed in self._seeds if seed is not None]
        options = next((options for options in self._options if options), None)
        observation, info = self.vector_env.reset(seed=seeds, options=options)
        self.reset_infos = [_row_info(info, row) for row in range(self.num_envs)]
        self._reset_seeds()
        self._reset_options()
        return observation

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[Any, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Return observations, rewards (float32), dones and infos of the step."""
        observation, reward, terminated, truncated, info = self.vector_env.step(self._actions)
        done = terminated | truncated
        final = {
            name: info.pop(name) for name in ("final_obs", "final_info", "_final_obs", "_final_info") if name in info
        }
        infos: list[dict[str, Any]] = [_row_info(info, row) if self._step_infos else {} for row in range(self.num_envs)]
        for row in np.flatnonzero(done).tolist():
            infos[row] = _row_info(final["final_info"], row)
            infos[row]["terminal_observation"] = _row(final["final_obs"], row)
            infos[row]["TimeLimit.truncated"] = bool(truncated[row])
            if "success" in infos[row]:
                infos[row]["is_success"] = bool(infos[row]["success"])
            self.reset_infos[row] = _row_info(info, row)
        return observation, reward.astype(np.float32), done, infos

    def close(self) -> None:
        """Close the vector face."""
        self.vector_env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute of the vector face, once for each row."""
        return [getattr(self.vector_env, attr_name)] * len(self._rows(indices))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of the vector face; rows have none of their own."""
        if len(self._rows(indices)) != self.num_envs:
            raise ValueError(f"set_attr: indices={indices!r}; expected all rows, which share their attributes")
        setattr(self.vector_env, attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Return what "action_masks" or "render" yield for each row."""
        if method_name not in ("action_masks", "render"):
            raise AttributeError(f"env_method: method_name={method_name!r}; expected 'action_masks' or 'render'")
        results = getattr(self.vector_env, method_name)(*method_args, **method_kwargs)
        return [results[row] for row in self._rows(indices)]

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: Any = None) -> list[bool]:
        """Return False for each row: rows are never wrapped one by one."""
        return [False] * len(self._rows(indices))

    def get_images(self) -> list[np.ndarray | None]:
        """Return a picture of each row."""
        return list(self.vector_env.render())

    def _rows(self, indices: Any) -> list[int]:
        rows: Iterable[int] = self._get_indices(indices)
        return list(rows)


def sb3_vec_env(vector_env: gym.vector.VectorEnv[Any, Any, Any], step_infos: bool = False) -> SB3VecEnv:
    """Return a stable-baselines3 `VecEnv` over a vector face; arguments as `SB3VecEnv`."""
    return SB3VecEnv(vector_env, step_infos)


def _row(batch: Any, row: int) -> Any:
    if isinstance(batch, Mapping):
        return {name: _row(part, row) for name, part in batch.items()}
    return batch[row]


def _row_info(info: Mapping[str, Any], row: int) -> dict[str, Any]:
    return {name: value[row] for name, value in info.items()}
