"""Tiny worlds with known answers, registered for the tests of agents."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces

SPACES: dict[str, spaces.Space[Any]] = {
    "Box": spaces.Box(-2.0, 2.0, (1,), np.float32),
    "Discrete": spaces.Discrete(3, start=1),
    "MultiDiscrete": spaces.MultiDiscrete([2, 3]),
}


class Identity(gym.Env[Any, Any]):
    """Reward for repeating the observation; episodes of ten steps. `masked` admits only the right Discrete action."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(self, kind: str = "Discrete", observation: str = "same", masked: bool = False) -> None:
        self.action_space = SPACES[kind]
        self.masked = masked
        self.layout = observation
        if observation == "image":
            self.observation_space = spaces.Box(0, 255, (8, 8, 3), np.uint8)
        elif observation == "dict":
            self.observation_space = spaces.Dict(
                {"goal": self.action_space, "noise": spaces.Box(-1.0, 1.0, (2,), np.float32)}
            )
        else:
            self.observation_space = self.action_space

    def _draw(self) -> None:
        if isinstance(self.action_space, spaces.Box):
            self.goal: Any = self.np_random.uniform(-2.0, 2.0, (1,)).astype(np.float32)
        elif isinstance(self.action_space, spaces.Discrete):
            self.goal = np.int64(self.np_random.integers(3) + 1)
        else:
            self.goal = self.np_random.integers([2, 3])

    def _observe(self) -> Any:
        if self.layout == "image":
            image = np.zeros((8, 8, 3), np.uint8)
            image[:, :, int(self.goal) - 1] = 10
            return image
        if self.layout == "dict":
            return {"goal": self.goal, "noise": self.np_random.uniform(-1.0, 1.0, 2).astype(np.float32)}
        return self.goal

    def _info(self) -> dict[str, Any]:
        return {"action_mask": np.arange(1, 4) == self.goal} if self.masked else {}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        self._draw()
        return self._observe(), self._info()

    def _reward(self, action: Any) -> float:
        if isinstance(self.action_space, spaces.Box):
            return -float(np.square(action - self.goal).sum())
        return float(np.mean(np.asarray(action) == self.goal))

    def post_decision(self, action: Any) -> tuple[Any, float]:
        return self.goal, self._reward(action)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward = self._reward(action)
        self.steps += 1
        self._draw()
        return self._observe(), reward, False, self.steps >= 10, self._info()


class Chain(gym.Env[Any, Any]):
    """Three states in a ring, reward 1 a step, whatever the action; after one round the episode ends, in either way."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(self, ending: str = "terminated", kind: str = "Box") -> None:
        self.ending = ending
        self.observation_space = spaces.Box(0.0, 1.0, (3,), np.float32)
        self.action_space = SPACES[kind]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.position = 0
        return np.eye(3, dtype=np.float32)[0], {}

    def post_decision(self, action: Any) -> tuple[Any, float]:
        return np.eye(3, dtype=np.float32)[self.position], 1.0

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.position += 1
        end = self.position == 3
        observation = np.eye(3, dtype=np.float32)[self.position % 3]
        return observation, 1.0, end and self.ending == "terminated", end and self.ending == "truncated", {}


class Memory(gym.Env[Any, Any]):
    """A cue at the first step alone must be repeated at the third: solvable only with memory."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}
    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.cue, self.steps = int(self.np_random.integers(2)), 0
        return np.array([2.0 * self.cue - 1.0, 0.0], np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        end = self.steps == 3
        return np.array([0.0, self.steps / 3], np.float32), float(end and int(action) == self.cue), end, False, {}


class Faulty(gym.Env[Any, Any]):
    """Raises in the middle of its second episode, unless told that the fault is mended."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}
    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    mended: ClassVar[bool] = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        self.episode = getattr(self, "episode", 0) + 1
        return self.np_random.uniform(-1.0, 1.0, 2).astype(np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        if self.episode == 2 and self.steps == 7 and not self.mended:
            raise RuntimeError("the joint broke")
        return self.np_random.uniform(-1.0, 1.0, 2).astype(np.float32), float(action[0]), False, self.steps >= 20, {}


def register_worlds() -> None:
    """Register the worlds once."""
    for world in (Identity, Chain, Memory, Faulty):
        env_id = f"Test{world.__name__}-v0"
        if env_id not in gym.registry:
            gym.register(env_id, world)


register_worlds()
