"""Mixtures fitted to samples: entropies against closed forms and numerical integration."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import Tensor

from palaestra.agents.losses.mixture_entropy import FLOOR, GaussianMixtures, fit_mixtures


def normal(sets: int, count: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(sets, count, dim, generator=torch.Generator().manual_seed(seed))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


@pytest.mark.parametrize("dim", [1, 3])
def test_one_component_on_standard_normals_gives_14189_a_dimension(dim: int) -> None:
    entropy = fit_mixtures(normal(10, 2_000, dim), 1, generator()).entropy_bound()
    assert entropy.mean().item() == pytest.approx(1.4189385 * dim, abs=0.02 * dim)


def test_one_component_is_the_samples_mean_and_covariance() -> None:
    samples = normal(2, 50, 3) @ torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.3, 0.2], [0.0, 0.0, 2.0]])
    fitted = fit_mixtures(samples, 1, generator())
    covariance = fitted.root[:, 0] @ fitted.root[:, 0].transpose(1, 2)
    for number in range(2):
        expected = np.cov(samples[number].numpy().T, bias=True) + FLOOR * np.eye(3)
        np.testing.assert_allclose(covariance[number].numpy(), expected, atol=1e-5)
    torch.testing.assert_close(fitted.mean[:, 0], samples.mean(1))


def test_density_equals_scipys() -> None:
    fitted = fit_mixtures(normal(1, 200, 2), 3, generator())
    points = normal(1, 7, 2, seed=5)
    expected = np.zeros(7)
    for weight, mean, root in zip(fitted.weight[0], fitted.mean[0], fitted.root[0], strict=True):
        expected += weight.item() * multivariate_normal(mean.numpy(), (root @ root.T).numpy()).pdf(points[0].numpy())
    np.testing.assert_allclose(fitted.log_prob(points)[0].exp().numpy(), expected, rtol=1e-4)


def mixture(distance: float) -> GaussianMixtures:
    """Three components of std .1 in a row."""
    return GaussianMixtures(
        torch.tensor([[0.5, 0.3, 0.2]]),
        distance * torch.tensor([[[-1.0], [0.0], [1.0]]]),
        torch.full((1, 3, 1, 1), 0.1),
    )


@pytest.mark.parametrize("distance", [0.0, 0.1, 0.3, 2.0])
def test_bound_is_above_the_true_entropy_by_at_most_log_3(distance: float) -> None:
    exact = mixture(distance)
    grid = torch.linspace(-4.0, 4.0, 40_001)
    log_prob = exact.log_prob(grid.view(1, -1, 1))[0].double()
    true = -(log_prob.exp() * log_prob).sum().item() * (grid[1] - grid[0]).item()
    excess = exact.entropy_bound().item() - true
    assert -1e-4 <= excess <= math.log(3) + 1e-4
    weights = exact.weight[0]
    overlap = -(weights * weights.log()).sum().item()
    assert excess == pytest.approx({0.0: overlap, 2.0: 0.0}.get(distance, excess), abs=1e-3)


def test_separate_components_are_found() -> None:
    exact, sets, count = mixture(1.0), 10, 400
    chosen = torch.multinomial(exact.weight[0], sets * count, True, generator=generator())
    samples = (exact.mean[0, chosen] + 0.1 * normal(1, sets * count, 1)[0]).view(sets, count, 1)
    fitted = fit_mixtures(samples, 3, generator())
    order = fitted.mean[..., 0].argsort(-1)
    torch.testing.assert_close(
        fitted.mean[..., 0].gather(1, order), exact.mean[..., 0].expand(sets, 3), atol=0.05, rtol=0
    )
    torch.testing.assert_close(fitted.weight.gather(1, order), exact.weight.expand(sets, 3), atol=0.1, rtol=0)
    assert fitted.entropy_bound().mean().item() == pytest.approx(exact.entropy_bound().item(), abs=0.05)


def test_likelihood_is_at_least_that_of_one_component() -> None:
    samples = torch.rand(5, 200, 2, generator=generator())
    one, three = (fit_mixtures(samples, count, generator()).log_prob(samples).mean(-1) for count in (1, 3))
    assert (three > one).all()


def test_samples_that_are_all_alike_have_a_finite_entropy() -> None:
    entropy = fit_mixtures(torch.full((2, 20, 2), 0.5), 3, generator()).entropy_bound()
    floor = 2 * (1.4189385 + 0.5 * math.log(FLOOR))
    assert torch.isfinite(entropy).all()
    assert (entropy <= floor + math.log(3) + 0.1).all()


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="components=3 for 3 samples a set"):
        fit_mixtures(torch.zeros(1, 3, 1), 3, generator())
