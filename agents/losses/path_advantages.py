"""Advantages of the steps of several paths from one start, each with a reward of its own: pure functions.

Centred rewards and a baseline for every position are the two parts of the rectified policy gradient ("Effective
Reinforcement Learning for Proactive Recommendation via Rectified Policy Gradient Estimation", arXiv 2605.28293); a
return of the whole path and a baseline for the whole group are those of GRPO, and neither is REINFORCE.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Scope = Literal["return-to-go", "path"]
Baseline = Literal["position", "group", "none"]


@torch.no_grad()
def path_advantages(
    reward: Tensor,
    active: Tensor,
    group: Tensor,
    gamma: float = 1.0,
    scope: Scope = "return-to-go",
    baseline: Baseline = "position",
) -> Tensor:
    """Return the advantages `[steps, paths]`, 0 where a path is not active.

    With "position" the baseline of step t is the mean of G_t over the paths of the group that are active there, so that
    the advantages of each position add up to 0. With "group" it is the mean of the paths' whole returns, the same for
    all steps.

    Args:
        reward: Of each step `[steps, paths]`; that of the decision to end a path is 0.
        active: Bools `[steps, paths]`: from the first row on, as long as the path goes.
        group: Number of each path's group `[paths]`, from 0.
        gamma: Discount in [0, 1].
        scope: What a step is credited with: the return from it on, or that of the whole path.
        baseline: What is subtracted.
    """
    reward = reward.masked_fill(~active, 0.0)
    returns = torch.empty_like(reward)
    following = torch.zeros_like(reward[0])
    for step in reversed(range(len(reward))):
        returns[step] = following = reward[step] + gamma * following
    whole = returns[0].clone()
    if scope == "path":
        returns = whole.expand_as(returns)
    groups = int(group.max()) + 1
    if baseline == "position":
        weight = active.to(reward.dtype)
        totals = reward.new_zeros(len(reward), groups).index_add_(1, group, returns * weight)
        counts = reward.new_zeros(len(reward), groups).index_add_(1, group, weight)
        returns = returns - (totals / counts.clamp(min=1.0)).index_select(1, group)
    elif baseline == "group":
        totals = reward.new_zeros(groups).index_add_(0, group, whole)
        sizes = reward.new_zeros(groups).index_add_(0, group, torch.ones_like(whole))
        returns = returns - (totals / sizes).index_select(0, group)
    return returns.masked_fill(~active, 0.0)
