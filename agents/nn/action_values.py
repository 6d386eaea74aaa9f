"""Action values of discrete actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor, nn

from palaestra.agents.nn.networks import Observation, make_encoder
from palaestra.agents.nn.stacked import SingleMLP


class ActionValues(nn.Module):
    """An encoder and a trunk that yield one number, or several, for every action.

    Args:
        observation_space: Space of one observation.
        num_actions: Number of actions.
        hidden: Widths of the hidden layers.
        activation: Name of the activation.
        encoder: Name of the encoder.
        atoms: Numbers per action, such as quantiles; 0 for a single value without an axis of its own.
    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        num_actions: int,
        hidden: Sequence[int],
        activation: str = "relu",
        encoder: str = "auto",
        atoms: int = 0,
    ) -> None:
        super().__init__()
        self.num_actions, self.atoms = num_actions, atoms
        self.encoder = make_encoder(observation_space, encoder)
        self.trunk = SingleMLP([self.encoder.features, *hidden, num_actions * max(1, atoms)], activation)

    def forward(self, observation: Observation) -> Tensor:
        """Return `[batch, num_actions]`, or `[batch, num_actions, atoms]`."""
        output: Tensor = self.trunk(self.features(observation))
        return output.unflatten(-1, (self.num_actions, self.atoms)) if self.atoms else output

    def features(self, observation: Observation) -> Tensor:
        """Return what the trunk reads `[batch, in]`."""
        features: Tensor = self.encoder(observation)
        return features

    @property
    def learning_trunk(self) -> SingleMLP | None:
        """The trunk, if nothing else learns."""
        return None if any(True for _ in self.encoder.parameters()) else self.trunk


def admissible(values: Tensor, mask: Tensor | None) -> Tensor:
    """Return values `[batch, num_actions]` with minus infinity where the mask forbids an action."""
    return values if mask is None else values.masked_fill(~mask, -torch.inf)


def of_actions(values: Tensor, action: Tensor) -> Tensor:
    """Return the entries `[batch, ...]` of values `[batch, num_actions, ...]` that belong to actions `[batch]`."""
    index = action.long().view(-1, *[1] * (values.dim() - 1)).expand(-1, 1, *values.shape[2:])
    return values.gather(1, index).squeeze(1)
