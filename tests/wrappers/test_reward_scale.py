"""Scaled rewards: Gymnasium's own wrappers train, checkpoint and resume like anything else."""

from __future__ import annotations

from functools import partial
from operator import mul
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch

import palaestra
from palaestra.agents.evaluation.evaluate import evaluate
from palaestra.wrappers.env_state import why_not_resumable
from palaestra.wrappers.vectorize import as_vector_env, make_vec
from tests.agents.test_laws import assert_same

SMALL = {"hidden": (8,), "batch_size": 8, "buffer_size": 200, "learning_starts": 20, "device": "cpu"}


def scaled(env_id: str, scale: float, form: str) -> Any:
    if form == "vector":
        return gym.wrappers.vector.TransformReward(make_vec(env_id, 1), partial(mul, scale))
    return as_vector_env(gym.wrappers.TransformReward(gym.make(env_id), partial(mul, scale)))


@pytest.mark.parametrize("form", ["vector", "single"])
@pytest.mark.parametrize("env_id", ["Pendulum-v1", "palaestra/MultiGoal2D-v0"])
def test_rewards_are_scaled_and_all_else_stays(env_id: str, form: str) -> None:
    plain, env = scaled(env_id, 1.0, form), scaled(env_id, 100.0, form)
    ours, theirs = plain.reset(seed=[3])[0], env.reset(seed=[3])[0]
    plain.action_space.seed(0)
    for _ in range(250):
        assert (ours == theirs).all()
        action = plain.action_space.sample()
        ours, reward, *ends, _ = plain.step(action)
        theirs, by_scale, *other, _ = env.step(action)
        assert by_scale == pytest.approx(100.0 * reward)
        assert [bool(end[0]) for end in ends] == [bool(end[0]) for end in other]


@pytest.mark.parametrize("form", ["vector", "single"])
@pytest.mark.parametrize("env_id", ["Pendulum-v1", "palaestra/MultiGoal2D-v0"])
def test_training_on_scaled_rewards_resumes_exactly(env_id: str, form: str, tmp_path: Path) -> None:
    env = scaled(env_id, 0.01, form)
    assert why_not_resumable(env) is None
    whole = palaestra.make_agent("sac", env, seed=1, **SMALL).learn(120)
    half = palaestra.make_agent("sac", scaled(env_id, 0.01, form), seed=1, **SMALL)
    half.learn(120, lambda agent: False if agent.num_timesteps >= 53 else None)
    half.save(tmp_path / "half")
    resumed = palaestra.load(tmp_path / "half", env=scaled(env_id, 0.01, form)).learn(None)
    assert_same(whole, resumed)
    plain = palaestra.make_agent("sac", env_id, seed=1, **SMALL).learn(20)
    rewards = [agent.replay.fields["reward"][:20] for agent in (whole, plain)]
    # Their first twenty actions are the same: random ones.
    torch.testing.assert_close(rewards[0], 0.01 * rewards[1])


def test_evaluation_knows_nothing_of_the_scale() -> None:
    agent = palaestra.make_agent("sac", scaled("Pendulum-v1", 1e-6, "vector"), **SMALL)
    assert evaluate(agent, "Pendulum-v1", episodes=2).mean_return < -100.0
