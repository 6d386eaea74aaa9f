"""One store that orders with a lead time and loses unmet demand: the oldest inventory problem without a closed form."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import gymnasium as gym
import numpy as np

from palaestra.envs.arrays import clamped, namespace_of
from palaestra.envs.checks import check_amount
from palaestra.envs.inventory.constants import Constant
from palaestra.envs.inventory.demand import PoissonDemand
from palaestra.envs.inventory.estimand import LONG_RUN
from palaestra.envs.inventory.exact.lost_sales import LostSalesOptimum, lost_sales_bound, poisson_lost_sales
from palaestra.envs.inventory.exact.newsvendor import newsvendor
from palaestra.envs.inventory.one_store import BaseStock, ConstantOrder, OneStore, StoreState
from palaestra.envs.inventory.orders import ActionMode
from palaestra.envs.inventory.tuning import Tuned
from palaestra.envs.simulator import RandomActor
from palaestra.protocols import Actor, Array, Key, Oracle


@dataclass(frozen=True)
class OptimalOrders:
    """Looks its orders up in the table of a dynamic programme; stocks between whole units are rounded."""

    world: OneStoreLost
    table: Constant

    def __call__(self, state: StoreState, observation: Array, key: Key) -> Array:
        """Return actions of the world."""
        slots = state.pipeline
        xp, table = namespace_of(slots), self.table.like(slots)
        places = tuple(
            xp.astype(clamped(xp.round(slots[:, axis]), 0.0, table.shape[axis] - 1.0), xp.int64)
            for axis in range(slots.shape[1])
        )
        return self.world.action_of(xp.astype(table[places], slots.dtype))


class OneStoreLost(OneStore[PoissonDemand]):
    """One store with a lead time and Poisson demand that is lost where it is not met; no simple policy is optimal.

    **One period**: (1) the store orders; (2) demand, Poisson of mean `demand_mean`, meets what is on hand; (3) the
    store pays `holding_cost` for each unit left and `underage_cost` for each unit of demand lost; (4) the pipeline
    shifts by one slot. An order placed in period t is on hand in period t + lead_time, before the demand of that
    period.

    **State**: `lead_time` pipeline slots in units, float64 (and the last demand, for pictures). **Observation**:
    float32 `[lead_time]`, the slots divided by `demand_mean`: periods of mean demand; slot 0 is on hand.
    **Action**: with `action_mode="normalised"` float32 `[1]` in [-1, 1], for an order of
    `max_order * (action + 1) / 2` units; with "orders" float32 `[1]` in [0, max_order], the order itself; with
    "discrete" the order as one of 0, 1, ..., max_order. **Masks**: none.

    **Reward**: minus the cost of the period. **Start**: each slot holds `demand_mean` times a uniform draw on [0, 1).
    With whole orders (`integer_orders` or "discrete") that and every order is rounded to the nearest unit, so that all
    stocks are whole. **End**: never terminated; truncated after `horizon` periods.

    **Info** after a step: `order`, `demand` and `inventory` (on hand less demand; what is below 0 is lost) in units,
    `holding` and `underage` (the two parts of the cost).

    **Noise**: draws "slots" (uniform `[lead_time]`) and "demand" (uniform, inverted).

    **Oracle**: the least mean cost per period in the long run (5,000 periods, the first 3,000 ignored), as reward, by
    dynamic programming over whole orders. It is also the optimum among orders of any size: cost is linear between whole
    units (the programme on half units has the same value). Where that table would have more than five million
    entries (lead times above 4 at the default demand), the oracle is a bound: the cost under backlog with a penalty
    of `underage_cost / (lead_time + 1)`.

    | lead time | cost at underage 4 | 9 | 19 | 39 |
    |---|---|---|---|---|
    | 1 | 4.0407 | 5.4382 | 6.6757 | 7.8359 |
    | 2 | 4.3953 | 6.0936 | 7.6644 | 9.1064 |
    | 3 | 4.5987 | 6.5314 | 8.3625 | 10.0385 |
    | 4 | 4.7285 | 6.8359 | 8.8872 | 10.7944 |

    **Experts**: "optimal", the table of the programme, where there is one. **Reference policies**: "random";
    "constant-order" (Reiman, 2004), "base-stock" and "capped-base-stock" (Xin, 2021: order up to a level, but never
    more than a cap), each with the best parameters found on a grid by simulation on fixed noise; "backlog-level",
    base stock at the level that would be optimal under backlog.

    **Version history**: v0, first release.

    Args:
        lead_time: Periods from an order to its arrival, at least 1.
        underage_cost: Cost of each unit of lost demand, above 0.
        holding_cost: Cost of each unit left in a period, above 0.
        demand_mean: Mean demand in a period, in units, above 0.
        horizon: Periods to truncation.
        action_mode: "normalised", "orders" or "discrete".
        max_order: Largest order, in units, a whole number at least 1; None for twice the mean demand, rounded up. The
            optimum at the default demand never wants more. `step` itself clips orders to it.
        integer_orders: Whether orders are rounded to whole units. Rounding has no gradient: train without, measure
            with it.

    Raises:
        ValueError: If an argument is outside its range.

    Source: the setting "one store, lost sales" of Alvo, Russo and Kanoria, "Neural inventory control in networks via
    hindsight differentiable policy optimization", arXiv 2306.11246; the numbers: Zipkin, "Old and new methods for
    lost-sales inventory systems", Operations Research 56 (2008).
    """

    loses_sales: ClassVar[bool] = True

    def __init__(
        self,
        lead_time: int = 2,
        underage_cost: float = 9.0,
        holding_cost: float = 1.0,
        demand_mean: float = 5.0,
        horizon: int = 100,
        action_mode: Literal["normalised", "orders", "discrete"] = "normalised",
        max_order: int | None = None,
        integer_orders: bool = False,
    ) -> None:
        world = "OneStoreLost"
        mean = check_amount(world, "demand_mean", demand_mean, positive=True)
        largest = math.ceil(2.0 * mean) if max_order is None else max_order
        if not (np.asarray(largest).dtype.kind in "iuf" and largest >= 1 and float(largest).is_integer()):
            raise ValueError(f"{world}: max_order={max_order!r}; expected a whole number of at least 1")
        if action_mode not in ("normalised", "orders", "discrete"):
            raise ValueError(f"{world}: action_mode={action_mode!r}; expected 'normalised', 'orders' or 'discrete'")
        self.discrete = action_mode == "discrete"
        self.integer_orders = bool(integer_orders) or self.discrete
        mode: ActionMode = "normalised" if action_mode == "normalised" else "orders"
        super().__init__(lead_time, underage_cost, holding_cost, PoissonDemand(mean), horizon, mode, largest)
        if self.discrete:
            self.action_space = gym.spaces.Discrete(int(largest) + 1)

    def initial(self, key: Key) -> StoreState:
        """Return slots filled by up to one period's mean demand."""
        state = super().initial(key)
        if not self.integer_orders:
            return state
        return StoreState(namespace_of(state.pipeline).round(state.pipeline), state.last_demand)

    def order_of(self, action: Array) -> Array:
        """Return the orders `[batch]` in units of actions, clipped to what can be ordered and rounded where whole."""
        if self.discrete:
            return namespace_of(action).astype(action, namespace_of(action).float64)
        order = super().order_of(action)
        return namespace_of(order).round(order) if self.integer_orders else order

    def action_of(self, order: Array) -> Array:
        """Return the actions of orders `[batch]` in units, clipped to what can be ordered."""
        if not self.discrete:
            return super().action_of(order)
        xp = namespace_of(order)
        return xp.astype(xp.round(clamped(order, 0.0, self.max_order)), xp.int64)

    def oracle(self) -> Oracle:
        """Return minus the optimal cost per period in the long run, or minus a lower bound on it."""
        optimum = self._optimum()
        if optimum is not None:
            return Oracle(-optimum.cost, LONG_RUN, "optimum", "dynamic programming (Zipkin, 2008)")
        bound = lost_sales_bound(self.demand.lattice(), self.lead_time, self.underage_cost, self.holding_cost)
        source = "backlog at underage / (lead time + 1) (Janakiraman, Seshadri and Shanthikumar, 2007)"
        return Oracle(-bound, LONG_RUN, "bound", source)

    def experts(self) -> Mapping[str, Actor]:
        """Return "optimal", where the dynamic programme can be solved."""
        optimum = self._optimum()
        return {} if optimum is None else {"optimal": OptimalOrders(self, Constant(optimum.orders))}

    def reference_policies(self) -> Mapping[str, Actor]:
        """Return "random" and four rules of inventory practice."""
        demand = self.demand.lattice()
        backlog = newsvendor(demand.times(self.lead_time + 1), self.underage_cost, self.holding_cost).level
        lowest = math.floor(0.7 * self.lead_time * self.demand_mean)
        levels = np.arange(lowest, backlog + 1, max(1, round((backlog - lowest) / 24)))
        caps = np.unique(np.minimum(np.round(self.demand_mean * np.linspace(1.0, 2.0, 6)), self.max_order))
        # An order of the mean itself would let stock grow without end.
        whole = np.arange(1.0, max(2.0, math.ceil(self.demand_mean)))
        orders = whole if self.integer_orders else self.demand_mean * np.linspace(0.7, 0.99, 30)
        return {
            "random": RandomActor(self.action_space),
            "constant-order": Tuned(self, partial(ConstantOrder, self), orders[:, None]),
            "base-stock": Tuned(self, partial(BaseStock, self), levels[:, None].astype(np.float64)),
            "capped-base-stock": Tuned(
                self, partial(BaseStock, self), np.array([(level, cap) for level in levels for cap in caps], np.float64)
            ),
            "backlog-level": BaseStock(self, backlog),
        }

    def _optimum(self) -> LostSalesOptimum | None:
        return poisson_lost_sales(
            self.demand_mean, self.lead_time, self.underage_cost, self.holding_cost, self.max_order
        )
