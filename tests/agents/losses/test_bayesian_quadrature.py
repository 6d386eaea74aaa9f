"""Bayesian quadrature of policy gradients against closed forms."""

from __future__ import annotations

import pytest
import torch

from palaestra.agents.losses.bayesian_quadrature import (
    posterior_of_action_values,
    posterior_of_products,
    posterior_of_returns,
    temporal_differences,
)


def draws(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def gaussian_scores(actions: torch.Tensor) -> torch.Tensor:
    """Of N(0, 1) in its mean and standard deviation; their Fisher matrix is diag(1, 2)."""
    return torch.stack([actions, actions.square() - 1.0], -1)


GAUSSIAN_FISHER = torch.diag(torch.tensor([1.0, 2.0], dtype=torch.float64))


@pytest.mark.parametrize("noise", [0.5, 3.0])
def test_model_two_with_the_empirical_fisher_is_reinforce_scaled(noise: float) -> None:
    """M / (M + noise) times REINFORCE, with variances noise / (M + noise) diag G: nothing is gained."""
    count = 12
    scores, returns = draws(count, 3), draws(count) + 2.0
    fisher = scores.T @ scores / count
    mean, variance = posterior_of_returns(scores, returns, fisher, noise)
    torch.testing.assert_close(mean, count / (count + noise) * (scores.T @ returns) / count)
    torch.testing.assert_close(variance, noise / (count + noise) * fisher.diagonal())


@pytest.mark.parametrize("actions", [[0.3, -1.1], [2.0, 0.1]])
def test_model_two_is_exact_on_a_return_in_its_span(actions: list[float]) -> None:
    """r = a: any two different samples give the gradient (1, 0), with no doubt left."""
    a = torch.tensor(actions, dtype=torch.float64)
    mean, variance = posterior_of_returns(gaussian_scores(a), a, GAUSSIAN_FISHER, 0.0)
    torch.testing.assert_close(mean, torch.tensor([1.0, 0.0], dtype=torch.float64), atol=1e-10, rtol=0.0)
    torch.testing.assert_close(variance, torch.zeros(2, dtype=torch.float64), atol=1e-10, rtol=0.0)


def test_model_one_is_exact_on_products_in_its_span() -> None:
    """r = a^2 holds a constant, which Model 2 lacks; five different samples give Model 1 the gradient (0, 2)."""
    a = torch.tensor([-1.7, -0.6, 0.2, 0.9, 1.8], dtype=torch.float64)
    mean, variance = posterior_of_products(gaussian_scores(a), a.square(), GAUSSIAN_FISHER, 0.0)
    torch.testing.assert_close(mean, torch.tensor([0.0, 2.0], dtype=torch.float64), atol=1e-10, rtol=0.0)
    torch.testing.assert_close(variance, torch.zeros(2, dtype=torch.float64), atol=1e-10, rtol=0.0)
    other, _ = posterior_of_returns(gaussian_scores(a[:2]), a[:2].square(), GAUSSIAN_FISHER, 0.0)
    assert abs(float(other[1]) - 2.0) > 0.1


def test_critic_without_noise_returns_the_rewards_to_go() -> None:
    """Rewards 1, 2, 3 with gamma 0.9: 5.23, 4.7, 3; and a second episode beside it keeps apart."""
    reward = torch.tensor([1.0, 2.0, 3.0, 5.0], dtype=torch.float64)
    ended = torch.tensor([False, False, True, True])
    differences = temporal_differences(ended, 0.9)
    scores, state_kernel = draws(4, 2), 0.5 * torch.eye(4, dtype=torch.float64)
    fisher = torch.diag(torch.tensor([1.0, 2.0], dtype=torch.float64))
    _, values = posterior_of_action_values(scores, state_kernel, reward, differences, fisher, 0.0)
    torch.testing.assert_close(values, torch.tensor([5.23, 4.7, 3.0, 5.0], dtype=torch.float64))


def test_critic_of_single_steps_without_a_state_kernel_is_model_two() -> None:
    scores, reward = draws(5, 3), draws(5)
    fisher = torch.diag(torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64))
    differences = temporal_differences(torch.ones(5, dtype=torch.bool), 0.9)
    ours, _ = posterior_of_action_values(scores, torch.zeros(5, 5).double(), reward, differences, fisher, 0.3)
    expected = posterior_of_returns(scores, reward, fisher, 0.3)
    torch.testing.assert_close(ours.mean, expected.mean)
    torch.testing.assert_close(ours.variance, expected.variance)


@pytest.mark.parametrize("noise", [0.1, 1.0, 100.0])
def test_noise_shrinks_the_estimate_of_a_trajectory_by_its_share_of_the_variance(noise: float) -> None:
    """y u / (u' G^-1 u + noise): noise far above the prior variance u' G^-1 u leaves next to nothing of a step."""
    scores, fisher = draws(1, 3), torch.diag(torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64))
    returns = torch.tensor([7.0], dtype=torch.float64)
    prior = float(scores[0] @ torch.linalg.solve(fisher, scores[0]))
    mean, _ = posterior_of_returns(scores, returns, fisher, noise)
    torch.testing.assert_close(mean, 7.0 * scores[0] / (prior + noise))


@pytest.mark.parametrize("noise", [0.1, 50.0])
def test_critic_of_whole_episodes_is_a_regression_on_their_reward_to_go(noise: float) -> None:
    """mean = U (K + noise I)^-1 R: much noise leaves the direction of Monte Carlo, however alike the rewards are."""
    ended = torch.tensor([False, False, True, False, True])
    reward = torch.ones(5, dtype=torch.float64)
    to_go = torch.tensor([2.71, 1.9, 1.0, 1.9, 1.0], dtype=torch.float64)
    scores, fisher = draws(5, 3), torch.diag(torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64))
    state_kernel = 0.5 * torch.eye(5, dtype=torch.float64)
    ours, values = posterior_of_action_values(
        scores, state_kernel, reward, temporal_differences(ended, 0.9), fisher, noise
    )
    kernel = state_kernel + scores @ torch.linalg.solve(fisher, scores.T)
    weights = torch.linalg.solve(kernel + noise * torch.eye(5, dtype=torch.float64), to_go)
    torch.testing.assert_close(ours.mean, scores.T @ weights)
    torch.testing.assert_close(values, kernel @ weights)
    if noise == 50.0:
        direction = torch.nn.functional.cosine_similarity(ours.mean, scores.T @ to_go, dim=0)
        assert float(direction) > 0.98


def test_unobserved_rewards_are_left_out() -> None:
    """Of a truncated episode, the values say what its known rewards say: Q(0) - gamma Q(1) = 1."""
    differences = temporal_differences(torch.tensor([False, True]), 0.5)[:1]
    _, values = posterior_of_action_values(
        draws(2, 2), torch.eye(2).double(), torch.ones(1).double(), differences, torch.eye(2).double(), 0.0
    )
    assert float(values[0] - 0.5 * values[1]) == pytest.approx(1.0)
