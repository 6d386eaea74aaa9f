"""Many critics with layer-normalised trunks, of which a few drawn at random can be asked alone (REDQ, RLPD)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, cast

import gymnasium as gym
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from palaestra.agents.nn.critic_heads import E, Head, HeadedCritics
from palaestra.agents.nn.networks import ACTIVATIONS, Observation


class LayerNormMLPs(nn.Module):
    """Independent MLPs of one shape whose hidden layers are normalised before they are activated.

    Each layer of all networks is one matrix product. Initialised as `torch.nn.Linear` and `torch.nn.LayerNorm` are.

    Args:
        count: Number of networks.
        sizes: Widths from input to output, at least two.
        activation: Name of the activation between layers.
    """

    def __init__(self, count: int, sizes: Sequence[int], activation: str = "relu") -> None:
        super().__init__()
        self.activate = ACTIVATIONS[activation]()
        self.weights, self.biases, self.gains, self.shifts = (nn.ParameterList() for _ in range(4))
        for width_in, width_out in itertools.pairwise(sizes):
            bound = 1.0 / math.sqrt(width_in)
            self.weights.append(nn.Parameter(torch.empty(count, width_in, width_out).uniform_(-bound, bound)))
            self.biases.append(nn.Parameter(torch.empty(count, 1, width_out).uniform_(-bound, bound)))
        for width in sizes[1:-1]:
            self.gains.append(nn.Parameter(torch.ones(count, 1, width)))
            self.shifts.append(nn.Parameter(torch.zeros(count, 1, width)))

    def forward(self, features: Tensor, members: Tensor | None = None) -> Tensor:
        """Return outputs `[count, batch, out]` of features `[batch, in]`, or one set each, `[count, batch, in]`.

        Args:
            features: As said; with members given, one set for each of these.
            members: Numbers of the networks that are asked `[count]`; all of them without.
        """

        def of(parameter: Tensor) -> Tensor:
            return parameter if members is None else parameter.index_select(0, members)

        count = len(self.weights[0]) if members is None else len(members)
        hidden = features if features.dim() == 3 else features.expand(count, -1, -1)
        last = len(self.weights) - 1
        for level, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(of(bias), hidden, of(weight))
            if level < last:
                normal = F.layer_norm(hidden, hidden.shape[-1:])
                hidden = self.activate(torch.addcmul(of(self.shifts[level]), normal, of(self.gains[level])))
        return hidden

    def one(self, index: int, features: Tensor) -> Tensor:
        """Return outputs `[batch, out]` of one network alone for features `[batch, in]`."""
        return self(features, torch.tensor([index], device=features.device))[0]


class Ensemble(HeadedCritics[E]):
    """Headed critics on `LayerNormMLPs`.

    Args:
        observation_space: Space of one observation.
        action_dim: Dimensions of the action.
        hidden: Widths of the hidden layers.
        head: What the outputs mean.
        count: Number of critics.
        activation: Name of the activation.
        encoder: Name of the encoder.
    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_dim: int,
        hidden: Sequence[int],
        head: Head[E],
        count: int = 10,
        activation: str = "relu",
        encoder: str = "auto",
    ) -> None:
        super().__init__(observation_space, action_dim, hidden, head, count, activation, encoder, LayerNormMLPs)

    def draw_members(self, count: int, generator: Generator | None) -> Tensor:
        """Return the numbers of critics drawn without replacement `[count]`; the first ones without a generator.

        Raises:
            ValueError: If count is not from 1 to the number of critics.
        """
        critics = len(self.encoders)
        if not 1 <= count <= critics:
            raise ValueError(f"draw_members: count={count}; expected 1 to {critics}, the number of critics")
        device = next(self.parameters()).device
        if generator is None:
            return torch.arange(count, device=device)
        return torch.empty(critics, device=device).uniform_(generator=generator).argsort()[:count]

    def asked(self, members: Tensor, observation: Observation, action: Tensor) -> E:
        """Return what some critics say of actions `[batch, action_dim]`; the others are not evaluated.

        Args:
            members: Numbers of the critics `[count]`.
            observation: `[batch, ...]`.
            action: `[batch, action_dim]`.
        """
        trunks = cast(LayerNormMLPs, self.trunks)
        if self.encodes_once:
            return self.head(trunks(torch.cat([self.encoders[0](observation), action], -1), members))
        features = torch.stack([torch.cat([encoder(observation), action], -1) for encoder in self.encoders])
        return self.head(trunks(features.index_select(0, members), members))

    def lowest_of(self, members: Tensor, observation: Observation, action: Tensor) -> Tensor:
        """Return the lowest mean `[batch]` of some critics; arguments as for `asked`."""
        return self.asked(members, observation, action).mean().amin(0)
