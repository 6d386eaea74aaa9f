"""The exact checks of QSM: the target of the score, where its gradient is taken, and what its scale does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from palaestra.agents.losses.values import squared_error_per_critic
from palaestra.agents.memory.replay import Batch
from palaestra.agents.nn.generative.diffusion import DiffusionHead
from palaestra.agents.registry import make_agent


def make(**config: Any) -> Any:
    return make_agent("qsm", "Pendulum-v1", preset_name=None, device="cpu", **{"hidden": (16,), **config})


def some_batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    observation, following = torch.randn(2, 32, 3, generator=generator)
    terminated = torch.arange(32) < 16
    action, reward = torch.randn(32, 1, generator=generator).tanh(), torch.randn(32, generator=generator)
    return Batch(observation, action, reward, following, terminated, ~terminated)


def with_parabolas(**config: Any) -> tuple[Any, list[Tensor]]:
    """An agent with critics 1 - (k / 2) a^2, k = 1 and 5, which do not learn; and what they are asked."""
    agent, asked = make(**config), []

    def parabolas(observation: Tensor, action: Tensor) -> Tensor:
        asked.append(action.detach())
        return 1.0 - 0.5 * torch.tensor([[1.0], [5.0]]) * action.square().sum(-1)

    agent.critics.forward = parabolas
    agent.step_critics = lambda given, action: (torch.zeros(()), torch.zeros(()))
    return agent, asked


def test_quadratic_values_give_the_target_scale_times_curvature_times_point() -> None:
    agent, _ = with_parabolas(score_scale=7.0)
    x = torch.tensor([[0.1], [-0.8], [2.5]])
    torch.testing.assert_close(agent.score_target(torch.zeros(3, 3), x), 7.0 * 3.0 * x)


def test_gradient_is_taken_at_the_noised_action() -> None:
    batch, (agent, asked) = some_batch(), with_parabolas()
    state = agent.generator.get_state()
    agent.explore(batch.next_observation)
    level = agent.random_levels(32)
    noise = torch.empty_like(batch.action).normal_(generator=agent.generator)
    agent.generator.set_state(state)
    agent.update(batch)
    signal, spread = agent.actor.signal[level].unsqueeze(-1), agent.actor.noise[level].unsqueeze(-1)
    torch.testing.assert_close(asked[-1], signal * batch.action + spread * noise)
    assert (asked[-1].abs() > 1.0).any(), "points outside the box are asked about, too"


class Score(torch.nn.Module):
    """A network that has learnt the target of a parabola without error: strength times the point."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength

    def along(self, features: Tensor, times: Tensor) -> Any:
        return lambda step, point: self.strength * point


def spread_of_samples(strength: float) -> float:
    agent = make()
    head: DiffusionHead = agent.actor
    policy = head(torch.zeros(4_000, 3))
    head.network = Score(strength)  # type: ignore[assignment]
    with torch.no_grad():
        return policy.sample(torch.Generator().manual_seed(0)).std().item()


def test_a_larger_scale_narrows_samples_until_steps_overshoot() -> None:
    """The last step multiplies x_1 by (1 - noise_1 M k) / signal_1: by 0 at M k = 1 / noise_1, by -1 at twice that."""
    schedule = make().actor.schedule
    best, limit = 1.0 / schedule.noise[1], (1.0 + schedule.signal[1]) / schedule.noise[1]
    spreads = [spread_of_samples(share * best) for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert (np.diff(spreads) < 0.0).all()
    assert spreads[-1] == pytest.approx(0.0, abs=1e-6)
    assert spread_of_samples(3.0 * limit) > spreads[1]


def test_target_takes_the_lower_critic_at_a_noisy_action() -> None:
    agent, batch = make(exploration_noise=0.3), some_batch()
    state = agent.generator.get_state()
    with torch.no_grad():
        plain = agent.actor(batch.next_observation).sample(agent.generator)
        noise = torch.empty_like(plain).normal_(generator=agent.generator)
        action = (plain + 0.3 * noise).clamp(-1.0, 1.0)
        value = agent.target_critics(batch.next_observation, action).amin(0)
        target = batch.reward + 0.99 * value * ~batch.terminated
        expected = squared_error_per_critic(agent.critics(batch.observation, batch.action), target).sum()
    agent.generator.set_state(state)
    torch.testing.assert_close(agent.update(batch)["train/critic_loss"], expected)


def test_policy_learns_the_target() -> None:
    batch, (agent, _) = some_batch(), with_parabolas(score_scale=1.0, learning_rate=1e-2)
    losses = [agent.update(batch)["train/actor_loss"].item() for _ in range(300)]
    assert losses[-1] < 0.1 < losses[0]
