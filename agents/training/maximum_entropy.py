"""What maximum-entropy actor-critics share: a squashed Gaussian to act with, and a temperature that may be learnt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor, nn

from palaestra.agents.nn.actors import SquashedGaussianActor
from palaestra.agents.nn.distributions import SquashedGaussian
from palaestra.agents.nn.networks import Observation
from palaestra.agents.training.off_policy import OffPolicyAgent, OffPolicyConfig, minimise


@dataclass(frozen=True)
class MaximumEntropyConfig(OffPolicyConfig):
    """Settings of the temperature."""

    ent_coef: Literal["auto"] | float = "auto"
    """Temperature: a fixed number of at least 0, or auto to hold the entropy at its target."""
    initial_ent_coef: float = 1.0
    """Where an automatic temperature starts, above 0."""
    target_entropy: Literal["auto"] | float = "auto"
    """Entropy to hold, in nats; auto is in proportion to the number of action dimensions."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("ent_coef", self.ent_coef == "auto" or self.ent_coef >= 0.0, "'auto' or a number of at least 0")
        self.require("initial_ent_coef", self.initial_ent_coef > 0.0, "a number above 0")


class MaximumEntropyAgent(OffPolicyAgent):
    """An agent whose actor is a squashed Gaussian and whose return counts entropy; subclasses make the networks.

    The temperature's step follows log alpha: its loss is -log alpha (log pi + target entropy), whose gradient has the
    sign of that of alpha's own (Haarnoja et al. 2018, eq. 18) and is not slowed down by a small alpha.
    """

    config: MaximumEntropyConfig
    config_class: ClassVar[type[MaximumEntropyConfig]] = MaximumEntropyConfig
    actor: SquashedGaussianActor
    entropy_per_dimension: ClassVar[float] = -1.0
    """Entropy to hold by default, in nats for every action dimension."""

    def build_temperature(self, betas: tuple[float, float] = (0.9, 0.999), learning_rate: float | None = None) -> None:
        """Create the temperature and, where it is learnt, its optimiser, with the configured step size by default."""
        c = self.config
        self.automatic = c.ent_coef == "auto"
        alpha = c.initial_ent_coef if c.ent_coef == "auto" else c.ent_coef
        self.log_alpha = nn.Parameter(torch.tensor(alpha, device=self.device).log(), requires_grad=self.automatic)
        self.alpha_optimizer = (
            self.optimizer(self.log_alpha, learning_rate=learning_rate, betas=betas) if self.automatic else None
        )
        entropy = self.entropy_per_dimension * self.action_dim if c.target_entropy == "auto" else c.target_entropy
        self.target_entropy = float(entropy)

    @property
    def alpha(self) -> Tensor:
        """The temperature, a new scalar tensor."""
        return self.log_alpha.detach().exp()

    def step_temperature(self, log_prob: Tensor) -> None:
        """Move an automatic temperature up where actions with log-densities `[batch]` have too little entropy."""
        if self.alpha_optimizer is not None:
            minimise(-self.log_alpha * (log_prob.detach() + self.target_entropy).mean(), self.alpha_optimizer)

    def act(self, observation: Observation, generator: Generator | None) -> Tensor:
        """Return a sample of the policy, or tanh of its mean."""
        policy: SquashedGaussian = self.actor(observation)
        return policy.mode() if generator is None else policy.sample(generator)
