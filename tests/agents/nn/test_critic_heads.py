"""Critics with heads: every critic by itself, exchangeable trunks, updates, and several seeds at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from palaestra.agents.nn.critic import CriticBank, target_copy
from palaestra.agents.nn.critic_heads import (
    CategoricalHead,
    GaussianHead,
    HeadedCritics,
    QuantileHead,
    ScalarHead,
    SigmoidHead,
)
from palaestra.agents.nn.networks import mlp
from palaestra.agents.training.off_policy import minimise
from palaestra.agents.training.optimizer import FlatAdam

BOX = spaces.Box(-1.0, 1.0, (4,), np.float32)
HEADS = [ScalarHead(), GaussianHead(), QuantileHead(8), CategoricalHead(-3.0, 3.0, 13), SigmoidHead()]


def batch(rows: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, 4, generator=generator), torch.randn(rows, 2, generator=generator)


@pytest.mark.parametrize("head", HEADS)
def test_all_estimates_are_those_of_each_critic(head: Any) -> None:
    torch.manual_seed(0)
    critics = HeadedCritics(BOX, 2, (16, 16), head, count=3)
    together = critics(*batch()).mean()
    assert together.shape == (3, 5)
    for index in range(3):
        torch.testing.assert_close(together[index], critics.estimate(index, *batch()).mean())


def test_a_scalar_head_is_the_critic_bank() -> None:
    torch.manual_seed(0)
    headed, bank = HeadedCritics(BOX, 2, (16,), ScalarHead()), CriticBank(BOX, 2, (16,))
    bank.load_state_dict(headed.state_dict())
    assert torch.equal(headed(*batch()).mean(), bank(*batch()))


@pytest.mark.parametrize("head", HEADS)
def test_an_update_descends_and_its_target_learns_nothing(head: Any) -> None:
    torch.manual_seed(0)
    critics = HeadedCritics(BOX, 2, (32, 32), head)
    targets = target_copy(critics)
    optimizer = FlatAdam(critics.parameters(), 1e-2)
    reward, scale = torch.linspace(0.0, 0.4, 5), torch.full((5,), 0.5)
    losses = []
    for _ in range(60):
        target = targets(*batch()).lowest().moved(reward, scale)
        loss = critics(*batch()).loss(target).mean(-1).sum()
        minimise(loss, optimizer)
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    torch.testing.assert_close(critics(*batch()).mean(), target.mean().expand(2, 5), atol=0.1, rtol=0.0)
    assert all(parameter.grad is None for parameter in targets.parameters())


@pytest.mark.parametrize("head", HEADS)
def test_estimates_are_read_under_vmap(head: Any) -> None:
    """As when several seeds are trained as one batch."""
    output = torch.randn(4, 2, 5, head.outputs, generator=torch.Generator().manual_seed(0))
    reward, scale = torch.linspace(0.0, 0.4, 5), torch.full((5,), 0.5)

    def loss(output: Tensor) -> Tensor:
        estimate = head(output)
        return estimate.loss(estimate.lowest().moved(reward, scale)) + estimate.average().mean()

    together = torch.func.vmap(loss)(output)
    for one, own in zip(together, output, strict=True):
        torch.testing.assert_close(one, loss(own))


class Doubled(nn.ModuleList):
    """Trunks of another kind."""

    def __init__(self, count: int, sizes: Sequence[int], activation: str) -> None:
        super().__init__(mlp(sizes, activation) for _ in range(count))

    def forward(self, features: Tensor) -> Tensor:
        return torch.stack([2.0 * network(features) for network in self])

    def one(self, index: int, features: Tensor) -> Tensor:
        doubled: Tensor = 2.0 * self[index](features)
        return doubled


def test_trunks_are_exchangeable() -> None:
    torch.manual_seed(0)
    plain, other = HeadedCritics(BOX, 2, (16,), ScalarHead()), HeadedCritics(BOX, 2, (16,), ScalarHead(), trunk=Doubled)
    other.load_state_dict(plain.state_dict())
    torch.testing.assert_close(other(*batch()).mean(), 2.0 * plain(*batch()).mean())
    torch.testing.assert_close(other.estimate(1, *batch()).mean(), 2.0 * plain.estimate(1, *batch()).mean())
    bank = CriticBank(BOX, 2, (16,), trunk=Doubled)
    bank.load_state_dict(plain.state_dict())
    torch.testing.assert_close(bank(*batch()), 2.0 * plain(*batch()).mean())


def test_atoms_must_ascend() -> None:
    for settings in ({"low": 1.0, "high": 1.0}, {"low": 0.0, "high": 1.0, "atoms": 1}):
        with pytest.raises(ValueError, match="CategoricalHead: low="):
            CategoricalHead(**settings)
