"""Policy networks: an encoder, a trunk and a head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

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
        trunk: Makes the trunk, given its widths from input to output and the name of the activation.
    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        outputs: int,
        hidden: Sequence[int],
        activation: str = "relu",
        encoder: str = "auto",
        trunk: Callable[[Sequence[int], str], nn.Module] = SingleMLP,
    ) -> None:
        super().__init__()
        self.encoder = make_encoder(observation_space, encoder)
        self.trunk = trunk([self.encoder.features, *hidden, outputs], activation)

    def output(self, observation: Observation) -> Tensor:
        """Return the trunk's output `[batch, outputs]`."""
        output: Tensor = self.trunk(self.encoder(observation))
        return output


class SquashedGaussianActor(Actor):
    """State-dependent mean and log standard deviation before a tanh; twice as many outputs as action dimensions."""

    log_std_range: ClassVar[tuple[float, float]] = LOG_STD_RANGE

    def forward(self, observation: Observation) -> SquashedGaussian:
        """Return the action distribution of a batch of observations."""
        mean, log_std = self.output(observation).chunk(2, -1)
        return SquashedGaussian(mean, log_std.clamp(*self.log_std_range))


class SmoothGaussianActor(SquashedGaussianActor):
    """A squashed Gaussian whose log standard deviation a tanh keeps in its range, so that its slope never vanishes."""

    log_std_range: ClassVar[tuple[float, float]] = (-10.0, 2.0)

    def forward(self, observation: Observation) -> SquashedGaussian:
        """Return the action distribution of a batch of observations."""
        mean, spread = self.output(observation).chunk(2, -1)
        low, high = self.log_std_range
        return SquashedGaussian(mean, low + 0.5 * (high - low) * (1.0 + torch.tanh(spread)))


class DeterministicActor(Actor):
    """One action in [-1, 1] per observation."""

    def forward(self, observation: Observation) -> Tensor:
        """Return actions `[batch, action_dim]`."""
        return torch.tanh(self.output(observation))
