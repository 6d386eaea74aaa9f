"""The exact checks of SAC: densities, temperature, soft values, bootstraps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from palaestra.agents.losses.values import td_target
from palaestra.agents.memory.replay import Batch
from palaestra.agents.nn.distributions import Categorical, SquashedGaussian, log_tanh_slope
from palaestra.agents.registry import make_agent
from palaestra.agents.training.off_policy import minimise


def test_log_prob_at_the_centre() -> None:
    policy = SquashedGaussian(torch.zeros(1, 3), torch.zeros(1, 3))
    assert policy.log_prob(torch.zeros(1, 3)).item() == pytest.approx(3 * -0.918939, abs=1e-5)


def test_squashing_term() -> None:
    u = torch.linspace(-6, 6, 101, dtype=torch.float64)
    torch.testing.assert_close(log_tanh_slope(u), torch.log(1 - torch.tanh(u) ** 2), atol=1e-9, rtol=1e-6)
    assert log_tanh_slope(torch.tensor(1.0)).item() == pytest.approx(-0.867562, abs=1e-6)
    assert math.isfinite(log_tanh_slope(torch.tensor(40.0)).item())


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, 0.0), (0.7, -1.0), (-1.5, 0.3)])
def test_density_integrates_to_one(mean: float, log_std: float) -> None:
    policy = SquashedGaussian(
        torch.tensor([[mean]], dtype=torch.float64), torch.tensor([[log_std]], dtype=torch.float64)
    )
    density = lambda a: policy.log_prob(torch.tensor([[a]], dtype=torch.float64)).exp().item()  # noqa: E731
    assert quad(density, -1, 1, limit=200)[0] == pytest.approx(1.0, abs=1e-6)


def test_sampled_log_prob_is_the_density_of_the_sample() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, log_std = torch.randn(2, 64, 2, generator=generator, dtype=torch.float64)
    policy = SquashedGaussian(mean, log_std.clamp(-1, 0))
    action, log_prob = policy.sample_with_log_prob(generator)
    torch.testing.assert_close(log_prob, policy.log_prob(action), atol=1e-6, rtol=1e-6)


def agent_and_batch(**config):
    agent = make_agent("sac", "Pendulum-v1", preset_name=None, hidden=(16,), device="cpu", **config)
    generator = torch.Generator().manual_seed(0)
    observation, following = torch.randn(2, 32, 3, generator=generator)
    terminated = torch.arange(32) < 16
    batch = Batch(observation, torch.zeros(32, 1), torch.ones(32), following, terminated, ~terminated)
    return agent, batch


@pytest.mark.parametrize(("target", "rises"), [(10.0, True), (-10.0, False)])
def test_temperature_rises_below_the_target_entropy(target: float, rises: bool) -> None:
    agent, batch = agent_and_batch(target_entropy=target)
    before = agent.log_alpha.item()
    agent.update(batch)
    assert (agent.log_alpha.item() > before) is rises


def test_fixed_temperature_stays() -> None:
    agent, batch = agent_and_batch(ent_coef=0.2)
    agent.update(batch)
    assert agent.log_alpha.exp().item() == pytest.approx(0.2)


def test_soft_value_of_two_actions() -> None:
    q = torch.tensor([[1.0, 0.0]])
    assert torch.logsumexp(q, -1).item() == pytest.approx(1.313262, abs=1e-6)
    np.testing.assert_allclose(Categorical(q).probs[0].numpy(), [0.731059, 0.268941], atol=1e-6)


def test_termination_removes_the_bootstrap_and_truncation_does_not() -> None:
    target = td_target(torch.ones(2), torch.tensor([True, False]), torch.tensor([5.0, 5.0]), 0.9)
    np.testing.assert_allclose(target.numpy(), [1.0, 5.5])


def test_zero_temperature_gives_the_greedy_reparameterised_gradient() -> None:
    agent, batch = agent_and_batch(ent_coef=0.0)
    agent.actor_optimizer = torch.optim.SGD(agent.actor.parameters(), lr=1.0)
    agent.critic_optimizer = torch.optim.SGD(agent.critics.parameters(), lr=0.0)
    before = [p.detach().clone() for p in agent.actor.parameters()]
    state = agent.generator.get_state()
    agent.update(batch)
    moved = [b - p.detach() for b, p in zip(before, agent.actor.parameters(), strict=True)]

    with torch.no_grad():
        for parameter, value in zip(agent.actor.parameters(), before, strict=True):
            parameter.copy_(value)
    agent.generator.set_state(state)
    action = agent.actor(batch.observation).sample(agent.generator)
    loss = -agent.critics(batch.observation, action).amin(0).mean()
    gradients = torch.autograd.grad(loss, list(agent.actor.parameters()))
    for step, gradient in zip(moved, gradients, strict=True):
        torch.testing.assert_close(step, gradient, atol=1e-6, rtol=1e-4)


def test_minimising_touches_only_the_parameters_of_its_optimiser() -> None:
    learned, frozen = torch.nn.Parameter(torch.tensor(2.0)), torch.nn.Parameter(torch.tensor(3.0))
    minimise(learned * frozen, torch.optim.SGD([learned], lr=1.0))
    assert learned.item() == -1.0
    assert frozen.grad is None
