"""One store that orders with a lead time and backlogs unmet demand: inventory control with a closed-form optimum."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import gymnasium as gym
import numpy as np
from scipy.special import ndtri

from palaestra.envs import rendering
from palaestra.envs.arrays import at_least, clamped, namespace_of
from palaestra.envs.checks import check_amount, check_count
from palaestra.envs.simulator import RandomActor, Simulator
from palaestra.protocols import Actor, Array, Estimand, Key, Oracle, Transition


@dataclass(frozen=True)
class StoreState:
    """What is on hand and on its way, in units.

    Attributes:
        pipeline: float64 `[batch, lead_time]`; slot 0 is on hand at the start of the period, today's arrival included
            and negative under backlog; slot k arrives k periods later.
        last_demand: float64 `[batch]`, demand of the period before (0 at the start); shown in pictures, without effect.
    """

    pipeline: Array
    last_demand: Array


@dataclass(frozen=True)
class OrderedState:
    """Post-decision state: the order has been placed, the demand is unknown.

    Attributes:
        pipeline: float64 `[batch, lead_time + 1]`, the order in the last slot.
        reward: 0: all costs follow demand; float64 `[batch]`.
    """

    pipeline: Array
    reward: Array


@dataclass(frozen=True)
class BaseStock:
    """Orders up to a level of the inventory position (on hand plus on order), as far as `max_order` allows."""

    world: OneStoreBacklog
    level: float

    def __call__(self, state: StoreState, observation: Array, key: Key) -> Array:
        """Return actions `[batch, 1]`."""
        return self.world.action_of(self.level - state.pipeline.sum(-1))


@dataclass(frozen=True)
class ConstantOrder:
    """Orders the same quantity in every period."""

    world: OneStoreBacklog
    order: float

    def __call__(self, state: StoreState, observation: Array, key: Key) -> Array:
        """Return actions `[batch, 1]`."""
        return self.world.action_of(self.order + 0.0 * state.last_demand)


class OneStoreBacklog(Simulator[StoreState]):
    """One store with a lead time, normal demand and backlog; base-stock policies are optimal.

    **One period**: (1) the store orders; (2) demand `max(0, normal(demand_mean, demand_std))` meets what is on hand;
    (3) the store pays `holding_cost` for each unit left and `underage_cost` for each unit short, and unmet demand is
    backlogged; (4) the pipeline shifts by one slot. An order placed in period t is on hand in period t + lead_time,
    before the demand of that period.

    **State**: `lead_time` pipeline slots in units, float64 (and the last demand, for pictures). **Observation**:
    float32 `[lead_time]`, the slots divided by `demand_mean`: periods of mean demand; slot 0 is on hand, negative
    under backlog. **Action**: float32 `[1]`; with `action_mode="normalised"` in [-1, 1], for an order of
    `max_order * (action + 1) / 2` units; with "orders" the order itself, in [0, max_order]. **Masks**: none.

    **Reward**: minus the cost of the period. **Start**: each slot holds `demand_mean` times a uniform draw on [0, 1).
    **End**: never terminated; truncated after `horizon` periods.

    **Info** after a step: `order`, `demand` and `inventory` (on hand less backlog after demand) in units, `holding`
    and `underage` (the two parts of the cost).

    **Noise**: draws "slots" (uniform `[lead_time]`) and "demand" (normal).

    **Oracle**: the optimal mean cost per period in the long run (5,000 periods, the first 3,000 ignored), as reward.
    With L the lead time, z the quantile of the standard normal at `underage / (underage + holding)` and phi its
    density, the optimal level is `S = (L + 1) mean + z std sqrt(L + 1)` and its cost
    `C = (holding + underage) std sqrt(L + 1) phi(z)`. The closed form takes demand as not clipped at 0, which is exact
    to a relative .0004 for `demand_mean >= 3 demand_std`; below that there is no oracle. Where `max_order` is less
    than `demand_mean + 3 demand_std`, it is a bound; above, the cap is met so rarely and made up for so soon that
    it costs less than the same .0004.

    **Experts**: "optimal", the base-stock policy of level S, where the oracle is an optimum. **Reference policies**:
    "random"; "constant-order", the mean demand each period; "myopic", base stock at the optimum of a store without
    lead time; "no-safety-stock", base stock at the mean demand of L + 1 periods; "base-stock", of level S.

    **Version history**: v0, first release.

    Args:
        lead_time: Periods from an order to its arrival, at least 1.
        underage_cost: Cost of each unit short in a period, above 0.
        holding_cost: Cost of each unit left in a period, above 0.
        demand_mean: Mean demand in a period, in units, above 0.
        demand_std: Standard deviation of demand in a period, in units, at least 0.
        horizon: Periods to truncation.
        action_mode: "normalised" or "orders".
        max_order: Largest order, in units; None for twice the mean demand, so that the middle of the action
            space orders what is sold. `step` itself clips orders to it.

    Raises:
        ValueError: If an argument is outside its range.

    Source: the setting "one store, backlog" of Alvo, Russo and Kanoria, "Neural inventory control in networks via
    hindsight differentiable policy optimization", arXiv 2306.11246; optimality of base stock: Karlin and Scarf, 1958.
    """

    render_modes: ClassVar[tuple[str, ...]] = ("rgb_array", "ansi")
    render_fps: ClassVar[int] = 4
    draws: ClassVar[tuple[str, ...]] = ("slots", "demand")

    def __init__(
        self,
        lead_time: int = 4,
        underage_cost: float = 9.0,
        holding_cost: float = 1.0,
        demand_mean: float = 5.0,
        demand_std: float = 1.6,
        horizon: int = 100,
        action_mode: Literal["normalised", "orders"] = "normalised",
        max_order: float | None = None,
    ) -> None:
        world = "OneStoreBacklog"
        self.lead_time = check_count(world, "lead_time", lead_time)
        self.horizon = check_count(world, "horizon", horizon)
        self.underage_cost = check_amount(world, "underage_cost", underage_cost, positive=True)
        self.holding_cost = check_amount(world, "holding_cost", holding_cost, positive=True)
        self.demand_mean = check_amount(world, "demand_mean", demand_mean, positive=True)
        self.demand_std = check_amount(world, "demand_std", demand_std)
        largest = 2.0 * self.demand_mean if max_order is None else max_order
        self.max_order = check_amount(world, "max_order", largest, positive=True)
        if action_mode not in ("normalised", "orders"):
            raise ValueError(f"{world}: action_mode={action_mode!r}; expected 'normalised' or 'orders'")
        self.action_mode = action_mode
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (self.lead_time,), np.float32)
        low, high = (-1.0, 1.0) if action_mode == "normalised" else (0.0, self.max_order)
        self.action_space = gym.spaces.Box(low, high, (1,), np.float32)

    def initial(self, key: Key) -> StoreState:
        """Return slots filled by up to one period's mean demand."""
        pipeline = self.demand_mean * key.uniform("slots", (self.lead_time,))
        return StoreState(pipeline, 0.0 * pipeline[:, 0])

    def order_of(self, action: Array) -> Array:
        """Return the orders `[batch]` in units of actions `[batch, 1]`, clipped to what can be ordered."""
        scaled = action[:, 0] if self.action_mode == "orders" else (0.5 * self.max_order) * (action[:, 0] + 1.0)
        return clamped(scaled, 0.0, self.max_order)

    def action_of(self, order: Array) -> Array:
        """Return the actions `[batch, 1]` of orders `[batch]` in units, clipped to what can be ordered."""
        order = clamped(order, 0.0, self.max_order)
        return (order if self.action_mode == "orders" else order / (0.5 * self.max_order) - 1.0)[:, None]

    def decide(self, state: StoreState, action: Array) -> OrderedState:
        """Return the pipeline with the order behind its last slot."""
        xp = namespace_of(state.pipeline)
        pipeline = xp.concat((state.pipeline, self.order_of(action)[:, None]), axis=-1)
        return OrderedState(pipeline, 0.0 * state.last_demand)

    def realise(self, post: OrderedState, key: Key) -> Transition[StoreState]:
        """Return demand, its cost and the shifted pipeline."""
        xp = namespace_of(post.pipeline)
        demand = at_least(self.demand_mean + self.demand_std * key.normal("demand"), 0.0)
        inventory = post.pipeline[:, 0] - demand
        holding = self.holding_cost * at_least(inventory, 0.0)
        underage = self.underage_cost * at_least(-inventory, 0.0)
        on_hand = inventory + post.pipeline[:, 1]
        pipeline = xp.concat((on_hand[:, None], post.pipeline[:, 2:]), axis=-1)
        info = {
            "order": post.pipeline[:, -1],
            "demand": demand,
            "inventory": inventory,
            "holding": holding,
            "underage": underage,
        }
        never = demand < 0.0
        return Transition(StoreState(pipeline, demand), -(holding + underage), never, info)

    def observe(self, state: StoreState) -> Array:
        """Return the slots in periods of mean demand, `[batch, lead_time]`."""
        return state.pipeline / self.demand_mean

    def optimal_level(self) -> float:
        """Return the optimal base-stock level S, in units (closed form, demand not clipped)."""
        periods = self.lead_time + 1
        return periods * self.demand_mean + self._quantile() * self.demand_std * math.sqrt(periods)

    def optimal_cost(self) -> float:
        """Return the cost C per period of the optimal base-stock policy (closed form, demand not clipped)."""
        density = math.exp(-0.5 * self._quantile() ** 2) / math.sqrt(2.0 * math.pi)
        both = self.holding_cost + self.underage_cost
        return both * self.demand_std * math.sqrt(self.lead_time + 1) * density

    def oracle(self) -> Oracle | None:
        """Return minus the optimal cost per period in the long run; None for `demand_mean < 3 demand_std`."""
        if self.demand_mean < 3.0 * self.demand_std:
            return None
        return Oracle(
            value=-self.optimal_cost(),
            estimand=Estimand("long_run_reward", unit="reward (minus cost) per period", periods=5000, ignore=3000),
            kind="optimum" if self._order_suffices() else "bound",
            source="base-stock policy in closed form (Karlin and Scarf, 1958)",
        )

    def experts(self) -> Mapping[str, Actor]:
        """Return "optimal", where the oracle is an optimum."""
        oracle = self.oracle()
        exact = oracle is not None and oracle.kind == "optimum"
        return {"optimal": BaseStock(self, self.optimal_level())} if exact else {}

    def reference_policies(self) -> Mapping[str, Actor]:
        """Return "random" and four rules of inventory practice, the last of them optimal."""
        return {
            "random": RandomActor(self.action_space),
            "constant-order": ConstantOrder(self, self.demand_mean),
            "myopic": BaseStock(self, self.demand_mean + self._quantile() * self.demand_std),
            "no-safety-stock": BaseStock(self, (self.lead_time + 1) * self.demand_mean),
            "base-stock": BaseStock(self, self.optimal_level()),
        }

    def render(self, state: StoreState, row: int = 0, mode: str = "rgb_array") -> np.ndarray | str:
        """Return bars of the pipeline, on hand at the left, and of the last demand; or one line of text ("ansi")."""
        slots, demand = [float(units) for units in state.pipeline[row]], float(state.last_demand[row])
        if mode == "ansi":
            coming = " ".join(f"{units:.1f}" for units in slots[1:])
            return f"on hand {slots[0]:.1f} | on order {coming or '-'} | last demand {demand:.1f}"
        if mode != "rgb_array":
            raise ValueError(f"render: mode={mode!r}; expected one of {self.render_modes}")
        width, step, height, ground = 34, 44, 200, 130
        scale = 45.0 / self.max_order
        canvas = rendering.Canvas(24 + step * (len(slots) + 1), height)
        bars = [("HAND" if slot == 0 else f"T+{slot}", units) for slot, units in enumerate(slots)] + [
            ("DEMAND", demand)
        ]
        for index, (label, units) in enumerate(bars):
            left = 12 + step * index
            color = rendering.ORANGE if label == "DEMAND" else rendering.RED if units < 0 else rendering.BLUE
            canvas.rectangle(left, ground - scale * units, left + width, ground, color)
            canvas.text(left, height - 14, label, scale=1 if label == "DEMAND" else 2)
            canvas.text(left, 8, f"{units:.1f}", scale=2 if abs(units) < 100 else 1)
        canvas.rectangle(6, ground, canvas.pixels.shape[1] - 6, ground + 2, rendering.INK)
        return canvas.pixels

    def _quantile(self) -> float:
        return float(ndtri(self.underage_cost / (self.underage_cost + self.holding_cost)))

    def _order_suffices(self) -> bool:
        return self.max_order >= self.demand_mean + 3.0 * self.demand_std
