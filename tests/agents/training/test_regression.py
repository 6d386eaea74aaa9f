"""Steps towards a target: by hand, they equal those of autograd."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from palaestra.agents.losses.values import HuberError, RegressionLoss, SquaredError
from palaestra.agents.nn.action_values import ActionValues, of_actions
from palaestra.agents.nn.critic import CriticBank
from palaestra.agents.nn.trunks import trunks
from palaestra.agents.training import regression
from palaestra.agents.training.off_policy import minimise
from palaestra.agents.training.optimizer import FlatAdam
from palaestra.agents.training.regression import regress

BATCH, ACTIONS = 19, 3
SPACE = spaces.Box(-1.0, 1.0, (5,), np.float32)
IMAGE = spaces.Box(0, 255, (36, 36, 3), np.uint8)
ERRORS: list[RegressionLoss] = [SquaredError(), SquaredError(0.5), HuberError()]


def critics(activation: str = "relu", count: int = 2, trunk: str = "mlp") -> tuple[CriticBank, tuple[Any, ...], None]:
    torch.manual_seed(0)
    inputs = torch.randn(BATCH, 5), torch.randn(BATCH, ACTIONS)
    return CriticBank(SPACE, ACTIONS, (16, 16), count, activation, trunk=trunks(trunk)), inputs, None


def action_values(space: gym.Space[Any] = SPACE) -> tuple[ActionValues, tuple[Any, ...], Tensor]:
    torch.manual_seed(0)
    observation = torch.randn(BATCH, 5) if space is SPACE else torch.randint(255, (BATCH, *IMAGE.shape))
    return ActionValues(space, ACTIONS, (16, 16)), (observation,), torch.arange(BATCH) % ACTIONS


CASES = {
    "two critics": critics(),
    "three critics, tanh": critics("tanh", 3),
    "one critic": critics(count=1),
    "action values": action_values(),
}
BY_AUTOGRAD = {
    "another activation": critics("elu"),
    "another trunk": critics(trunk="simba"),
    "an encoder that learns": action_values(IMAGE),
}


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize("case", [*CASES, *BY_AUTOGRAD])
def test_steps_equal_those_of_autograd(case: str, error: RegressionLoss) -> None:
    network, inputs, action = {**CASES, **BY_AUTOGRAD}[case]
    ours, reference = copy.deepcopy(network), copy.deepcopy(network)
    optimizer = FlatAdam(ours.parameters(), 0.01, max_grad_norm=0.5)
    reference_optimizer = FlatAdam(reference.parameters(), 0.01, max_grad_norm=0.5)
    target = 2.0 * torch.randn(BATCH)
    for _ in range(3):
        values, loss = regress(ours, inputs, target, error, optimizer, action)
        expected = reference(*inputs)
        expected = expected if action is None else of_actions(expected, action)
        expected_loss = error(expected, target)
        minimise(expected_loss, reference_optimizer)
        torch.testing.assert_close(values, expected.detach())
        torch.testing.assert_close(loss, expected_loss.detach())
        torch.testing.assert_close(optimizer.gradient, reference_optimizer.gradient)
    torch.testing.assert_close(optimizer.flat, reference_optimizer.flat)
    assert not torch.equal(optimizer.flat, torch.cat([p.flatten() for p in network.parameters()]))


@pytest.mark.parametrize("case", [*CASES, *BY_AUTOGRAD])
def test_plain_networks_need_no_graph(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, inputs, action = {**CASES, **BY_AUTOGRAD}[case]
    network = copy.deepcopy(network)
    calls = []
    monkeypatch.setattr(regression, "minimise", lambda loss, optimizer: calls.append(loss))
    regress(network, inputs, torch.zeros(BATCH), SquaredError(), FlatAdam(network.parameters(), 0.01), action)
    assert len(calls) == (case in BY_AUTOGRAD)


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_slopes_are_the_derivatives_of_the_losses(error: RegressionLoss) -> None:
    torch.manual_seed(1)
    values = (3.0 * torch.randn(2, BATCH, dtype=torch.float64)).requires_grad_()
    target = torch.randn(BATCH, dtype=torch.float64)
    (expected,) = torch.autograd.grad(error(values, target), values)
    torch.testing.assert_close(error.slope(values.detach(), target), expected)
