"""Policy gradients as integrals with Gaussian-process priors on parts of the integrand.

Ghavamzadeh, Engel and Valko, "Bayesian policy gradient and actor-critic algorithms", JMLR 17(66), 2016: with scores u
and their Fisher matrix G = E[u u'], the priors' kernels are chosen so that integrals have closed forms.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class GradientPosterior(NamedTuple):
    """A Gaussian posterior of the gradient.

    Attributes:
        mean: The estimate `[n]`.
        variance: Variance of each of its entries `[n]`.
    """

    mean: Tensor
    variance: Tensor


def posterior_of_products(scores: Tensor, returns: Tensor, fisher: Tensor, noise_variance: float) -> GradientPosterior:
    """Return the posterior of the gradient under the paper's Model 1: a prior on the products of return and score.

    K_ij = (1 + u_i' G^-1 u_j)^2, b_i = 1 + u_i' G^-1 u_i, C = (K + noise I)^-1; mean F C b with F = [y_i u_i] and
    variance 1 + n - b' C b in every entry.

    Args:
        scores: u of each trajectory `[M, n]`, float64.
        returns: y of each trajectory `[M]`.
        fisher: G `[n, n]`, positive definite.
        noise_variance: Variance of the noise of the returns, at least 0.
    """
    inner = scores @ torch.linalg.solve(fisher, scores.T)
    norms = 1.0 + inner.diagonal()
    weights = torch.linalg.solve(_with_noise((1.0 + inner).square(), noise_variance), norms)
    spread = 1.0 + scores.shape[1] - norms @ weights
    return GradientPosterior(scores.T @ (returns * weights), spread.expand(scores.shape[1]))


def posterior_of_returns(scores: Tensor, returns: Tensor, fisher: Tensor, noise_variance: float) -> GradientPosterior:
    """Return the posterior of the gradient under the paper's Model 2: a prior on the returns.

    K_ij = u_i' G^-1 u_j, C = (K + noise I)^-1; mean U C y and covariance G - U C U', of which the diagonal is returned.
    Arguments as for `posterior_of_products`. A constant return lies outside of what the prior can express.
    """
    kernel = _with_noise(scores @ torch.linalg.solve(fisher, scores.T), noise_variance)
    return _posterior(scores, torch.linalg.solve(kernel, returns), torch.linalg.solve(kernel, scores), fisher)


def temporal_differences(ended: Tensor, gamma: float) -> Tensor:
    """Return H `[steps, steps]` with r = H Q + noise: 1 on the diagonal and -gamma beside it, within an episode.

    Args:
        ended: Bools `[steps]`, of episodes one behind the other: the step was its episode's last.
        gamma: Discount in [0, 1].
    """
    successor = torch.where(ended[:-1], 0.0, -gamma).double()
    return torch.eye(len(ended), dtype=torch.float64, device=ended.device) + successor.diag_embed(offset=1)


def posterior_of_action_values(
    scores: Tensor, state_kernel: Tensor, reward: Tensor, differences: Tensor, fisher: Tensor, noise_variance: float
) -> tuple[GradientPosterior, Tensor]:
    """Return the posterior of the gradient with a prior on Q, and the posterior mean of Q at the steps `[steps]`.

    The discounted return that follows a step is Q plus independent noise, so that r = H Q + H noise (Engel, Mannor and
    Meir, "Reinforcement learning with Gaussian processes", ICML 2005): whole episodes are regressed on their
    reward-to-go. Noise of the rewards themselves would be another model, in which much of it leaves nothing of rewards
    that are alike.

    K = k_s(s, s') + u' G^-1 u', alpha = H' (H (K + noise I) H')^-1 r and D = H' (H (K + noise I) H')^-1 H; mean U alpha
    and covariance G - U D U', of which the diagonal is returned. The states' part of Q does not touch the gradient.

    Args:
        scores: grad log pi(a|s) of each step `[steps, n]`, float64.
        state_kernel: k_s of each pair of steps `[steps, steps]`.
        reward: What was observed `[observed]`.
        differences: H `[observed, steps]`: the rows of `temporal_differences` whose rewards were observed.
        fisher: G under the discounted visits that the gradient is taken under `[n, n]`, positive definite.
        noise_variance: Variance of the noise of the returns, at least 0.
    """
    kernel = state_kernel + scores @ torch.linalg.solve(fisher, scores.T)
    of_rewards = differences @ _with_noise(kernel, noise_variance) @ differences.T
    alpha = differences.T @ torch.linalg.solve(of_rewards, reward)
    explained = differences.T @ torch.linalg.solve(of_rewards, differences @ scores)
    return _posterior(scores, alpha, explained, fisher), kernel @ alpha


def _posterior(scores: Tensor, weights: Tensor, explained: Tensor, fisher: Tensor) -> GradientPosterior:
    return GradientPosterior(scores.T @ weights, fisher.diagonal() - (scores * explained).sum(0))


def _with_noise(kernel: Tensor, noise_variance: float) -> Tensor:
    return kernel + noise_variance * torch.eye(len(kernel), dtype=kernel.dtype, device=kernel.device)
