"""Values moved towards a target: one optimiser step, its gradient by hand where nothing but plain MLPs learn."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from palaestra.agents.losses.values import RegressionLoss
from palaestra.agents.nn.action_values import ActionValues, of_actions
from palaestra.agents.nn.critic import CriticBank
from palaestra.agents.nn.layout import parameters_of
from palaestra.agents.nn.stacked import SingleMLP, StackedMLP
from palaestra.agents.training.off_policy import minimise
from palaestra.agents.training.optimizer import FlatAdam


def regress(
    network: CriticBank | ActionValues,
    inputs: tuple[Any, ...],
    target: Tensor,
    error: RegressionLoss,
    optimizer: torch.optim.Optimizer,
    action: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Take one optimiser step of a network's values towards a target.

    Equal to `minimise(error(values, target), optimizer)` up to rounding; the derivatives of the loss are known, so that
    plain MLPs need no graph.

    Args:
        network: The values that learn.
        inputs: What it is called with.
        target: `[batch]`.
        error: The loss.
        optimizer: That of the network's parameters.
        action: Actions `[batch]` whose values are meant, of networks that return those of all actions.

    Returns:
        The values before the step, `[count, batch]` or with actions `[batch]`, and their loss.
    """
    trunk = network.learning_trunk
    if not isinstance(trunk, StackedMLP | SingleMLP) or not trunk.stack.fused or not isinstance(optimizer, FlatAdam):
        values = network(*inputs)
        values = values if action is None else of_actions(values, action)
        loss = error(values, target)
        minimise(loss, optimizer)
        return values.detach(), loss.detach()
    with torch.no_grad():
        parameters = list(parameters_of(trunk))
        layers = trunk.stack.layers(parameters, network.features(*inputs))
        if action is None:
            values = layers[-1].squeeze(-1)
            slope = error.slope(values, target).unsqueeze(-1)
        else:
            values = of_actions(layers[-1][0], action)
            slope = torch.zeros_like(layers[-1])
            slope.scatter_(2, action.long().view(1, -1, 1), error.slope(values, target).view(1, -1, 1))
        loss = error(values, target)
        trunk.stack.descend(parameters, layers, slope)
        optimizer.step()
    return values, loss
