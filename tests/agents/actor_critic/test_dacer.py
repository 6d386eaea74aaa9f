"""The exact checks of DACER: noise and temperature, gradients of the critics, and the gradient through the chain."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from palaestra.agents.memory.replay import Batch
from palaestra.agents.nn.critic import held_fixed
from palaestra.agents.nn.distributions import standard_normal_like
from palaestra.agents.nn.estimates import GaussianEstimate
from palaestra.agents.registry import make_agent

SMALL: dict[str, Any] = {
    "hidden": (16,),
    "levels": 4,
    "batch_size": 16,
    "learning_starts": 20,
    "train_freq": 1,
    "buffer_size": 500,
    "entropy_interval": 10,
    "entropy_states": 4,
    "entropy_samples": 30,
}
OBSERVATION = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))


def make(**config: Any) -> Any:
    return make_agent("dacer", "Pendulum-v1", preset_name=None, device="cpu", **{**SMALL, **config})


def some_batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    observation, following = torch.randn(2, 32, 3, generator=generator)
    terminated = torch.arange(32) < 16
    action, reward = torch.randn(32, 1, generator=generator).tanh(), torch.randn(32, generator=generator)
    return Batch(observation, action, reward, following, terminated, ~terminated)


def test_noise_is_the_scale_times_the_temperature() -> None:
    agent, generators = make(initial_temperature=5.0), [torch.Generator().manual_seed(1) for _ in range(2)]
    with torch.no_grad():
        action = agent.act(OBSERVATION, generators[0])
        plain = agent.actor(OBSERVATION).sample(generators[1])
        noise = standard_normal_like(plain, generators[1])
    torch.testing.assert_close(action, (plain + 0.1 * 5.0 * noise).clamp(-1.0, 1.0))
    assert (action.abs() == 1.0).any()
    assert (action.abs() < 1.0).any()


@pytest.mark.parametrize(("target", "sign"), [(-50.0, -1.0), (50.0, 1.0)])
def test_temperature_falls_when_entropy_exceeds_its_target_and_rises_below_it(target: float, sign: float) -> None:
    agent = make(target_entropy=target)
    agent.regulate(OBSERVATION)
    assert agent.log_alpha.item() == pytest.approx(math.log(3.0) + sign * 3e-2, abs=1e-5)


def test_target_is_09_nats_below_zero_for_every_dimension() -> None:
    assert make().target_entropy == -0.9
    assert make_agent("dacer", "HalfCheetah-v5", preset_name=None, device="cpu", **SMALL).target_entropy == -5.4


def test_estimated_entropy_is_that_of_the_noise_where_the_chain_adds_none() -> None:
    """With one level the chain has no noise but what it starts from, and a network of zeros forgets that."""
    agent = make(levels=1, initial_temperature=1.0, noise_scale=0.05, entropy_samples=2_000, components=1)
    agent.actor.next_mean = lambda x, predicted, level: torch.zeros_like(x)
    agent.regulate(OBSERVATION)
    assert agent.entropy.item() == pytest.approx(0.5 * math.log(2 * math.pi * math.e) + math.log(0.05), abs=0.02)


def test_temperature_is_stepped_at_its_interval_and_before_the_first_update() -> None:
    agent, seen = make(), []
    agent.learn(56, lambda a: seen.append((a.num_updates, a.regulations, a.log_alpha.item())))
    assert agent.num_updates == 36
    assert agent.regulations == 4
    assert len({temperature for _, _, temperature in seen}) == 5
    assert all(count == (updates + 9) // 10 for updates, count, _ in seen)


def test_gradients_of_the_critics() -> None:
    """-(m^2 + e) (y_q - Q) / (sigma^2 + e) on Q, and -(m^2 + e) ((y_b - Q)^2 - sigma^2) / (sigma^3 + e) on sigma."""
    agent, generator = make(), torch.Generator().manual_seed(0)
    centre, std = torch.randn(2, 40, generator=generator), torch.randn(2, 40, generator=generator).exp()
    estimate = GaussianEstimate(centre.requires_grad_(), std.requires_grad_(), 3.0)
    target = GaussianEstimate(3.0 * torch.randn(40, generator=generator), torch.full((40,), 4.0), 3.0)
    state = agent.generator.get_state()
    returns = target.sample(agent.generator)
    agent.generator.set_state(state)
    mean_slope, std_slope = torch.autograd.grad(agent.critic_loss(estimate, target), (centre, std))
    q, sigma = centre.detach(), std.detach()
    m = sigma.mean(-1, keepdim=True)
    y_b = q + torch.minimum(torch.maximum(returns - q, -3.0 * m), 3.0 * m)
    weight = (m**2 + 0.1) / 40
    torch.testing.assert_close(mean_slope, -weight * (target.centre - q) / (sigma**2 + 0.1))
    torch.testing.assert_close(std_slope, -weight * ((y_b - q) ** 2 - sigma**2) / (sigma**3 + 0.1))
    assert (y_b != returns).any()


def test_target_is_the_scaled_reward_and_the_distribution_of_the_lower_mean() -> None:
    agent, batch, kept = make(), some_batch(), []
    agent.critic_loss = lambda estimate, target: (kept.append(target), estimate.centre.sum())[1]
    state = agent.generator.get_state()
    with torch.no_grad():
        action = agent.act(batch.next_observation, agent.generator)
        said = agent.target_critics(batch.next_observation, action)
        lower = said.centre.argmin(0)
        discount = 0.99 * ~batch.terminated
        mean = 0.2 * batch.reward + discount * said.centre.gather(0, lower.unsqueeze(0))[0]
        std = discount * said.std.gather(0, lower.unsqueeze(0))[0]
    agent.generator.set_state(state)
    agent.update(batch)
    torch.testing.assert_close(kept[0].centre, mean)
    torch.testing.assert_close(kept[0].std, std)
    assert set(lower.tolist()) == {0, 1}


def test_policys_gradient_passes_through_the_whole_chain() -> None:
    """The slope of -min Q along the gradient equals a difference quotient over chains from the same noise."""
    agent, observation = make(noise_scale=0.0), OBSERVATION.double()
    agent.actor.double(), agent.critics.double()

    def loss() -> torch.Tensor:
        with held_fixed(agent.critics):
            action = agent.act(observation, torch.Generator().manual_seed(5))
            return -agent.critics(observation, action).mean().amin(0).mean()

    parameters = list(agent.actor.parameters())
    gradients = torch.autograd.grad(loss(), parameters)
    norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
    quotient = []
    for step in (1e-6, -2e-6):
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.add_(gradient, alpha=step / norm.item())
            quotient.append(loss().item())
    assert (quotient[0] - quotient[1]) / 2e-6 == pytest.approx(norm.item(), rel=1e-5)


def test_no_gradient_comes_back_from_beyond_the_box() -> None:
    agent = make()
    with torch.no_grad():
        agent.actor.network.trunk[-1].bias.fill_(-100.0)
    action = agent.act(OBSERVATION, torch.Generator().manual_seed(0))
    assert (action < 1.0).any(), "the noise leads back into it"
    gradients = torch.autograd.grad(action.sum(), list(agent.actor.parameters()))
    assert not any(gradient.any() for gradient in gradients)


def test_without_a_generator_no_noise_is_added() -> None:
    agent = make()
    with torch.no_grad():
        torch.testing.assert_close(agent.act(OBSERVATION, None), agent.actor(OBSERVATION).mode())


def test_policy_is_updated_every_second_time() -> None:
    agent = make().learn(22)
    before = [parameter.clone() for parameter in agent.actor.parameters()]
    moved = []
    for _ in range(4):
        agent.learn(1, reset_num_timesteps=False)
        moved.append(any(not torch.equal(b, p) for b, p in zip(before, agent.actor.parameters(), strict=True)))
        before = [parameter.clone() for parameter in agent.actor.parameters()]
    assert moved == [False, True, False, True]
