"""Heads against `torch.distributions`."""

from __future__ import annotations

import pytest
import torch
from torch import distributions

from palaestra.agents.nn.distributions import (
    Categorical,
    DiagonalGaussian,
    MultiCategorical,
    SquashedGaussian,
    standard_normal_like,
)

GENERATOR = torch.Generator().manual_seed(0)


def test_diagonal_gaussian() -> None:
    mean, log_std, action = torch.randn(3, 5, 2, generator=GENERATOR)
    ours, theirs = DiagonalGaussian(mean, log_std), distributions.Normal(mean, log_std.exp())
    torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action).sum(-1))
    torch.testing.assert_close(ours.entropy(), theirs.entropy().sum(-1))
    assert torch.equal(ours.mode(), mean)


def test_categorical() -> None:
    logits = torch.randn(6, 4, generator=GENERATOR)
    action = torch.tensor([0, 1, 2, 3, 0, 1])
    ours, theirs = Categorical(logits), distributions.Categorical(logits=logits)
    torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    torch.testing.assert_close(ours.probs, theirs.probs)
    assert torch.equal(ours.mode(), logits.argmax(-1))


def test_samples_follow_the_probabilities() -> None:
    probabilities = torch.tensor([0.1, 0.2, 0.7])
    samples = Categorical(probabilities.log().expand(20_000, 3)).sample(torch.Generator().manual_seed(1))
    frequencies = torch.bincount(samples, minlength=3) / 20_000
    torch.testing.assert_close(frequencies, probabilities, atol=0.015, rtol=0.0)


def test_masked_actions_have_probability_zero_and_finite_gradients() -> None:
    logits = torch.randn(200, 4, generator=GENERATOR).requires_grad_(True)
    mask = torch.tensor([True, False, True, False]).expand(200, 4)
    policy = Categorical(logits, mask)
    assert torch.equal(policy.probs[:, [1, 3]], torch.zeros(200, 2))
    assert set(policy.sample(GENERATOR).tolist()) == {0, 2}
    restricted = distributions.Categorical(logits=logits[:, [0, 2]])
    torch.testing.assert_close(policy.entropy(), restricted.entropy())
    (policy.entropy().sum() + policy.log_prob(torch.zeros(200)).sum()).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert torch.equal(logits.grad[:, [1, 3]], torch.zeros(200, 2))


def test_multi_categorical_is_a_product() -> None:
    logits = torch.randn(5, 5, generator=GENERATOR)
    action = torch.tensor([[0, 2], [1, 1], [0, 0], [1, 2], [0, 1]])
    ours = MultiCategorical(logits, [2, 3])
    parts = [distributions.Categorical(logits=logits[:, :2]), distributions.Categorical(logits=logits[:, 2:])]
    torch.testing.assert_close(ours.log_prob(action), sum(p.log_prob(action[:, i]) for i, p in enumerate(parts)))
    torch.testing.assert_close(ours.entropy(), sum(p.entropy() for p in parts))
    assert ours.sample(GENERATOR).shape == (5, 2)
    mask = torch.tensor([[True, False, True, True, False]]).expand(5, 5)
    assert torch.equal(MultiCategorical(logits, [2, 3], mask).mode()[:, 0], torch.zeros(5, dtype=torch.int64))
    assert MultiCategorical(logits, [2, 3], mask).parts[1].probs[:, 2].tolist() == pytest.approx([0.0] * 5)


def test_sampled_log_prob_has_the_gradients_of_autograd() -> None:
    """The hand-derived backward pass of a squashed sample, saturated ones included, against autograd."""
    generator = torch.Generator().manual_seed(0)
    mean, log_std = 3.0 * torch.randn(2, 50, 3, generator=generator, dtype=torch.float64)
    weights = torch.randn(2, 50, 3, generator=generator, dtype=torch.float64)
    leaves = [mean.requires_grad_(), log_std.clamp(-3.0, 1.0).requires_grad_()]
    draws = torch.Generator().manual_seed(1)
    action, log_prob = SquashedGaussian(*leaves).sample_with_log_prob(draws)
    noise = standard_normal_like(leaves[0], draws.manual_seed(1))
    u = leaves[0] + leaves[1].exp() * noise
    density = DiagonalGaussian(*leaves).log_prob(u) - torch.log1p(-torch.tanh(u).square()).sum(-1)
    results = []
    for sample, log in ((action, log_prob), (torch.tanh(u), density)):
        loss = (weights[0] * sample).sum() + (weights[1, :, 0] * log).sum()
        results.append([sample, log, *torch.autograd.grad(loss, leaves)])
    moderate = (u.detach().abs() < 8.0).all(-1)
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours[moderate], theirs[moderate], atol=1e-7, rtol=1e-7)
        assert bool(ours.isfinite().all())
    assert bool((~moderate).any())
