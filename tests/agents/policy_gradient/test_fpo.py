"""FPO: ratios of 1 until something has changed, from draws that are kept; a flow that learns more than one mode."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from palaestra.agents.losses.flow_ratios import FlowMatchingRatio
from palaestra.agents.policy_gradient.fpo import FPO
from palaestra.agents.registry import make_agent

SMALL: dict[str, Any] = {
    "device": "cpu",
    "preset_name": None,
    "hidden": (16,),
    "value_hidden": (16,),
    "num_envs": 4,
    "n_steps": 16,
    "batch_size": 32,
    "n_epochs": 3,
    "flow_steps": 4,
}
GOALS = "palaestra/MultiGoal2D-v0"


def make(**config: Any) -> FPO:
    agent = make_agent("fpo", GOALS, **{**SMALL, **config})
    assert isinstance(agent, FPO)
    return agent


def test_first_minibatch_has_ratio_one_and_later_ones_have_not() -> None:
    agent, seen = make(), []
    losses = agent.loss
    agent.loss = lambda batch, clip: seen.append(agent.evaluate(batch)[0].detach()) or losses(batch, clip)  # type: ignore
    agent.learn(64)
    assert len(seen) == 6
    assert float(seen[0].abs().max()) < 1e-5
    assert float(seen[-1].abs().max()) > 1e-4


def test_draws_are_made_when_acting() -> None:
    agent = make(draws=3).learn(12)
    fields = agent.rollout.fields
    assert fields["noise"].shape == (16, 4, 3, 2)
    assert fields["time"].shape == (16, 4, 3)
    assert "flow_loss" not in fields


@pytest.mark.parametrize("each_draw", [False, True])
def test_every_draw_may_have_a_ratio_of_its_own(each_draw: bool) -> None:
    agent = make(each_draw=each_draw, draws=5)
    agent.learn(48)
    batch = {**{k: v[:12].flatten(0, 1) for k, v in agent.rollout.fields.items()}}
    assert isinstance(agent.ratio, FlowMatchingRatio)
    policy, _ = agent.network.act(batch["observation"], None, None, None)
    kept = {**batch, **agent.ratio.old_stats(policy, batch)}
    assert agent.ratio.log_ratio(policy, kept).shape == ((48, 5) if each_draw else (48,))
    agent.learn(128)
    assert agent.num_updates > 6


def test_a_bandit_with_two_equally_good_actions_keeps_both() -> None:
    """One update's worth of theory: with weights of 1 on both modes and none elsewhere, the flow holds both."""
    agent = make(hidden=(64, 64), learning_rate=3e-3, flow_steps=10)
    generator = torch.Generator().manual_seed(0)
    observation = torch.zeros(512, 2)
    for _ in range(700):
        side = torch.where(torch.rand(512, 1, generator=generator) < 0.5, -0.6, 0.6)
        action = torch.cat([side, torch.zeros(512, 1)], 1) + 0.05 * torch.randn(512, 2, generator=generator)
        drawn = {
            "observation": observation,
            "action": action,
            "noise": torch.randn(512, 4, 2, generator=generator),
            "time": torch.rand(512, 4, generator=generator),
        }
        policy, _ = agent.network.act(observation, None, None, None)
        kept = {**drawn, **{k: v.detach() for k, v in agent.ratio.old_stats(policy, drawn).items()}}
        loss = -agent.ratio.log_ratio(policy, kept).exp().mean()
        agent.network_optimizer.zero_grad()
        loss.backward()
        agent.network_optimizer.step()
    actions = agent.predict(observation.numpy(), generator=generator)[0][:, 0]
    assert 0.35 < float((actions > 0).mean()) < 0.65
    assert float(((actions < -0.35) | (actions > 0.35)).mean()) > 0.85


def test_an_entropy_bonus_is_refused() -> None:
    with pytest.raises(ValueError, match=r"FPOConfig: ent_coef=0.1; expected 0: the entropy of a flow"):
        make(ent_coef=0.1)
