"""The gradients of the distributional soft actor-critic."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from palaestra.agents.losses.gaussian_values import bounded, distributional_loss
from palaestra.agents.nn.estimates import GaussianEstimate


def estimate_and_returns() -> tuple[GaussianEstimate, Tensor]:
    generator = torch.Generator().manual_seed(0)
    mean, std, returns = torch.randn(3, 2, 40, generator=generator, dtype=torch.float64)
    std = std.exp().requires_grad_()
    return GaussianEstimate(mean.requires_grad_(), std, math.inf), 3.0 * returns


def gradients(loss: Tensor, estimate: GaussianEstimate) -> tuple[Tensor, Tensor]:
    mean, std = torch.autograd.grad(loss.sum(), (estimate.centre, estimate.std))
    return mean, std


def test_without_bias_and_bound_they_are_those_of_the_negative_log_density() -> None:
    estimate, returns = estimate_and_returns()
    ours = gradients(
        distributional_loss(estimate, returns, (returns - estimate.centre.detach()).square(), 0.0), estimate
    )
    theirs = gradients(-torch.distributions.Normal(estimate.centre, estimate.std).log_prob(returns), estimate)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(ours, gradients(estimate.loss(returns), estimate))


def test_closed_form_with_bias() -> None:
    estimate, expected = estimate_and_returns()
    square = torch.linspace(0.0, 9.0, 80, dtype=torch.float64).view(2, 40)
    mean, std = gradients(distributional_loss(estimate, expected, square, 0.1), estimate)
    q, sigma = estimate.centre.detach(), estimate.std.detach()
    torch.testing.assert_close(mean, -(expected - q) / (sigma**2 + 0.1))
    torch.testing.assert_close(std, -(square - sigma**2) / (sigma**3 + 0.1))


def test_a_frozen_spread_leaves_a_rescaled_squared_error() -> None:
    estimate, returns = estimate_and_returns()
    spread = torch.full_like(returns, 1.7)
    loss = distributional_loss(GaussianEstimate(estimate.centre, spread, math.inf), returns, returns, 0.1)
    (mean,) = torch.autograd.grad(loss.sum(), estimate.centre)
    squared = 0.5 * (estimate.centre - returns).square().sum() / (1.7**2 + 0.1)
    torch.testing.assert_close(mean, torch.autograd.grad(squared, estimate.centre)[0])


def test_returns_are_bounded_around_the_mean() -> None:
    mean = torch.tensor([0.0, 10.0, -4.0])
    assert bounded(mean + torch.tensor([5.0, -0.5, -7.0]), mean, torch.ones(3)).tolist() == [1.0, 9.5, -5.0]


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_scaling_everything_leaves_the_decision_to_clip(scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    mean, returns = torch.randn(2, 500, generator=generator, dtype=torch.float64)
    bound = torch.tensor(1.0, dtype=torch.float64)
    plain, scaled = bounded(returns, mean, bound), bounded(scale * returns, scale * mean, scale * bound)
    torch.testing.assert_close(scaled, scale * plain)
    assert 0 < int((plain != returns).sum()) < 500
