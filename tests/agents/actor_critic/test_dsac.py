"""The exact checks of DSAC and of DSAC-T: gradients, targets, spreads, refinements, delays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from palaestra.agents.losses.values import squared_error_per_critic
from palaestra.agents.memory.replay import Batch
from palaestra.agents.nn.estimates import GaussianEstimate
from palaestra.agents.registry import make_agent

AGENTS = ("dsac", "dsac-t")


def agent_and_batch(agent_id: str, **config: Any) -> tuple[Any, Batch]:
    agent = make_agent(agent_id, "Pendulum-v1", preset_name=None, hidden=(16,), device="cpu", **config)
    generator = torch.Generator().manual_seed(0)
    observation, following = torch.randn(2, 32, 3, generator=generator)
    terminated = torch.arange(32) < 16
    action, reward = torch.randn(32, 1, generator=generator).tanh(), torch.randn(32, generator=generator)
    return agent, Batch(observation, action, reward, following, terminated, ~terminated)


def said(count: int, rows: int = 40, seed: int = 0) -> GaussianEstimate:
    """What critics might say, with gradients."""
    generator = torch.Generator().manual_seed(seed)
    mean, std = torch.randn(2, count, rows, generator=generator)
    return GaussianEstimate(mean.requires_grad_(), std.exp().requires_grad_(), 3.0)


def aim(rows: int = 40) -> GaussianEstimate:
    target = said(1, rows, seed=1)
    return GaussianEstimate(3.0 * target.centre[0].detach(), 2.0 * target.std[0].detach(), 3.0)


def gradients(agent: Any, estimate: GaussianEstimate, target: GaussianEstimate) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients on means and spreads of every row, and the returns that were drawn."""
    state = agent.generator.get_state()
    returns = target.sample(agent.generator)
    agent.generator.set_state(state)
    loss = agent.critic_loss(estimate, target)
    mean, std = torch.autograd.grad(loss, (estimate.centre, estimate.std))
    rows = target.centre.shape[0]
    return rows * mean, rows * std, returns


@pytest.mark.parametrize("bound", [1.0, 0.3, 1e9])
def test_gradients_of_the_first_version(bound: float) -> None:
    agent, _ = agent_and_batch("dsac", bound=bound)
    estimate = said(1)
    mean, std, returns = gradients(agent, estimate, aim())
    q, sigma = estimate.centre.detach(), estimate.std.detach()
    y_b = q + (returns - q).clamp(-bound, bound)
    torch.testing.assert_close(mean, -(returns - q) / (sigma**2 + 0.1))
    torch.testing.assert_close(std, -((y_b - q) ** 2 - sigma**2) / (sigma**3 + 0.1))
    assert bool(((returns - q).abs() > bound).any()) is (bound < 1e9)


@pytest.mark.parametrize("weight", ["mean_variance", "squared_mean"])
@pytest.mark.parametrize("spread", ["square", "half"])
def test_gradients_of_the_refined_version(spread: str, weight: str) -> None:
    agent, _ = agent_and_batch("dsac-t", spread=spread, weight=weight)
    estimate, target = said(2), aim()
    mean, std, returns = gradients(agent, estimate, target)
    q, sigma = estimate.centre.detach(), estimate.std.detach()
    m = sigma.mean(-1, keepdim=True)
    w = m**2 if weight == "squared_mean" else (sigma**2).mean(-1, keepdim=True)
    y_b = q + torch.minimum(torch.maximum(returns - q, -3.0 * m), 3.0 * m)
    square = (y_b - q) ** 2 * (0.5 if spread == "half" else 1.0)
    torch.testing.assert_close(mean, -w * (target.centre - q) / (sigma**2 + 0.1))
    torch.testing.assert_close(std, -w * (square - sigma**2) / (sigma**3 + 0.1))
    assert bool((y_b != returns).any())


@pytest.mark.parametrize("spread", ["square", "half"])
def test_gradients_of_the_released_code(spread: str) -> None:
    agent, _ = agent_and_batch("dsac-t", gradient="released", weight="squared_mean", spread=spread)
    # Errors beyond 50 lie on the Huber function's lines, weights beyond its range at the ends.
    estimate, target = said(2, 200), aim(200).moved(torch.zeros(200), torch.full((200,), 30.0))
    estimate = GaussianEstimate(estimate.centre, (4.0 * estimate.std).detach().requires_grad_(), 3.0)
    mean, std, returns = gradients(agent, estimate, target)
    q, sigma = estimate.centre.detach(), estimate.std.detach()
    m = sigma.mean(-1, keepdim=True)
    y_b = q + torch.minimum(torch.maximum(returns - q, -3.0 * m), 3.0 * m)
    ratio = (m**2 / (sigma**2 + 0.1)).clamp(0.1, 10.0)
    huber = torch.where((y_b - q).abs() <= 50.0, 0.5 * (y_b - q) ** 2, 50.0 * ((y_b - q).abs() - 25.0))
    factor = 1.0 if spread == "half" else 2.0
    torch.testing.assert_close(mean, ratio * (q - target.centre).clamp(-50.0, 50.0))
    torch.testing.assert_close(std, ratio * (sigma**2 - factor * huber) / (sigma + 0.1))
    assert {0.1, 10.0} <= {round(float(r), 4) for r in ratio.flatten()}
    assert bool(((q - target.centre).abs() > 50.0).any())


def test_weight_one_and_the_mean_alone_are_sacs_critic_loss() -> None:
    """The gradient on the mean of the released code at ratio 1 is that of half the squared error."""
    agent, _ = agent_and_batch("dsac-t", gradient="released", weight="squared_mean", bias=1e-12)
    mean = torch.linspace(-2.0, 2.0, 20).expand(2, -1).clone().requires_grad_()
    estimate = GaussianEstimate(mean, torch.ones(2, 20).requires_grad_(), 3.0)
    target = GaussianEstimate(torch.linspace(1.0, -3.0, 20), torch.ones(20), 3.0)
    ours, _, _ = gradients(agent, estimate, target)
    theirs = torch.autograd.grad(0.5 * squared_error_per_critic(mean, target.centre).sum(), mean)[0]
    torch.testing.assert_close(ours, 20 * theirs)


class Watched:
    """Keeps what the critic loss of an agent was given."""

    def __init__(self, agent: Any) -> None:
        self.given: list[tuple[GaussianEstimate, GaussianEstimate]] = []
        inner = agent.critic_loss

        def watch(estimate: GaussianEstimate, target: GaussianEstimate) -> Tensor:
            self.given.append((estimate, target))
            loss: Tensor = inner(estimate, target)
            return loss

        agent.critic_loss = watch


def target_of(agent: Any, batch: Batch) -> tuple[GaussianEstimate, Tensor, Tensor]:
    """The target of an update, and the next action with its log-density, drawn as the update draws them."""
    state = agent.generator.get_state()
    with torch.no_grad():
        action, log_prob = agent.target_actor(batch.next_observation).sample_with_log_prob(agent.generator)
    agent.generator.set_state(state)
    watched = Watched(agent)
    agent.update(batch)
    return watched.given[0][1], action, log_prob


@pytest.mark.parametrize("agent_id", AGENTS)
def test_targets_are_those_of_the_target_networks(agent_id: str) -> None:
    agent, batch = agent_and_batch(agent_id)
    with torch.no_grad():
        for parameter in (*agent.target_actor.parameters(), *agent.target_critics.parameters()):
            parameter += 0.3
    expected = agent.target_critics
    target, action, log_prob = target_of(agent, batch)
    alpha = math.e
    with torch.no_grad():
        following = expected(batch.next_observation, action)
    soft = following.centre.amin(0) - alpha * log_prob
    mean = batch.reward + 0.99 * torch.where(batch.terminated, torch.zeros(()), soft)
    torch.testing.assert_close(target.centre, mean, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("agent_id", AGENTS)
def test_termination_removes_the_bootstrap_and_truncation_does_not(agent_id: str) -> None:
    agent, batch = agent_and_batch(agent_id)
    target, _, _ = target_of(agent, batch)
    torch.testing.assert_close(target.centre[batch.terminated], batch.reward[batch.terminated])
    assert bool((target.std[batch.terminated] == 0.0).all())
    assert bool((target.std[~batch.terminated] > 0.0).all())
    # Without any spread in what follows, a sample is the expectation.
    returns = target.sample(agent.generator)
    assert torch.equal(returns[batch.terminated], target.centre[batch.terminated])
    assert not torch.equal(returns, target.centre)


def test_the_target_is_one_members_mean_and_spread() -> None:
    agent, batch = agent_and_batch("dsac-t", gamma=1.0, ent_coef=0.0)
    target, action, _ = target_of(agent, batch)
    agent, batch = agent_and_batch("dsac-t", gamma=1.0, ent_coef=0.0)
    with torch.no_grad():
        both = agent.target_critics(batch.next_observation, action)
    lower = both.centre.argmin(0)
    assert set(lower.tolist()) == {0, 1}
    rows = torch.arange(32)
    going_on = ~batch.terminated
    expected = batch.reward + both.centre[lower, rows]
    torch.testing.assert_close(target.centre[going_on], expected[going_on])
    torch.testing.assert_close(target.std[going_on], both.std[lower, rows][going_on])


ROWS = 400
DEVIATIONS = 0.5 * torch.special.ndtri((torch.arange(ROWS) + 0.5) / ROWS)


def fitted(agent: Any) -> tuple[float, float]:
    """The mean and spread that a table of one entry settles at for returns N(2, 0.5^2)."""
    mean, raw = torch.zeros(agent.num_critics, 1), torch.zeros(agent.num_critics, 1)
    optimizer = torch.optim.Adam([mean.requires_grad_(), raw.requires_grad_()], 0.02)
    fixed = GaussianEstimate(torch.full((ROWS,), 2.0), torch.zeros(ROWS), 3.0)
    fixed.sample = lambda generator: 2.0 + DEVIATIONS  # type: ignore[method-assign]
    for _ in range(1_500):
        optimizer.zero_grad()
        estimate = GaussianEstimate(mean.expand(-1, ROWS), F.softplus(raw).expand(-1, ROWS), 3.0)
        agent.critic_loss(estimate, fixed).backward()
        optimizer.step()
    return float(mean[0].detach()), float(F.softplus(raw)[0].detach())


@pytest.mark.parametrize(
    ("agent_id", "config", "part"),
    [
        ("dsac", {"bound": 1e9}, 1.0),
        ("dsac-t", {}, 1.0),
        ("dsac-t", {"weight": "squared_mean"}, 1.0),
        ("dsac-t", {"spread": "half"}, 0.5),
        ("dsac-t", {"gradient": "released"}, 1.0),
        ("dsac-t", {"gradient": "released", "spread": "half", "weight": "squared_mean"}, 0.5),
    ],
)
def test_fixed_targets_are_the_fixed_point(agent_id: str, config: dict[str, Any], part: float) -> None:
    """The spread settles at sqrt(v), or sqrt(v / 2) under the flag, but for what the clipping at 3 of it takes away."""
    agent, _ = agent_and_batch(agent_id, **config)
    mean, std = fitted(agent)
    expected = 0.5
    for _ in range(50):
        bound = 1e9 if agent_id == "dsac" else 3.0 * expected
        expected = math.sqrt(part * float(DEVIATIONS.clamp(-bound, bound).square().mean()))
    assert mean == pytest.approx(2.0, abs=0.01)
    assert std == pytest.approx(expected, rel=0.005)
    assert std == pytest.approx(0.5 * math.sqrt(part), rel=0.05)


def test_running_spreads_start_at_the_first_batch_and_follow_by_tau() -> None:
    agent, _ = agent_and_batch("dsac-t", tau=0.25)
    first, second = said(2), said(2, seed=7)
    agent.critic_loss(first, aim())
    means = [estimate.std.detach().mean(-1) for estimate in (first, second)]
    squares = [estimate.std.detach().square().mean(-1) for estimate in (first, second)]
    torch.testing.assert_close((agent.mean_std, agent.mean_variance), (means[0], squares[0]))
    agent.critic_loss(second, aim())
    torch.testing.assert_close(agent.mean_std, 0.75 * means[0] + 0.25 * means[1])
    torch.testing.assert_close(agent.mean_variance, 0.75 * squares[0] + 0.25 * squares[1])


@pytest.mark.parametrize(("agent_id", "alike"), [("dsac-t", True), ("dsac", False)])
def test_scaled_rewards_change_the_first_versions_gradients_alone(agent_id: str, alike: bool) -> None:
    """Without bias, the gradient on a mean per unit of return and the clipping are the same at every reward scale."""
    steps = []
    for scale in (0.01, 1.0, 100.0):
        agent, _ = agent_and_batch(agent_id, bias=0.0)
        zero, by = torch.zeros(40), torch.full((40,), scale)
        estimate = said(agent.num_critics).moved(zero, by)
        mean, std, _ = gradients(agent, estimate, aim().moved(zero, by))
        steps.append(torch.stack([mean, std]) / scale)
    for other in steps[1:]:
        assert torch.allclose(steps[0], other, rtol=1e-3, atol=1e-4) is alike


@pytest.mark.parametrize("agent_id", AGENTS)
def test_actor_temperature_and_targets_move_every_second_update(agent_id: str) -> None:
    agent, batch = agent_and_batch(agent_id)
    parts = {
        "actor": agent.actor,
        "critics": agent.critics,
        "target_actor": agent.target_actor,
        "target_critics": agent.target_critics,
    }
    for update in range(4):
        before = {name: [p.clone() for p in part.parameters()] for name, part in parts.items()}
        alpha = agent.log_alpha.item()
        agent.update(batch)
        agent.num_updates += 1
        for name, part in parts.items():
            moved = any(not torch.equal(b, a) for b, a in zip(before[name], part.parameters(), strict=True))
            assert moved is (name == "critics" or update % 2 == 1), name
        assert (agent.log_alpha.item() != alpha) is (update % 2 == 1)


def test_defaults_are_those_of_the_released_code() -> None:
    agent, _ = agent_and_batch("dsac-t")
    c = agent.config
    assert (c.train_freq, c.gradient_steps, c.batch_size, c.policy_delay) == (20, 1, 256, 2)
    assert (c.learning_rate, c.ent_coef_learning_rate, c.tau, c.gamma) == (1e-4, 3e-4, 0.005, 0.99)
    assert agent.log_alpha.item() == pytest.approx(1.0)
    assert agent.target_entropy == -1.0
    assert [o.param_groups[0]["lr"] for o in (agent.critic_optimizer, agent.alpha_optimizer)] == [1e-4, 3e-4]
    wide = agent.actor(torch.full((1, 3), 1e6))
    assert float(wide.log_std.detach().max()) <= 0.5


def test_twenty_env_steps_make_one_update() -> None:
    agent = make_agent(
        "dsac-t", "Pendulum-v1", preset_name=None, hidden=(8,), batch_size=4, learning_starts=40, device="cpu"
    )
    agent.learn(200)
    assert (agent.num_timesteps, agent.num_updates) == (200, 8)


def test_acting_without_noise_is_the_squashed_mean() -> None:
    agent, batch = agent_and_batch("dsac-t")
    action, _ = agent.predict(batch.observation.numpy(), deterministic=True)
    with torch.no_grad():
        expected = 2.0 * torch.tanh(agent.actor(batch.observation).mean)
    np.testing.assert_allclose(action, expected.numpy(), rtol=1e-6)
