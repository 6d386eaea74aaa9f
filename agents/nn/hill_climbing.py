"""Hill climbing: actions moved along the gradient of what critics say of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Value = Callable[[Tensor], Tensor]
"""Returns values `[rows]` of actions `[rows, action_dim]`; each row's value depends on its own action alone."""

EPS = 1e-5
"""Added to the root of the second moment, as in the released code of DIPO."""


def value_gradient(value: Value, action: Tensor) -> tuple[Tensor, Tensor]:
    """Return the values `[rows]` of actions `[rows, action_dim]` and the gradients by these actions, both detached."""
    with torch.enable_grad():
        place = action.detach().requires_grad_()
        values = value(place)
        (gradient,) = torch.autograd.grad(values.sum(), place)
    return values.detach(), gradient


def hill_climb(value: Value, action: Tensor, steps: int, step_size: float) -> tuple[Tensor, Tensor]:
    """Climb by plain gradient steps a <- clip(a + step_size * grad Q(a)), and keep the best place of the way.

    The start counts, so that no value falls (PA-RL, Mark et al. 2024, arXiv 2412.06685). It takes steps + 1
    evaluations, all but the last with their gradients.

    Args:
        value: What is climbed; hold the critics' parameters fixed.
        action: Where to start, in [-1, 1], `[rows, action_dim]`.
        steps: Number of steps, at least 0.
        step_size: What gradients are multiplied by.

    Returns:
        The best actions of each row's way `[rows, action_dim]` and their values `[rows]`.
    """
    best, best_value = action, torch.full_like(action[:, 0], -torch.inf)
    for _ in range(steps):
        values, gradient = value_gradient(value, action)
        best, best_value = _better(best, best_value, action, values)
        action = torch.add(action, gradient, alpha=step_size).clamp_(-1.0, 1.0)
    with torch.no_grad():
        return _better(best, best_value, action, value(action))


def adam_climb(value: Value, action: Tensor, steps: int, step_size: float, max_norm: float) -> Tensor:
    """Climb by steps of Adam, begun anew, and return where they end (DIPO, Yang et al. 2023, arXiv 2305.13122).

    As in the released code the gradient of *all* rows together is clipped, not that of each. Adam undoes a common
    scale, so that the clip matters where the norm falls or rises on the way.

    Args:
        value: What is climbed; hold the critics' parameters fixed.
        action: Where to start, in [-1, 1], `[rows, action_dim]`.
        steps: Number of steps, at least 0.
        step_size: Adam's.
        max_norm: Largest norm of the gradient, above 0.

    Returns:
        Actions in [-1, 1], `[rows, action_dim]`.
    """
    place = action.detach().clone()
    first, second = torch.zeros_like(place), torch.zeros_like(place)
    count = torch.zeros((), dtype=torch.float32, device=place.device)
    for _ in range(steps):
        gradient = value_gradient(value, place)[1]
        # The fused step reads memory in order, however the gradient is strided.
        gradient = gradient.contiguous().mul_((max_norm / (torch.linalg.vector_norm(gradient) + 1e-6)).clamp_(max=1.0))
        torch._fused_adam_(
            [place],
            [gradient],
            [first],
            [second],
            [],
            [count.add_(1.0)],
            lr=step_size,
            beta1=0.9,
            beta2=0.999,
            weight_decay=0.0,
            eps=EPS,
            amsgrad=False,
            maximize=True,
        )
        place.clamp_(-1.0, 1.0)
    return place


def _better(best: Tensor, best_value: Tensor, action: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Return of two actions a row the one of higher value, and that value."""
    higher = values > best_value
    return torch.where(higher.unsqueeze(-1), action, best), torch.where(higher, values, best_value)
