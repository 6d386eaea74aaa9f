"""A warehouse that keeps stock for several stores, which lose the sales they cannot meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from palaestra.envs.checks import check_amount, check_count
from palaestra.envs.inventory.links import Link
from palaestra.envs.inventory.network_policies import EchelonBaseStock, pooled_base_stock, safety_levels
from palaestra.envs.inventory.orders import ActionMode
from palaestra.envs.inventory.parameter_draws import published_stores
from palaestra.envs.inventory.stores import store_amounts, store_names
from palaestra.envs.inventory.supply_network import SupplyNetwork
from palaestra.envs.inventory.tuning import Tuned
from palaestra.envs.simulator import RandomActor
from palaestra.protocols import Actor

SAFETY_GRID = np.array([(own, shared) for own in np.arange(0.4, 1.8, 0.2) for shared in np.arange(-3.0, 1.1, 0.5)])
"""Safety factors that base stock is tuned over: of stores, and of warehouses."""


class OneWarehouse(SupplyNetwork):
    """A warehouse and stores with lost sales: how much to keep upstream, and whom to send it to.

    **One period**: (1) all orders are decided from the stock at the start of the period; where the stores want more
    than the warehouse has, each gets the same share of what it wants; (2) demand meets what stores have on hand; (3)
    the warehouse pays its holding cost for each unit left after shipping, stores theirs for each unit left after
    demand, and their underage cost for each unit of demand lost; (4) goods move on: what is sent with lead time L in
    period t is on hand in period t + L, before the demand of that period. Stock in transit costs nothing.

    **Demand**: `max(0, demand_mean + demand_std z)` at each store, z standard normal with the same correlation
    between each two stores.

    **State**: units on hand and in transit, float64. **Observation**: float32 (`warehouse_lead_time` and the lead times
    of the stores added up): on hand at the warehouse and at each store, then what arrives in 1, 2, ... periods,
    the links with the longest lead times first; divided by the mean demand that the node serves. `network` says which
    entry is which. **Action**: float32 `[1 + stores]`, the orders of the warehouse and of the stores; with
    `action_mode="normalised"` in [-1, 1], for `max_order * (action + 1) / 2` units, with "orders" in units.
    **Masks**: none.

    **Reward**: minus the cost of the period per store. **Start**: the warehouse and what is on its way to it are empty;
    a store has its mean demand times a uniform draw on [0, 1) on hand and in each slot of its pipeline. **End**: never
    terminated; truncated after `horizon` periods.

    **Info** after a step: `flows` `[1 + stores]`, `demand` `[stores]`, `inventory` `[1 + stores]` (on hand less demand;
    what is below 0 is lost) and `rationed` in units; `holding`, `underage` and `supply` (0), the parts of the cost per
    store.

    **Noise**: draws "slots" (uniform) and "demand" (normal).

    **Oracle**: a bound on the mean cost per store and period in the long run (5,000 periods, the first 3,000
    ignored): every store for itself with ample supply, under backlog at a penalty of
    `underage_cost / (lead_time + 1)`. It is loose, a quarter below what is attained; the optimum is not known.

    **Experts**: none. **Reference policies**: "random"; "newsvendor", echelon base stock at quantile levels;
    "base-stock", stores at `(L + 1) mean + z std sqrt(L + 1)`, the warehouse at the sum of their levels plus the mean
    demand of its own lead time + 1 periods plus a (mostly negative) safety stock, both safety factors chosen by
    simulation on fixed noise.

    **Version history**: v0, first release.

    Args:
        stores: Number of stores, at least 1.
        warehouse_lead_time: From outside to the warehouse, in periods, at least 1.
        warehouse_holding_cost: Cost of each unit left at the warehouse in a period, at least 0.
        demand_correlation: Between each two stores, 0 to 1.
        demand_mean: Mean demand of the stores in a period before clipping, in units: one number or `[stores]`, above 0;
            None for the published draws, uniform on [2.5, 7.5].
        demand_std: Its standard deviation, one number or `[stores]`; None for the published draws.
        underage_cost: Cost of each unit of demand lost, one number or `[stores]`, above 0; None for the published
            draws, uniform on [6.3, 11.7].
        holding_cost: Cost of each unit left at a store in a period, one number or `[stores]`; None for the published
            draws, uniform on [0.7, 1.3].
        store_lead_time: From the warehouse to the stores, in periods, one number or `[stores]`; None for the
            published draws from {2, 3}.
        horizon: Periods to truncation.
        action_mode: "normalised" or "orders".
        max_order: Largest order, in units: one number or one for each link; None for four times the mean demand of the
            stores served.

    Raises:
        ValueError: If an argument is outside its range.

    Source: the setting "one warehouse, lost sales" of Alvo, Russo and Kanoria, "Neural inventory control in networks
    via hindsight differentiable policy optimization", arXiv 2306.11246.
    """

    def __init__(
        self,
        stores: int = 5,
        warehouse_lead_time: int = 3,
        warehouse_holding_cost: float = 0.3,
        demand_correlation: float = 0.5,
        demand_mean: float | Sequence[float] | None = None,
        demand_std: float | Sequence[float] | None = None,
        underage_cost: float | Sequence[float] | None = None,
        holding_cost: float | Sequence[float] | None = None,
        store_lead_time: int | Sequence[int] | None = None,
        horizon: int = 100,
        action_mode: ActionMode = "normalised",
        max_order: float | Sequence[float] | None = None,
    ) -> None:
        world = "OneWarehouse"
        count = check_count(world, "stores", stores)
        names, published = store_names(count), published_stores(count)
        leads = published.lead_time if store_lead_time is None else np.asarray(store_lead_time)
        if leads.ndim == 0:
            leads = np.full(count, leads)
        if leads.shape != (count,):
            raise ValueError(
                f"{world}: store_lead_time={store_lead_time!r} of shape {leads.shape}; expected one integer or one for "
                f"each of {count} stores"
            )
        warehouse_cost = check_amount(world, "warehouse_holding_cost", warehouse_holding_cost)
        super().__init__(
            links=[
                Link(None, "warehouse", check_count(world, "warehouse_lead_time", warehouse_lead_time)),
                *(
                    Link("warehouse", name, check_count(world, f"store_lead_time[{index}]", leads[index]))
                    for index, name in enumerate(names)
                ),
            ],
            holding_cost={
                "warehouse": warehouse_cost,
                **store_amounts(world, "holding_cost", holding_cost, published.holding_cost, names),
            },
            underage_cost=store_amounts(
                world, "underage_cost", underage_cost, published.underage_cost, names, positive=True
            ),
            demand_mean=store_amounts(world, "demand_mean", demand_mean, published.demand_mean, names, positive=True),
            demand_std=store_amounts(world, "demand_std", demand_std, published.demand_std, names),
            demand_correlation=demand_correlation,
            unmet_demand="lost",
            horizon=horizon,
            action_mode=action_mode,
            max_order=max_order,
        )

    def reference_policies(self) -> Mapping[str, Actor]:
        """Return "random" and base stock at two kinds of levels, the tuned last."""
        return {
            "random": RandomActor(self.action_space),
            "newsvendor": EchelonBaseStock(self, safety_levels(self)),
            "base-stock": Tuned(self, partial(pooled_base_stock, self), SAFETY_GRID),
        }
