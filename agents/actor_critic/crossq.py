"""CrossQ: batch normalisation in the place of target networks (Bhatt et al. 2024, arXiv 1902.05605)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from palaestra.agents.losses.values import squared_error_per_critic, td_target
from palaestra.agents.memory.replay import Batch
from palaestra.agents.nn.actors import SquashedGaussianActor
from palaestra.agents.nn.critic import CriticBank, held_fixed
from palaestra.agents.nn.networks import Observation
from palaestra.agents.nn.trunks import batch_statistics, trunk, trunks
from palaestra.agents.registry import register_agent
from palaestra.agents.training.maximum_entropy import MaximumEntropyAgent, MaximumEntropyConfig
from palaestra.agents.training.metrics import Metrics
from palaestra.agents.training.network_config import TrunkConfig
from palaestra.agents.training.off_policy import minimise


@dataclass(frozen=True)
class CrossQConfig(MaximumEntropyConfig, TrunkConfig):
    """Defaults of the authors' code; their critics of 2048 need a GPU, and of 256 they learn nearly as well."""

    learning_rate: float = 1e-3
    """Step size of Adam, above 0."""
    adam_beta1: float = 0.5
    """Decay rate of Adam's first moment for actor and critics, in [0, 1)."""
    trunk: str = "batch-renorm"
    """What actor and critics are made of: batch-renorm, or for comparison mlp, simba or bronet."""
    critic_hidden: tuple[int, ...] = (2048, 2048)
    """Widths of the hidden layers or blocks of the critics; `hidden` holds the actor's."""
    learning_starts: int = 5_000
    """Env steps of uniformly random actions before the first update."""
    tau: float = 1.0
    """Without effect: there are no target networks to follow."""
    policy_delay: int = 3
    """Critic updates per update of the actor and the temperature."""
    trunks: ClassVar[tuple[str, ...]] = ("batch-renorm", *TrunkConfig.trunks)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("adam_beta1", 0.0 <= self.adam_beta1 < 1.0, "a number in [0, 1)")
        self.require("policy_delay", self.policy_delay >= 1, "an integer of at least 1")


@register_agent("crossq")
class CrossQ(MaximumEntropyAgent):
    """Soft actor-critic without target networks: the critics see both sides of the Bellman equation in one batch.

    Normalised with (s', a') in their batch, the statistics of (s, a) fit both; without that, bootstrapping from the
    live critics diverges. Running statistics serve wherever else the networks are evaluated. The biased variance of
    the batch is used, as by the authors; sb3-contrib takes the unbiased one, and begins renormalising a batch later.
    """

    config: CrossQConfig
    config_class = CrossQConfig

    def build(self) -> None:
        """Create the actor, the critics and the temperature."""
        c = self.config
        space, dim, betas = self.observation_space, self.action_dim, (c.adam_beta1, 0.999)
        self.actor = SquashedGaussianActor(space, 2 * dim, c.hidden, c.activation, c.encoder, trunk(c.trunk))
        self.critics = CriticBank(space, dim, c.critic_hidden, 2, c.activation, c.encoder, trunks(c.trunk))
        self.actor_optimizer = self.optimizer(self.actor, betas=betas)
        self.critic_optimizer = self.optimizer(self.critics, betas=betas)
        self.build_temperature()
        self.actor_loss = torch.zeros((), device=self.device)
        self.entropy = torch.zeros((), device=self.device)

    def update(self, batch: Batch) -> Metrics:
        """Step the critics and, every `policy_delay` updates, the temperature and the actor."""
        c = self.config
        alpha = self.alpha
        with torch.no_grad():
            next_action, next_log_prob = self.actor(batch.next_observation).sample_with_log_prob(self.generator)
        observations = _joined(batch.observation, batch.next_observation)
        with batch_statistics(self.critics):
            both = self.critics(observations, torch.cat([batch.action, next_action]))
        values, next_values = both.chunk(2, -1)
        next_value = next_values.detach().amin(0) - alpha * next_log_prob
        target = td_target(batch.reward, batch.terminated, next_value, c.gamma)
        critic_loss = 0.5 * squared_error_per_critic(values, target).sum()
        minimise(critic_loss, self.critic_optimizer)

        if (self.num_updates + 1) % c.policy_delay == 0:
            with batch_statistics(self.actor):
                action, log_prob = self.actor(batch.observation).sample_with_log_prob(self.generator)
            self.step_temperature(log_prob)
            with held_fixed(self.critics):
                value = self.critics(batch.observation, action).amin(0)
            actor_loss = (alpha * log_prob - value).mean()
            minimise(actor_loss, self.actor_optimizer)
            self.actor_loss.copy_(actor_loss.detach())
            self.entropy.copy_(-log_prob.detach().mean())
        return {
            "train/critic_loss": critic_loss.detach(),
            "train/actor_loss": self.actor_loss.clone(),
            "train/ent_coef": alpha,
            "train/entropy": self.entropy.clone(),
            "train/q_mean": values.detach().mean(),
        }


def _joined(first: Observation, second: Observation) -> Observation:
    """Return two batches of observations as one."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.cat([first, second])
    return {key: torch.cat([first[key], second[key]]) for key in first}  # type: ignore[index]
