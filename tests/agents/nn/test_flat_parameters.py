"""The flat-parameter kit against closed forms."""

from __future__ import annotations

import pytest
import torch
from gymnasium import spaces
from torch import nn

from palaestra.agents.losses.divergences import kl_divergence
from palaestra.agents.nn.actor_critic import ActorCritic
from palaestra.agents.nn.distributions import Categorical, DiagonalGaussian
from palaestra.agents.nn.flat_parameters import (
    conjugate_gradient,
    directional_derivative,
    fisher_vector_product,
    flat_gradient,
    flat_values,
    hessian_vector_product,
    row_gradients,
    set_flat_,
    twice_differentiable_,
)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def parameters_of(*values: torch.Tensor) -> list[nn.Parameter]:
    return [nn.Parameter(value) for value in values]


def test_values_are_set_and_got_in_order() -> None:
    parameters = parameters_of(random(2, 3), random(4))
    assert torch.equal(flat_values(parameters)[:6].view(2, 3), parameters[0])
    set_flat_(parameters, torch.arange(10.0, dtype=torch.float64))
    assert torch.equal(parameters[0], torch.arange(6.0, dtype=torch.float64).view(2, 3))
    assert torch.equal(parameters[1], torch.arange(6.0, 10.0, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"set_flat_: values of shape \(9,\); expected \(10,\)"):
        set_flat_(parameters, torch.zeros(9))


def test_gradient_and_hessian_product_of_a_quadratic() -> None:
    """x'Ax/2 + b.x has the gradient Ax + b and the Hessian A; a parameter without influence has zeros."""
    matrix = random(3, 3)
    matrix = matrix @ matrix.T
    x, unused = parameters_of(random(3, seed=1), random(2))
    offset = random(3, seed=2)
    gradient = flat_gradient(0.5 * x @ matrix @ x + offset @ x, [x, unused], create_graph=True)
    torch.testing.assert_close(gradient[:3], matrix @ x + offset)
    assert torch.equal(gradient[3:], torch.zeros(2, dtype=torch.float64))
    vector = random(5, seed=3)
    product = hessian_vector_product(gradient, [x, unused], vector)
    torch.testing.assert_close(product[:3], matrix @ vector[:3])
    assert torch.equal(product[3:], torch.zeros(2, dtype=torch.float64))


def test_hessian_product_of_a_linear_function_is_zero() -> None:
    (x,) = parameters_of(random(3))
    gradient = flat_gradient(random(3, seed=1) @ x, [x], create_graph=True)
    assert torch.equal(hessian_vector_product(gradient, [x], random(3, seed=2)), torch.zeros(3, dtype=torch.float64))


def test_fisher_product_of_a_gaussian_is_the_hessian_of_the_kl() -> None:
    """On (mean, log std) the Fisher matrix is diag(1 / std^2, 2)."""
    mean, log_std = parameters_of(torch.tensor([0.3], dtype=torch.float64), torch.tensor([-0.7], dtype=torch.float64))
    policy = DiagonalGaussian(mean[None], log_std)
    old = DiagonalGaussian(mean.detach()[None], log_std.detach())
    vector = torch.tensor([0.4, -1.1], dtype=torch.float64)
    gradient = flat_gradient(kl_divergence(old, policy).mean(), [mean, log_std], create_graph=True)
    expected = vector * torch.stack([torch.exp(-2 * log_std.detach())[0], torch.tensor(2.0)])
    torch.testing.assert_close(hessian_vector_product(gradient, [mean, log_std], vector), expected)


def test_empirical_fisher_product_of_a_categorical() -> None:
    """Over all actions, each as often as its probability says, F = diag(p) - p p'."""
    (logits,) = parameters_of(torch.log(torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)))
    actions = torch.tensor([0, 0, 1, 2])
    log_probs = Categorical(logits.expand(4, 3)).log_prob(actions)
    p = logits.detach().exp()
    vector = random(3)
    product = fisher_vector_product(log_probs, [logits], vector)
    torch.testing.assert_close(product, p * vector - p * (p @ vector))
    scores = torch.eye(3, dtype=torch.float64)[actions] - p
    torch.testing.assert_close(directional_derivative(log_probs, [logits], vector), scores @ vector)
    torch.testing.assert_close(row_gradients(log_probs, [logits]), scores)


def test_conjugate_gradients_solve_three_equations_in_three_steps() -> None:
    matrix = torch.tensor([[4.0, 1.0, 0.0], [1.0, 3.0, -1.0], [0.0, -1.0, 2.0]], dtype=torch.float64)
    target = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    products = []

    def product(x: torch.Tensor) -> torch.Tensor:
        products.append(x)
        return matrix @ x

    solution = conjugate_gradient(product, target, iterations=3, tolerance=0.0)
    torch.testing.assert_close(solution, torch.linalg.solve(matrix, target), atol=1e-12, rtol=1e-12)
    assert len(products) == 3
    assert torch.equal(conjugate_gradient(product, torch.zeros(3, dtype=torch.float64), 3), torch.zeros(3))
    assert len(products) == 3


def test_plain_layers_take_the_place_of_fused_ones() -> None:
    network = ActorCritic(spaces.Box(-1.0, 1.0, (3,)), spaces.Discrete(4), (8,))
    names, observation = list(network.state_dict()), torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    before = network(observation)[0].log_probs.detach()
    twice_differentiable_(network)
    assert list(network.state_dict()) == names
    log_probs = network(observation)[0].log_probs
    torch.testing.assert_close(log_probs, before)
    parameters = network.policy_parameters()
    assert sum(p.numel() for p in parameters) == 3 * 8 + 8 + 8 * 4 + 4
    gradient = flat_gradient(log_probs[:, 0].square().mean(), parameters, create_graph=True)
    assert hessian_vector_product(gradient, parameters, torch.ones_like(gradient)).abs().sum() > 0
