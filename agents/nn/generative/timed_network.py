"""The network of a generative head: a vector for an observation, a point on the way to the action, and a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor, nn

from palaestra.agents.nn.fused import tanh_, transformed
from palaestra.agents.nn.generative.time_embedding import time_features
from palaestra.agents.nn.networks import Observation, make_encoder
from palaestra.agents.nn.stacked import SingleMLP
from palaestra.agents.nn.trunks import trunk as named_trunk

TIME_FEATURES = 16
"""Width of the features of a time."""


class TimedNetwork(nn.Module):
    """An encoder of the observation, and a trunk that reads its features, a point `[action_dim]` and a time.

    Args:
        observation_space: Space of one observation.
        action_dim: Dimensions of points and outputs.
        hidden: Widths of the hidden layers.
        activation: Name of the activation.
        encoder: Name of the encoder.
        trunk: Name of the trunk, a key of `palaestra.agents.nn.trunks.TRUNKS`.
    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_dim: int,
        hidden: Sequence[int],
        activation: str = "relu",
        encoder: str = "auto",
        trunk: str = "mlp",
    ) -> None:
        super().__init__()
        self.action_dim = action_dim
        self.encoder = make_encoder(observation_space, encoder)
        width = self.encoder.features + action_dim + TIME_FEATURES
        self.trunk = named_trunk(trunk)([width, *hidden, action_dim], activation)

    def encode(self, observation: Observation) -> Tensor:
        """Return features `[batch, features]` in the trunk's precision; encoders work in float32."""
        features: Tensor = self.encoder(observation)
        return features.to(next(self.trunk.parameters()).dtype)

    def forward(self, features: Tensor, point: Tensor, time: Tensor) -> Tensor:
        """Return outputs `[batch, action_dim]`, or `[batch, draws, action_dim]` for several points of a row.

        Args:
            features: Of the observations `[batch, features]`.
            point: `[batch, action_dim]` or `[batch, draws, action_dim]`.
            time: In [0, 1], `[batch]` or `[batch, draws]`.
        """
        known = features if point.dim() == 2 else features.unsqueeze(1).expand(*point.shape[:2], -1)
        given = torch.cat([known, point, time_features(time, TIME_FEATURES)], -1)
        output: Tensor = self.trunk(given.flatten(0, -2))
        return output.view_as(point)

    def along(self, features: Tensor, times: Tensor) -> Callable[[int, Tensor], Tensor]:
        """Return a function of a step's number and points `[batch, action_dim]`: the outputs at that step's time.

        Without gradients, what the first layer makes of observations and times is computed once for all steps, and a
        step costs little but its matrix products.

        Args:
            features: Of the observations `[batch, features]`.
            times: Of the steps `[steps]`.
        """
        rows = time_features(times, TIME_FEATURES)
        if torch.is_grad_enabled() or transformed() or not isinstance(self.trunk, SingleMLP):
            return lambda step, point: self.trunk(torch.cat([features, point, rows[step].expand(len(point), -1)], -1))
        linear = [layer for layer in self.trunk if isinstance(layer, nn.Linear)]
        widths = [features.shape[-1], self.action_dim, TIME_FEATURES]
        of_observation, of_point, of_time = linear[0].weight.t().split(widths)
        seen = torch.addmm(linear[0].bias, features, of_observation)
        timed = rows @ of_time
        following = [(layer.bias, layer.weight.t()) for layer in linear[1:]]
        activate = _in_place(self.trunk[1]) if following else None

        def evaluate(step: int, point: Tensor) -> Tensor:
            hidden = torch.add(seen, timed[step]).addmm_(point, of_point)
            for bias, weight in following:
                assert activate is not None
                hidden = torch.addmm(bias, activate(hidden), weight)
            return hidden

        return evaluate


def _in_place(activation: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return the activation, computed in place where there is a faster way than the module's."""
    return tanh_ if isinstance(activation, nn.Tanh) else activation
