"""A diffusion whose first, noisiest steps are those of a frozen base, and whose last ones are learnt."""

from __future__ import annotations

import copy
from dataclasses import dataclass

from torch import Generator, Tensor, nn

from palaestra.agents.nn.generative.diffusion import DiffusionHead, DiffusionPolicy
from palaestra.agents.nn.networks import Observation


class FineTunedDiffusion(nn.Module):
    """Steps from level K to K' + 1 by a base, those from K' to 1 by an actor that began as the same network.

    Args:
        actor: The diffusion to learn.
        learnt_steps: K', from 1 to K; with K there is no base.
        min_std: Smallest standard deviation of a step, above 0.
    """

    def __init__(self, actor: DiffusionHead, learnt_steps: int, min_std: float) -> None:
        super().__init__()
        self.actor, self.learnt_steps, self.min_std = actor, learnt_steps, min_std
        self.base = copy.deepcopy(actor).requires_grad_(False) if learnt_steps < actor.levels else None

    def take_as_base(self) -> None:
        """Let the frozen steps be the actor's of now."""
        if self.base is not None:
            self.base.load_state_dict(self.actor.state_dict())

    def forward(self, observation: Observation) -> FineTunedPolicy:
        """Return the policy in a batch of observations."""
        return FineTunedPolicy(self, observation, self.actor(observation))


@dataclass(frozen=True)
class FineTunedPolicy:
    """A fine-tuned diffusion in given observations.

    Attributes:
        head: Whose it is.
        observation: The observations `[batch, ...]`.
        actor: What the actor says there.
    """

    head: FineTunedDiffusion
    observation: Observation
    actor: DiffusionPolicy

    def chain(self, generator: Generator | None) -> Tensor:
        """Return the points `[batch, learnt steps + 1, action_dim]` from x_{K'} to the action."""
        noise, first, min_std = self.actor.draw_noise(generator), self.head.learnt_steps, self.head.min_std
        if self.head.base is None:
            return self.actor.chain(noise, min_std=min_std)
        start = self.head.base.chain(self.observation, noise, min_std=min_std, to_level=first)[:, -1]
        return self.actor.chain(noise, start, first, min_std)

    def sample(self, generator: Generator | None) -> Tensor:
        """Return one action per row."""
        return self.chain(generator)[:, -1]

    def mode(self) -> Tensor:
        """Return the actions that a chain without any noise ends in; they need not be the likeliest ones."""
        return self.sample(None)

    def log_prob_per_dimension(self, chain: Tensor) -> Tensor:
        """Return log-densities of the learnt steps' coordinates `[batch, learnt steps, action_dim]` of such a chain."""
        return self.actor.chain_log_prob_per_dimension(chain, self.head.learnt_steps, 1, self.head.min_std)
