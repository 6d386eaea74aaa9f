"""Soft actor-critic with an automatic temperature (Haarnoja et al. 2018, arXiv 1812.05905), and SimBa's form of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from palaestra.agents.losses.values import SquaredError, td_target
from palaestra.agents.memory.replay import Batch
from palaestra.agents.nn.actors import SmoothGaussianActor, SquashedGaussianActor
from palaestra.agents.nn.critic import CriticBank, held_fixed, polyak_update, target_copy
from palaestra.agents.nn.trunks import trunk, trunks
from palaestra.agents.registry import register_agent
from palaestra.agents.training.maximum_entropy import MaximumEntropyAgent, MaximumEntropyConfig
from palaestra.agents.training.metrics import Metrics
from palaestra.agents.training.network_config import TrunkConfig
from palaestra.agents.training.off_policy import minimise
from palaestra.agents.training.regression import regress


@dataclass(frozen=True)
class SACConfig(MaximumEntropyConfig):
    """Defaults of the paper."""


@register_agent("sac")
class SAC(MaximumEntropyAgent):
    """Maximum-entropy off-policy actor-critic: twin critics, a squashed Gaussian, a learned temperature.

    The critic loss carries the paper's factor 1/2. The temperature's step follows log alpha, as the authors' code does
    (see `MaximumEntropyAgent`).
    """

    config: MaximumEntropyConfig
    config_class: ClassVar[type[MaximumEntropyConfig]] = SACConfig

    def build(self) -> None:
        """Create the actor, the critics with their targets, and the temperature."""
        c = self.config
        space, dim = self.observation_space, self.action_dim
        self.actor = SquashedGaussianActor(space, 2 * dim, c.hidden, c.activation, c.encoder)
        self.critics = CriticBank(space, dim, c.hidden, activation=c.activation, encoder=c.encoder)
        self.target_critics = target_copy(self.critics)
        self.actor_optimizer = self.optimizer(self.actor)
        self.critic_optimizer = self.optimizer(self.critics)
        self.build_temperature()

    def update(self, batch: Batch) -> Metrics:
        """Step the temperature, the critics, the actor and the targets."""
        c = self.config
        alpha = self.alpha
        action, log_prob = self.actor(batch.observation).sample_with_log_prob(self.generator)
        self.step_temperature(log_prob)

        with torch.no_grad():
            next_action, next_log_prob = self.actor(batch.next_observation).sample_with_log_prob(self.generator)
            next_value = self.target_critics(batch.next_observation, next_action).amin(0) - alpha * next_log_prob
            target = td_target(batch.reward, batch.terminated, next_value, c.gamma)
        inputs = batch.observation, batch.action
        values, critic_loss = regress(self.critics, inputs, target, SquaredError(0.5), self.critic_optimizer)

        with held_fixed(self.critics):
            value = self.critics(batch.observation, action).amin(0)
        actor_loss = (alpha * log_prob - value).mean()
        minimise(actor_loss, self.actor_optimizer)

        polyak_update(self.critics, self.target_critics, c.tau)
        return {
            "train/critic_loss": critic_loss,
            "train/actor_loss": actor_loss.detach(),
            "train/ent_coef": alpha,
            "train/entropy": -log_prob.detach().mean(),
            "train/q_mean": values.mean(),
        }


@dataclass(frozen=True)
class SimBaSACConfig(MaximumEntropyConfig, TrunkConfig):
    """Defaults of the authors' code."""

    learning_rate: float = 1e-4
    """Step size of Adam, above 0."""
    normalize_observation: bool = True
    """Standardise float vectors by running statistics, frozen at evaluation."""
    trunk: str = "simba"
    """What actor and critics are made of: mlp, simba or bronet."""
    hidden: tuple[int, ...] = (128,)
    """Widths of the hidden layers or blocks of the actor."""
    critic_hidden: tuple[int, ...] = (512, 512)
    """Widths of the hidden layers or blocks of the critics; `hidden` holds the actor's."""
    num_critics: int = 2
    """Critics whose minimum counts; the authors take one where no episode terminates."""
    weight_decay: float = 1e-2
    """Share of the networks' parameters, times the step size, that every step takes off, at least 0."""
    initial_ent_coef: float = 0.01
    """Where an automatic temperature starts, above 0."""
    learning_starts: int = 5_000
    """Env steps of uniformly random actions before the first update."""
    gradient_steps: int = 2
    """Updates per round; -1 makes as many as env steps were taken."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("num_critics", self.num_critics >= 1, "an integer of at least 1")
        self.require("weight_decay", self.weight_decay >= 0.0, "a number of at least 0")


@register_agent("simba-sac")
class SimBaSAC(SAC):
    """SAC on networks that may be large: residual trunks, normalised observations, decayed weights (SimBa).

    Lee et al. 2024, arXiv 2410.09754. Other trunks may be put in their place.
    """

    config: SimBaSACConfig
    config_class = SimBaSACConfig
    entropy_per_dimension: ClassVar[float] = -0.5

    def build(self) -> None:
        """Create the actor, the critics with their targets, and the temperature."""
        c = self.config
        space, dim = self.observation_space, self.action_dim
        self.actor = SmoothGaussianActor(space, 2 * dim, c.hidden, c.activation, c.encoder, trunk(c.trunk))
        self.critics = CriticBank(space, dim, c.critic_hidden, c.num_critics, c.activation, c.encoder, trunks(c.trunk))
        self.target_critics = target_copy(self.critics)
        options: dict[str, Any] = {"weight_decay": c.weight_decay, "decoupled": True}
        self.actor_optimizer = self.optimizer(self.actor, **options)
        self.critic_optimizer = self.optimizer(self.critics, **options)
        self.build_temperature()
