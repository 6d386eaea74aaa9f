"""The loss of quantile regression."""

from __future__ import annotations

import torch
from torch import Tensor


def midpoints(count: int, device: torch.device | None = None) -> Tensor:
    """Return the levels (i + 1/2) / count `[count]`, at which equally weighted quantiles fit a distribution best.

    Best in the 1-Wasserstein distance (Dabney et al. 2018, lemma 2).
    """
    return (torch.arange(count, device=device, dtype=torch.float32) + 0.5) / count


def quantile_huber_loss(quantiles: Tensor, samples: Tensor, levels: Tensor, width: float = 1.0) -> Tensor:
    """Return `quantile_huber_per_row`, averaged over the batch."""
    return quantile_huber_per_row(quantiles, samples, levels, width).mean()


def quantile_huber_per_row(quantiles: Tensor, samples: Tensor, levels: Tensor, width: float = 1.0) -> Tensor:
    """Return the quantile Huber loss `[..., batch]`: the sum over quantiles of the mean over samples.

    With u = sample - quantile and its level tau, a pair costs |tau - [u < 0]| H(u) / width, H being the Huber function
    (Dabney et al. 2018, eq. 9 and 10). Width 0 is the loss of plain quantile regression, |tau - [u < 0]| |u|.

    Args:
        quantiles: Quantiles under training `[..., batch, quantiles]`.
        samples: What they should be quantiles of `[..., batch, samples]`, such as quantiles of the target.
        levels: Their levels in (0, 1) `[quantiles]`.
        width: Where the Huber function turns from a square into a line, at least 0.
    """
    difference = samples.unsqueeze(-2) - quantiles.unsqueeze(-1)
    size = difference.abs()
    if width > 0.0:
        size = torch.where(size <= width, 0.5 * size.square() / width, size - 0.5 * width)
    weight = (levels.unsqueeze(-1) - (difference.detach() < 0.0).float()).abs()
    return (weight * size).mean(-1).sum(-1)
