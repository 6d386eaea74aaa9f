"""Every form of estimate: its mean, samples, affine maps, losses, and how several are put together."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from palaestra.agents.losses.quantiles import midpoints, quantile_huber_loss
from palaestra.agents.nn.critic_heads import CategoricalHead, GaussianHead, QuantileHead, ScalarHead, SigmoidHead
from palaestra.agents.nn.estimates import CategoricalEstimate, GaussianEstimate, QuantileEstimate

HEADS = [ScalarHead(), GaussianHead(), QuantileHead(8), CategoricalHead(-3.0, 3.0, 13), SigmoidHead()]


def output_of(head: Any, *shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, head.outputs, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("head", HEADS)
def test_samples_have_the_mean(head: Any) -> None:
    estimate = head(output_of(head, 2, 1).expand(2, 40_000, -1))
    samples = estimate.sample(torch.Generator().manual_seed(0))
    assert samples.shape == (2, 40_000)
    torch.testing.assert_close(samples.mean(-1), estimate.mean()[:, 0], atol=0.04, rtol=0.0)
    if not isinstance(head, ScalarHead):
        assert bool((samples.std(-1) > 0.1).all())


@pytest.mark.parametrize("head", HEADS)
def test_moving_moves_the_mean_and_the_samples(head: Any) -> None:
    estimate = head(output_of(head, 3, 5))
    shift = torch.linspace(-1.0, 1.0, 5, dtype=torch.float64)
    scale = torch.tensor([0.9, 0.9, 0.0, 0.9, 0.9], dtype=torch.float64)
    moved = estimate.moved(shift, scale)
    torch.testing.assert_close(moved.mean(), shift + scale * estimate.mean())
    # A terminated row's return is its reward.
    torch.testing.assert_close(moved.sample(torch.Generator())[:, 2], shift[2].expand(3))
    if not isinstance(head, SigmoidHead):
        drawn = estimate.sample(torch.Generator().manual_seed(1))
        torch.testing.assert_close(moved.sample(torch.Generator().manual_seed(1)), shift + scale * drawn)


@pytest.mark.parametrize("head", HEADS)
def test_the_lowest_is_one_members_whole_estimate(head: Any) -> None:
    output = output_of(head, 3, 50)
    estimate = head(output)
    lowest = estimate.lowest()
    torch.testing.assert_close(lowest.mean(), estimate.mean().amin(0))
    chosen = estimate.mean().argmin(0)
    assert len(chosen.unique()) == 3
    expected = head(output[chosen, torch.arange(50)])
    for seed in range(3):
        drawn = [e.sample(torch.Generator().manual_seed(seed)) for e in (lowest, expected)]
        torch.testing.assert_close(*drawn)


@pytest.mark.parametrize("head", HEADS)
def test_the_average_has_the_average_mean(head: Any) -> None:
    estimate = head(output_of(head, 3, 50))
    torch.testing.assert_close(estimate.average().mean(), estimate.mean().mean(0))


@pytest.mark.parametrize("head", HEADS)
def test_random_members_are_distinct_and_all_are_drawn(head: Any) -> None:
    estimate = head(output_of(head, 5, 4))
    means, generator, seen = estimate.mean(), torch.Generator().manual_seed(0), set()
    for _ in range(60):
        members = estimate.random_members(2, generator).mean()
        rows = [int(torch.isclose(means, member).all(-1).nonzero().item()) for member in members]
        assert len(set(rows)) == 2
        seen.add(frozenset(rows))
    assert len(seen) == 10
    with pytest.raises(ValueError, match="count=6; expected 1 to 5"):
        estimate.random_members(6, generator)


def test_gaussian_loss_is_the_negative_log_density_and_its_mean_over_the_target() -> None:
    head = GaussianHead()
    ours, theirs = head(output_of(head, 2, 6)), head(output_of(head, 6, seed=1))
    numbers = theirs.sample(torch.Generator().manual_seed(0))
    expected = -torch.distributions.Normal(ours.centre, ours.std).log_prob(numbers)
    torch.testing.assert_close(ours.loss(numbers), expected)
    nodes, weights = np.polynomial.hermite_e.hermegauss(5)
    mean = sum(
        w * ours.loss(theirs.centre + z * theirs.std) for z, w in zip(nodes, weights / weights.sum(), strict=True)
    )
    torch.testing.assert_close(ours.loss(theirs), mean)


def test_gaussian_noise_is_clipped() -> None:
    head = GaussianHead(noise_clip=1.5)
    estimate = head(torch.zeros(20_000, 2, dtype=torch.float64))
    standardised = estimate.sample(torch.Generator().manual_seed(0)) / estimate.std
    assert float(standardised.abs().max()) == pytest.approx(1.5)
    assert float((standardised.abs() == 1.5).double().mean()) == pytest.approx(0.1336, abs=0.01)


def test_quantile_loss_is_that_of_quantile_regression() -> None:
    head = QuantileHead(8, huber_width=0.5)
    ours, theirs = head(output_of(head, 2, 6)), head(output_of(head, 6, seed=1))
    losses = ours.loss(theirs)
    assert losses.shape == (2, 6)
    for member in range(2):
        expected = quantile_huber_loss(ours.quantiles[member], theirs.quantiles, midpoints(8), 0.5)
        torch.testing.assert_close(losses[member].mean(), expected)


def test_quantile_regression_recovers_the_mid_quantiles_as_the_width_shrinks() -> None:
    samples = torch.linspace(-2.0, 2.0, 401, dtype=torch.float64).square().unsqueeze(0)
    distances = []
    for width in (1.0, 0.1, 0.0):
        quantiles = torch.zeros(1, 5, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.Adam([quantiles], 0.02)
        for _ in range(600):
            optimizer.zero_grad()
            QuantileEstimate(quantiles, width).loss(QuantileEstimate(samples, width)).sum().backward()
            optimizer.step()
        exact = torch.quantile(samples[0], midpoints(5).double())
        distances.append(float((quantiles.detach()[0] - exact).abs().max()))
    assert distances[0] > distances[1] > distances[2]
    assert distances[2] < 0.05


def test_categorical_loss_is_least_at_the_projected_target() -> None:
    head = CategoricalHead(-3.0, 3.0, 13)
    target = head(output_of(head, 6, seed=1)).moved(torch.full((6,), 0.3), torch.full((6,), 0.5))
    logits = torch.zeros(6, 13, dtype=torch.float64, requires_grad=True)
    head(logits).loss(target).sum().backward()
    # d cross-entropy / d logits = probabilities - target.
    projected = torch.full((6, 13), 1 / 13, dtype=torch.float64) - logits.grad
    torch.testing.assert_close((projected * head(logits).atoms).sum(-1).detach(), target.mean().detach())
    two_hot = -head(logits).loss(torch.full((6,), 0.25)).detach()
    torch.testing.assert_close(two_hot, torch.full((6,), math.log(1 / 13), dtype=torch.float64))


def test_sigmoid_loss_is_the_binary_cross_entropy() -> None:
    head = SigmoidHead()
    estimate, share = head(output_of(head, 2, 6)), torch.linspace(0.0, 1.0, 6, dtype=torch.float64)
    p = estimate.mean()
    torch.testing.assert_close(estimate.loss(share), -(share * p.log() + (1.0 - share) * (1.0 - p).log()))


def test_scalar_loss_is_the_squared_error() -> None:
    head = ScalarHead()
    estimate, target = head(output_of(head, 2, 6)), torch.linspace(-1.0, 1.0, 6, dtype=torch.float64)
    torch.testing.assert_close(estimate.loss(target), (estimate.value - target) ** 2)
    torch.testing.assert_close(estimate.loss(GaussianHead()(output_of(GaussianHead(), 6))).shape, (2, 6))


def test_categorical_average_is_the_mixture() -> None:
    log_probs = torch.tensor([[[0.9, 0.1]], [[0.5, 0.5]]]).log()
    average = CategoricalEstimate(log_probs, torch.tensor([0.0, 1.0])).average()
    torch.testing.assert_close(average.log_probs.exp(), torch.tensor([[0.7, 0.3]]))


def test_gaussian_average_is_that_of_its_quantiles() -> None:
    estimate = GaussianEstimate(torch.tensor([[1.0], [3.0]]), torch.tensor([[1.0], [2.0]]), math.inf).average()
    assert (estimate.centre.item(), estimate.std.item()) == (2.0, 1.5)
