"""Twin delayed deep deterministic policy gradient (Fujimoto et al. 2018, arXiv 1802.09477)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from palaestra.agents.losses.values import squared_error_per_critic, td_target
from palaestra.agents.memory.replay import Batch
from palaestra.agents.nn.actors import DeterministicActor
from palaestra.agents.nn.critic import CriticBank, held_fixed, polyak_update, target_copy
from palaestra.agents.nn.distributions import standard_normal_like
from palaestra.agents.nn.networks import Observation
from palaestra.agents.registry import register_agent
from palaestra.agents.training.metrics import Metrics
from palaestra.agents.training.off_policy import OffPolicyAgent, OffPolicyConfig, minimise


@dataclass(frozen=True)
class TD3Config(OffPolicyConfig):
    """Defaults of the paper's code; actions are scaled to [-1, 1]."""

    exploration_noise: float = 0.1
    """Standard deviation of the noise added while collecting."""
    policy_delay: int = 2
    """Critic updates per update of the actor and the targets."""
    target_policy_noise: float = 0.2
    """Standard deviation of the noise on the target action."""
    target_noise_clip: float = 0.5
    """Largest magnitude of that noise."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("exploration_noise", "target_policy_noise", "target_noise_clip"):
            self.require(name, getattr(self, name) >= 0.0, "a number of at least 0")
        self.require("policy_delay", self.policy_delay >= 1, "an integer of at least 1")


@register_agent("td3")
class TD3(OffPolicyAgent):
    """Deterministic actor-critic with clipped double Q-learning, target smoothing and delayed policy updates."""

    config: TD3Config
    config_class = TD3Config
    stochastic_modes: ClassVar[bool] = False

    def build(self) -> None:
        """Create the actor and the critics with their targets."""
        c = self.config
        space, dim = self.observation_space, self.action_dim
        self.actor = DeterministicActor(space, dim, c.hidden, c.activation, c.encoder)
        self.critics = CriticBank(space, dim, c.hidden, activation=c.activation, encoder=c.encoder)
        self.target_actor, self.target_critics = target_copy(self.actor), target_copy(self.critics)
        self.actor_optimizer = self.optimizer(self.actor)
        self.critic_optimizer = self.optimizer(self.critics)
        self.actor_loss = torch.zeros((), device=self.device)

    def act(self, observation: Observation, generator: Generator | None) -> Tensor:
        """Return the actor's action, with exploration noise where a generator is given."""
        action = self.actor(observation)
        if generator is None:
            return action
        noise = self.config.exploration_noise * standard_normal_like(action, generator)
        return (action + noise).clamp(-1.0, 1.0)

    def update(self, batch: Batch) -> Metrics:
        """Step the critics and, every `policy_delay` updates, the actor and the targets."""
        c = self.config
        with torch.no_grad():
            noise = c.target_policy_noise * standard_normal_like(batch.action, self.generator)
            noise = noise.clamp(-c.target_noise_clip, c.target_noise_clip)
            next_action = (self.target_actor(batch.next_observation) + noise).clamp(-1.0, 1.0)
            next_value = self.target_critics(batch.next_observation, next_action).amin(0)
            target = td_target(batch.reward, batch.terminated, next_value, c.gamma)
        values = self.critics(batch.observation, batch.action)
        critic_loss = squared_error_per_critic(values, target).sum()
        minimise(critic_loss, self.critic_optimizer)

        if (self.num_updates + 1) % c.policy_delay == 0:
            with held_fixed(self.critics):
                actor_loss = -self.critics.value(0, batch.observation, self.actor(batch.observation)).mean()
            minimise(actor_loss, self.actor_optimizer)
            self.actor_loss.copy_(actor_loss.detach())
            polyak_update(self.critics, self.target_critics, c.tau)
            polyak_update(self.actor, self.target_actor, c.tau)
        return {
            "train/critic_loss": critic_loss.detach(),
            "train/actor_loss": self.actor_loss.clone(),
            "train/q_mean": values.detach().mean(),
        }
