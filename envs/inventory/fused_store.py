"""A period of one store as one differentiable operation, with its backward pass derived by hand.

Training through a store asks for thousands of periods, whose dozen small operations cost autograd more than they
compute.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def fusable(pipeline: Any) -> bool:
    """Return whether a pipeline is a tensor that autograd itself differentiates, not a transform of `torch.func`."""
    return isinstance(pipeline, Tensor) and not torch._C._are_functorch_transforms_active()


def fused_period(
    pipeline: Tensor, order: Tensor, demand: Tensor, holding_cost: float, underage_cost: float, lost: bool
) -> tuple[Tensor, ...]:
    """Return pipeline, reward, inventory after demand, holding and underage costs of a period.

    The first two can be differentiated, once; the others are without gradient.

    Args:
        pipeline: On hand, and what arrives in 1, 2, ... periods, `[batch, lead_time]`.
        order: `[batch]`.
        demand: `[batch]`.
        holding_cost: Of each unit left.
        underage_cost: Of each unit short.
        lost: Whether what is short is lost, or backlogged.
    """
    result: tuple[Tensor, ...] = _Period.apply(pipeline, order, demand, holding_cost, underage_cost, lost)
    return result


class _Period(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        pipeline: Tensor,
        order: Tensor,
        demand: Tensor,
        holding_cost: float,
        underage_cost: float,
        lost: bool,
    ) -> tuple[Tensor, ...]:
        inventory = pipeline[:, 0] - demand
        left = inventory.clip(0.0)
        kept = left if lost else inventory
        if pipeline.shape[1] == 1:
            following = (kept + order)[:, None]
        else:
            following = torch.cat(((kept + pipeline[:, 1])[:, None], pipeline[:, 2:], order[:, None]), 1)
        holding, underage = holding_cost * left, underage_cost * (left - inventory)
        ctx.save_for_backward(inventory)
        ctx.costs, ctx.lost = (holding_cost, underage_cost), lost
        ctx.mark_non_differentiable(inventory, holding, underage)
        return following, -(holding + underage), inventory, holding, underage

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, following: Tensor, reward: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        (inventory,) = ctx.saved_tensors
        holding_cost, underage_cost = ctx.costs
        arrived = following[:, 0]
        over = arrived - holding_cost * reward
        under = underage_cost * reward if ctx.lost else arrived + underage_cost * reward
        on_hand = torch.where(inventory > 0.0, over, under)
        pipeline = torch.cat((on_hand[:, None], following[:, :-1]), 1)
        demand = -on_hand if ctx.needs_input_grad[2] else None
        return pipeline, following[:, -1], demand, None, None, None
