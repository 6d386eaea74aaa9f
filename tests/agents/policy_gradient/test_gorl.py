"""GoRL: PPO while the decoder is the identity, refits from the prior, and stages that take turns."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from palaestra.agents.policy_gradient.gorl import GoRL, prior_distance
from palaestra.agents.registry import make_agent

SMALL: dict[str, Any] = {
    "device": "cpu",
    "preset_name": None,
    "hidden": (16,),
    "num_envs": 4,
    "n_steps": 16,
    "batch_size": 32,
    "n_epochs": 3,
    "vf_coef": 0.25,
    "clip_range": 0.15,
    "learning_rate": 1e-3,
}
DECODER: dict[str, Any] = {
    "decoder_hidden": (64, 64),
    "decoder_batch_size": 500,
    "decoder_epochs": 200,
    "decoder_learning_rate": 2e-3,
}
GOALS = "palaestra/MultiGoal2D-v0"


def make(**config: Any) -> GoRL:
    agent = make_agent("gorl", GOALS, **{**SMALL, **config})
    assert isinstance(agent, GoRL)
    return agent


def fill(agent: GoRL, action: torch.Tensor) -> None:
    """Let the agent have collected actions `[steps * envs, 2]` in one and the same state."""
    rows = action.view(-1, agent.num_envs, 2)
    for step in rows:
        valid = torch.ones(agent.num_envs, dtype=torch.bool)
        observation = torch.zeros(agent.num_envs, 2)
        agent.collected.add(observation=observation, action=step, valid=valid, reward=torch.zeros(agent.num_envs))


def test_identity_decoder_without_the_prior_s_pull_is_ppo() -> None:
    """Sample for sample; the updates up to the rounding of PPO's gradient by hand."""
    ppo, gorl = make_agent("ppo", GOALS, **SMALL), make(prior_coef=0.0)
    for agent in (ppo, gorl):
        agent.learn(60)
    ours, theirs = gorl.rollout.fields, ppo.rollout.fields
    for name in ("observation", "action", "reward"):
        assert torch.equal(ours[name], theirs[name])
    for agent in (ppo, gorl):
        agent.learn(196, reset_num_timesteps=False)
    assert ppo.num_updates == gorl.num_updates == 24
    for mine, other in zip(gorl.network.parameters(), ppo.network.parameters(), strict=True):
        torch.testing.assert_close(mine, other, atol=2e-4, rtol=2e-3)


def test_no_gradient_reaches_the_decoder_while_the_encoder_learns() -> None:
    agent = make()
    before = [parameter.clone() for parameter in agent.decoder.parameters()]
    agent.learn(192)
    assert agent.num_updates == 18
    assert all(torch.equal(one, two) for one, two in zip(before, agent.decoder.parameters(), strict=True))


def test_decoder_refitted_to_a_gaussian_maps_the_prior_to_it() -> None:
    """With so many steps of Euler's method that they cost little of the spread."""
    agent = make(collection_steps=500, flow_steps=50, **DECODER)
    generator = torch.Generator().manual_seed(0)
    factor = torch.tensor([[0.3, 0.0], [0.2, 0.1]])
    fill(agent, torch.tensor([0.4, -0.2]) + torch.randn(2000, 2, generator=generator) @ factor.T)
    agent.refit_decoder()
    with torch.no_grad():
        samples = agent.decoder.sample(torch.zeros(4000, 2), torch.randn(4000, 2, generator=generator))
    np.testing.assert_allclose(samples.mean(0), [0.4, -0.2], atol=0.04)
    np.testing.assert_allclose(np.cov(samples.numpy().T), (factor @ factor.T).numpy(), atol=0.025)
    assert agent.collected.position == 0


def test_a_new_encoder_behind_a_refitted_decoder_behaves_as_before() -> None:
    """Two modes in, two modes out, whatever latents had made them; of a Gaussian, a third would lie near a mode."""
    agent = make(collection_steps=500, **DECODER)
    generator = torch.Generator().manual_seed(0)
    side = torch.where(torch.rand(2000, 1, generator=generator) < 0.3, -0.6, 0.6)
    fill(agent, torch.cat([side, torch.zeros(2000, 1)], 1) + 0.05 * torch.randn(2000, 2, generator=generator))
    agent.refit_decoder()
    agent.begin_stage()
    actions = agent.predict(np.zeros((2000, 2), np.float32))[0]
    assert abs(float((actions[:, 0] < 0.0).mean()) - 0.3) < 0.08
    assert float((np.abs(np.abs(actions[:, 0]) - 0.6) < 0.2).mean()) > 0.7


def test_stages_take_turns() -> None:
    """PPO for a stage's steps in whole rollouts, then collection, a refit and a fresh encoder; the last goes on."""
    agent = make(stages=2, stage_steps=100, collection_steps=10, decoder_epochs=1, decoder_hidden=(8,))
    value = [parameter.clone() for parameter in agent.network.value.parameters()]
    agent.learn(127)
    assert (agent.stage, agent.num_updates, agent.collected.position) == (0, 12, 0)
    agent.learn(30, reset_num_timesteps=False)
    assert (agent.stage, agent.collected.position, agent.num_updates) == (0, 8, 12)
    trained = [parameter.clone() for parameter in agent.network.value.parameters()]
    agent.learn(8, reset_num_timesteps=False)
    assert (agent.stage, agent.stage_start, agent.collected.position) == (1, 168, 0)
    policy, _ = agent.network.act(torch.randn(50, 2), None, None, None)
    assert float(policy.mean.detach().abs().max()) < 0.1
    assert not policy.log_std.detach().any()
    assert all(torch.equal(one, two) for one, two in zip(trained, agent.network.value.parameters(), strict=True))
    assert not all(torch.equal(one, two) for one, two in zip(value, trained, strict=True))
    assert agent.network_optimizer.max_grad_norm == 1.0
    agent.learn(400, reset_num_timesteps=False)
    assert (agent.stage, agent.num_updates) == (1, 12 + 36)


def test_prior_distance_is_the_sum_of_second_moments() -> None:
    agent = make()
    policy, _ = agent.network.act(torch.randn(20, 2), None, None, None)
    expected = policy.mean.square().mean() + (2.0 * policy.log_std[0]).exp().mean()
    torch.testing.assert_close(prior_distance(policy), expected)
