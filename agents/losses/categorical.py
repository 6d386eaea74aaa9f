"""Distributions on fixed atoms: projection onto them."""

from __future__ import annotations

import torch
from torch import Tensor


def project(values: Tensor, probs: Tensor, support: Tensor) -> Tensor:
    """Return the distribution on a support that is nearest to a given one, `[..., atoms]`.

    Every value's probability is split between its two neighbours on the support in proportion to how near they are,
    so that mass is conserved, and the mean too where no value lies outside the support; those that do count as its
    ends (Bellemare, Dabney and Munos 2017, eq. 7). A single value of probability 1 becomes its two-hot code.

    Args:
        values: What is given `[..., values]`.
        probs: Its probabilities `[..., values]`, of the same shape.
        support: Atoms at equal distances, at least two, ascending `[atoms]`.
    """
    last = support.numel() - 1
    place = (values - support[0]) * (last / (support[-1] - support[0]))
    place = place.clamp(0.0, last)
    # The last atom's lower neighbour is the one before it: every value has two neighbours.
    below = place.floor().clamp(max=last - 1)
    share = place - below
    index = below.long()
    empty = torch.zeros_like(probs[..., :1]).expand(*probs.shape[:-1], last + 1)
    return empty.scatter_add(-1, index, probs * (1.0 - share)).scatter_add(-1, index + 1, probs * share)
