"""Several warehouses with different prices and distances, and stores that can order from more than one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from palaestra.envs.inventory.links import links_of_warehouses
from palaestra.envs.inventory.network_policies import pooled_base_stock
from palaestra.envs.inventory.one_warehouse import SAFETY_GRID
from palaestra.envs.inventory.orders import ActionMode
from palaestra.envs.inventory.parameter_draws import published_stores
from palaestra.envs.inventory.stores import each_amount, store_amounts, store_names
from palaestra.envs.inventory.supply_network import SupplyNetwork
from palaestra.envs.inventory.tuning import Tuned
from palaestra.envs.simulator import RandomActor
from palaestra.protocols import Actor

PUBLISHED_LEAD_TIMES = (
    (None, 2),
    (None, 1),
    (6, 2),
    (6, 2),
    (6, 1),
    (None, 2),
    (6, None),
    (5, 2),
    (6, 2),
    (None, 2),
)
"""Periods from each of the two published warehouses to each of the ten stores; None where there is no link."""


class ManyWarehouses(SupplyNetwork):
    """Warehouses, near and dear or far and cheap, and stores with lost sales that may order from several.

    **One period**: (1) all orders are decided from the stock at the start of the period; where stores want more of a
    warehouse than it has, each gets the same share of what it wants; (2) demand meets what stores have on hand; (3)
    warehouses pay `supply_cost` for each unit they order and their holding cost for each unit left after shipping,
    stores their holding cost for each unit left after demand and their underage cost for each unit of demand lost; (4)
    goods move on: what is sent with lead time L in period t is on hand in period t + L, before the demand of that
    period. Stock in transit costs nothing.

    **Demand**: `max(0, demand_mean + demand_std z)` at each store, z standard normal with the same correlation
    between each two stores.

    **State**: units on hand and in transit, float64. **Observation**: float32 (52 entries by default): on hand at the
    warehouses and at the stores, then what arrives over each link in 1, 2, ... periods, those with the longest lead
    times first; divided by the mean demand that the node serves. `network` says which entry is which. **Action**:
    float32 `[links]` (17), the orders of the warehouses, then those placed with warehouse 0, with warehouse 1, ..., by
    the number of the store; with `action_mode="normalised"` in [-1, 1], for `max_order * (action + 1) / 2` units, with
    "orders" in units. **Masks**: none; `network` lists the links there are.

    **Reward**: minus the cost of the period per store. **Start**: the warehouses and what is on its way to them are
    empty; a store has its mean demand times a uniform draw on [0, 1) on hand and in each slot of its longest link.
    **End**: never terminated; truncated after `horizon` periods.

    **Info** after a step: `flows` `[links]`, `demand` `[stores]`, `inventory` `[nodes]` (on hand less demand; what is
    below 0 is lost) and `rationed` in units; `holding`, `underage` and `supply`, the parts of the cost per store.

    **Noise**: draws "slots" (uniform) and "demand" (normal).

    **Oracle**: a bound on the mean cost per store and period in the long run (5,000 periods, the first 3,000
    ignored): every store for itself, supplied over its shortest link at its lowest price with nothing else to pay
    upstream, under backlog at a penalty of `(underage_cost - price) / (lead_time + 1)`. It is loose; the optimum is
    not known.

    **Experts**: none. **Reference policies**: "random"; "fastest" and "cheapest", base stock over each store's shortest
    or cheapest link (stores at `(L + 1) mean + z std sqrt(L + 1)`, warehouses at the sum of the levels of the stores
    that order from them plus the mean demand of their own lead time + 1 periods plus safety stock, the safety factors
    chosen by simulation on fixed noise).

    **Version history**: v0, first release.

    Args:
        store_lead_times: From each warehouse to each store, in periods, `[stores][warehouses]`, None where there is
            no link; None for the published table of ten stores and two warehouses.
        warehouse_lead_time: From outside to every warehouse, in periods, at least 1.
        warehouse_holding_costs: Of each unit left at each warehouse in a period, at least 0.
        supply_costs: Of each unit that each warehouse orders, at least 0.
        demand_correlation: Between each two stores, 0 to 1.
        demand_mean: Mean demand of the stores in a period before clipping, in units: one number or `[stores]`, above 0;
            None for the published draws, uniform on [2.5, 7.5].
        demand_std: Its standard deviation, one number or `[stores]`; None for the published draws.
        underage_cost: Cost of each unit of demand lost, one number or `[stores]`, above 0; None for the published
            draws, uniform on [6.3, 11.7].
        holding_cost: Cost of each unit left at a store in a period, one number or `[stores]`; None for the published
            draws, uniform on [0.7, 1.3].
        horizon: Periods to truncation.
        action_mode: "normalised" or "orders".
        max_order: Largest order, in units: one number for all links, or one for each, those of the warehouses first and
            then those of store 0, store 1, ...; None for four times the mean demand of the stores served.

    Raises:
        ValueError: If an argument is outside its range, or a store or a warehouse has no link.

    Source: the setting "many warehouses, lost sales" of Alvo, Russo and Kanoria, "Neural inventory control in networks
    via hindsight differentiable policy optimization", arXiv 2306.11246.
    """

    def __init__(
        self,
        store_lead_times: Sequence[Sequence[int | None]] | None = None,
        warehouse_lead_time: int = 3,
        warehouse_holding_costs: Sequence[float] = (0.3, 0.4),
        supply_costs: Sequence[float] = (0.5, 1.5),
        demand_correlation: float = 0.5,
        demand_mean: float | Sequence[float] | None = None,
        demand_std: float | Sequence[float] | None = None,
        underage_cost: float | Sequence[float] | None = None,
        holding_cost: float | Sequence[float] | None = None,
        horizon: int = 100,
        action_mode: ActionMode = "normalised",
        max_order: float | Sequence[float] | None = None,
    ) -> None:
        world = "ManyWarehouses"
        table = PUBLISHED_LEAD_TIMES if store_lead_times is None else store_lead_times
        count, warehouses = len(table), len(warehouse_holding_costs)
        if count == 0 or warehouses == 0 or len(supply_costs) != warehouses:
            raise ValueError(
                f"{world}: {count} stores, {warehouses} warehouse_holding_costs and {len(supply_costs)} supply_costs; "
                "expected at least one store, and one holding cost and one supply cost for each warehouse"
            )
        names, published = store_names(count), published_stores(count)
        hubs = tuple(f"warehouse {index}" for index in range(warehouses))
        super().__init__(
            links=links_of_warehouses(world, table, warehouse_lead_time, supply_costs, hubs, names),
            holding_cost={
                **each_amount(world, "warehouse_holding_costs", warehouse_holding_costs, hubs),
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
        """Return "random" and base stock over the fastest and over the cheapest links."""
        fastest, cheapest = self.graph.fastest_links(), self.graph.cheapest_links()
        return {
            "random": RandomActor(self.action_space),
            "fastest": Tuned(self, partial(pooled_base_stock, self, links=fastest), SAFETY_GRID),
            "cheapest": Tuned(self, partial(pooled_base_stock, self, links=cheapest), SAFETY_GRID),
        }
