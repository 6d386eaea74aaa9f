"""BPG and BAC: what the agents hand to Bayesian quadrature, and what comes back."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from palaestra.agents.losses.bayesian_quadrature import posterior_of_returns
from palaestra.agents.nn.flat_parameters import flat_values
from palaestra.agents.policy_gradient.bpg import BAC, BPG, BayesianGradientAgent
from palaestra.agents.registry import make_agent, preset
from palaestra.agents.training.episodic import Trajectories

SMALL: dict[str, Any] = {"hidden": (4,), "device": "cpu", "preset_name": None, "num_envs": 3, "gamma": 0.9}


def first_batch(agent_id: str, **config: Any) -> tuple[BayesianGradientAgent, Trajectories]:
    """An untrained agent and its first batch of trajectories."""
    agent = make_agent(agent_id, "CartPole-v1", **SMALL, **config)
    assert isinstance(agent, BayesianGradientAgent)
    batches: list[Trajectories] = []
    learn_from = agent.learn_from
    agent.learn_from = batches.append
    while not batches:
        agent.learn(10, reset_num_timesteps=False)
    agent.learn_from = learn_from
    return agent, batches[0]


def test_trajectories_are_summed_and_paired_with_their_returns() -> None:
    agent, batch = first_batch("bpg", noise_variance=2.0)
    assert isinstance(agent, BPG)
    assert batch.count == 3
    lengths = torch.bincount(batch.number)
    returns = ((1.0 - 0.9**lengths) / 0.1).double()
    scores = torch.randn(len(batch.number), 5, generator=torch.Generator().manual_seed(0)).double()
    summed = torch.stack([scores[batch.number == n].sum(0) for n in range(3)])
    ours = agent.posterior(batch, scores, torch.eye(5).double())
    expected = posterior_of_returns(summed, returns, torch.eye(5).double(), 2.0)
    torch.testing.assert_close(ours.mean, expected.mean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.variance, expected.variance)


def test_fisher_matrix_is_that_of_the_policy() -> None:
    """Its trace is sum_s E |s|^2, by enumeration of CartPole's two actions."""
    agent, batch = first_batch("bpg", fisher_samples=200)
    exact = 0.0
    for action in (0, 1):
        policy, _ = agent.network.act(batch.steps["observation"], None, None, None)
        for step in range(len(batch.number)):
            log_prob = policy.log_probs[step, action]
            score = torch.cat([g.flatten() for g in torch.autograd.grad(log_prob, agent.parameters, retain_graph=True)])
            exact += float(log_prob.detach().exp() * score.square().sum())
    trace = float(agent.fisher_of(batch).trace()) * batch.count
    assert trace == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize(
    ("agent_id", "config"), [("bpg", {"model": "returns"}), ("bpg", {"model": "products"}), ("bac", {})]
)
def test_a_step_follows_the_posterior_mean(agent_id: str, config: dict[str, Any]) -> None:
    agent, batch = first_batch(agent_id, learning_rate=0.1, natural=False, **config)
    seen: list[Any] = []
    agent.posterior = _remembering(agent.posterior, seen)
    before = flat_values(agent.parameters)
    agent.learn_from(batch)
    moved = flat_values(agent.parameters) - before
    torch.testing.assert_close(moved, 0.1 * seen[0].mean.float(), atol=1e-6, rtol=1e-3)
    assert float(seen[0].variance.min()) > 0.0
    assert float(moved.norm()) > 0.0


def test_critic_leaves_out_the_rewards_of_truncated_steps() -> None:
    """Each with a different, useless reward: nothing changes."""
    agent, batch = first_batch("bac")
    assert isinstance(agent, BAC)
    scores = torch.randn(len(batch.number), 5, generator=torch.Generator().manual_seed(0)).double()
    last = torch.zeros_like(batch.steps["truncated"])
    last[-1] = True
    batch.steps["truncated"] = last
    before = agent.posterior(batch, scores, torch.eye(5).double())
    batch.steps["reward"] = torch.where(last, 100.0, batch.steps["reward"])
    after = agent.posterior(batch, scores, torch.eye(5).double())
    assert torch.equal(before.mean, after.mean)


def test_presets_leave_the_noise_within_the_prior() -> None:
    for agent_id in ("bpg", "bac"):
        assert preset(agent_id, "CartPole-v1").get("noise_variance", 1.0) <= 1.0


def _remembering(function: Any, results: list[Any]) -> Any:
    def called(*arguments: Any) -> Any:
        results.append(function(*arguments))
        return results[-1]

    return called
