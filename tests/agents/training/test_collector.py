"""The collector yields the same transitions whatever the autoreset mode."""

from __future__ import annotations

import itertools
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from palaestra.agents.training.collector import Collector
from tests.agents import worlds

ROWS = 3


class Countdown(gym.Env[Any, Any]):
    """Episodes of random length from 1 to 4; the observation tells episode and step; ends alternate between kinds."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012
    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.episode = getattr(self, "episode", -1) + 1
        self.length, self.steps = int(self.np_random.integers(1, 5)), 0
        return np.array([self.episode, 0], np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        end = self.steps == self.length
        observation = np.array([self.episode, self.steps], np.float32)
        return (
            observation,
            float(self.steps),
            end and self.episode % 2 == 0,
            end and self.episode % 2 == 1,
            {"success": end},
        )


def transitions(mode: AutoresetMode, steps: int) -> tuple[list[list[tuple[Any, ...]]], Collector]:
    collector = Collector(SyncVectorEnv([Countdown] * ROWS, autoreset_mode=mode), seeds=[4, 5, 6])
    collector.start()
    rows: list[list[tuple[Any, ...]]] = [[] for _ in range(ROWS)]
    for _ in range(steps):
        step = collector.step(np.zeros(ROWS, np.int64))
        for row in range(ROWS):
            if step.valid[row]:
                fields = (step.observation, step.reward, step.terminated, step.truncated, step.next_observation)
                fields = (*fields, step.episode_start)
                rows[row].append(tuple(np.asarray(field[row]).tolist() for field in fields))
    return rows, collector


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_all_modes_give_the_same_transitions(mode: AutoresetMode) -> None:
    expected, _ = transitions(AutoresetMode.SAME_STEP, 40)
    found, _ = transitions(mode, 40)
    for ours, theirs in zip(found, expected, strict=True):
        assert len(ours) >= 25
        assert ours == theirs[: len(ours)]


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_transitions_are_those_of_the_env(mode: AutoresetMode) -> None:
    """Successors follow within an episode, final observations are never those of the next episode."""
    rows, collector = transitions(mode, 60)
    for row in rows:
        for observation, reward, terminated, truncated, following, start in row:
            assert following == [observation[0], observation[1] + 1]
            assert reward == following[1]
            assert start == (observation[1] == 0)
            if terminated or truncated:
                assert terminated == (observation[0] % 2 == 0)
    ended = sum(transition[2] or transition[3] for row in rows for transition in row)
    assert collector.episodes == ended
    statistics = collector.statistics()
    assert statistics["rollout/success_rate"] == 1.0
    assert 1.0 <= statistics["rollout/ep_len_mean"] <= 4.0


def test_an_env_without_a_declared_mode_is_refused() -> None:
    env = SyncVectorEnv([Countdown])
    env.metadata = {}
    with pytest.raises(ValueError, match="autoreset_mode"):
        Collector(env, [0])


def test_dict_observations_keep_their_final_values() -> None:
    env = SyncVectorEnv(
        [lambda: worlds.Identity("Discrete", observation="dict")] * 2, autoreset_mode=AutoresetMode.SAME_STEP
    )
    collector = Collector(env, [0, 1])
    collector.start()
    steps = [collector.step(np.full(2, 1)) for _ in range(11)]
    for before, after in itertools.pairwise(steps):
        same = [
            np.array_equal(before.next_observation["noise"][row], after.observation["noise"][row]) for row in (0, 1)
        ]
        assert same == (~before.done).tolist()
    assert steps[9].done.all()
