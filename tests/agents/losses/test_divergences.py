"""Divergences against torch's and against the algebra."""

from __future__ import annotations

import pytest
import torch
from torch import distributions

from palaestra.agents.losses.divergences import kl_divergence
from palaestra.agents.nn.distributions import Categorical, DiagonalGaussian, MultiCategorical, SquashedGaussian

GENERATOR = torch.Generator().manual_seed(0)
ONE, OTHER = torch.randn(2, 6, 5, generator=GENERATOR)


def test_gaussians_equal_torch() -> None:
    first, second = ONE[0], OTHER[0]
    expected = distributions.kl_divergence(
        distributions.Normal(ONE, first.exp()), distributions.Normal(OTHER, second.exp())
    )
    ours = kl_divergence(DiagonalGaussian(ONE, first), DiagonalGaussian(OTHER, second))
    torch.testing.assert_close(ours, expected.sum(-1))


def test_categoricals_equal_torch_and_ignore_masked_actions() -> None:
    expected = distributions.kl_divergence(
        distributions.Categorical(logits=ONE), distributions.Categorical(logits=OTHER)
    )
    torch.testing.assert_close(kl_divergence(Categorical(ONE), Categorical(OTHER)), expected)
    mask = torch.tensor([True, False, True, True, False])
    logits = OTHER.clone().requires_grad_()
    masked = kl_divergence(Categorical(ONE, mask), Categorical(logits, mask))
    torch.testing.assert_close(masked, kl_divergence(Categorical(ONE[:, mask]), Categorical(OTHER[:, mask])))
    (gradient,) = torch.autograd.grad(masked.sum(), logits)
    assert gradient.isfinite().all()
    assert torch.equal(gradient[:, ~mask], torch.zeros(6, 2))


def test_independent_variables_add_up() -> None:
    ours = kl_divergence(MultiCategorical(ONE, [2, 3]), MultiCategorical(OTHER, [2, 3]))
    parts = [kl_divergence(Categorical(ONE[:, s]), Categorical(OTHER[:, s])) for s in (slice(2), slice(2, 5))]
    torch.testing.assert_close(ours, parts[0] + parts[1])


def test_other_kinds_are_refused() -> None:
    with pytest.raises(TypeError, match="SquashedGaussian and SquashedGaussian; expected two distributions of one"):
        kl_divergence(SquashedGaussian(ONE, OTHER), SquashedGaussian(OTHER, ONE))
