"""Edits: small Gaussian changes of actions that something else proposed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import torch
from torch import Generator, Tensor, nn

from palaestra.agents.nn.actors import LOG_STD_RANGE
from palaestra.agents.nn.distributions import SquashedGaussian
from palaestra.agents.nn.networks import Observation, make_encoder
from palaestra.agents.nn.stacked import SingleMLP


class EditActor(nn.Module):
    """A squashed Gaussian over edits in [-1, 1], given an observation and the action to be edited.

    Args:
        observation_space: Space of one observation.
        action_dim: Dimensions of the action.
        hidden: Widths of the hidden layers.
        scale: beta, what edits are multiplied by before they are added, above 0.
        activation: Name of the activation.
        encoder: Name of the encoder.
    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_dim: int,
        hidden: Sequence[int],
        scale: float,
        activation: str = "relu",
        encoder: str = "auto",
    ) -> None:
        super().__init__()
        self.encoder = make_encoder(observation_space, encoder)
        self.trunk = SingleMLP([self.encoder.features + action_dim, *hidden, 2 * action_dim], activation)
        self.scale = scale

    def forward(self, observation: Observation, action: Tensor) -> Edits:
        """Return the edits of actions `[batch, action_dim]`."""
        output = self.trunk(torch.cat([self.encoder(observation), action], -1))
        mean, log_std = output.chunk(2, -1)
        return Edits(SquashedGaussian(mean, log_std.clamp(*LOG_STD_RANGE)), action, self.scale)


@dataclass(frozen=True)
class Edits:
    """Edited actions b = a + scale * e with e from a squashed Gaussian.

    Attributes:
        edit: The distribution of e.
        action: a `[batch, action_dim]`.
        scale: Above 0.
    """

    edit: SquashedGaussian
    action: Tensor
    scale: float

    def sample(self, generator: Generator | None) -> Tensor:
        """Return edited actions within [-1, 1] `[batch, action_dim]`, by the edits' mode without a generator."""
        edit = self.edit.mode() if generator is None else self.edit.sample(generator)
        return self.within(edit)

    def sample_with_log_prob(self, generator: Generator | None) -> tuple[Tensor, Tensor]:
        """Return edited actions within [-1, 1] `[batch, action_dim]` and their log-densities before that `[batch]`."""
        edit, log_prob = self.edit.sample_with_log_prob(generator)
        return self.within(edit), log_prob - self.log_volume

    def log_prob(self, edited: Tensor) -> Tensor:
        """Return log-densities log pi(e) - action_dim log(scale) `[batch]` of b, not cut off `[batch, action_dim]`."""
        return self.edit.log_prob((edited - self.action) / self.scale) - self.log_volume

    def within(self, edit: Tensor) -> Tensor:
        """Return a + scale * e, cut off at the box as the env would."""
        return (self.action + self.scale * edit).clamp(-1.0, 1.0)

    @property
    def log_volume(self) -> float:
        """What scaling takes from log-densities: action_dim log(scale)."""
        return self.action.shape[-1] * math.log(self.scale)
