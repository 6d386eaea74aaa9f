"""Advantage estimators: pure functions of rewards, values and the two kinds of ending."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def generalised_advantages(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    gamma: float,
    gae_lambda: float,
) -> Tensor:
    """Return generalised advantage estimates (Schulman et al. 2016, eq. 16).

    A termination removes the bootstrap; a truncation keeps it (at the value of the final observation) but cuts the
    accumulation across the episode's end.

    Args:
        reward: `[steps, batch]`.
        value: V(s_t) `[steps, batch]`.
        next_value: V of the true successor `[steps, batch]`: of the final observation where the episode ended.
        terminated: Bools `[steps, batch]`, ended by the rules of the world.
        truncated: Bools `[steps, batch]`, ended by a limit.
        gamma: Discount in [0, 1].
        gae_lambda: Trace decay in [0, 1]; 1 is Monte Carlo minus V, 0 the one-step error.
    """
    delta = reward + gamma * next_value.masked_fill(terminated, 0.0) - value
    decay = (gamma * gae_lambda) * (~(terminated | truncated)).to(delta.dtype)
    advantages = torch.empty_like(delta)
    carried = torch.zeros_like(delta[0])
    for step in reversed(range(len(delta))):
        carried = torch.addcmul(delta[step], decay[step], carried, out=advantages[step])
    return advantages


def standardise(advantage: Tensor) -> Tensor:
    """Return advantages with mean 0 and (unbiased) standard deviation 1; a single entry is only centred."""
    centred = advantage - advantage.mean()
    return centred if advantage.numel() < 2 else centred / (advantage.std() + 1e-8)
