"""Losses of critics whose return is a normal distribution N(Q, sigma^2)."""

from __future__ import annotations

import torch
from torch import Tensor

from palaestra.agents.nn.estimates import GaussianEstimate


def bounded(returns: Tensor, mean: Tensor, bound: Tensor) -> Tensor:
    """Return the returns, each brought to within its bound of its mean; all `[..., batch]`."""
    return mean + (returns - mean).clamp(-bound, bound)


@torch.no_grad()
def follow_spread(running: Tensor, std: Tensor, rate: float) -> None:
    """Move running means of critics' standard deviations towards those of a batch; the first batch sets them.

    Args:
        running: `[critics]`, 0 before the first batch; changed in place.
        std: Means over the batch, above 0, `[critics]`.
        rate: In (0, 1].
    """
    # Decided on the device, so that an update can be captured: a spread is never 0.
    running.copy_(torch.where(running > 0.0, running.lerp(std, rate), std))


def distributional_loss(estimate: GaussianEstimate, expected: Tensor, square: Tensor, bias: float) -> Tensor:
    """Return a loss `[..., batch]` with the gradients of the distributional soft actor-critic.

    They are -(y - Q) / (sigma^2 + bias) on the mean Q and -(square - sigma^2) / (sigma^3 + bias) on sigma (Duan et al.
    2021, arXiv 2001.02811, with the bias of the authors' code); of the loss nothing but its gradient has a meaning.
    With bias 0, expected = y and square = (y - Q)^2 they are those of -log N(y; Q, sigma^2).

    Args:
        estimate: Under training, `[..., batch]`.
        expected: What its mean is drawn to, y `[..., batch]`.
        square: What its variance is drawn to, `[..., batch]`.
        bias: Keeps gradients finite where sigma vanishes, at least 0.
    """
    std = estimate.std.detach()
    variance = std.square()
    mean_loss = 0.5 * (estimate.centre - expected).square() / (variance + bias)
    return mean_loss + estimate.std * (variance - square.detach()) / (variance * std + bias)
