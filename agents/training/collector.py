"""The collector: the one place where a vector env is stepped for training.

It knows Gymnasium's three autoreset modes, keeps terminated, truncated and the final observation apart, drops the
step that a next-step env spends on resetting, counts episodes, and can be saved and restored with its env.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from palaestra.wrappers.env_state import restore_env, snapshot_env


@dataclass(frozen=True)
class Step:
    """One step of every row.

    Attributes:
        observation: What was acted on `[num_envs, ...]`.
        reward: `[num_envs]`.
        terminated: Ended by the rules of the world `[num_envs]`.
        truncated: Ended by a limit `[num_envs]`.
        next_observation: The true successor: the final observation in rows whose episode ended.
        valid: False in rows whose env only reset itself in this step.
        episode_start: Whether the observation was an episode's first `[num_envs]`.
        next_action_masks: Actions admissible in `next_observation` `[num_envs, num_actions]`, where the env masks them.
        info: What the env reported beside; `reported` reads it.
    """

    observation: Any
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    next_observation: Any
    valid: np.ndarray
    episode_start: np.ndarray
    next_action_masks: np.ndarray | None = None
    info: Mapping[str, Any] = field(default_factory=dict)

    def reported(self, name: str) -> np.ndarray | None:
        """Return what the env reported of this very step under a name `[num_envs, ...]`, None where it did not."""
        values, final = self.info.get(name), self.info.get("final_info")
        ended = np.flatnonzero(self.done)
        if not len(ended) or not isinstance(final, Mapping) or name not in final:
            return None if values is None else np.asarray(values)
        values = np.zeros_like(final[name]) if values is None else np.asarray(values)
        return _replace(values, np.asarray(final[name]), ended)

    @property
    def done(self) -> np.ndarray:
        """Rows whose episode ended in either way."""
        return self.terminated | self.truncated


class Collector:
    """Steps a vector env and remembers where it stands.

    Args:
        env: The vector env; `metadata["autoreset_mode"]` tells how it resets.
        seeds: One seed per row for the first reset.

    Raises:
        ValueError: If the env does not declare its autoreset mode.
    """

    def __init__(self, env: gym.vector.VectorEnv[Any, Any, Any], seeds: Sequence[int]) -> None:
        mode = env.metadata.get("autoreset_mode")
        if not isinstance(mode, AutoresetMode):
            raise ValueError(
                f"Collector: env.metadata['autoreset_mode']={mode!r}; expected one of "
                f"{[str(m) for m in AutoresetMode]}, without which final observations cannot be told from first ones"
            )
        self.env, self.mode, self.seeds = env, mode, list(seeds)
        self.num_envs = env.num_envs
        self.started = False
        self.observation: Any = None
        self.action_masks: np.ndarray | None = None
        self.episode_start = np.ones(self.num_envs, bool)
        self.resetting = np.zeros(self.num_envs, bool)
        self.returns = np.zeros(self.num_envs)
        self.lengths = np.zeros(self.num_envs, np.int64)
        self.recent_returns: deque[float] = deque(maxlen=100)
        self.recent_lengths: deque[int] = deque(maxlen=100)
        self.recent_successes: deque[float] = deque(maxlen=100)
        self.episodes = 0

    def start(self, options: dict[str, Any] | None = None) -> None:
        """Reset every row with its own seed, and with the options given."""
        self.observation, info = self.env.reset(seed=list(self.seeds), options=options)  # type: ignore[arg-type]
        self.action_masks = _masks(info)
        self.episode_start[:] = True
        self.resetting[:] = False
        self.returns[:] = 0.0
        self.lengths[:] = 0
        self.started = True

    def step(self, action: np.ndarray) -> Step:
        """Return what one step with env actions `[num_envs, ...]` did; if the env raises, nothing here has changed."""
        following, reward, terminated, truncated, info = self.env.step(action)
        valid = ~self.resetting
        if self.mode == AutoresetMode.NEXT_STEP:
            reward, terminated, truncated = reward * valid, terminated & valid, truncated & valid
        done = terminated | truncated
        ended = np.flatnonzero(done)
        step = Step(
            self.observation,
            reward,
            terminated,
            truncated,
            _final_observations(following, info, ended) if self.mode == AutoresetMode.SAME_STEP else following,
            valid,
            self.episode_start.copy(),
            self._next_masks(info, ended),
            info,
        )
        self._count(step, ended, info)
        if self.mode == AutoresetMode.NEXT_STEP:
            self.episode_start = self.resetting
            self.resetting = done
        else:
            self.episode_start = done
            if self.mode == AutoresetMode.DISABLED and len(ended):
                following, info = self.env.reset(options={"reset_mask": done})
        self.observation, self.action_masks = following, _masks(info)
        return step

    def _next_masks(self, info: Mapping[str, Any], ended: np.ndarray) -> np.ndarray | None:
        masks, final = _masks(info), info.get("final_info", {}).get("action_mask")
        if masks is None or final is None or self.mode != AutoresetMode.SAME_STEP or not len(ended):
            return masks
        return _replace(masks, np.asarray(final), ended)

    def _count(self, step: Step, ended: np.ndarray, info: Mapping[str, Any]) -> None:
        self.returns += step.reward
        self.lengths += step.valid
        if not len(ended):
            return
        final_info = info.get("final_info", info) if self.mode == AutoresetMode.SAME_STEP else info
        success = final_info.get("success") if isinstance(final_info, Mapping) else None
        self.recent_returns.extend(self.returns[ended].tolist())
        self.recent_lengths.extend(self.lengths[ended].tolist())
        if success is not None:
            self.recent_successes.extend(float(success[row]) for row in ended)
        self.episodes += len(ended)
        self.returns[ended] = 0.0
        self.lengths[ended] = 0

    def statistics(self) -> dict[str, float]:
        """Return means over the latest 100 episodes, under the names SB3 users know."""
        named: dict[str, Sequence[float]] = {
            "rollout/ep_rew_mean": self.recent_returns,
            "rollout/ep_len_mean": self.recent_lengths,
            "rollout/success_rate": self.recent_successes,
        }
        return {name: float(np.mean(list(values))) for name, values in named.items() if values}

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to continue, the env's own state included."""
        if not self.started:
            return {"started": False}
        return {
            "started": True,
            "env": snapshot_env(self.env),
            "observation": _copy(self.observation),
            "action_masks": None if self.action_masks is None else self.action_masks.copy(),
            "episode_start": self.episode_start.copy(),
            "resetting": self.resetting.copy(),
            "returns": self.returns.copy(),
            "lengths": self.lengths.copy(),
            "recent_returns": list(self.recent_returns),
            "recent_lengths": list(self.recent_lengths),
            "recent_successes": list(self.recent_successes),
            "episodes": self.episodes,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where a saved collector stood.

        Raises:
            ValueError: If the env cannot be brought back to the saved state.
        """
        self.started = bool(state["started"])
        if not self.started:
            return
        restore_env(self.env, state["env"])
        for name in ("observation", "action_masks", "episode_start", "resetting", "returns", "lengths", "episodes"):
            setattr(self, name, state[name])
        for name in ("recent_returns", "recent_lengths", "recent_successes"):
            getattr(self, name).clear()
            getattr(self, name).extend(state[name])


def _copy(observation: Any) -> Any:
    if isinstance(observation, dict):
        return {key: np.array(value) for key, value in observation.items()}
    return np.array(observation)


def _masks(info: Mapping[str, Any]) -> np.ndarray | None:
    mask = info.get("action_mask")
    return None if mask is None else np.asarray(mask, bool)


def _final_observations(following: Any, info: Mapping[str, Any], ended: np.ndarray) -> Any:
    """Return `following` with the numbered rows, of ended episodes, replaced by their final observations."""
    if not len(ended):
        return following
    final = info["final_obs"]
    if isinstance(following, dict):
        # Own faces give a dict of arrays, Gymnasium's SyncVectorEnv an object array of one dict per row.
        by_key = final if isinstance(final, dict) else {key: _column(final, key, ended) for key in following}
        return {key: _replace(value, by_key[key], ended) for key, value in following.items()}
    return _replace(following, final, ended)


def _column(final: np.ndarray, key: str, ended: np.ndarray) -> np.ndarray:
    column = np.empty(len(final), object)
    for row in ended:
        column[row] = final[row][key]
    return column


def _replace(following: np.ndarray, final: np.ndarray, ended: np.ndarray) -> np.ndarray:
    replaced = np.array(following)
    rows = final[ended]
    replaced[ended] = np.stack(list(rows)) if final.dtype == object else rows
    return replaced
