"""ActionChunk takes several primitive steps and says which of them were taken, and what each paid."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from palaestra.wrappers.action_chunk import ActionChunk
from palaestra.wrappers.vectorize import as_vector_env


class Counter(gym.Env[Any, Any]):
    """Pays the number of the step; terminates after step 5 or is truncated after step 4."""

    observation_space = gym.spaces.Box(0.0, 10.0, (1,), np.float32)

    def __init__(self, action_space: gym.Space[Any] | None = None, truncates: bool = False) -> None:
        self.action_space = action_space or gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.truncates = truncates
        self.seen: list[Any] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {"action_mask": np.ones(2, bool)}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.seen.append(action)
        self.steps += 1
        info = {"steps": self.steps, "action_mask": np.ones(2, bool)}
        observation = np.full(1, self.steps, np.float32)
        return observation, float(self.steps), self.steps == 5, self.truncates and self.steps == 4, info


def test_a_chunk_pays_the_sum_and_lists_its_rewards() -> None:
    env = ActionChunk(Counter(), 3)
    _, info = env.reset(seed=0)
    assert not info["chunk_valid"].any()
    chunk = np.arange(6, dtype=np.float32).reshape(3, 2) / 10
    observation, reward, terminated, truncated, info = env.step(chunk)
    assert (observation[0], reward, terminated, truncated, info["steps"]) == (3.0, 6.0, False, False, 3)
    np.testing.assert_array_equal(info["chunk_reward"], [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(info["chunk_valid"], [True, True, True])
    np.testing.assert_array_equal(env.unwrapped.seen, chunk)  # type: ignore[attr-defined]
    assert "action_mask" not in info


@pytest.mark.parametrize(("truncates", "last"), [(False, 5), (True, 4)])
def test_a_chunk_stops_where_the_episode_ends(truncates: bool, last: int) -> None:
    env = ActionChunk(Counter(truncates=truncates), 3)
    env.reset()
    env.step(np.zeros((3, 2), np.float32))
    observation, reward, terminated, truncated, info = env.step(np.zeros((3, 2), np.float32))
    assert (observation[0], terminated, truncated) == (last, not truncates, truncates)
    taken = last - 3
    np.testing.assert_array_equal(info["chunk_valid"], np.arange(3) < taken)
    np.testing.assert_array_equal(info["chunk_reward"], [4.0, 5.0 * (taken > 1), 0.0])
    assert reward == info["chunk_reward"].sum()


@pytest.mark.parametrize(
    ("space", "chunked"),
    [
        (gym.spaces.Discrete(3, start=1), gym.spaces.MultiDiscrete([3, 3], start=[1, 1])),
        (
            gym.spaces.MultiDiscrete([2, 4]),
            gym.spaces.MultiDiscrete(np.array([[2, 4], [2, 4]])),
        ),
        (gym.spaces.Box(-1.0, 1.0, (2, 2), np.float32), gym.spaces.Box(-1.0, 1.0, (2, 2, 2), np.float32)),
    ],
)
def test_spaces_get_an_axis_in_front(space: gym.Space[Any], chunked: gym.Space[Any]) -> None:
    env = ActionChunk(Counter(space), 2)
    assert env.action_space == chunked
    env.reset()
    env.step(env.action_space.sample())
    assert len(env.unwrapped.seen) == 2  # type: ignore[attr-defined]


def test_chunks_of_one_are_the_env_itself() -> None:
    plain, chunked = gym.make("Pendulum-v1"), ActionChunk(gym.make("Pendulum-v1"), 1)
    np.testing.assert_array_equal(plain.reset(seed=3)[0], chunked.reset(seed=3)[0])
    for step in range(20):
        action = np.array([np.sin(step)], np.float32)
        ours, theirs = chunked.step(action[None]), plain.step(action)
        np.testing.assert_array_equal(ours[0], theirs[0])
        assert ours[1:4] == theirs[1:4]


def test_it_is_a_proper_env_that_agents_train_in() -> None:
    env = ActionChunk(gym.make("Pendulum-v1"), 4)
    check_env(env, skip_render_check=True)
    rows = as_vector_env(env)
    rows.reset(seed=0)
    assert rows.step(rows.action_space.sample())[1].shape == (1,)


def test_what_is_no_chunk_is_refused() -> None:
    with pytest.raises(ValueError, match="length=0; expected an integer of at least 1"):
        ActionChunk(Counter(), 0)
    with pytest.raises(TypeError, match="expected Box, Discrete or MultiDiscrete"):
        ActionChunk(Counter(gym.spaces.MultiBinary(2)), 2)
    env = ActionChunk(Counter(), 3)
    env.reset()
    with pytest.raises(ValueError, match=r"action of shape \(2, 2\); expected \(3, 2\)"):
        env.step(np.zeros((2, 2), np.float32))
