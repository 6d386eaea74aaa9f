"""Policy networks: an encoder, a trunk and a head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor, nn

from palaestra.agents.nn.distributions import SquashedGaussian
from palaestra.agents.nn.networks import Observation, make_encoder
from palaestra.agents.nn.stacked import SingleMLP

LOG_STD_RANGE = (-20.0, 2.0)


class Actor(nn.Module):
    """An encoder and a trunk.

    Args:
        observation_space: Space of one observation.
        outputs: Width of the output.
        hidden: Widths of the hidden layers.
        activation: Name of the activation.
        encoder: Name of the encoder.
    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        outputs: int,
        hidden: Sequence[int],
        activation: str = "relu",
        encoder: str = "auto",
    ) -> None:
        super().__init__()
        self.encoder = make_encoder(observation_space, encoder)
        self.trunk = SingleMLP([self.encoder.features, *hidden, outputs], activation)

    def output(self, observation: Observation) -> Tensor:
        """Return the trunk's output `[batch, outputs]`."""
        output: Tensor = self.trunk(self.encoder(observation))
        return output


class SquashedGaussianActor(Actor):
    """State-dependent mean and log standard deviation before a tanh; twice as many outputs as action dimensions."""

    def forward(self, observation: Observation) -> SquashedGaussian:
        """Return the action distribution of a batch of observations."""
        mean, log_std = self.output(observation).chunk(2, -1)
        return SquashedGaussian(mean, log_std.clamp(*LOG_STD_RANGE))


class DeterministicActor(Actor):
    """One action in [-1, 1] per observation."""

    def forward(self, observation: Observation) -> Tensor:
        """Return actions `[batch, action_dim]`."""
        return torch.tanh(self.output(observation))
