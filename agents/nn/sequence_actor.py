"""A policy over sequences of actions: a recurrent cell unrolled from one observation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import torch
from torch import Generator, Tensor, nn

from palaestra.agents.nn.actors import LOG_STD_RANGE
from palaestra.agents.nn.distributions import SquashedGaussian
from palaestra.agents.nn.networks import Observation, make_encoder
from palaestra.agents.nn.stacked import SingleMLP


class SequenceActor(nn.Module):
    """h_0 = MLP(s), h_{j+1} = GRU(a_{j-1}, h_j) and a_j from a squashed Gaussian head on h_{j+1}.

    a_{-1} is the action executed before s was seen, 0 at the start of an episode.

    Args:
        observation_space: Space of one observation.
        action_dim: Dimensions of the action.
        hidden: Widths of the hidden layers; the last is that of the cell, and has no activation.
        activation: Name of the activation.
        encoder: Name of the encoder.
    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_dim: int,
        hidden: Sequence[int],
        activation: str = "relu",
        encoder: str = "auto",
    ) -> None:
        super().__init__()
        self.encoder = make_encoder(observation_space, encoder)
        self.trunk = SingleMLP([self.encoder.features, *hidden], activation)
        self.cell = nn.GRUCell(action_dim, hidden[-1])
        self.head = nn.Linear(hidden[-1], 2 * action_dim)

    def forward(
        self, observation: Observation, previous_action: Tensor, length: int, generator: Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Return reparameterised actions `[length, batch, action_dim]` and their log-densities `[length, batch]`.

        Args:
            observation: `[batch, ...]`.
            previous_action: a_{-1} `[batch, action_dim]`.
            length: Actions of the sequence, at least 1.
            generator: Source of their noise.
        """
        actions, log_probs = [], []
        hidden = self.trunk(self.encoder(observation))
        for _ in range(length):
            policy, hidden = self._advance(previous_action, hidden)
            previous_action, log_prob = policy.sample_with_log_prob(generator)
            actions.append(previous_action)
            log_probs.append(log_prob)
        return torch.stack(actions), torch.stack(log_probs)

    def mode(self, observation: Observation, previous_action: Tensor, length: int) -> Tensor:
        """Return actions `[length, batch, action_dim]`, each the mode of its distribution after the modes before it."""
        actions = []
        hidden = self.trunk(self.encoder(observation))
        for _ in range(length):
            policy, hidden = self._advance(previous_action, hidden)
            previous_action = policy.mode()
            actions.append(previous_action)
        return torch.stack(actions)

    def _advance(self, previous_action: Tensor, hidden: Tensor) -> tuple[SquashedGaussian, Tensor]:
        hidden = self.cell(previous_action, hidden)
        mean, log_std = self.head(hidden).chunk(2, -1)
        return SquashedGaussian(mean, log_std.clamp(*LOG_STD_RANGE)), hidden
