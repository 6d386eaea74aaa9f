"""TRPO's step against sb3-contrib's, the bound on the KL, and its invariance to the parameters chosen."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from palaestra.agents.losses.divergences import kl_divergence
from palaestra.agents.nn.distributions import Categorical
from palaestra.agents.nn.flat_parameters import flat_values, set_flat_
from palaestra.agents.registry import make_agent
from palaestra.agents.training.trust_region import TrustRegion, TrustRegionStep, trust_region_step

EXACT = TrustRegion(radius=0.01, iterations=20, damping=0.0, shrink=0.8, backtracks=10)


def step_on_logits(transform: torch.Tensor) -> tuple[torch.Tensor, TrustRegionStep]:
    """Take a step on the two logits gaps of a three-armed bandit, given as transform @ parameters."""
    parameters = nn.Parameter(torch.linalg.solve(transform, torch.tensor([0.4, -0.2], dtype=torch.float64)))
    advantage = torch.tensor([1.0, -0.5, 0.3], dtype=torch.float64)

    def policy() -> Categorical:
        return Categorical(torch.cat([transform @ parameters, torch.zeros(1, dtype=torch.float64)]))

    with torch.no_grad():
        old = policy()

    def evaluate() -> tuple[torch.Tensor, torch.Tensor]:
        new = policy()
        return (new.probs * advantage).sum(), kl_divergence(old, new)

    step = trust_region_step([parameters], evaluate, EXACT)
    return policy().probs.detach(), step


def test_step_does_not_depend_on_linear_reparameterisation() -> None:
    plain, step = step_on_logits(torch.eye(2, dtype=torch.float64))
    transformed, _ = step_on_logits(torch.tensor([[3.0, -1.0], [0.5, 0.2]], dtype=torch.float64))
    torch.testing.assert_close(plain, transformed, atol=1e-9, rtol=0.0)
    assert step.accepted
    assert 0.006 < float(step.divergence) <= 0.01


@pytest.mark.parametrize(("backtracks", "expected"), [(8, 0.0), (9, 0.2 / 2**8)])
def test_backtracking_takes_the_first_length_that_improves_or_none(backtracks: int, expected: float) -> None:
    """x - 1000 x^2 with KL x^2/2: the full step is 0.2, and only lengths below 0.001 improve."""
    x = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    region = TrustRegion(0.02, 5, 0.0, 0.5, backtracks)
    step = trust_region_step([x], lambda: ((x - 1000.0 * x**2).sum(), (0.5 * x**2).sum()), region)
    assert x.item() == pytest.approx(expected, abs=1e-12)
    assert step.accepted == (expected > 0.0)
    assert float(step.divergence) == pytest.approx(0.5 * expected**2, abs=1e-15)


def test_every_step_of_the_agent_stays_within_the_bound() -> None:
    agent = make_agent("trpo", "CartPole-v1", preset_name=None, n_steps=64, hidden=(16,), device="cpu")
    seen: list[dict[str, Any]] = []
    add = agent.metrics.add
    agent.metrics.add = lambda metrics, update: (seen.append(metrics), add(metrics, update))
    agent.learn(512)
    assert len(seen) == 8
    assert sum(float(m["train/step_accepted"]) for m in seen) >= 6
    assert all(float(m["train/kl"]) <= 0.01 for m in seen)


def test_step_equals_sb3_contrib(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the same batch and weights; its random start of the conjugate gradients is set to ours, 0."""
    contrib = pytest.importorskip("sb3_contrib")
    from stable_baselines3.common.logger import configure

    steps = 128
    theirs = contrib.TRPO("MlpPolicy", "CartPole-v1", n_steps=steps, n_critic_updates=1, seed=0, device="cpu")
    theirs.set_logger(configure(None, []))
    theirs.collect_rollouts(theirs.env, theirs._setup_learn(steps)[1], theirs.rollout_buffer, steps)
    buffer, policy = theirs.rollout_buffer, theirs.policy
    ours = make_agent("trpo", "CartPole-v1", preset_name=None, n_steps=steps, device="cpu")
    peers = [*policy.mlp_extractor.policy_net.parameters(), *policy.action_net.parameters()]
    set_flat_(ours.policy_parameters, flat_values(peers))
    batch = {
        "observation": torch.as_tensor(buffer.observations[:, 0]),
        "action": torch.as_tensor(buffer.actions[:, 0, 0]).long(),
        "log_prob": torch.as_tensor(buffer.log_probs[:, 0]),
        "advantage": torch.as_tensor(buffer.advantages[:, 0]),
    }
    before = flat_values(peers)
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    theirs.train()
    metrics = ours.update_policy(batch)
    assert float((flat_values(peers) - before).norm()) > 0.1
    torch.testing.assert_close(flat_values(ours.policy_parameters), flat_values(peers), atol=1e-5, rtol=1e-5)
    assert -float(metrics["train/policy_loss"]) == pytest.approx(
        theirs.logger.name_to_value["train/policy_objective"], abs=1e-5
    )
