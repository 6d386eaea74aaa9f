"""Steps of worlds: both sides get the same actions, and every step is counted."""

from __future__ import annotations

from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from palaestra.scripts import speed_worlds
from palaestra.scripts.speed_worlds import CYCLE, drawn_actions
from palaestra.scripts.timing import OURS, interleaved


class Countdown(gym.Env[int, int]):
    """Ends after three steps and remembers what happened."""

    observation_space = spaces.Discrete(4)
    action_space = spaces.Discrete(2)

    def __init__(self) -> None:
        self.left, self.resets = 3, 0
        self.actions: list[int] = []

    def reset(self, *, seed=None, options=None):
        self.left, self.resets = 3, self.resets + 1
        return self.left, {}

    def step(self, action):
        assert self.left > 0
        self.actions.append(action)
        self.left -= 1
        return self.left, 0.0, self.left == 0, False, {}


def test_actions_are_the_same_for_every_side_and_inside_the_space() -> None:
    box = spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 1.0], np.float32))
    actions = drawn_actions(box, 5)
    assert actions.shape == (CYCLE, 5, 2)
    assert all(box.contains(action) for action in actions.reshape(-1, 2))
    wide = spaces.Box(-2.0, 2.0, (2,), np.float64)
    np.testing.assert_allclose(drawn_actions(wide, 5)[..., 0], actions[..., 0], atol=1e-6)
    discrete = drawn_actions(spaces.Discrete(7), 300)
    assert (discrete.min(), discrete.max(), discrete.shape) == (0, 6, (CYCLE, 300))
    np.testing.assert_array_equal(discrete, drawn_actions(spaces.Discrete(7), 300))


def test_a_single_env_is_reset_where_an_episode_ends() -> None:
    env = Countdown()
    work = speed_worlds.single_stepping(env, 10)
    assert work() == 10
    assert env.resets == 1 + 3
    assert env.actions == drawn_actions(env.action_space, 1)[:10, 0].tolist()


def test_rows_of_all_sides_are_counted_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed_worlds, "missing", lambda packages: {"envpool": "pip install it"})
    monkeypatch.setattr(speed_worlds, "interleaved", partial(interleaved, turn_seconds=0.0))
    peers = {"SyncVectorEnv": speed_worlds._sync, "gym.make": speed_worlds._single}
    found = speed_worlds._compare("CartPole-v1", 2, 5, 3, "sync", peers)
    assert list(found.sides) == [OURS, "SyncVectorEnv", "gym.make"]
    assert all(rate > 0 for rates in found.sides.values() for rate in rates)
    assert found.skipped == {"envpool": "pip install it"}
    assert found.details["backend"] == "sync"
