"""Q-weighted variational policy optimisation (Ding et al. 2024, arXiv 2405.16173).

The policy imitates the best of its own actions, as much as that is better than their average; actions drawn uniformly
are imitated a little too, which keeps the policy spread out without its entropy being known.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from palaestra.agents.losses.imitation import best_with_advantage
from palaestra.agents.memory.replay import Batch
from palaestra.agents.nn.candidates import Selector, candidate_values, picked
from palaestra.agents.nn.critic import CriticBank, polyak_update, target_copy
from palaestra.agents.nn.generative.diffusion import DiffusionHead, DiffusionPolicy
from palaestra.agents.nn.networks import Observation
from palaestra.agents.registry import register_agent
from palaestra.agents.training.diffusion import DiffusionAgent, DiffusionConfig
from palaestra.agents.training.metrics import Metrics
from palaestra.agents.training.off_policy import minimise


@dataclass(frozen=True)
class QVPOConfig(DiffusionConfig):
    """Defaults of the authors' code, but for its Mish activations."""

    hidden: tuple[int, ...] = (256, 256, 256)
    """Widths of the hidden layers of actor and critics."""
    learning_rate: float = 1e-4
    """Step size of Adam for the actor, above 0."""
    max_grad_norm: float | None = 2.0
    """Largest norm of each gradient, above 0; None for no clipping."""
    adam_eps: float = 1e-5
    """Added to the roots of Adam's second moments, above 0."""
    own_actions: int = 64
    """Actions of the policy in every state of an update, of which the best is imitated, at least 2."""
    uniform_actions: int = 10
    """Actions drawn uniformly in every state of an update, at least 0."""
    entropy_weight: float = 0.02
    """What a uniform action counts beside the best one, at least 0."""
    behaviour_actions: int = 4
    """Actions of which the best is taken, while collecting and in targets, at least 1."""
    evaluation_actions: int = 32
    """Actions of which the best is taken when acting without a generator, at least 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("own_actions", self.own_actions >= 2, "an integer of at least 2")
        self.require("uniform_actions", self.uniform_actions >= 0, "an integer of at least 0")
        self.require("entropy_weight", self.entropy_weight >= 0.0, "a number of at least 0")
        for name in ("behaviour_actions", "evaluation_actions"):
            self.require(name, getattr(self, name) >= 1, "an integer of at least 1")


@register_agent("qvpo")
class QVPO(DiffusionAgent):
    """Weighted denoising of the best of many self-generated actions, with weights max(Q - V, 0).

    V is the average value of those actions. The loss is mean_s w(s) [l(s, best) + entropy_weight sum_u l(s, u)] over
    uniform actions u; the released code divides it by 1 + the number of uniform actions, which Adam undoes.

    Without a generator the noise is that of a few draws made once (the first of them 0), the same in every state, so
    that the action is a function of the observation; the released code draws anew.
    """

    config: QVPOConfig
    config_class = QVPOConfig

    def build(self) -> None:
        """Create the networks, the target policy, and the noise to evaluate with."""
        super().build()
        c = self.config
        self.target_actor = target_copy(self.actor)
        self.evaluation_noise = torch.randn(c.evaluation_actions, c.levels + 1, self.action_dim)
        self.evaluation_noise[0] = 0.0

    def act(self, observation: Observation, generator: Generator | None) -> Tensor:
        """Return the best of several actions of the policy per row."""
        return self.best_of(self.actor, self.critics, observation, generator)

    def best_of(
        self, actor: DiffusionHead, critics: CriticBank, observation: Observation, generator: Generator | None
    ) -> Tensor:
        """Return of each row's candidates the one with the highest min Q, `[batch, action_dim]`."""
        c = self.config
        action = self.propose(
            actor, observation, c.evaluation_actions if generator is None else c.behaviour_actions, generator
        )
        return Selector().choose(lambda o, a: critics(o, a).amin(0), observation, action, None).action

    def propose(
        self, actor: DiffusionHead, observation: Observation, count: int, generator: Generator | None
    ) -> Tensor:
        """Return `count` actions for each row, `[batch, count, action_dim]`, in [-1, 1]."""
        policy = actor(observation)
        rows, several = len(policy.features), policy.repeated(count)
        noise = self.evaluation_noise.repeat(rows, 1, 1) if generator is None else several.draw_noise(generator)
        return several.denoise(noise).view(rows, count, -1)

    def update(self, batch: Batch) -> Metrics:
        """Step the critics, the policy and the targets."""
        c = self.config
        with torch.no_grad():
            next_action = self.best_of(self.target_actor, self.target_critics, batch.next_observation, self.generator)
        critic_loss, q_mean = self.step_critics(batch, next_action)

        with torch.no_grad():
            own = self.propose(self.actor, batch.observation, c.own_actions, self.generator)
            weight, index = best_with_advantage(candidate_values(self.critics, batch.observation, own).amin(0))
        actor_loss = self.weighted_loss(batch.observation, picked(own, index), weight)
        minimise(actor_loss, self.actor_optimizer)

        polyak_update(self.critics, self.target_critics, c.tau)
        polyak_update(self.actor, self.target_actor, c.tau)
        return {
            "train/critic_loss": critic_loss,
            "train/actor_loss": actor_loss.detach(),
            "train/weight": weight.mean(),
            "train/weighted_share": (weight > 0.0).float().mean(),
            "train/q_mean": q_mean,
        }

    def weighted_loss(self, observation: Observation, action: Tensor, weight: Tensor) -> Tensor:
        """Return the loss of imitating an action of each row, and uniform ones beside it, by its weight; a scalar.

        Args:
            observation: `[batch, ...]`.
            action: `[batch, action_dim]`.
            weight: At least 0, `[batch]`.
        """
        c, policy, rows = self.config, self.actor(observation), len(action)
        count = c.uniform_actions if c.entropy_weight > 0.0 else 0
        uniform = torch.rand((rows * count, self.action_dim), generator=self.generator, device=self.device)
        together = torch.cat([action, 2.0 * uniform - 1.0])
        features = torch.cat([policy.features, policy.repeated(count).features])
        losses = self.imitation_losses(DiffusionPolicy(self.actor, features), together)
        of_uniform = losses[rows:].view(rows, count).sum(-1)
        return (weight * (losses[:rows] + c.entropy_weight * of_uniform)).mean()
