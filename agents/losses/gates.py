"""Losses of a mixture's gate: what it should learn of the choice among its experts."""

from __future__ import annotations

import torch
from torch import Tensor


def frequency_loss(weights: Tensor, best: Tensor) -> Tensor:
    """Return mean ||w(s) - onehot(k*)||^2, a scalar (Ren et al. 2021, arXiv 2104.09122).

    Its minimum in a state is the frequency with which each expert was the best one there, with no gradient through
    the choice itself; its gradient vanishes where the weights are the one-hot target.

    Args:
        weights: Probabilities of the experts `[batch, experts]`.
        best: Index k* of the expert that was found best `[batch]`.
    """
    is_best = best.unsqueeze(-1) == torch.arange(weights.shape[-1], device=weights.device)
    return (weights - is_best.to(weights.dtype)).square().sum(-1).mean()
