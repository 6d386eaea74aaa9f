"""Maximising one advantage while staying near several reference policies, in closed form and as a weighted likelihood.

Cai et al., "Two-Stage Constrained Actor-Critic for Short Video Recommendation", arXiv 2302.01680: the solution of
max_pi E_pi[A] subject to KL(pi || pi_i) <= eps_i, with multipliers lambda_i and their sum Lambda, is

    pi*(a|s) proportional to prod_i pi_i(a|s)^(lambda_i / Lambda) exp(A(s, a) / Lambda).
"""

from __future__ import annotations

import torch
from torch import Tensor


def constrained_optimum(log_references: Tensor, advantage: Tensor, multipliers: Tensor) -> Tensor:
    """Return log pi* `[..., actions]` of discrete actions.

    Args:
        log_references: log pi_i(a|s) `[references, ..., actions]`.
        advantage: A(s, a) `[..., actions]`.
        multipliers: lambda_i `[references]`, above 0.
    """
    temperature = multipliers.sum()
    mixed = torch.tensordot(multipliers / temperature, log_references, 1)
    return torch.log_softmax(mixed + advantage / temperature, -1)


def constrained_log_weight(
    log_references: Tensor, log_behaviour: Tensor, advantage: Tensor, multipliers: Tensor
) -> Tensor:
    """Return the log of w = prod_i (pi_i(a|s) / beta(a|s))^(lambda_i / Lambda) exp(A / Lambda), `[batch]`.

    E_beta[w log pi] is greatest at pi = pi*, so that actions that beta chose teach the policy without another model.

    Args:
        log_references: log pi_i(a|s) of the logged actions `[references, batch]`; with none of them
            w = exp(A / Lambda), the weight of advantage-weighted regression.
        log_behaviour: log beta(a|s) `[batch]`.
        advantage: `[batch]`.
        multipliers: lambda_i `[references]`; with no reference a single one, which is Lambda.
    """
    temperature = multipliers.sum()
    weight = advantage / temperature
    if len(log_references):
        weight = weight + torch.tensordot(multipliers / temperature, log_references - log_behaviour, 1)
    return weight
