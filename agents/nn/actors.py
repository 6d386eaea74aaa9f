"""Policy networks: an encoder, a trunk and a head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor, nn

from palaestra.agents.nn.distributions import SquashedGaussian
from palaestra.agents.nn.networks import Observation, make_encoder, mlp

LOG_STD_RANGE = (-20.0, 2.0)


class SquashedGaussianActor(nn.Module):
    """State-dependent mean and log standard deviation before a tanh.

    Args:
        observation_space: Space of one observation.
        action_dim: Dimensions of the action.
        hidden: Widths of the hidden layers.
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
        self.trunk = mlp([self.encoder.features, *hidden, 2 * action_dim], activation)

    def forward(self, observation: Observation) -> SquashedGaussian:
        """Return the action distribution of a batch of observations."""
        mean, log_std = self.trunk(self.encoder(observation)).chunk(2, -1)
        return SquashedGaussian(mean, log_std.clamp(*LOG_STD_RANGE))


class DeterministicActor(nn.Module):
    """One action in [-1, 1] per observation; arguments as for `SquashedGaussianActor`."""

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
        self.trunk = mlp([self.encoder.features, *hidden, action_dim], activation)

    def forward(self, observation: Observation) -> Tensor:
        """Return actions `[batch, action_dim]`."""
        return torch.tanh(self.trunk(self.encoder(observation)))
