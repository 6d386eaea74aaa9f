"""PPO's own identities, and every kind of space it takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from palaestra.agents.evaluation.evaluate import evaluate_modes
from palaestra.agents.registry import make_agent
from tests.agents import worlds

FAST = {"n_steps": 64, "batch_size": 64, "n_epochs": 4, "gamma": 0.0, "learning_rate": 3e-3, "hidden": (32, 32)}


def mean_reward(agent: Any, env: Any, steps: int = 100) -> float:
    observation, info = env.reset(seed=9)
    rewards = []
    for _ in range(steps):
        masks = info.get("action_mask")
        action, _ = agent.predict(observation, deterministic=False, action_masks=masks)
        observation, reward, terminated, truncated, info = env.step(action)
        rewards.append(reward)
        if terminated or truncated:
            observation, info = env.reset()
    return float(np.mean(rewards))


@pytest.mark.parametrize("layout", ["image", "dict"])
def test_solves_the_identity_task_from_images_and_dicts(layout: str) -> None:
    kwargs = {"kind": "Discrete", "observation": layout}
    agent = make_agent("ppo", "TestIdentity-v0", env_kwargs=kwargs, device="cpu", **FAST).learn(4_000)
    assert mean_reward(agent, worlds.Identity(**kwargs)) > 0.95


def test_masked_actions_are_never_taken() -> None:
    kwargs = {"kind": "Discrete", "masked": True}
    agent = make_agent("ppo", "TestIdentity-v0", env_kwargs=kwargs, device="cpu", **FAST).learn(256)
    assert agent.collector.recent_returns[0] == 10.0
    assert mean_reward(agent, worlds.Identity(**kwargs)) == 1.0
    mask = np.array([[True, False, True]])
    assert agent.action_probabilities(np.array([2]), mask)[0, 1] == 0.0


def recurrent_return(recurrent_size: int) -> float:
    agent = make_agent(
        "ppo",
        "TestMemory-v0",
        num_envs=8,
        recurrent_size=recurrent_size,
        n_steps=30,
        batch_size=60,
        n_epochs=6,
        learning_rate=3e-3,
        hidden=(32,),
        device="cpu",
    ).learn(12_000)
    env = worlds.Memory()
    returns = []
    for episode in range(50):
        (observation, _), state, start, done = env.reset(seed=episode), None, np.array([True]), False
        while not done:
            action, state = agent.predict(observation, state, start, deterministic=True)
            observation, reward, done, _, _ = env.step(action)
            start = np.array([False])
        returns.append(reward)
    return float(np.mean(returns))


def test_recurrent_policy_remembers_what_a_feedforward_one_cannot() -> None:
    assert recurrent_return(16) > 0.9
    assert recurrent_return(0) < 0.75


@pytest.mark.parametrize("recurrent_size", [0, 8])
def test_first_ratio_is_one_and_unrolling_repeats_collection(recurrent_size: int) -> None:
    """With unchanged parameters the log-ratio is 0, and the values are those of the collection."""
    config = {"num_envs": 4, "recurrent_size": recurrent_size, "n_steps": 20, "batch_size": 80, "device": "cpu"}
    agent = make_agent("ppo", "TestMemory-v0", **config)
    ratios: list[float] = []

    def improve(rollout: Any) -> None:
        batches = (
            rollout.sequence_minibatches(4, agent.generator)
            if recurrent_size
            else rollout.minibatches(80, agent.generator)
        )
        for batch in batches:
            with torch.no_grad():
                log_ratio, _, value = agent.evaluate(batch)
            ratios.append(float(log_ratio.abs().max()))
            torch.testing.assert_close(value, batch["value"])

    agent.improve = improve
    agent.learn(160)
    assert len(ratios) == 2
    assert max(ratios) < 1e-5


def test_linear_schedules_reach_zero() -> None:
    linear = {"learning_rate_schedule": "linear", "clip_range_schedule": "linear"}
    agent = make_agent("ppo", "TestIdentity-v0", **{**FAST, **linear, "n_steps": 50}, device="cpu")
    seen: list[tuple[float, float]] = []
    agent.learn(200, lambda agent: seen.append((agent.network_optimizer.param_groups[0]["lr"], agent.clip_range)))
    assert seen[0] == (FAST["learning_rate"], 0.2)
    assert seen[60] == pytest.approx((0.75 * FAST["learning_rate"], 0.15))
    assert seen[-1] == (0.0, 0.0)


def test_a_recurrent_policy_is_measured_but_not_enumerated() -> None:
    """Its actions are no function of the observation alone, in either mode of acting."""
    agent = make_agent("ppo", "palaestra/Kuhn-v0", preset_name=None, recurrent_size=4, n_steps=8, device="cpu")
    for result in evaluate_modes(agent, "palaestra/Kuhn-v0", episodes=8).values():
        assert result.exact_value is None
        assert len(result.returns) == 8
