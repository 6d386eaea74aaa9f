"""A value of states, or of whatever is shown in the form of an observation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
from torch import Tensor, nn

from palaestra.agents.nn.fused import fused_mlp
from palaestra.agents.nn.networks import Observation, make_encoder, orthogonal_


class StateValue(nn.Module):
    """V(s): an encoder and a trunk of its own, with the initialisation of the value trunk of `ActorCritic`.

    Args:
        observation_space: Space of one observation.
        hidden: Widths of the hidden layers.
        activation: Name of the activation.
        encoder: Name of the encoder.
    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        hidden: Sequence[int],
        activation: str = "tanh",
        encoder: str = "auto",
    ) -> None:
        super().__init__()
        self.encoder = make_encoder(observation_space, encoder)
        self.trunk = fused_mlp([self.encoder.features, *hidden, 1], activation)
        orthogonal_(self, math.sqrt(2.0))
        orthogonal_(self.trunk[-1], 1.0)

    def forward(self, observation: Observation) -> Tensor:
        """Return values `[batch]` of observations `[batch, ...]`."""
        values: Tensor = self.trunk(self.encoder(observation)).squeeze(-1)
        return values
