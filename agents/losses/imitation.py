"""Weights of imitation: how much of each improved action a policy is to learn."""

from __future__ import annotations

from torch import Tensor


def best_with_advantage(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return by how much the best of several actions is above their average, `[batch]`, and which it is, `[batch]`.

    The weight max(Q - V, 0) of QVPO (Ding et al. 2024, arXiv 2405.16173), with V the mean over the actions: no constant
    added to the values changes it, and it is 0 where all actions are worth the same.

    Args:
        values: `[batch, count]`.
    """
    best, index = values.max(-1)
    # The mean of equal values may be rounded to above them.
    return (best - values.mean(-1)).clamp_min(0.0), index
