"""Soft actor-critic with an automatic temperature (Haarnoja et al. 2018, arXiv 1812.05905)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from palaestra.agents.losses.values import squared_error_per_critic, td_target
from palaestra.agents.memory.replay import Batch
from palaestra.agents.nn.actors import SquashedGaussianActor
from palaestra.agents.nn.critic import CriticBank, held_fixed, polyak_update, target_copy
from palaestra.agents.nn.networks import Observation
from palaestra.agents.registry import register_agent
from palaestra.agents.training.metrics import Metrics
from palaestra.agents.training.off_policy import OffPolicyAgent, OffPolicyConfig, minimise


@dataclass(frozen=True)
class SACConfig(OffPolicyConfig):
    """Defaults of the paper."""

    ent_coef: Literal["auto"] | float = "auto"
    """Temperature: a fixed number of at least 0, or auto to hold the entropy at its target."""
    initial_ent_coef: float = 1.0
    """Where an automatic temperature starts, above 0."""
    target_entropy: Literal["auto"] | float = "auto"
    """Entropy to hold, in nats; auto is minus the number of action dimensions."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("ent_coef", self.ent_coef == "auto" or self.ent_coef >= 0.0, "'auto' or a number of at least 0")
        self.require("initial_ent_coef", self.initial_ent_coef > 0.0, "a number above 0")


@register_agent("sac")
class SAC(OffPolicyAgent):
    """Maximum-entropy off-policy actor-critic: twin critics, a squashed Gaussian, a learned temperature.

    The critic loss carries the paper's factor 1/2. The temperature's step follows log alpha, as the authors' code
    does: its loss is -log alpha (log pi + target entropy), whose gradient has the sign of the paper's eq. 18.
    """

    config: SACConfig
    config_class = SACConfig

    def build(self) -> None:
        """Create the actor, the critics with their targets, and the temperature."""
        c = self.config
        space, dim = self.observation_space, self.action_dim
        self.actor = SquashedGaussianActor(space, 2 * dim, c.hidden, c.activation, c.encoder)
        self.critics = CriticBank(space, dim, c.hidden, activation=c.activation, encoder=c.encoder)
        self.target_critics = target_copy(self.critics)
        self.actor_optimizer = self.optimizer(self.actor)
        self.critic_optimizer = self.optimizer(self.critics)
        self.automatic = c.ent_coef == "auto"
        alpha = c.initial_ent_coef if c.ent_coef == "auto" else c.ent_coef
        self.log_alpha = nn.Parameter(torch.tensor(alpha, device=self.device).log(), requires_grad=self.automatic)
        self.alpha_optimizer = self.optimizer(self.log_alpha) if self.automatic else None
        self.target_entropy = float(-self.action_dim if c.target_entropy == "auto" else c.target_entropy)

    def act(self, observation: Observation, generator: Generator | None) -> Tensor:
        """Return a sample of the policy, or tanh of its mean."""
        policy = self.actor(observation)
        return policy.mode() if generator is None else policy.sample(generator)

    def update(self, batch: Batch) -> Metrics:
        """Step the temperature, the critics, the actor and the targets."""
        c = self.config
        alpha = self.log_alpha.detach().exp()
        action, log_prob = self.actor(batch.observation).sample_with_log_prob(self.generator)

        if self.alpha_optimizer is not None:
            alpha_loss = -self.log_alpha * (log_prob.detach() + self.target_entropy).mean()
            minimise(alpha_loss, self.alpha_optimizer)

        with torch.no_grad():
            next_action, next_log_prob = self.actor(batch.next_observation).sample_with_log_prob(self.generator)
            next_value = self.target_critics(batch.next_observation, next_action).amin(0) - alpha * next_log_prob
            target = td_target(batch.reward, batch.terminated, next_value, c.gamma)
        values = self.critics(batch.observation, batch.action)
        critic_loss = 0.5 * squared_error_per_critic(values, target).sum()
        minimise(critic_loss, self.critic_optimizer)

        with held_fixed(self.critics):
            value = self.critics(batch.observation, action).amin(0)
        actor_loss = (alpha * log_prob - value).mean()
        minimise(actor_loss, self.actor_optimizer)

        polyak_update(self.critics, self.target_critics, c.tau)
        return {
            "train/critic_loss": critic_loss.detach(),
            "train/actor_loss": actor_loss.detach(),
            "train/ent_coef": alpha,
            "train/entropy": -log_prob.detach().mean(),
            "train/q_mean": values.detach().mean(),
        }
