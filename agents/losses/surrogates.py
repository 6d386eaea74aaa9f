"""Policy-gradient surrogates: what is minimised in place of the return."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor


def clipped_surrogate(log_ratio: Tensor, advantage: Tensor, clip_range: float | Tensor) -> Tensor:
    """Return the clipped surrogate loss (Schulman et al. 2017, eq. 7), a scalar to minimise.

    Its gradient vanishes exactly in the rows with A > 0 and ratio > 1 + clip, or A < 0 and ratio < 1 - clip.

    Args:
        log_ratio: log pi(a|s) - log pi_old(a|s) `[batch]`, or `[batch, parts]`.
        advantage: `[batch]`, or `[batch, parts]`.
        clip_range: Half-width of the trusted interval around ratio 1; of each part, `[parts]`.
    """
    ratio, width = log_ratio.exp(), cast(Any, clip_range)
    clipped = ratio.clamp(1.0 - width, 1.0 + width)
    return -torch.minimum(advantage * ratio, advantage * clipped).mean()


def penalised_surrogate(log_ratio: Tensor, advantage: Tensor, divergence: Tensor, step_size: float) -> Tensor:
    """Return the penalised surrogate loss -mean(ratio A) + mean(divergence) / step_size, a scalar to minimise.

    With the divergence KL(pi || pi_old), minimising it is the mirror-descent step pi proportional to
    pi_old exp(step_size A) (Tomar et al. 2020, arXiv 2005.09814). That divergence has no gradient at pi = pi_old.

    Args:
        log_ratio: log pi(a|s) - log pi_old(a|s) `[batch]`.
        advantage: `[batch]`.
        divergence: Of the new from the old policy in each state `[batch]`, in nats.
        step_size: The t of the mirror-descent step, above 0.
    """
    return divergence.mean() / step_size - (log_ratio.exp() * advantage).mean()


@torch.no_grad()
def approximate_kl(log_ratio: Tensor) -> Tensor:
    """Return the low-variance estimate of KL(old || new), mean((ratio - 1) - log ratio), a scalar of at least 0."""
    return (log_ratio.expm1() - log_ratio).mean()


@torch.no_grad()
def clip_fraction(log_ratio: Tensor, clip_range: float) -> Tensor:
    """Return the share of rows whose ratio left the trusted interval."""
    return (log_ratio.expm1().abs() > clip_range).float().mean()
