"""DPPO: schedules over denoising steps, the imitation it begins from, and what stays frozen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from palaestra.agents.losses.surrogates import clipped_surrogate
from palaestra.agents.policy_gradient.dppo import DPPO, clip_ranges
from palaestra.agents.registry import make_agent

SMALL: dict[str, Any] = {
    "device": "cpu",
    "preset_name": None,
    "hidden": (32, 32),
    "value_hidden": (16,),
    "num_envs": 4,
    "n_steps": 16,
    "batch_size": 64,
    "n_epochs": 3,
    "learning_rate": 1e-3,
    "levels": 5,
    "learnt_steps": 3,
    "imitated_steps": 500,
    "imitation_updates": 600,
}
GOALS = "palaestra/MultiGoal2D-v0"


def make(**config: Any) -> DPPO:
    agent = make_agent("dppo", GOALS, **{**SMALL, **config})
    assert isinstance(agent, DPPO)
    return agent


def test_clip_ranges_grow_exponentially() -> None:
    ranges = clip_ranges(0.001, 0.01, 10)
    assert ranges[0] == pytest.approx(0.001)
    assert ranges[5] == pytest.approx(0.003025, abs=1e-6)
    assert ranges[9] == pytest.approx(0.01)
    assert clip_ranges(0.001, 0.01, 1) == pytest.approx([0.01])


def test_surrogate_discounts_and_clips_every_step_by_itself() -> None:
    agent = make(clip_range=0.2, noisiest_clip_range=0.05, gamma_denoising=0.5, imitated_steps=0)
    generator = torch.Generator().manual_seed(0)
    log_ratio, advantage = 0.3 * torch.randn(6, 3, generator=generator), torch.randn(6, generator=generator)
    ranges = clip_ranges(0.05, 0.2, 3)
    parts = [clipped_surrogate(log_ratio[:, i], 0.5 ** (2 - i) * advantage, ranges[i] * 0.5) for i in range(3)]
    torch.testing.assert_close(agent.surrogate(log_ratio, advantage, 0.1), torch.stack(parts).mean())


def test_imitating_random_actions_gives_an_even_policy() -> None:
    agent = make(levels=20, learnt_steps=10, imitated_steps=2000, imitation_updates=1500)
    agent.learn(0)
    assert agent.has_imitated
    actions = agent.predict(np.zeros((2000, 2), np.float32))[0]
    np.testing.assert_allclose(actions.mean(0), 0.0, atol=0.12)
    np.testing.assert_allclose(actions.std(0), 1.0 / np.sqrt(3.0), atol=0.12)
    untrained = make(imitated_steps=0).predict(np.zeros((2000, 2), np.float32))[0]
    assert np.abs(untrained).mean() > 0.7


def test_imitating_an_expert_walks_as_it_does() -> None:
    agent = make(imitated_policy="goal-1", imitation_updates=1000)
    agent.learn(0)
    actions = agent.predict(np.zeros((200, 2), np.float32))[0]
    np.testing.assert_allclose(actions.mean(0), [0.0, 1.0], atol=0.15)


def test_imitation_is_done_once_and_becomes_the_base() -> None:
    agent = make(imitation_updates=50)
    agent.learn(0)
    head = agent.network.head
    frozen = {name: value.clone() for name, value in head.base.state_dict().items()}
    for name, value in head.actor.state_dict().items():
        assert torch.equal(value, frozen[name])
    assert float(agent.network_optimizer.steps) == 0.0
    agent.learn(128)
    assert agent.num_updates == 6
    for name, value in head.base.state_dict().items():
        assert torch.equal(value, frozen[name])
    weight = "network.trunk.0.weight"
    assert float((head.actor.state_dict()[weight] - frozen[weight]).abs().max()) > 1e-4


def test_data_of_one_s_own_are_imitated() -> None:
    agent = make(imitation_updates=600)
    rows = {
        "observation": torch.zeros(200, 2),
        "action": torch.tensor([0.5, -0.5]).expand(200, 2),
        "reward": torch.zeros(200),
        "next_observation": torch.zeros(200, 2),
        "terminated": torch.zeros(200, dtype=torch.bool),
        "truncated": torch.zeros(200, dtype=torch.bool),
    }
    agent.imitated.add(rows)
    agent.learn(0)
    actions = agent.predict(np.zeros((100, 2), np.float32))[0]
    np.testing.assert_allclose(actions.mean(0), [0.5, -0.5], atol=0.1)


def test_a_gradient_step_begins_at_ratio_one() -> None:
    agent = make(imitation_updates=50, n_epochs=1)
    agent.learn(64)
    metrics = agent.metrics.collect()
    assert metrics["train/approx_kl"] < 1e-8
    assert agent.num_updates == 1


def test_acting_without_noise_is_deterministic_and_noise_adds_at_least_its_floor() -> None:
    agent = make(imitation_updates=50)
    agent.learn(0)
    observation = np.zeros((500, 2), np.float32)
    assert np.unique(agent.predict(observation, deterministic=True)[0], axis=0).shape == (1, 2)
    policy, _ = agent.network.act(torch.zeros(500, 2), None, None, None)
    with torch.no_grad():
        _, std = policy.actor.steps(policy.chain(torch.Generator().manual_seed(0)), 3, 1, 0.1)
    assert float(std[-1]) == pytest.approx(0.1)
    assert float(std.min()) >= 0.1 - 1e-7


def test_more_learnt_steps_than_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="DPPOConfig: learnt_steps=9; expected an integer from 1 to levels"):
        make(learnt_steps=9)
