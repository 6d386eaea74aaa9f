"""The critic bank: several action-value networks evaluated together."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor, nn

from palaestra.agents.nn.networks import Observation, make_encoder, mlp


class CriticBank(nn.Module):
    """Independent critics Q_i(s, a), each with its own encoder and trunk.

    Args:
        observation_space: Space of one observation.
        action_dim: Dimensions of the action.
        hidden: Widths of the hidden layers.
        count: Number of critics.
        activation: Name of the activation.
        encoder: Name of the encoder.
    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_dim: int,
        hidden: Sequence[int],
        count: int = 2,
        activation: str = "relu",
        encoder: str = "auto",
    ) -> None:
        super().__init__()
        encoders = [make_encoder(observation_space, encoder) for _ in range(count)]
        self.encoders = nn.ModuleList(encoders)
        self.trunks = nn.ModuleList(mlp([e.features + action_dim, *hidden, 1], activation) for e in encoders)

    def value(self, index: int, observation: Observation, action: Tensor) -> Tensor:
        """Return the values `[batch]` of one critic alone."""
        features = self.encoders[index](observation)
        return self.trunks[index](torch.cat([features, action], -1)).squeeze(-1)

    def forward(self, observation: Observation, action: Tensor) -> Tensor:
        """Return values `[count, batch]` of actions `[batch, action_dim]`."""
        return torch.stack([self.value(index, observation, action) for index in range(len(self.trunks))])


def target_copy(module: nn.Module) -> nn.Module:
    """Return a copy whose parameters follow the original only through `polyak_update`."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def polyak_update(online: nn.Module, target: nn.Module, tau: float) -> None:
    """Move target parameters towards online ones: theta' <- tau theta + (1 - tau) theta', in one fused call."""
    torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), tau)
