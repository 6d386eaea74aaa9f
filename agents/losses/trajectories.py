"""Estimates of a policy gradient from whole trajectories."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def discounts_in_episode(ended: Tensor, valid: Tensor, gamma: float) -> Tensor:
    """Return gamma^h `[steps, batch]` with h the number of the step in its episode; 1 outside of what is valid.

    Args:
        ended: Bools `[steps, batch]`: the step was its episode's last.
        valid: Bools `[steps, batch]`; an episode is valid from its first step on.
        gamma: Discount in [0, 1].
    """
    discounts = torch.ones(ended.shape, device=ended.device)
    goes_on = valid & ~ended
    for step in range(1, len(ended)):
        discounts[step] = torch.where(goes_on[step - 1], gamma * discounts[step - 1], 1.0)
    return discounts


@torch.no_grad()
def trajectory_numbers(ended: Tensor, valid: Tensor) -> Tensor:
    """Return the number of every valid step's trajectory `[valid steps]`, from 0, in the order of `tensor[valid]`.

    Args:
        ended: Bools `[steps, batch]`: the step was its episode's last.
        valid: Bools `[steps, batch]`; whole episodes.
    """
    last = (ended & valid).long()
    before = last.cumsum(0) - last
    of_other_columns = last.sum(0).cumsum(0) - last.sum(0)
    return (before + of_other_columns)[valid]


def trajectory_surrogate(log_prob: Tensor, weight: Tensor, count: int) -> Tensor:
    """Return Phi, the mean over trajectories of sum_h w_h log pi(a_h|s_h): its gradient is that of the return.

    Args:
        log_prob: log pi(a|s) of all steps of all trajectories `[steps]`.
        weight: Discounted reward-to-go of each step, less a baseline, `[steps]`.
        count: Number of trajectories.
    """
    return (log_prob @ weight) / count
