"""Weights of imitation."""

from __future__ import annotations

import torch

from palaestra.agents.losses.imitation import best_with_advantage


def test_weight_is_the_best_value_less_the_average() -> None:
    weight, index = best_with_advantage(torch.tensor([[1.0, 4.0, 1.0], [-3.0, -3.0, 0.0]]))
    torch.testing.assert_close(weight, torch.tensor([2.0, 2.0]))
    assert index.tolist() == [1, 2]


def test_equal_values_weigh_nothing() -> None:
    weight, _ = best_with_advantage(torch.full((5, 64), -0.1))
    assert (weight >= 0.0).all()
    torch.testing.assert_close(weight, torch.zeros(5), atol=1e-6, rtol=0.0)


def test_a_constant_added_to_the_values_changes_nothing() -> None:
    values = torch.randn(8, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (weight, index), (moved, same) = best_with_advantage(values), best_with_advantage(values + 100.0)
    torch.testing.assert_close(weight, moved)
    assert torch.equal(index, same)
    assert (weight > 0.0).all()
