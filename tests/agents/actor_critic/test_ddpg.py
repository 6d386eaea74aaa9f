"""The exact checks of DDPG: TD3 without its additions, the gain of a linear-quadratic problem, its noise."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from palaestra.agents.actor_critic.ddpg import DDPG, DDPGConfig
from palaestra.agents.memory.replay import Batch
from palaestra.agents.nn.actors import DeterministicActor
from palaestra.agents.nn.critic import CriticBank, target_copy
from palaestra.agents.registry import make_agent
from tests.agents.batches import pendulum_batch


def make(agent_id: str = "ddpg", **config: Any) -> Any:
    return make_agent(agent_id, "Pendulum-v1", preset_name=None, device="cpu", **{"hidden": (16, 16), **config})


def test_equals_td3_with_equal_critics_no_target_noise_and_no_delay() -> None:
    ddpg = make(learning_rate=1e-3)
    td3 = make("td3", learning_rate=1e-3, target_policy_noise=0.0, policy_delay=1)
    state = ddpg.critics.state_dict()
    twice = {name.replace("trunks.0", f"trunks.{index}"): v for name, v in state.items() for index in (0, 1)}
    for critics in (td3.critics, td3.target_critics):
        critics.load_state_dict(twice)
    for actor in (td3.actor, td3.target_actor):
        actor.load_state_dict(ddpg.actor.state_dict())
    for seed in range(5):
        for agent in (ddpg, td3):
            agent.update(pendulum_batch(seed))
            agent.num_updates += 1
    for name in ("actor", "target_actor", "critics", "target_critics"):
        theirs = getattr(td3, name).state_dict()
        for path, value in getattr(ddpg, name).state_dict().items():
            torch.testing.assert_close(value, theirs[path], atol=1e-6, rtol=1e-5)
    assert not torch.equal(ddpg.actor.trunk[0].weight, make(learning_rate=1e-3).actor.trunk[0].weight)


class Line(gym.Env):
    """Spaces of a linear-quadratic problem in one dimension; its transitions are drawn by the test."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)


class Quadratic(torch.nn.Module):
    """In the place of a trunk: any quadratic function of state and action."""

    def __init__(self, count: int, sizes: Any, activation: str) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(6))

    def one(self, index: int, features: torch.Tensor) -> torch.Tensor:
        s, u = features.unbind(-1)
        return (torch.stack([torch.ones_like(s), s, u, s * s, s * u, u * u], -1) @ self.weight).unsqueeze(-1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.one(0, features).unsqueeze(0)


class LinearQuadraticDDPG(DDPG):
    """DDPG with networks that hold the solution: a linear actor (but for its tanh) and a quadratic critic."""

    def build(self) -> None:
        super().build()
        self.actor = DeterministicActor(self.observation_space, 1, ())
        self.critics = CriticBank(self.observation_space, 1, (), 1, trunk=Quadratic)
        self.target_actor, self.target_critics = target_copy(self.actor), target_copy(self.critics)
        self.actor_optimizer, self.critic_optimizer = self.optimizer(self.actor), self.optimizer(self.critics)


def test_learns_the_riccati_gain_of_a_linear_quadratic_problem() -> None:
    """s' = a s + b u at the cost q s^2 + r u^2; the gain gamma a b P / (r + gamma b^2 P) is optimal."""
    a, b, q, r, gamma = 0.8, 1.0, 1.0, 2.0, 0.9
    value = q
    for _ in range(200):
        value = q + gamma * a**2 * value - (gamma * a * b * value) ** 2 / (r + gamma * b**2 * value)
    gain = gamma * a * b * value / (r + gamma * b**2 * value)
    agent = LinearQuadraticDDPG(Line(), DDPGConfig(gamma=gamma, tau=0.05, learning_rate=0.02), seed=1, device="cpu")
    generator = torch.Generator().manual_seed(0)
    never = torch.zeros(64, dtype=torch.bool)
    for step in range(1_000):
        for optimizer in agent.optimizers():
            optimizer.param_groups[0]["lr"] = 0.02 * (1.0 - step / 1_000)
        state, action = torch.rand(2, 64, 1, generator=generator) - 0.5
        reward = -(q * state.square() + r * action.square()).squeeze(-1)
        agent.update(Batch(state, action, reward, a * state + b * action, never, never))
    slope, offset = agent.actor.trunk[0].weight.item(), agent.actor.trunk[0].bias.item()
    assert -slope == pytest.approx(gain, rel=0.02)
    assert offset == pytest.approx(0.0, abs=0.01)


def test_correlated_noise_is_an_ornstein_uhlenbeck_process_that_starts_with_the_episode() -> None:
    agent = make(noise="ornstein-uhlenbeck", exploration_noise=0.2, learning_starts=0, batch_size=2)
    agent.update = lambda batch: {"train/none": torch.zeros(())}
    noise = []
    agent.learn(450, lambda agent: noise.append(float(agent.noise)))
    twin = make(noise="ornstein-uhlenbeck", exploration_noise=0.2)
    state, expected = 0.0, []
    for step in range(450):
        state = 0.0 if step % 200 == 0 else state
        drawn = torch.empty(1, 1).normal_(generator=twin.generator)
        state = 0.85 * state + 0.2 * float(drawn)
        expected.append(state)
    np.testing.assert_allclose(noise, expected, atol=1e-5)
    actions = agent.replay.fields["action"][:450, 0].numpy()
    assert np.abs(actions).max() <= 1.0
    # Correlated over steps as it should be, and far wider than the noise of one step.
    assert np.corrcoef(noise[:-1], noise[1:])[0, 1] == pytest.approx(0.85, abs=0.07)


def test_independent_noise_has_its_standard_deviation() -> None:
    agent, batch = make(exploration_noise=0.05), pendulum_batch()
    greedy = agent.act(batch.observation, None)
    noisy = agent.act(batch.observation, torch.Generator().manual_seed(0))
    assert 0.03 < float((noisy - greedy).detach().std()) < 0.07


def test_actor_and_targets_move_with_every_update() -> None:
    agent, batch = make(), pendulum_batch()
    for _ in range(2):
        before = [p.clone() for p in (*agent.actor.parameters(), *agent.target_actor.parameters())]
        agent.update(batch)
        after = (*agent.actor.parameters(), *agent.target_actor.parameters())
        assert all(not torch.equal(b, a) for b, a in zip(before, after, strict=True))


def test_noise_settings_are_checked() -> None:
    with pytest.raises(ValueError, match=r"DDPGConfig: noise_reversion=1\.5; expected a number in"):
        make(noise_reversion=1.5)
    with pytest.raises(ValueError, match=r"DDPGConfig: exploration_noise=-0\.1; expected a number of at least 0"):
        make(exploration_noise=-0.1)
