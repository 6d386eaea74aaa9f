"""PolicyFlow: where it begins, what its bending term does, and that nothing moves without a reason."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from palaestra.agents.losses.flow_ratios import VelocityRatio
from palaestra.agents.nn.generative.flow import FlowHead
from palaestra.agents.policy_gradient.policyflow import PolicyFlow, bending_loss
from palaestra.agents.registry import make_agent
from tests.agents.generative_laboratory import NOTHING, gaussian_velocity, zeros

SMALL: dict[str, Any] = {
    "device": "cpu",
    "preset_name": None,
    "hidden": (16,),
    "value_hidden": (16,),
    "num_envs": 4,
    "n_steps": 16,
    "batch_size": 64,
    "n_epochs": 3,
    "flow_steps": 4,
}


def make(**config: Any) -> PolicyFlow:
    agent = make_agent("policyflow", "palaestra/MultiGoal2D-v0", **{**SMALL, **config})
    assert isinstance(agent, PolicyFlow)
    return agent


def test_flow_begins_as_the_identity() -> None:
    agent = make()
    policy, _ = agent.network.act(torch.randn(5, 2), None, None, None)
    latent = torch.randn(5, 2)
    assert torch.equal(policy.flow.transport(latent), latent)
    assert not policy.mode().any()


def test_bending_loss_is_zero_at_the_velocity_bent_against_the_score() -> None:
    """With the exact field of N(m, s^2), that velocity is minus the score at x."""
    mean, std = 0.3, 0.5
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(20, 1, generator=generator, dtype=torch.float64)
    time = torch.linspace(0.0, 0.9, 20, dtype=torch.float64).unsqueeze(-1)
    reached = mean + std * latent
    x = ((1.0 - time) * latent + time * reached).unsqueeze(1)
    field = gaussian_velocity(mean, std)(x, time.unsqueeze(-1))
    batch = {"latent": latent, "reached": reached, "time": time, "old_velocity": field}
    variance = (1.0 - time) ** 2 + time**2 * std**2
    against_score = (x - time.unsqueeze(-1) * mean) / variance.unsqueeze(-1)
    assert float(bending_loss(against_score, batch)) == pytest.approx(0.0, abs=1e-20)
    assert float(bending_loss(field, batch)) > 0.1


def test_bending_spreads_the_flow() -> None:
    """Heat flows outwards: a narrow flow whose velocity is bent, again and again, becomes wider."""
    torch.manual_seed(0)
    head = FlowHead(NOTHING, 1, (32, 32), "tanh", steps=8)
    generator, optimizer = torch.Generator().manual_seed(0), torch.optim.Adam(head.parameters(), 3e-3)
    observation = zeros(256)

    def spread() -> float:
        with torch.no_grad():
            return float(head.sample(zeros(2000), torch.randn(2000, 1, generator=generator)).std())

    for _ in range(300):
        loss = head.loss(
            observation,
            0.2 * torch.randn(256, 1, generator=generator),
            torch.randn(256, 1, generator=generator),
            torch.rand(256, generator=generator),
        ).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    narrow = spread()
    for _ in range(20):
        with torch.no_grad():
            latent = torch.randn(256, 1, generator=generator)
            batch = {"latent": latent, "reached": head.sample(observation, latent)}
            batch["time"] = torch.rand(256, 1, generator=generator)
            x = latent + batch["time"] * (batch["reached"] - latent)
            batch["old_velocity"] = head.velocity(observation, x, batch["time"][:, 0]).unsqueeze(1)
        for _ in range(3):
            velocity = head.velocity(observation, x, batch["time"][:, 0]).unsqueeze(1)
            optimizer.zero_grad()
            bending_loss(velocity, batch).backward()
            optimizer.step()
    assert narrow < 0.4
    assert spread() > 2.0 * narrow


def test_without_advantage_bonus_and_bending_the_policy_stays() -> None:
    agent = make(ent_coef=0.0, bending_coef=0.0, weight_decay=0.0)
    agent.learn(48)
    fields = {name: value[:12].flatten(0, 1) for name, value in agent.rollout.fields.items()}
    policy, value, _ = agent.network(fields["observation"])
    kept = {**fields, **{k: v.detach() for k, v in agent.ratio.old_stats(policy, fields).items()}}
    batch = {**kept, "advantage": torch.zeros(48), "value": value.detach(), "target": value.detach()}
    loss, metrics = agent.loss(batch, 0.2)
    agent.network_optimizer.zero_grad()
    loss.backward()
    assert all(
        not parameter.grad.any() for parameter in agent.network.policy_parameters() if parameter.grad is not None
    )
    assert float(metrics["train/bending_loss"]) > 0.0


def test_what_the_ratio_needs_is_kept_from_acting() -> None:
    agent = make(times=3).learn(12)
    fields = agent.rollout.fields
    assert isinstance(agent.ratio, VelocityRatio)
    assert fields["time"].shape == (16, 4, 3)
    assert fields["latent"].shape == fields["reached"].shape == (16, 4, 2)


def test_every_part_of_the_loss_moves_the_policy_in_training() -> None:
    agent = make()
    before = agent.network.head.state_dict()
    before = {name: value.clone() for name, value in before.items()}
    agent.learn(192)
    after = agent.network.head.state_dict()
    assert agent.num_updates == 9
    assert float((after["log_std"] - before["log_std"]).abs().max()) > 1e-4
    assert float((after["flow.network.trunk.2.weight"] - before["flow.network.trunk.2.weight"]).abs().max()) > 1e-4
