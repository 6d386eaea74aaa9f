"""What actor-critics with a deterministic policy share: networks and their targets, exploration, smoothed targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Generator, Tensor

from palaestra.agents.nn.actors import DeterministicActor
from palaestra.agents.nn.critic import CriticBank, target_copy
from palaestra.agents.nn.distributions import standard_normal_like
from palaestra.agents.nn.networks import Observation
from palaestra.agents.training.off_policy import OffPolicyAgent, OffPolicyConfig


@dataclass(frozen=True)
class ExploringConfig(OffPolicyConfig):
    """Exploration by independent noise; actions are scaled to [-1, 1]."""

    exploration_noise: float = 0.1
    """Standard deviation of the noise added while collecting."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("exploration_noise", self.exploration_noise >= 0.0, "a number of at least 0")


@dataclass(frozen=True)
class SmoothedConfig(OffPolicyConfig):
    """Target smoothing and delayed policy updates (Fujimoto et al. 2018); actions are scaled to [-1, 1]."""

    policy_delay: int = 2
    """Critic updates per update of the actor."""
    target_policy_noise: float = 0.2
    """Standard deviation of the noise on the target action."""
    target_noise_clip: float = 0.5
    """Largest magnitude of that noise."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("target_policy_noise", "target_noise_clip"):
            self.require(name, getattr(self, name) >= 0.0, "a number of at least 0")
        self.require("policy_delay", self.policy_delay >= 1, "an integer of at least 1")

    def smoothed(self, action: Tensor, generator: Generator | None) -> Tensor:
        """Return target actions `[batch, action_dim]` with clipped noise, inside [-1, 1]."""
        noise = self.target_policy_noise * standard_normal_like(action, generator)
        return (action + noise.clamp(-self.target_noise_clip, self.target_noise_clip)).clamp(-1.0, 1.0)


class DeterministicAgent(OffPolicyAgent):
    """An agent with a deterministic actor and scalar critics, each with a target; subclasses define `update`."""

    config: ExploringConfig
    config_class: ClassVar[type[ExploringConfig]] = ExploringConfig
    stochastic_modes: ClassVar[bool] = False
    num_critics: ClassVar[int] = 1

    def build(self) -> None:
        """Create the actor and the critics with their targets."""
        c = self.config
        space, dim = self.observation_space, self.action_dim
        self.actor = DeterministicActor(space, dim, c.hidden, c.activation, c.encoder)
        self.critics = CriticBank(space, dim, c.hidden, self.num_critics, c.activation, c.encoder)
        self.target_actor, self.target_critics = target_copy(self.actor), target_copy(self.critics)
        self.actor_optimizer = self.optimizer(self.actor)
        self.critic_optimizer = self.optimizer(self.critics)

    def act(self, observation: Observation, generator: Generator | None) -> Tensor:
        """Return the actor's action, with exploration noise where a generator is given."""
        action: Tensor = self.actor(observation)
        if generator is None:
            return action
        noise = self.config.exploration_noise * standard_normal_like(action, generator)
        return (action + noise).clamp(-1.0, 1.0)
