"""Advantages, surrogates and value losses against their closed forms."""

from __future__ import annotations

import pytest
import torch

from palaestra.agents.losses.advantages import generalised_advantages, standardise
from palaestra.agents.losses.surrogates import approximate_kl, clip_fraction, clipped_surrogate
from palaestra.agents.losses.values import clipped_value_loss, squared_error_per_critic, td_target


def chain(gae_lambda: float, ending: str) -> torch.Tensor:
    """Advantages on three steps of reward 1 with V = (.1, .2, .3), V(final) = .4 and gamma = .9."""
    reward = torch.ones(3, 1, dtype=torch.float64)
    value = torch.tensor([[0.1], [0.2], [0.3]], dtype=torch.float64)
    following = torch.tensor([[0.2], [0.3], [0.4]], dtype=torch.float64)
    last = torch.tensor([[False], [False], [True]])
    never = torch.zeros_like(last)
    terminated, truncated = (last, never) if ending == "terminated" else (never, last)
    return generalised_advantages(reward, value, following, terminated, truncated, 0.9, gae_lambda)[:, 0]


def test_lambda_one_is_monte_carlo_minus_the_value() -> None:
    returns = [1 + 0.9 + 0.81, 1 + 0.9, 1.0]
    assert chain(1.0, "terminated").tolist() == pytest.approx(
        [g - v for g, v in zip(returns, (0.1, 0.2, 0.3), strict=True)]
    )


def test_lambda_zero_is_the_one_step_error() -> None:
    assert chain(0.0, "terminated").tolist() == pytest.approx([1 + 0.18 - 0.1, 1 + 0.27 - 0.2, 1 - 0.3])


def test_a_truncation_keeps_the_bootstrap() -> None:
    assert chain(0.0, "truncated")[2].item() == pytest.approx(1 + 0.9 * 0.4 - 0.3)
    assert chain(1.0, "truncated")[0].item() == pytest.approx(1 + 0.9 + 0.81 + 0.729 * 0.4 - 0.1)


@pytest.mark.parametrize("ending", ["terminated", "truncated"])
def test_nothing_flows_across_the_end_of_an_episode(ending: str) -> None:
    reward = torch.tensor([[1.0], [5.0]])
    zeros = torch.zeros(2, 1)
    end = torch.tensor([[True], [False]])
    never = torch.zeros_like(end)
    flags = (end, never) if ending == "terminated" else (never, end)
    assert generalised_advantages(reward, zeros, zeros, *flags, 0.9, 0.95)[0].item() == 1.0


def test_standardise() -> None:
    values = standardise(torch.tensor([1.0, 2.0, 3.0]))
    assert values.tolist() == pytest.approx([-1.0, 0.0, 1.0])
    assert standardise(torch.tensor([4.0])).tolist() == [0.0]


@pytest.mark.parametrize(
    ("ratio", "advantage", "moves"),
    [(1.3, 1.0, False), (0.7, -1.0, False), (1.3, -1.0, True), (0.7, 1.0, True), (1.1, 1.0, True), (0.9, -1.0, True)],
)
def test_the_gradient_vanishes_exactly_where_the_ratio_has_gone_far_enough(
    ratio: float, advantage: float, moves: bool
) -> None:
    log_ratio = torch.tensor([ratio], dtype=torch.float64).log().requires_grad_(True)
    clipped_surrogate(log_ratio, torch.tensor([advantage], dtype=torch.float64), 0.2).backward()
    expected = -advantage * ratio if moves else 0.0
    assert log_ratio.grad is not None
    assert log_ratio.grad.item() == pytest.approx(expected)


def test_at_unchanged_parameters_the_gradient_is_the_policy_gradient() -> None:
    log_prob = torch.randn(8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    advantage = torch.arange(8, dtype=torch.float64) - 3.5
    clipped_surrogate(log_prob - log_prob.detach(), advantage, 0.2).backward()
    torch.testing.assert_close(log_prob.grad, -advantage / 8)


def test_diagnostics() -> None:
    log_ratio = torch.log(torch.tensor([1.0, 1.5, 0.5, 1.1]))
    assert clip_fraction(log_ratio, 0.2).item() == 0.5
    assert approximate_kl(torch.zeros(3)).item() == 0.0
    assert approximate_kl(log_ratio).item() > 0.0


def test_td3_target_takes_the_smaller_critic() -> None:
    """r = 1, gamma = .9, Q' = (3, 1) gives 1.9."""
    smaller = torch.tensor([[3.0], [1.0]]).amin(0)
    assert td_target(torch.ones(1), torch.tensor([False]), smaller, 0.9).item() == pytest.approx(1.9)


def test_value_losses() -> None:
    errors = squared_error_per_critic(torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([0.0, 0.0]))
    assert errors.tolist() == [2.5, 0.0]
    value, old, target = torch.tensor([2.0]), torch.tensor([0.0]), torch.tensor([3.0])
    assert clipped_value_loss(value, old, target, None).item() == 1.0
    assert clipped_value_loss(value, old, target, 0.5).item() == 6.25
