"""PMOE in its SAC form: with one expert it is SAC, and its gate learns which expert the critics prefer."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from palaestra.agents.actor_critic.pmoe import PMOE
from palaestra.agents.memory.replay import Batch
from palaestra.agents.registry import make_agent

GOALS = "palaestra/MultiGoal2D-v0"
SMALL: dict[str, Any] = {
    "device": "cpu",
    "preset_name": None,
    "hidden": (16,),
    "learning_starts": 20,
    "batch_size": 16,
    "tau": 0.005,
}
PLAIN = {**SMALL, "standardise_reward": False, "reward_scale": 1.0}


def make(**config: Any) -> PMOE:
    agent = make_agent("pmoe", GOALS, **{**PLAIN, **config})
    assert isinstance(agent, PMOE)
    return agent


def a_batch(size: int = 32) -> Batch:
    generator = torch.Generator().manual_seed(0)
    observation, following, action = torch.randn(3, size, 2, generator=generator)
    reward = torch.randn(size, generator=generator)
    terminated = torch.arange(size) < size // 2
    return Batch(observation, torch.tanh(action), reward, following, terminated, ~terminated)


def test_one_expert_is_sac() -> None:
    """From the same weights, a whole seeded run: acting, targets, actor, temperature."""
    sac: Any = make_agent("sac", GOALS, **SMALL)
    pmoe = make(experts=1)
    pmoe.actor.trunk.load_state_dict(sac.actor.trunk.state_dict())
    for name in ("critics", "target_critics"):
        getattr(pmoe, name).load_state_dict(getattr(sac, name).state_dict())
    sac.learn(150)
    pmoe.learn(150)
    assert sac.num_updates == pmoe.num_updates == 130
    torch.testing.assert_close(pmoe.log_alpha, sac.log_alpha, atol=1e-6, rtol=1e-5)
    for ours, theirs in ((pmoe.actor.trunk, sac.actor.trunk), (pmoe.critics, sac.critics)):
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_rewards_are_standardised_in_each_batch() -> None:
    """With every row terminal the target is the scaled reward itself."""
    batch = a_batch()
    batch = Batch(
        batch.observation,
        batch.action,
        5.0 + 3.0 * batch.reward,
        batch.next_observation,
        torch.ones(32, dtype=torch.bool),
        torch.zeros(32, dtype=torch.bool),
    )
    agent = make(standardise_reward=True, reward_scale=10.0)
    with torch.no_grad():
        values = agent.critics(batch.observation, batch.action)
    centred = batch.reward - batch.reward.mean()
    target = 10.0 * centred / (centred.square().sum() / 31).sqrt()
    expected = 0.5 * (values - target).square().mean(-1).sum()
    assert agent.update(batch)["train/critic_loss"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_only_the_best_expert_of_a_state_learns_and_the_gate_turns_to_it() -> None:
    """Experts at u = -1 and u = 1 with little noise, critics that value the coordinate: the second is always best."""
    agent = make(experts=2, ent_coef=0.0, learning_rate=1e-2)
    generator = torch.Generator().manual_seed(0)
    observation = torch.randn(64, 2, generator=generator)
    output = agent.actor.trunk[-1]
    with torch.no_grad():
        output.weight.zero_()
        output.bias.copy_(torch.tensor([-1.0, 0.0, -4.0, -4.0, 1.0, 0.0, -4.0, -4.0]))
    policy = agent.actor(observation)
    candidates = policy.propose(agent.generator)
    values = candidates.values(lambda _, action: action[:, :1].T.expand(2, -1), observation)
    best = values.amin(0).argmax(-1)
    assert set(best.tolist()) == {1}
    action, log_prob = candidates.pick(best)
    loss = -action[:, 0].mean() + 0.0 * log_prob.mean()
    (gradient,) = torch.autograd.grad(loss, output.bias)
    assert torch.equal(gradient[:4], torch.zeros(4))
    assert float(gradient[4:].abs().max()) > 0.01


def test_gate_learns_in_training_and_is_what_the_metrics_say() -> None:
    agent = make(experts=3)
    before = agent.actor.gate.weight.detach().clone()
    agent.learn(60)
    assert float((agent.actor.gate.weight - before).detach().abs().max()) > 1e-3
    metrics = agent.update(a_batch())
    assert 0.0 < metrics["train/gate_entropy"].item() <= torch.tensor(3.0).log().item() + 1e-6
    assert 0.0 < metrics["train/gate_loss"].item() < 2.0


def test_all_experts_act_when_collecting() -> None:
    agent = make(experts=2)
    output = agent.actor.trunk[-1]
    with torch.no_grad():
        output.weight.zero_()
        output.bias.copy_(torch.tensor([-1.0, 0.0, -4.0, -4.0, 1.0, 0.0, -4.0, -4.0]))
    actions = agent.explore(torch.zeros(200, 2))[:, 0]
    assert 0.3 < float((actions > 0).float().mean()) < 0.7
    assert torch.unique(agent.act(torch.zeros(5, 2), None).sign()[:, 0]).numel() == 1
