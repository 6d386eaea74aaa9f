"""BRO: bigger, regularised, optimistic (Nauman et al. 2024, arXiv 2405.16158)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym
import torch
from torch import Tensor, nn

from palaestra.agents.memory.replay import Batch
from palaestra.agents.nn.actors import SmoothGaussianActor
from palaestra.agents.nn.critic import held_fixed, polyak_update, target_copy
from palaestra.agents.nn.critic_heads import HeadedCritics, QuantileHead
from palaestra.agents.nn.distributions import SquashedGaussian
from palaestra.agents.nn.estimates import QuantileEstimate
from palaestra.agents.nn.networks import Observation, make_encoder
from palaestra.agents.nn.trunks import BroNet, trunks
from palaestra.agents.registry import register_agent
from palaestra.agents.training.maximum_entropy import MaximumEntropyAgent, MaximumEntropyConfig
from palaestra.agents.training.metrics import Metrics
from palaestra.agents.training.network_config import LargeCriticConfig
from palaestra.agents.training.off_policy import minimise
from palaestra.agents.training.optimizer import FlatAdam
from palaestra.agents.training.seeding import seeded_initialisation

LOG_RANGE = (-10.0, 7.5)
"""Logarithms between which optimism and the weight of the divergence move."""


@dataclass(frozen=True)
class BROConfig(MaximumEntropyConfig, LargeCriticConfig):
    """Defaults of the authors' code."""

    hidden: tuple[int, ...] = (256,)
    """Widths of the actors' blocks, all equal."""
    critic_hidden: tuple[int, ...] = (512, 512)
    """Widths of the critics' blocks, all equal."""
    batch_size: int = 128
    """Transitions per update."""
    learning_starts: int = 2_500
    """Env steps of uniformly random actions before the first update."""
    gradient_steps: int = 10
    """Updates per round; -1 makes as many as env steps were taken. BRO (Fast) makes 2, and resets once."""
    weight_decay: float = 1e-4
    """Share of the networks' parameters, times the step size, that every step takes off, at least 0."""
    num_quantiles: int = 100
    """Quantiles of the return per critic."""
    huber_width: float = 1.0
    """Where the quantile loss turns from a square into a line, at least 0."""
    pessimism: float = 0.0
    """How many half distances between the critics the target lies below their mean; 1 is their minimum."""
    resets: tuple[int, ...] = (15_000, 50_000, 250_000, 500_000, 750_000, 1_000_000, 1_500_000, 2_000_000)
    """Env steps at which everything but the replay is initialised anew."""
    exploration_std: float = 0.75
    """Standard deviation of the exploring policy in units of the actor's, above 0."""
    kl_target: float = 0.05
    """Divergence between exploring policy and actor to hold, in nats per action dimension."""
    initial_optimism: float = 1.0
    """Half distances between the critics by which the exploring policy believes more than their mean, at first."""
    initial_kl_weight: float = 0.25
    """Weight of the divergence at first."""
    adjustment_rate: float = 3e-5
    """Step size of Adam for these two, above 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_equal_widths()
        for name in ("weight_decay", "huber_width", "pessimism", "kl_target"):
            self.require(name, getattr(self, name) >= 0.0, "a number of at least 0")
        self.require("num_quantiles", self.num_quantiles >= 1, "an integer of at least 1")
        for name in ("exploration_std", "adjustment_rate"):
            self.require(name, getattr(self, name) > 0.0, "a number above 0")
        low, high = (math.exp(bound) for bound in LOG_RANGE)
        for name in ("initial_optimism", "initial_kl_weight"):
            self.require(name, low < getattr(self, name) < high, f"a number between {low:.1e} and {high:.1e}")
        self.require("resets", all(step >= 1 for step in self.resets), "steps of at least 1")


class OptimisticShift(nn.Module):
    """Moves an actor's mean by what it reads in the observation and that mean; hardly at all at first."""

    def __init__(
        self, observation_space: gym.Space[Any], dim: int, hidden: Sequence[int], activation: str, encoder: str
    ) -> None:
        super().__init__()
        self.encoder = make_encoder(observation_space, encoder)
        self.trunk = BroNet([self.encoder.features + dim, *hidden, dim], activation)
        nn.init.orthogonal_(self.trunk.head.weight, 0.01)
        self.trunk.head.register_parameter("bias", None)

    def forward(self, observation: Observation, mean: Tensor) -> Tensor:
        """Return the exploring policy's mean before squashing `[batch, action_dim]`, given the actor's."""
        return mean + self.trunk(torch.cat([self.encoder(observation), mean], -1))


@register_agent("bro")
class BRO(MaximumEntropyAgent):
    """Soft actor-critic with large regularised quantile critics, many updates, resets and optimistic exploration.

    The critics' quantiles are joined one by one: mean + weight |difference| / 2, with weight -pessimism for the target
    and the actor, and the adjusted optimism for the exploring policy, which is held near the actor. Evaluation uses the
    actor. The temperature follows log alpha (see `MaximumEntropyAgent`), in the authors' code alpha.
    """

    config: BROConfig
    config_class = BROConfig
    entropy_per_dimension: ClassVar[float] = -0.5

    def build(self) -> None:
        """Create the actor, the exploring policy, the critics with their targets, and what is adjusted."""
        c = self.config
        self.actor, self.shift, self.critics = self._networks()
        self.target_critics = target_copy(self.critics)
        options: dict[str, Any] = {"weight_decay": c.weight_decay, "decoupled": True}
        self.actor_optimizer = self.optimizer(self.actor, **options)
        self.shift_optimizer = self.optimizer(self.shift, **options)
        self.critic_optimizer = self.optimizer(self.critics, **options)
        self.build_temperature(betas=(0.5, 0.999))
        self.adjustments = nn.Parameter(self._initial_adjustments())
        self.adjustment_optimizer = self.optimizer(
            self.adjustments, learning_rate=c.adjustment_rate, betas=(0.5, 0.999)
        )
        self.num_resets = 0

    def _networks(self) -> tuple[SmoothGaussianActor, OptimisticShift, HeadedCritics[QuantileEstimate]]:
        """Return new networks, initialised from torch's global generator."""
        c = self.config
        space, dim = self.observation_space, self.action_dim
        head = QuantileHead(c.num_quantiles, c.huber_width)
        return (
            SmoothGaussianActor(space, 2 * dim, c.hidden, c.activation, c.encoder, BroNet),
            OptimisticShift(space, dim, c.hidden, c.activation, c.encoder),
            HeadedCritics(space, dim, c.critic_hidden, head, 2, c.activation, c.encoder, trunks("bronet")),
        )

    def _initial_adjustments(self) -> Tensor:
        """Return where the two adjusted numbers start, such that `adjusted` gives their initial values."""
        low, high = LOG_RANGE
        values = torch.tensor([self.config.initial_optimism, self.config.initial_kl_weight], device=self.device)
        return torch.atanh(2.0 * (values.log() - low) / (high - low) - 1.0)

    def adjusted(self) -> tuple[Tensor, Tensor]:
        """Return the optimism and the weight of the divergence."""
        low, high = LOG_RANGE
        optimism, kl_weight = torch.exp(low + 0.5 * (high - low) * (1.0 + torch.tanh(self.adjustments))).unbind()
        return optimism, kl_weight

    def optimistic(self, observation: Observation, policy: SquashedGaussian) -> SquashedGaussian:
        """Return the exploring policy, given the actor's."""
        mean = self.shift(observation, policy.mean)
        return SquashedGaussian(mean, policy.log_std + math.log(self.config.exploration_std))

    def explore(self, observation: Observation) -> Tensor:
        """Return samples of the exploring policy."""
        return self.optimistic(observation, self.actor(observation)).sample(self.generator)

    def update(self, batch: Batch) -> Metrics:
        """Step the critics, their targets, the actor, the exploring policy, the temperature and the adjustments."""
        c = self.config
        alpha = self.alpha
        with torch.no_grad():
            next_action, next_log_prob = self.actor(batch.next_observation).sample_with_log_prob(self.generator)
            following = joined(self.target_critics(batch.next_observation, next_action), -c.pessimism)
            discount = torch.full_like(batch.reward, c.gamma).masked_fill(batch.terminated, 0.0)
            target = following.moved(batch.reward - discount * alpha * next_log_prob, discount)
        said = self.critics(batch.observation, batch.action)
        critic_loss = said.loss(target).mean(-1).sum()
        minimise(critic_loss, self.critic_optimizer)
        polyak_update(self.critics, self.target_critics, c.tau)

        action, log_prob = self.actor(batch.observation).sample_with_log_prob(self.generator)
        with held_fixed(self.critics):
            value = joined(self.critics(batch.observation, action), -c.pessimism).mean()
        actor_loss = (alpha * log_prob - value).mean()
        minimise(actor_loss, self.actor_optimizer)

        optimism, kl_weight = self.adjusted()
        with torch.no_grad():
            policy = self.actor(batch.observation)
        exploring = self.optimistic(batch.observation, policy)
        with held_fixed(self.critics):
            hoped = self.critics(batch.observation, exploring.sample(self.generator))
            bound = joined(hoped, optimism.detach()).mean()
        # Of the policies before the exploring one is narrowed, whose variances are equal.
        divergence = 0.5 * ((exploring.mean - policy.mean) * torch.exp(-policy.log_std)).square().sum(-1).mean()
        minimise(kl_weight.detach() * divergence - bound.mean(), self.shift_optimizer)

        self.step_temperature(log_prob)
        excess = divergence.detach() / self.action_dim - c.kl_target
        minimise((optimism - c.pessimism - kl_weight) * excess, self.adjustment_optimizer)
        return {
            "train/critic_loss": critic_loss.detach(),
            "train/actor_loss": actor_loss.detach(),
            "train/ent_coef": alpha,
            "train/entropy": -log_prob.detach().mean(),
            "train/q_mean": said.mean().detach().mean(),
            "train/optimism": optimism.detach(),
            "train/kl_weight": kl_weight.detach(),
            "train/exploration_kl": divergence.detach(),
        }

    def after_step(self, before: int) -> None:
        """Initialise everything but the replay anew where a reset is due."""
        if any(before < step <= self.num_timesteps for step in self.config.resets):
            self.reset_networks()

    @torch.no_grad()
    def reset_networks(self) -> None:
        """Initialise all that was learnt anew, where it lies in memory."""
        self.num_resets += 1
        with torch.device(self.device), seeded_initialisation(self.seed, f"reset {self.num_resets}"):
            actor, shift, critics = self._networks()
        pairs = ((self.actor, actor), (self.shift, shift), (self.critics, critics), (self.target_critics, critics))
        for module, fresh in pairs:
            module.load_state_dict(fresh.state_dict())
        if self.automatic:
            self.log_alpha.fill_(math.log(self.config.initial_ent_coef))
        self.adjustments.copy_(self._initial_adjustments())
        for optimizer in self.optimizers():
            assert isinstance(optimizer, FlatAdam)
            optimizer.restart()


def joined(said: QuantileEstimate, weight: float | Tensor) -> QuantileEstimate:
    """Return mean + weight |difference| / 2 of two critics' quantiles; weight -1 is their minimum, 1 their maximum."""
    return said.each(lambda quantiles: quantiles.mean(0) + 0.5 * weight * (quantiles[0] - quantiles[1]).abs())
