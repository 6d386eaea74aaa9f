"""Policies that propose what to keep: linear decision rules, a perceptron, and one with a memory of the past."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from palaestra.agents.nn.networks import mlp

Memory = tuple[Tensor, Tensor] | None
"""What a policy remembers of a path: hidden and cell state `[batch, width]`, or None at its start or without memory."""


class LinearRule(nn.Module):
    """A linear decision rule: targets are an affine function of the observation, nothing keeps them in their bounds.

    It starts from half of the capacity, whatever it sees.

    Args:
        inputs: Size of the observation.
        outputs: Number of targets.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.rule = nn.Linear(inputs, outputs)
        nn.init.zeros_(self.rule.weight)
        nn.init.constant_(self.rule.bias, 0.5)

    def forward(self, observation: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Return targets as shares of the capacity, `[batch, outputs]`, of observations `[batch, inputs]`."""
        return self.rule(observation), None


class PerceptronTargets(nn.Module):
    """A perceptron whose outputs a sigmoid scales to the bounds.

    Args:
        inputs: Size of the observation.
        outputs: Number of targets.
        hidden: Widths of the hidden layers.
        activation: Their activation.
    """

    def __init__(self, inputs: int, outputs: int, hidden: Sequence[int], activation: str) -> None:
        super().__init__()
        self.body = mlp((inputs, *hidden, outputs), activation)

    def forward(self, observation: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Return targets as shares of the capacity, `[batch, outputs]`, of observations `[batch, inputs]`."""
        return self.body(observation).sigmoid(), None


class RecurrentTargets(nn.Module):
    """The same on the observation and the state of an LSTM, as wide as the first hidden layer, that has read the path.

    Args:
        inputs: Size of the observation.
        outputs: Number of targets.
        hidden: Widths of the hidden layers, at least one.
        activation: Their activation.
    """

    def __init__(self, inputs: int, outputs: int, hidden: Sequence[int], activation: str) -> None:
        super().__init__()
        self.encoder = nn.LSTMCell(inputs, hidden[0])
        self.body = mlp((inputs + hidden[0], *hidden, outputs), activation)

    def forward(self, observation: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Return targets as shares of the capacity, `[batch, outputs]`, and what is remembered now."""
        hidden, cell = self.encoder(observation, memory)
        return self.body(torch.cat((observation, hidden), -1)).sigmoid(), (hidden, cell)
