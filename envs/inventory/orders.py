"""Between the actions of an agent and orders in units."""

from __future__ import annotations

from typing import Any, Literal

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike

from palaestra.envs.arrays import at_least, clamped, namespace_of
from palaestra.envs.inventory.constants import Constant
from palaestra.protocols import Array

ActionMode = Literal["normalised", "orders"]


class OrderScale:
    """Actions in [-1, 1] for orders from 0 to a limit ("normalised"), or the orders themselves ("orders").

    Args:
        world: Name of the world, for errors.
        action_mode: "normalised" or "orders".
        limits: Largest orders, in units, `[orders]`, or one number for a single order.
        signed: Whether orders may be negative, down to minus the limits.

    Attributes:
        space: Box of the actions, float32 `[orders]`.

    Raises:
        ValueError: If the action mode is unknown.
    """

    def __init__(self, world: str, action_mode: ActionMode, limits: ArrayLike, signed: bool = False) -> None:
        if action_mode not in ("normalised", "orders"):
            raise ValueError(f"{world}: action_mode={action_mode!r}; expected 'normalised' or 'orders'")
        self.normalised = action_mode == "normalised"
        self.signed = signed
        self._limits, self._half = Constant(limits), Constant(0.5 * np.asarray(limits, np.float64))
        high = np.atleast_1d(np.asarray(limits, np.float32))
        if self.normalised:
            self.space = gym.spaces.Box(-1.0, 1.0, high.shape, np.float32)
        else:
            self.space = gym.spaces.Box(-high if signed else np.zeros_like(high), high, high.shape, np.float32)

    def orders_of(self, action: Array) -> Array:
        """Return the orders of actions of the same shape, in units, kept between the lowest and the limits."""
        if self.normalised and self.signed:
            return self._limits.like(action) * clamped(action, -1.0, 1.0)
        if self.normalised:
            return self._half.like(action) * (clamped(action, -1.0, 1.0) + 1.0)
        return self._kept(action)

    def actions_of(self, orders: Array) -> Array:
        """Return the actions of orders of the same shape, kept between the lowest and the limits."""
        kept = self._kept(orders)
        if self.normalised and self.signed:
            return kept / self._limits.like(orders)
        return kept / self._half.like(orders) - 1.0 if self.normalised else kept

    def _kept(self, orders: Array) -> Array:
        limits: Any = self._limits.like(orders)
        if isinstance(limits, float):
            return clamped(orders, -limits if self.signed else 0.0, limits)
        if self.signed:
            return namespace_of(orders).clip(orders, -limits, limits)
        return namespace_of(orders).minimum(at_least(orders, 0.0), limits)
