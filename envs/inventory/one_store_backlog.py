"""One store that orders with a lead time and backlogs unmet demand: inventory control with a closed-form optimum."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

from palaestra.envs.checks import check_amount
from palaestra.envs.inventory.demand import NormalDemand
from palaestra.envs.inventory.estimand import LONG_RUN
from palaestra.envs.inventory.exact.newsvendor import normal_newsvendor
from palaestra.envs.inventory.one_store import BaseStock, ConstantOrder, OneStore
from palaestra.envs.inventory.orders import ActionMode
from palaestra.envs.simulator import RandomActor
from palaestra.protocols import Actor, Oracle


class OneStoreBacklog(OneStore[NormalDemand]):
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

    loses_sales: ClassVar[bool] = False

    def __init__(
        self,
        lead_time: int = 4,
        underage_cost: float = 9.0,
        holding_cost: float = 1.0,
        demand_mean: float = 5.0,
        demand_std: float = 1.6,
        horizon: int = 100,
        action_mode: ActionMode = "normalised",
        max_order: float | None = None,
    ) -> None:
        demand = NormalDemand(
            check_amount("OneStoreBacklog", "demand_mean", demand_mean, positive=True),
            check_amount("OneStoreBacklog", "demand_std", demand_std),
        )
        super().__init__(lead_time, underage_cost, holding_cost, demand, horizon, action_mode, max_order)
        self.demand_std = float(demand.std)
        mean, std = (self.lead_time + 1) * self.demand_mean, self.demand_std * math.sqrt(self.lead_time + 1)
        self._optimum = normal_newsvendor(mean, std, self.underage_cost, self.holding_cost)
        self._myopic = normal_newsvendor(self.demand_mean, self.demand_std, self.underage_cost, self.holding_cost)

    def optimal_level(self) -> float:
        """Return the optimal base-stock level S, in units (closed form, demand not clipped)."""
        return self._optimum.level

    def optimal_cost(self) -> float:
        """Return the cost C per period of the optimal base-stock policy (closed form, demand not clipped)."""
        return self._optimum.cost

    def oracle(self) -> Oracle | None:
        """Return minus the optimal cost per period in the long run; None for `demand_mean < 3 demand_std`."""
        if self.demand_mean < 3.0 * self.demand_std:
            return None
        order_suffices = self.max_order >= self.demand_mean + 3.0 * self.demand_std
        return Oracle(
            value=-self.optimal_cost(),
            estimand=LONG_RUN,
            kind="optimum" if order_suffices else "bound",
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
            "myopic": BaseStock(self, self._myopic.level),
            "no-safety-stock": BaseStock(self, (self.lead_time + 1) * self.demand_mean),
            "base-stock": BaseStock(self, self.optimal_level()),
        }
