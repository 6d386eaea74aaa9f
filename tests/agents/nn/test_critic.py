"""The critic bank, modules held fixed, and targets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from palaestra.agents.nn.critic import CriticBank, held_fixed, polyak_update, target_copy
from palaestra.agents.training.optimizer import FlatAdam

BOX = spaces.Box(-1.0, 1.0, (4,), np.float32)
DICT = spaces.Dict({"grid": spaces.Box(0, 255, (8, 8, 3), np.uint8), "state": BOX})


def observed(space: spaces.Space, rows: int = 5) -> object:
    if isinstance(space, spaces.Dict):
        return {"grid": torch.randint(256, (rows, 8, 8, 3), dtype=torch.uint8), "state": torch.randn(rows, 4)}
    return torch.randn(rows, 4)


@pytest.mark.parametrize("space", [BOX, DICT])
def test_all_values_are_those_of_each_critic(space: spaces.Space) -> None:
    torch.manual_seed(0)
    bank, observation, action = CriticBank(space, 2, (16, 16), count=3), observed(space), torch.randn(5, 2)
    values = bank(observation, action)
    assert values.shape == (3, 5)
    for index in range(3):
        torch.testing.assert_close(values[index], bank.value(index, observation, action))
    assert not torch.allclose(values[0], values[1])


def test_names_in_checkpoints_stay() -> None:
    bank = CriticBank(BOX, 2, (16,))
    names = [f"trunks.{critic}.{layer}.{kind}" for critic in (0, 1) for layer in (0, 2) for kind in ("weight", "bias")]
    assert list(bank.state_dict()) == names
    assert tuple(bank.trunks[1][0].weight.shape) == (16, 6)


@pytest.mark.parametrize("space", [BOX, DICT])
def test_what_is_held_fixed_passes_gradients_on(space: spaces.Space) -> None:
    torch.manual_seed(0)
    bank, observation = CriticBank(space, 2, (16, 16)), observed(space)
    action = torch.randn(5, 2, requires_grad=True)
    (expected,) = torch.autograd.grad(bank(observation, action).sum(), action)
    bank.trunks[0][0].bias.requires_grad_(False)
    with held_fixed(bank):
        value = bank(observation, action)
    value.sum().backward()
    torch.testing.assert_close(action.grad, expected)
    assert all(parameter.grad is None for parameter in bank.parameters())
    assert [p.requires_grad for p in bank.trunks[0][0].parameters()] == [True, False]


def test_nothing_stays_fixed_after_an_error() -> None:
    bank = CriticBank(BOX, 2, (16,))
    with pytest.raises(RuntimeError, match="oops"), held_fixed(bank):
        raise RuntimeError("oops")
    assert all(parameter.requires_grad for parameter in bank.parameters())


@pytest.mark.parametrize("flat", [False, True])
def test_targets_follow_by_tau(flat: bool) -> None:
    torch.manual_seed(0)
    bank = CriticBank(BOX, 2, (16,))
    target = target_copy(bank)
    if flat:
        FlatAdam(bank.parameters(), 1e-3)
    assert not any(parameter.requires_grad for parameter in target.parameters())
    assert all(torch.equal(a, b) for a, b in zip(bank.parameters(), target.parameters(), strict=True))
    with torch.no_grad():
        for parameter in bank.parameters():
            parameter += 1.0
    expected = [0.25 * a + 0.75 * b for a, b in zip(bank.parameters(), target.parameters(), strict=True)]
    online = [parameter.detach().clone() for parameter in bank.parameters()]
    polyak_update(bank, target, 0.25)
    for parameter, value in zip(target.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter, value)
    assert all(torch.equal(a, b) for a, b in zip(bank.parameters(), online, strict=True))
    polyak_update(bank, target, 1.0)
    assert all(torch.equal(a, b) for a, b in zip(bank.parameters(), target.parameters(), strict=True))
