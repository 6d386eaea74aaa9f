"""The constrained optimum in closed form, against a numerical Lagrangian, its limits and its weighted likelihood."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from palaestra.agents.losses.constrained import constrained_log_weight, constrained_optimum

REFERENCES = torch.tensor([[0.7, 0.2, 0.1], [0.2, 0.2, 0.6]], dtype=torch.float64)
ADVANTAGE = torch.tensor([0.0, 1.0, 0.5], dtype=torch.float64)
MULTIPLIERS = torch.tensor([2.0, 1.0], dtype=torch.float64)
OPTIMUM = [0.482852, 0.292326, 0.224822]


def test_a_bandit_with_two_references_has_the_known_optimum() -> None:
    found = constrained_optimum(REFERENCES.log(), ADVANTAGE, MULTIPLIERS).exp()
    np.testing.assert_allclose(found.numpy(), OPTIMUM, atol=1e-6)


def test_the_optimum_maximises_the_lagrangian() -> None:
    references, advantage, multipliers = (x.numpy() for x in (REFERENCES, ADVANTAGE, MULTIPLIERS))

    def loss(logits: np.ndarray) -> float:
        policy = np.exp(logits - logits.max())
        policy /= policy.sum()
        divergences = (policy * np.log(policy / references)).sum(axis=1)
        return float(multipliers @ divergences - policy @ advantage)

    logits = minimize(loss, np.zeros(3), method="BFGS", options={"gtol": 1e-9}).x
    policy = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(policy, OPTIMUM, atol=1e-4)


def test_small_multipliers_are_greedy_and_large_ones_the_geometric_mean_of_the_references() -> None:
    greedy = constrained_optimum(REFERENCES.log(), ADVANTAGE, 1e-3 * MULTIPLIERS).exp()
    np.testing.assert_allclose(greedy.numpy(), [0.0, 1.0, 0.0], atol=1e-6)
    mean = torch.softmax((2.0 * REFERENCES[0].log() + REFERENCES[1].log()) / 3.0, -1)
    far = constrained_optimum(REFERENCES.log(), ADVANTAGE, 1e9 * MULTIPLIERS).exp()
    torch.testing.assert_close(far, mean)


@pytest.mark.parametrize("behaviour", [[1 / 3, 1 / 3, 1 / 3], [0.6, 0.1, 0.3]])
def test_the_weighted_likelihood_of_logged_actions_is_greatest_at_the_optimum(behaviour: list[float]) -> None:
    beta = torch.tensor(behaviour, dtype=torch.float64)
    weight = constrained_log_weight(REFERENCES.log(), beta.log(), ADVANTAGE, MULTIPLIERS).exp()
    logits = torch.tensor(OPTIMUM, dtype=torch.float64).log().requires_grad_()
    loss = -(beta * weight * torch.log_softmax(logits, -1)).sum()
    (gradient,) = torch.autograd.grad(loss, logits)
    np.testing.assert_allclose(gradient.numpy(), 0.0, atol=1e-5)
    elsewhere = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    loss = -(beta * weight * torch.log_softmax(elsewhere, -1)).sum()
    assert float(torch.autograd.grad(loss, elsewhere)[0].abs().max()) > 0.05


def test_one_reference_that_logged_is_advantage_weighted_regression() -> None:
    log_beta = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log()
    one = constrained_log_weight(log_beta[None], log_beta, ADVANTAGE, torch.tensor([0.7], dtype=torch.float64))
    none = constrained_log_weight(log_beta[:0], log_beta, ADVANTAGE, torch.tensor([0.7], dtype=torch.float64))
    torch.testing.assert_close(one, ADVANTAGE / 0.7)
    torch.testing.assert_close(none, ADVANTAGE / 0.7)
