"""Targets and losses of value functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


def td_target(reward: Tensor, terminated: Tensor, next_value: Tensor, gamma: float) -> Tensor:
    """Return r + gamma (1 - terminated) V(s'), `[batch]`; a truncated row keeps its bootstrap.

    Args:
        reward: `[batch]`.
        terminated: Bools `[batch]`.
        next_value: Value of the true successor `[batch]`.
        gamma: Discount in [0, 1].
    """
    return reward + gamma * next_value.masked_fill(terminated, 0.0)


def squared_error_per_critic(values: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error of each critic `[critics]` for values `[critics, batch]` and a target `[batch]`."""
    return (values - target).square().mean(-1)


class RegressionLoss(Protocol):
    """A loss of values `[..., batch]` towards a target `[batch]`, with its derivative in closed form."""

    def __call__(self, values: Tensor, target: Tensor) -> Tensor:
        """Return the loss, a scalar."""
        ...

    def slope(self, values: Tensor, target: Tensor) -> Tensor:
        """Return its derivative by every value, `[..., batch]`."""
        ...


@dataclass(frozen=True)
class SquaredError:
    """The mean squared error, summed over critics and scaled."""

    scale: float = 1.0

    def __call__(self, values: Tensor, target: Tensor) -> Tensor:
        """Return the loss, a scalar."""
        return self.scale * squared_error_per_critic(values, target).sum()

    def slope(self, values: Tensor, target: Tensor) -> Tensor:
        """Return its derivative by every value, `[..., batch]`."""
        return (values - target).mul_(2.0 * self.scale / len(target))


@dataclass(frozen=True)
class HuberError:
    """The mean Huber loss of width 1, summed over critics: squares of small errors, large ones in proportion."""

    def __call__(self, values: Tensor, target: Tensor) -> Tensor:
        """Return the loss, a scalar."""
        critics = values.numel() / len(target)
        return critics * F.smooth_l1_loss(values, target.expand_as(values))

    def slope(self, values: Tensor, target: Tensor) -> Tensor:
        """Return its derivative by every value, `[..., batch]`."""
        return (values - target).clamp_(-1.0, 1.0).div_(len(target))


def clipped_value_loss(value: Tensor, old_value: Tensor, target: Tensor, clip_range: float | None) -> Tensor:
    """Return the mean squared value error, with the prediction kept within `clip_range` of the old one if given.

    Args:
        value: V(s) `[batch]` under training.
        old_value: V(s) `[batch]` at collection.
        target: Return targets `[batch]`.
        clip_range: Largest change of a prediction, or None for no clipping.
    """
    if clip_range is not None:
        value = old_value + (value - old_value).clamp(-clip_range, clip_range)
    return F.mse_loss(value, target)


@torch.no_grad()
def explained_variance(value: Tensor, target: Tensor) -> Tensor:
    """Return 1 - Var(target - value) / Var(target), a scalar: 1 at best, 0 for a constant prediction.

    Args:
        value: Predictions `[batch]`.
        target: What they should predict `[batch]`.
    """
    return 1.0 - (target - value).var(correction=0) / (target.var(correction=0) + 1e-8)
