"""The gate's frequency loss: where its gradient vanishes, and what it converges to."""

from __future__ import annotations

import pytest
import torch

from palaestra.agents.losses.gates import frequency_loss
from palaestra.agents.nn.distributions import DiagonalGaussian
from palaestra.agents.nn.mixtures import GaussianMixture


def test_value_and_gradient_in_closed_form() -> None:
    weights = torch.tensor([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]], requires_grad=True)
    loss = frequency_loss(weights, torch.tensor([2, 0]))
    assert loss.item() == pytest.approx((0.04 + 0.09 + 0.25 + 0.16 + 0.09 + 0.01) / 2)
    (gradient,) = torch.autograd.grad(loss, weights)
    torch.testing.assert_close(gradient, torch.tensor([[0.2, 0.3, -0.5], [-0.4, 0.3, 0.1]]))


def test_gradient_vanishes_at_the_one_hot_target() -> None:
    weights = torch.eye(3).requires_grad_()
    loss = frequency_loss(weights, torch.arange(3))
    assert loss.item() == 0.0
    assert torch.equal(torch.autograd.grad(loss, weights)[0], torch.zeros(3, 3))


def test_one_expert_has_no_gate_loss() -> None:
    logits = torch.tensor([[0.7], [-2.0]], requires_grad=True)
    loss = frequency_loss(torch.softmax(logits, -1), torch.zeros(2, dtype=torch.int64))
    assert loss.item() == 0.0
    assert torch.equal(torch.autograd.grad(loss, logits)[0], torch.zeros(2, 1))


def converged_gate(means: tuple[float, ...], steps: int = 1_500) -> torch.Tensor:
    """Weights of a gate trained beside frozen experts N(mean, 1) whose action is the better the larger it is."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.tensor([1.0, *(-0.5 for _ in means[1:])], requires_grad=True)
    optimizer = torch.optim.Adam([logits], 0.02)
    mean = torch.tensor(means)[:, None].expand(256, -1, -1)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.02 * (1.0 - step / steps)
        policy = GaussianMixture(logits.expand(256, -1), DiagonalGaussian(mean, torch.zeros_like(mean)))
        best = policy.propose(generator).action.squeeze(-1).argmax(-1)
        optimizer.zero_grad()
        frequency_loss(policy.weights, best).backward()
        optimizer.step()
    return torch.softmax(logits.detach(), -1)


def test_gate_converges_to_equal_shares_for_identical_experts() -> None:
    torch.testing.assert_close(converged_gate((0.3, 0.3)), torch.tensor([0.5, 0.5]), atol=0.01, rtol=0.0)


def test_gate_converges_to_the_frequency_of_being_best() -> None:
    """P(N(1, 1) > N(0, 1)) = Phi(1 / sqrt 2) = 0.76025."""
    torch.testing.assert_close(converged_gate((1.0, 0.0)), torch.tensor([0.76025, 0.23975]), atol=0.01, rtol=0.0)
