"""Stacks equal those of a plain queue per row, in every autoreset mode, and continue from a snapshot."""

from __future__ import annotations

from collections import deque
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from palaestra.agents.training.tree import first_difference, pack, unpack
from palaestra.wrappers.frame_stack import VectorFrameStack
from palaestra.wrappers.replay_recorder import ReplayRecorder
from palaestra.wrappers.vectorize import make_vec

SHAPES: dict[str, tuple[tuple[int, ...], type[Any]]] = {
    "number": ((), np.float32),
    "vector": ((3,), np.float64),
    "picture": ((5, 4), np.uint8),
    "image": ((5, 4, 3), np.uint8),
    "channels_first": ((3, 5, 4), np.uint8),
}
STACKED = {"number": (3,), "vector": (9,), "picture": (5, 4, 3), "image": (5, 4, 9), "channels_first": (9, 5, 4)}


class Noise(gym.Env[Any, Any]):
    """Observes noise of any shape; episodes end at random, by termination or truncation."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.action_space = gym.spaces.Discrete(2)
        if kind == "dict":
            spaces: dict[str, gym.Space[Any]] = {name: self._box(name) for name in ("vector", "image")}
            self.observation_space: gym.Space[Any] = gym.spaces.Dict({**spaces, "other": gym.spaces.Discrete(9)})
        else:
            self.observation_space = self._box(kind)

    @staticmethod
    def _box(kind: str) -> gym.spaces.Box:
        shape, dtype = SHAPES[kind]
        return gym.spaces.Box(0, 255, shape, dtype)

    def _observe(self) -> Any:
        def draw(kind: str) -> Any:
            return np.asarray(self.np_random.integers(256, size=SHAPES[kind][0])).astype(SHAPES[kind][1])

        if self.kind == "dict":
            return {"vector": draw("vector"), "image": draw("image"), "other": int(self.np_random.integers(9))}
        return draw(self.kind)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        ended, truncated = self.np_random.random(2) < 0.15
        return self._observe(), 0.0, bool(ended), bool(truncated), {}


def joined(frames: Any, kind: str) -> np.ndarray:
    """Join frames of one row, oldest first, as the class docstring says."""
    axis = {"number": 0, "vector": 0, "picture": 2, "image": 2, "channels_first": 0}[kind]
    return np.stack(list(frames), axis) if kind in ("number", "picture") else np.concatenate(list(frames), axis)


class Queues:
    """The oracle: one queue of frames for each row and each stacked part."""

    def __init__(self, rows: int, k: int) -> None:
        self.queues: list[deque[Any]] = [deque(maxlen=k) for _ in range(rows)]
        self.k = k

    def begin(self, row: int, observation: Any) -> None:
        self.queues[row].extend([observation] * self.k)

    def push(self, row: int, observation: Any) -> None:
        self.queues[row].append(observation)

    def stacked(self, row: int, kind: str, last: Any = None) -> Any:
        frames = list(self.queues[row]) if last is None else [*list(self.queues[row])[1:], last]
        if kind != "dict":
            return joined(frames, kind)
        parts = {name: joined([frame[name] for frame in frames], name) for name in ("vector", "image")}
        return {**parts, "other": frames[-1]["other"]}


def row_of(observation: Any, row: int) -> Any:
    return (
        {key: value[row] for key, value in observation.items()} if isinstance(observation, dict) else observation[row]
    )


def vector(kind: str, mode: AutoresetMode) -> SyncVectorEnv:
    return SyncVectorEnv([lambda: ReplayRecorder(Noise(kind))] * 4, autoreset_mode=mode)


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("kind", [*SHAPES, "dict"])
def test_stacks_equal_a_queue_per_row(kind: str, mode: AutoresetMode) -> None:
    plain, env, queues = vector(kind, mode), VectorFrameStack(vector(kind, mode), 3), Queues(4, 3)
    bare, stacked = plain.reset(seed=1)[0], env.reset(seed=1)[0]
    for row in range(4):
        queues.begin(row, row_of(bare, row))
    ended, finals = np.zeros(4, bool), 0
    for _ in range(60):
        for row in range(4):
            np.testing.assert_equal(row_of(stacked, row), queues.stacked(row, kind))
        assert env.observation_space.contains(stacked)
        bare, _, terminated, truncated, plain_info = plain.step(np.zeros(4, int))
        stacked, _, env_terminated, env_truncated, info = env.step(np.zeros(4, int))
        np.testing.assert_array_equal(terminated | truncated, env_terminated | env_truncated)
        restarted, ended = ended, terminated | truncated
        for row in range(4):
            if mode == AutoresetMode.SAME_STEP and ended[row]:
                np.testing.assert_equal(
                    info["final_obs"][row], queues.stacked(row, kind, last=plain_info["final_obs"][row])
                )
                finals += 1
                queues.begin(row, row_of(bare, row))
            elif mode == AutoresetMode.NEXT_STEP and restarted[row]:
                queues.begin(row, row_of(bare, row))
            else:
                queues.push(row, row_of(bare, row))
        if mode == AutoresetMode.DISABLED and ended.any():
            for row in range(4):
                np.testing.assert_equal(row_of(stacked, row), queues.stacked(row, kind))
            bare = plain.reset(options={"reset_mask": ended.copy()})[0]
            stacked = env.reset(options={"reset_mask": ended.copy()})[0]
            for row in np.flatnonzero(ended):
                queues.begin(row, row_of(bare, row))
    assert finals > 10 or mode != AutoresetMode.SAME_STEP


def test_own_worlds_give_final_observations_as_arrays() -> None:
    plain = make_vec("palaestra/OneStoreBacklog-v0", 3, env_kwargs={"horizon": 5})
    env, queues = make_vec("palaestra/OneStoreBacklog-v0", 3, env_kwargs={"horizon": 5}, frame_stack=4), Queues(3, 4)
    bare = plain.reset(seed=1)[0]
    env.reset(seed=1)
    plain.action_space.seed(0)
    for row in range(3):
        queues.begin(row, bare[row])
    for step in range(1, 13):
        action = plain.action_space.sample()
        bare, *_, plain_info = plain.step(action)
        stacked, *_, info = env.step(action)
        for row in range(3):
            if step % 5 == 0:
                expected = queues.stacked(row, "vector", last=plain_info["final_obs"][row])
                np.testing.assert_array_equal(info["final_obs"][row], expected)
                queues.begin(row, bare[row])
            else:
                queues.push(row, bare[row])
            np.testing.assert_array_equal(stacked[row], queues.stacked(row, "vector"))
        assert ("final_obs" in info) == (step % 5 == 0)


@pytest.mark.parametrize("kind", [*SHAPES, "dict"])
def test_spaces_have_the_stacked_shape_and_bounds(kind: str) -> None:
    env = VectorFrameStack(vector(kind, AutoresetMode.SAME_STEP), 3)
    space = env.single_observation_space
    parts = space.spaces if isinstance(space, gym.spaces.Dict) else {kind: space}
    for name, part in parts.items():
        if name == "other":
            assert part == gym.spaces.Discrete(9)
            continue
        assert isinstance(part, gym.spaces.Box)
        assert part.shape == STACKED[name]
        assert part.dtype == SHAPES[name][1]
        assert (part.low.min(), part.high.max()) == (0, 255)


def test_bounds_of_vectors_are_repeated_in_order() -> None:
    space = make_vec("CartPole-v1", 1, frame_stack=2).single_observation_space
    plain = gym.make("CartPole-v1").observation_space
    assert isinstance(space, gym.spaces.Box)
    assert isinstance(plain, gym.spaces.Box)
    np.testing.assert_array_equal(space.high, np.tile(plain.high, 2))


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("k", [1, 3])
def test_stacks_continue_from_a_snapshot(mode: AutoresetMode, k: int) -> None:
    def play(env: VectorFrameStack, steps: int) -> list[Any]:
        yielded: list[Any] = []
        for _ in range(steps):
            observation, reward, terminated, truncated, info = env.step(np.zeros(4, int))
            finals = {row: info["final_obs"][row] for row in np.flatnonzero(info.get("_final_obs", []))}
            yielded.append([observation, reward, terminated, truncated, list(finals.values())])
            ended = terminated | truncated
            if mode == AutoresetMode.DISABLED and ended.any():
                yielded.append(env.reset(options={"reset_mask": ended})[0])
        return yielded

    first, second = (VectorFrameStack(vector("dict", mode), k) for _ in range(2))
    first.reset(seed=3)
    play(first, 17)
    saved = unpack(*pack(first.snapshot()))
    second.restore(saved)
    assert first_difference(play(first, 30), play(second, 30)) is None
    with pytest.raises(ValueError, match=f"the snapshot has k={k}; expected 5"):
        VectorFrameStack(vector("dict", mode), 5).restore(saved)


def test_what_cannot_be_stacked_is_named() -> None:
    with pytest.raises(ValueError, match="k=0; expected an integer of at least 1"):
        VectorFrameStack(vector("vector", AutoresetMode.SAME_STEP), 0)
    with pytest.raises(
        ValueError, match=r"observation space Discrete\(16\); expected a Box, or a Dict with a Box in it"
    ):
        make_vec("FrozenLake-v1", 2, frame_stack=2)
    env = vector("vector", AutoresetMode.SAME_STEP)
    env.metadata = {}
    with pytest.raises(ValueError, match=r"autoreset_mode'\]=None; expected an AutoresetMode"):
        VectorFrameStack(env, 2)


def test_masks_come_from_the_world_inside() -> None:
    env = make_vec("palaestra/Kuhn-v0", 3, frame_stack=2)
    _, info = env.reset(seed=0)
    assert isinstance(env, VectorFrameStack)
    np.testing.assert_array_equal(env.action_masks(), info["action_mask"])
