"""Twin delayed deep deterministic policy gradient (Fujimoto et al. 2018, arXiv 1802.09477)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from palaestra.agents.losses.values import SquaredError, td_target
from palaestra.agents.memory.replay import Batch
from palaestra.agents.nn.critic import held_fixed, polyak_update
from palaestra.agents.registry import register_agent
from palaestra.agents.training.deterministic import DeterministicAgent, ExploringConfig, SmoothedConfig
from palaestra.agents.training.metrics import Metrics
from palaestra.agents.training.off_policy import minimise
from palaestra.agents.training.regression import regress


@dataclass(frozen=True)
class TD3Config(SmoothedConfig, ExploringConfig):
    """Defaults of the paper's code."""


@register_agent("td3")
class TD3(DeterministicAgent):
    """Deterministic actor-critic with clipped double Q-learning, target smoothing and delayed policy updates."""

    config: TD3Config
    config_class = TD3Config
    num_critics: ClassVar[int] = 2

    def build(self) -> None:
        """Create the networks, and the last loss of the actor."""
        super().build()
        self.actor_loss = torch.zeros((), device=self.device)

    def update(self, batch: Batch) -> Metrics:
        """Step the critics and, every `policy_delay` updates, the actor and the targets."""
        c = self.config
        with torch.no_grad():
            next_action = c.smoothed(self.target_actor(batch.next_observation), self.generator)
            next_value = self.target_critics(batch.next_observation, next_action).amin(0)
            target = td_target(batch.reward, batch.terminated, next_value, c.gamma)
        inputs = batch.observation, batch.action
        values, critic_loss = regress(self.critics, inputs, target, SquaredError(), self.critic_optimizer)

        if (self.num_updates + 1) % c.policy_delay == 0:
            with held_fixed(self.critics):
                actor_loss = -self.critics.value(0, batch.observation, self.actor(batch.observation)).mean()
            minimise(actor_loss, self.actor_optimizer)
            self.actor_loss.copy_(actor_loss.detach())
            polyak_update(self.critics, self.target_critics, c.tau)
            polyak_update(self.actor, self.target_actor, c.tau)
        return {
            "train/critic_loss": critic_loss,
            "train/actor_loss": self.actor_loss.clone(),
            "train/q_mean": values.mean(),
        }
