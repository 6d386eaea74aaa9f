"""A warehouse that holds no stock and allots all it gets to its stores: when to order, and how to split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from palaestra.envs.checks import check_amount, check_count
from palaestra.envs.inventory.estimand import LONG_RUN_PER_STORE
from palaestra.envs.inventory.exact.risk_pooling import PoolingBound, pooling_bound
from palaestra.envs.inventory.links import Link
from palaestra.envs.inventory.network_policies import EchelonBaseStock, MyopicBalancing, safety_levels
from palaestra.envs.inventory.orders import ActionMode
from palaestra.envs.inventory.parameter_draws import published_stores
from palaestra.envs.inventory.stores import store_amounts, store_names
from palaestra.envs.inventory.supply_network import SupplyNetwork
from palaestra.envs.simulator import RandomActor
from palaestra.protocols import Actor, Oracle


class Transshipment(SupplyNetwork):
    """A transshipment centre orders for several stores and, when the goods arrive, splits all of them among the stores.

    **One period**: (1) the warehouse orders, and all it has on hand goes to the stores in the proportions of their
    actions, equally where all are lowest; (2) demand meets what stores have on hand; (3) each store pays
    `holding_cost` for each unit left and `underage_cost` for each unit short, which is backlogged; (4) goods move on:
    what is sent with lead time L in period t is on hand in period t + L, before the demand of that period.

    **Demand**: `demand_mean + demand_std z` at each store, z standard normal with the same correlation between each
    two stores; not clipped: below 0 it is goods that come back.

    **State**: units on hand and in transit, float64. **Observation**: float32
    (`stores * store_lead_time + warehouse_lead_time` entries): on hand at the warehouse and at each store, negative
    under backlog, then what arrives in 1, 2, ... periods; divided by the mean demand that the node serves. `network`
    says which entry is which. **Action**: float32 `[1 + stores]`, the warehouse's order and the weights of the stores;
    with `action_mode="normalised"` in [-1, 1], for an order of `max_order * (action + 1) / 2` units and weights in the
    same way, with "orders" the order in units and the weights themselves. **Masks**: none.

    **Reward**: minus the cost of the period per store. **Start**: the warehouse and what is on its way to it are empty;
    a store has its mean demand times a uniform draw on [0, 1) on hand and in each slot of its pipeline. **End**: never
    terminated; truncated after `horizon` periods.

    **Info** after a step: `flows` `[1 + stores]`, `demand` `[stores]`, `inventory` `[1 + stores]` and `rationed` (the
    weights beyond what was on hand) in units; `holding`, `underage` and `supply` (0), the parts of the cost per store.

    **Noise**: draws "slots" (uniform) and "demand" (normal).

    **Oracle**: a bound on the mean cost per store and period in the long run (5,000 periods, the first 3,000
    ignored): that of a system in which stock could be evened out at every moment,
    `(p + h) phi(z) sqrt(L_w Var(sum D) + (L_s + 1) (sum sigma)^2) / stores`. Balancing attains it within .1 %.

    | stores | cost at underage 4, correlation 0 | 4, .5 | 9, 0 | 9, .5 |
    |---|---|---|---|---|
    | 3 | 5.1511 | 5.7534 | 6.4581 | 7.2132 |
    | 5 | 4.5911 | 5.2962 | 5.7559 | 6.6401 |
    | 10 | 4.6731 | 5.5354 | 5.8589 | 6.9400 |

    **Experts**: "balancing". **Reference policies**: "random"; "base-stock", the warehouse echelon base stock, with all
    goods split in the proportions of what stores lack to their own levels; "balancing", the whole system base stock at
    the bound's level, with goods split so that all stores have the same chance of a shortage.

    **Version history**: v0, first release.

    Args:
        stores: Number of stores, at least 2.
        store_lead_time: From the warehouse to each store, in periods, at least 1.
        underage_cost: Cost of each unit of backlog in a period, above 0.
        demand_correlation: Between each two stores, 0 to 1.
        holding_cost: Cost of each unit left at a store in a period, above 0.
        warehouse_lead_time: From outside to the warehouse, in periods, at least 1.
        demand_mean: Mean demand of the stores in a period, in units: one number or `[stores]`, above 0; None for the
            published draws, uniform on [2.5, 7.5].
        demand_std: Its standard deviation, one number or `[stores]`, above 0; None for the published draws.
        horizon: Periods to truncation.
        action_mode: "normalised" or "orders".
        max_order: Largest order in units and largest weights, one number or one for each link; None for four times the
            mean demand of the stores served.

    Raises:
        ValueError: If an argument is outside its range.

    Source: the transshipment setting of Alvo, Russo and Kanoria, "Neural inventory control in networks via hindsight
    differentiable policy optimization", arXiv 2306.11246; the bound: Federgruen and Zipkin, "Approximations of dynamic,
    multilocation production and inventory problems", Management Science 30 (1984).
    """

    def __init__(
        self,
        stores: int = 5,
        store_lead_time: int = 2,
        underage_cost: float = 9.0,
        demand_correlation: float = 0.5,
        holding_cost: float = 1.0,
        warehouse_lead_time: int = 3,
        demand_mean: float | Sequence[float] | None = None,
        demand_std: float | Sequence[float] | None = None,
        horizon: int = 100,
        action_mode: ActionMode = "normalised",
        max_order: float | Sequence[float] | None = None,
    ) -> None:
        world = "Transshipment"
        count = check_count(world, "stores", stores, 2)
        names, published = store_names(count), published_stores(count)
        self.store_lead_time = check_count(world, "store_lead_time", store_lead_time)
        self.warehouse_lead_time = check_count(world, "warehouse_lead_time", warehouse_lead_time)
        underage = check_amount(world, "underage_cost", underage_cost, positive=True)
        holding = check_amount(world, "holding_cost", holding_cost, positive=True)
        std = store_amounts(world, "demand_std", demand_std, published.demand_std, names, positive=True)
        super().__init__(
            links=[
                Link(None, "warehouse", self.warehouse_lead_time),
                *(Link("warehouse", name, self.store_lead_time) for name in names),
            ],
            holding_cost={"warehouse": 0.0, **dict.fromkeys(names, holding)},
            underage_cost=dict.fromkeys(names, underage),
            demand_mean=store_amounts(world, "demand_mean", demand_mean, published.demand_mean, names, positive=True),
            demand_std=std,
            demand_correlation=demand_correlation,
            clip_demand=False,
            pass_through=("warehouse",),
            horizon=horizon,
            action_mode=action_mode,
            max_order=max_order,
        )

    @cached_property
    def pooled(self) -> PoolingBound:
        """Return the optimum of the system in which stock could be evened out, of all stores together."""
        return pooling_bound(
            self.demand.std,
            self.demand.mean,
            self.demand.correlation,
            self.warehouse_lead_time,
            self.store_lead_time,
            float(self.underage_cost[0]),
            float(self.holding_cost[-1]),
        )

    def oracle(self) -> Oracle:
        """Return minus the bound of balanced stock, per store and period."""
        cost = self.pooled.cost / len(self.graph.stores)
        return Oracle(-cost, LONG_RUN_PER_STORE, "bound", "balanced stock (Federgruen and Zipkin, 1984)")

    def experts(self) -> Mapping[str, Actor]:
        """Return "balancing", which attains the bound within .1 %."""
        periods = self.store_lead_time + 1
        means, stds = periods * self.demand.mean, np.sqrt(periods) * self.demand.std
        return {"balancing": MyopicBalancing(self, self.pooled.level, means, stds)}

    def reference_policies(self) -> Mapping[str, Actor]:
        """Return "random", base stock, and balancing."""
        return {
            "random": RandomActor(self.action_space),
            "base-stock": EchelonBaseStock(self, safety_levels(self)),
            **self.experts(),
        }
