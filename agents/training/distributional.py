"""What the versions of the distributional soft actor-critic share: everything but the loss of their critics."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from palaestra.agents.memory.replay import Batch
from palaestra.agents.nn.actors import SquashedGaussianActor
from palaestra.agents.nn.critic import held_fixed, polyak_update, target_copy
from palaestra.agents.nn.critic_heads import GaussianHead, HeadedCritics
from palaestra.agents.nn.estimates import GaussianEstimate
from palaestra.agents.training.maximum_entropy import MaximumEntropyAgent, MaximumEntropyConfig
from palaestra.agents.training.metrics import Metrics
from palaestra.agents.training.off_policy import minimise


@dataclass(frozen=True)
class DistributionalConfig(MaximumEntropyConfig):
    """Defaults of the authors' code, which takes 20 env steps for every update."""

    hidden: tuple[int, ...] = (256, 256, 256)
    """Widths of the hidden layers of actor and critics."""
    activation: str = "gelu"
    """Activation of the hidden layers: relu, tanh, elu, gelu or silu."""
    learning_rate: float = 1e-4
    """Step size of Adam for actor and critics, above 0."""
    ent_coef_learning_rate: float = 3e-4
    """Step size of Adam for the temperature, above 0."""
    initial_ent_coef: float = math.e
    """Where an automatic temperature starts, above 0."""
    learning_starts: int = 10_000
    """Env steps of uniformly random actions before the first update."""
    train_freq: int = 20
    """Env steps (of all rows together) between rounds of updates."""
    policy_delay: int = 2
    """Critic updates per update of the actor, the temperature and the targets."""
    noise_clip: float = 3.0
    """Largest deviation of a target's sample from its mean, in standard deviations."""
    bias: float = 0.1
    """Added to powers of the standard deviation in denominators, at least 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("ent_coef_learning_rate", "noise_clip"):
            self.require(name, getattr(self, name) > 0.0, "a number above 0")
        self.require("policy_delay", self.policy_delay >= 1, "an integer of at least 1")
        self.require("bias", self.bias >= 0.0, "a number of at least 0")


class NarrowActor(SquashedGaussianActor):
    """A squashed Gaussian no wider before the squashing than the authors' code lets it be."""

    log_std_range: ClassVar[tuple[float, float]] = (-20.0, 0.5)


class DistributionalAgent(MaximumEntropyAgent):
    """A soft actor-critic whose critics say how the soft return is distributed, as N(Q, sigma^2)."""

    config: DistributionalConfig
    config_class = DistributionalConfig
    num_critics: ClassVar[int]

    def build(self) -> None:
        """Create the actor and the critics with their targets, and the temperature."""
        c = self.config
        space, dim = self.observation_space, self.action_dim
        self.actor = NarrowActor(space, 2 * dim, c.hidden, c.activation, c.encoder)
        head = GaussianHead(c.noise_clip)
        self.critics = HeadedCritics(space, dim, c.hidden, head, self.num_critics, c.activation, c.encoder)
        self.target_actor, self.target_critics = target_copy(self.actor), target_copy(self.critics)
        self.actor_optimizer = self.optimizer(self.actor)
        self.critic_optimizer = self.optimizer(self.critics)
        self.build_temperature(learning_rate=c.ent_coef_learning_rate)
        self.actor_loss = torch.zeros((), device=self.device)
        self.entropy = torch.zeros((), device=self.device)

    @abstractmethod
    def critic_loss(self, estimate: GaussianEstimate, target: GaussianEstimate) -> Tensor:
        """Return the loss of all critics, a scalar.

        Args:
            estimate: What the critics say of the soft return of a batch `[critics, batch]`.
            target: The return that they are to say instead `[batch]`; without gradients.
        """

    def update(self, batch: Batch) -> Metrics:
        """Step the critics and, every `policy_delay` updates, the actor, the temperature and the targets."""
        c, alpha = self.config, self.alpha
        with torch.no_grad():
            next_policy = self.target_actor(batch.next_observation)
            next_action, next_log_prob = next_policy.sample_with_log_prob(self.generator)
            discount = c.gamma * ~batch.terminated
            following = self.target_critics(batch.next_observation, next_action).lowest()
            target = following.moved(batch.reward - discount * alpha * next_log_prob, discount)
        estimate = self.critics(batch.observation, batch.action)
        critic_loss = self.critic_loss(estimate, target)
        minimise(critic_loss, self.critic_optimizer)

        if (self.num_updates + 1) % c.policy_delay == 0:
            action, log_prob = self.actor(batch.observation).sample_with_log_prob(self.generator)
            with held_fixed(self.critics):
                value = self.critics(batch.observation, action).mean().amin(0)
            actor_loss = (alpha * log_prob - value).mean()
            minimise(actor_loss, self.actor_optimizer)
            self.step_temperature(log_prob)
            polyak_update(self.critics, self.target_critics, c.tau)
            polyak_update(self.actor, self.target_actor, c.tau)
            self.actor_loss.copy_(actor_loss.detach())
            self.entropy.copy_(-log_prob.detach().mean())
        return {
            "train/critic_loss": critic_loss.detach(),
            "train/actor_loss": self.actor_loss.clone(),
            "train/ent_coef": alpha,
            "train/entropy": self.entropy.clone(),
            "train/q_mean": estimate.centre.detach().mean(),
            "train/q_std": estimate.std.detach().mean(),
        }
