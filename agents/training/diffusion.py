"""What off-policy agents share whose policy is a diffusion: twin critics, acting, and the loss of imitation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from palaestra.agents.losses.values import SquaredError, td_target
from palaestra.agents.memory.replay import Batch
from palaestra.agents.nn.critic import CriticBank, target_copy
from palaestra.agents.nn.distributions import standard_normal_like
from palaestra.agents.nn.generative.diffusion import DiffusionHead, DiffusionPolicy
from palaestra.agents.nn.generative.generative_actor import generate
from palaestra.agents.nn.generative.schedules import SCHEDULES
from palaestra.agents.nn.networks import Observation
from palaestra.agents.training.off_policy import OffPolicyAgent, OffPolicyConfig
from palaestra.agents.training.regression import regress


@dataclass(frozen=True)
class DenoisingConfig(OffPolicyConfig):
    """Settings of a policy that denoises its actions."""

    levels: int = 20
    """Levels of noise, which is the number of network evaluations an action takes, at least 1."""
    schedule: str = "cosine"
    """How noise grows with the levels: cosine, vp or linear."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("levels", self.levels >= 1, "an integer of at least 1")
        self.require("schedule", self.schedule in SCHEDULES, f"one of {', '.join(SCHEDULES)}")


@dataclass(frozen=True)
class DiffusionConfig(DenoisingConfig):
    """Settings of twin critics beside such a policy."""

    critic_learning_rate: float = 3e-4
    """Step size of Adam for the critics, above 0; `learning_rate` is the actor's."""
    max_grad_norm: float | None = None
    """Largest norm of each gradient, above 0; None for no clipping."""
    adam_eps: float = 1e-8
    """Added to the roots of Adam's second moments, above 0."""
    learning_starts: int = 10_000
    """Env steps of uniformly random actions before the first update."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("critic_learning_rate", self.critic_learning_rate > 0.0, "a number above 0")
        self.require("max_grad_norm", self.max_grad_norm is None or self.max_grad_norm > 0.0, "None or above 0")
        self.require("adam_eps", self.adam_eps > 0.0, "a number above 0")


def diffusion_head(agent: OffPolicyAgent, config: DenoisingConfig) -> DiffusionHead:
    """Return a new policy for an agent's spaces."""
    c, space = config, agent.observation_space
    return DiffusionHead(space, agent.action_dim, c.hidden, c.activation, c.encoder, c.levels, c.schedule)


class DiffusionAgent(OffPolicyAgent):
    """An agent with a diffusion policy that no gradient of values passes through, and twin critics.

    Without a generator, acting takes every noise as 0; the action that this denoises to is one of the policy's, but
    need not be its likeliest.
    """

    config: DiffusionConfig
    config_class: ClassVar[type[DiffusionConfig]] = DiffusionConfig

    def build(self) -> None:
        """Create the policy, and the critics with their targets."""
        c = self.config
        self.actor = diffusion_head(self, c)
        space, dim = self.observation_space, self.action_dim
        self.critics = CriticBank(space, dim, c.hidden, activation=c.activation, encoder=c.encoder)
        self.target_critics = target_copy(self.critics)
        self.actor_optimizer = self.optimizer(self.actor, max_grad_norm=c.max_grad_norm, eps=c.adam_eps)
        self.critic_optimizer = self.optimizer(
            self.critics, learning_rate=c.critic_learning_rate, max_grad_norm=c.max_grad_norm, eps=c.adam_eps
        )

    def act(self, observation: Observation, generator: Generator | None) -> Tensor:
        """Return one action of the policy per row."""
        return generate(self.actor, observation, generator)

    def step_critics(self, batch: Batch, next_action: Tensor) -> tuple[Tensor, Tensor]:
        """Step both critics towards r + gamma (1 - d) min Q'(s', a').

        Args:
            batch: Transitions.
            next_action: a' `[batch, action_dim]`.

        Returns:
            The loss and the mean value, scalars.
        """
        with torch.no_grad():
            next_value = self.target_critics(batch.next_observation, next_action).amin(0)
            target = td_target(batch.reward, batch.terminated, next_value, self.config.gamma)
        inputs = batch.observation, batch.action
        values, loss = regress(self.critics, inputs, target, SquaredError(), self.critic_optimizer)
        return loss, values.mean()

    def imitation_losses(self, policy: DiffusionPolicy, action: Tensor) -> Tensor:
        """Return the denoising loss `[rows]` of actions `[rows, action_dim]`, each at a random level."""
        return policy.loss(action, standard_normal_like(action, self.generator), self.random_levels(len(action)))

    def random_levels(self, rows: int) -> Tensor:
        """Return levels `[rows]` drawn uniformly from 1 to the number of levels."""
        return torch.randint(1, self.config.levels + 1, (rows,), generator=self.generator, device=self.device)
