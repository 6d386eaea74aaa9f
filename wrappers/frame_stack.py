"""The latest observations side by side, for agents that must see motion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from palaestra.wrappers.env_state import restore_env, snapshot_env


class VectorFrameStack(gym.vector.VectorWrapper[Any, Any, Any, Any, Any]):
    """Concatenates the latest `k` observations of every row, oldest first.

    A vector `[D]` becomes `[k * D]`, an image `[H, W, C]` (or `[C, H, W]`, of uint8 with fewer channels than columns)
    gets `k * C` channels, a picture `[H, W]` becomes `[H, W, k]`, a number `[k]`. In a Dict every Box of numbers is
    stacked and everything else shows its latest value. An episode begins with `k` copies of its first observation; no
    frame of another episode is ever in a stack, and `final_obs` is stacked with the frames before it.

    Args:
        env: A vector env; all three autoreset modes will do.
        k: Number of frames, at least 1.

    Raises:
        ValueError: If `k` is below 1, the env declares no autoreset mode, or no part of its observation can be stacked.
    """

    def __init__(self, env: gym.vector.VectorEnv[Any, Any, Any], k: int) -> None:
        super().__init__(env)
        if k < 1:
            raise ValueError(f"VectorFrameStack: k={k}; expected an integer of at least 1")
        mode = env.metadata.get("autoreset_mode")
        if not isinstance(mode, AutoresetMode):
            raise ValueError(f"VectorFrameStack: env.metadata['autoreset_mode']={mode!r}; expected an AutoresetMode")
        self.k, self.mode = k, mode
        space = env.single_observation_space
        parts = dict(space.spaces) if isinstance(space, gym.spaces.Dict) else {"": space}
        self._spaces = {key: part for key, part in parts.items() if isinstance(part, gym.spaces.Box)}
        if not self._spaces:
            raise ValueError(f"VectorFrameStack: observation space {space}; expected a Box, or a Dict with a Box in it")
        stacked = {key: self._stacked_space(part) for key, part in self._spaces.items()}
        if isinstance(space, gym.spaces.Dict):
            self.single_observation_space = gym.spaces.Dict({**parts, **stacked})
        else:
            self.single_observation_space = stacked[""]
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)
        self._stacks: dict[str, np.ndarray] = {}
        self._ended = np.zeros(env.num_envs, bool)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        chosen = (options or {}).get("reset_mask")
        # A copy, because Gymnasium takes the mask out of the options that it is given.
        observation, info = self.env.reset(seed=seed, options=None if options is None else dict(options))
        starts = np.ones(self.num_envs, bool) if chosen is None else np.array(chosen)
        self._ended &= ~starts
        return self._with_stacks(observation, self._advance(observation, starts, hold=~starts)), info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(actions)
        done = np.asarray(terminated) | np.asarray(truncated)
        starts = np.zeros_like(done)
        if self.mode == AutoresetMode.SAME_STEP:
            starts = done
            if done.any():
                info = {**info, "final_obs": self._stacked_final(info["final_obs"], done)}
        elif self.mode == AutoresetMode.NEXT_STEP:
            starts = self._ended
        self._ended = done
        return self._with_stacks(observation, self._advance(observation, starts)), reward, terminated, truncated, info

    def action_masks(self) -> np.ndarray:
        """Return the admissible actions of the env inside, `[num_envs, num_actions]`."""
        masks: np.ndarray = self.env.action_masks()  # type: ignore[attr-defined]
        return masks

    def snapshot(self) -> dict[str, Any]:
        """Return the frames and the state of the env inside."""
        stacks = {key: stack.copy() for key, stack in self._stacks.items()}
        return {"k": self.k, "env": snapshot_env(self.env), "stacks": stacks, "ended": self._ended.copy()}

    def restore(self, snapshot: Mapping[str, Any], branch: int = 0) -> None:
        """Continue from a snapshot; ValueError if it is of another number of frames or cannot be restored inside."""
        if snapshot["k"] != self.k:
            raise ValueError(f"VectorFrameStack.restore: the snapshot has k={snapshot['k']}; expected {self.k}")
        restore_env(self.env, snapshot["env"], branch)
        self._stacks = {key: np.array(stack) for key, stack in snapshot["stacks"].items()}
        self._ended = np.array(snapshot["ended"])

    def _advance(self, observation: Any, starts: np.ndarray, hold: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Push the new frames, begin rows in `starts` anew, and leave rows in `hold` as they are."""
        for key, space in self._spaces.items():
            frame = np.asarray(observation[key] if key else observation)
            axis, old = _axis(space), self._stacks.get(key)
            filled = _join([_as_frame(frame, space)] * self.k, axis)
            if old is None or starts.all():
                stack = filled
            else:
                stack = filled if self.k == 1 else self._pushed(old, frame, space)
                stack[starts] = filled[starts]
                if hold is not None:
                    stack[hold] = old[hold]
            self._stacks[key] = stack
        return self._stacks

    def _pushed(self, old: np.ndarray, frame: np.ndarray, space: gym.spaces.Box) -> np.ndarray:
        axis = _axis(space)
        # The frames that stay are all but the oldest, which comes first along the axis.
        width = old.shape[axis] // self.k
        kept = old[(*([slice(None)] * (axis % old.ndim)), slice(width, None))]
        return _join([kept, _as_frame(frame, space)], axis)

    def _stacked_final(self, final: Any, done: np.ndarray) -> Any:
        """Return final observations after the frames before them, in the form given: arrays, or an object per row."""
        if isinstance(final, np.ndarray) and final.dtype == object:
            stacked = np.full(final.shape, None, object)
            for row in np.flatnonzero(done):
                parts = {key: np.asarray(final[row][key] if key else final[row])[None] for key in self._spaces}
                pushed = {key: self._pushed_final(key, part, slice(row, row + 1))[0] for key, part in parts.items()}
                stacked[row] = self._with_stacks(final[row], pushed)
            return stacked
        parts = {key: np.asarray(final[key] if key else final) for key in self._spaces}
        return self._with_stacks(
            final, {key: self._pushed_final(key, part, slice(None)) for key, part in parts.items()}
        )

    def _pushed_final(self, key: str, frame: np.ndarray, rows: slice) -> np.ndarray:
        space = self._spaces[key]
        return _as_frame(frame, space) if self.k == 1 else self._pushed(self._stacks[key][rows], frame, space)

    def _with_stacks(self, observation: Any, stacks: Mapping[str, np.ndarray]) -> Any:
        """Return an observation with copies of the stacks in it: what is given away may be changed by its receiver."""
        if "" in stacks:
            return stacks[""].copy()
        return {**observation, **{key: stack.copy() for key, stack in stacks.items()}}

    def _stacked_space(self, space: gym.spaces.Box) -> gym.spaces.Box:
        axis = _axis(space)
        low, high = (_join([_as_frame(bound[None], space)] * self.k, axis)[0] for bound in (space.low, space.high))
        return gym.spaces.Box(low, high, dtype=space.dtype.type)


def _axis(space: gym.spaces.Box) -> int:
    """Return the axis of a batch along which frames are joined."""
    channels_first = len(space.shape) == 3 and space.dtype == np.uint8 and space.shape[0] < space.shape[-1]
    return 1 if channels_first else -1


def _as_frame(frame: np.ndarray, space: gym.spaces.Box) -> np.ndarray:
    """Return a batch of observations with the axis that frames are joined along."""
    return frame[..., None] if len(space.shape) in (0, 2) else frame


def _join(frames: list[np.ndarray], axis: int) -> np.ndarray:
    return np.concatenate(frames, axis=axis)
