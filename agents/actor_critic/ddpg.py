"""Deep deterministic policy gradient (Lillicrap et al. 2016, arXiv 1509.02971)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from palaestra.agents.losses.values import SquaredError, td_target
from palaestra.agents.memory.replay import Batch
from palaestra.agents.nn.critic import held_fixed, polyak_update
from palaestra.agents.nn.distributions import standard_normal_like
from palaestra.agents.nn.networks import Observation
from palaestra.agents.registry import register_agent
from palaestra.agents.training.deterministic import DeterministicAgent, ExploringConfig
from palaestra.agents.training.metrics import Metrics
from palaestra.agents.training.off_policy import minimise
from palaestra.agents.training.regression import regress


@dataclass(frozen=True)
class DDPGConfig(ExploringConfig):
    """The paper's layers; step size, batch, targets and noise as in later codes, its own learn less reliably."""

    learning_rate: float = 1e-3
    """Step size of Adam, above 0."""
    hidden: tuple[int, ...] = (400, 300)
    """Widths of the hidden layers of actor and critic."""
    noise: Literal["gaussian", "ornstein-uhlenbeck"] = "gaussian"
    """Noise added while collecting: independent, or the paper's, correlated over the steps of an episode."""
    noise_reversion: float = 0.15
    """Share of the correlated noise that is lost with every step, in [0, 1]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("noise_reversion", 0.0 <= self.noise_reversion <= 1.0, "a number in [0, 1]")


@register_agent("ddpg")
class DDPG(DeterministicAgent):
    """Off-policy deterministic policy gradient with replay and slowly following targets."""

    config: DDPGConfig
    config_class = DDPGConfig

    def build(self) -> None:
        """Create the networks and the state of the exploration noise of every row."""
        super().build()
        self.noise = torch.zeros(self.num_envs, self.action_dim, device=self.device)

    def explore(self, observation: Observation) -> Tensor:
        """Return the actor's actions with noise; an Ornstein-Uhlenbeck process starts at 0 in every episode."""
        c = self.config
        if c.noise == "gaussian":
            return self.act(observation, self.generator)
        starts = torch.as_tensor(self.collector.episode_start, device=self.device)
        self.noise.masked_fill_(starts.unsqueeze(-1), 0.0).mul_(1.0 - c.noise_reversion)
        self.noise.add_(standard_normal_like(self.noise, self.generator), alpha=c.exploration_noise)
        return (self.act(observation, None) + self.noise).clamp(-1.0, 1.0)

    def update(self, batch: Batch) -> Metrics:
        """Step the critic, the actor and the targets."""
        c = self.config
        with torch.no_grad():
            next_value = self.target_critics.value(0, batch.next_observation, self.target_actor(batch.next_observation))
            target = td_target(batch.reward, batch.terminated, next_value, c.gamma)
        inputs = batch.observation, batch.action
        values, critic_loss = regress(self.critics, inputs, target, SquaredError(), self.critic_optimizer)

        with held_fixed(self.critics):
            actor_loss = -self.critics.value(0, batch.observation, self.actor(batch.observation)).mean()
        minimise(actor_loss, self.actor_optimizer)

        polyak_update(self.critics, self.target_critics, c.tau)
        polyak_update(self.actor, self.target_actor, c.tau)
        return {
            "train/critic_loss": critic_loss,
            "train/actor_loss": actor_loss.detach(),
            "train/q_mean": values.mean(),
        }
