"""Supply networks of any shape: outside supplier, warehouses and stores, with lead times, rationing and costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from palaestra.envs.checks import check_amount, check_count
from palaestra.envs.inventory import pictures
from palaestra.envs.inventory.columns import (
    by_column,
    joined,
    parted,
    picked,
    positive_part,
    row_sums,
    weighted_sums,
)
from palaestra.envs.inventory.constants import Constant
from palaestra.envs.inventory.demand import NormalDemand
from palaestra.envs.inventory.estimand import LONG_RUN_PER_STORE
from palaestra.envs.inventory.exact.single_store_bound import single_store_bound
from palaestra.envs.inventory.feasibility import allotted, limited, rationed
from palaestra.envs.inventory.links import Link, read_amounts, read_links
from palaestra.envs.inventory.network_policies import EchelonBaseStock, safety_levels
from palaestra.envs.inventory.orders import ActionMode, OrderScale
from palaestra.envs.inventory.transit import Transit
from palaestra.envs.simulator import RandomActor, Simulator
from palaestra.protocols import Actor, Array, Key, Network, Oracle, Transition


@dataclass(frozen=True)
class NetworkState:
    """Stock of a network at the start of a period, in units.

    Attributes:
        stock: On hand at each node, this period's arrivals included and negative under backlog, then what is in transit
            in the layout of `palaestra.envs.inventory.transit`; float64 `[batch, nodes + slots]`.
        last_flows: What was sent over the links in the period before (0 at the start), float64 `[batch, links]`.
        last_demand: Demand of the stores in the period before (0 at the start), float64 `[batch, stores]`. Both are
            shown in pictures, without effect.
    """

    stock: Array
    last_flows: Array
    last_demand: Array


@dataclass(frozen=True)
class ShippedState:
    """Post-decision state: goods have been sent, the demand is unknown.

    Attributes:
        left: What suppliers have left, float64 `[batch, suppliers]`.
        stores: On hand at the stores, float64 `[batch, stores]`.
        in_transit: As before the decision, what arrives in 1, 2, ... periods, float64 `[batch, group]` each.
        flows: What is sent over the links, float64 `[batch, links]`.
        rationed: Units wanted beyond what could be sent, float64 `[batch]`.
        holding: Cost of what suppliers have left, per store, float64 `[batch]`.
        supply: Cost of the units ordered, per store, float64 `[batch]`.
        reward: Minus these two costs, float64 `[batch]`.
    """

    left: Array
    stores: Array
    in_transit: Sequence[Array]
    flows: Array
    rationed: Array
    holding: Array
    supply: Array
    reward: Array


class SupplyNetwork(Simulator[NetworkState]):
    """A supply network of your own: nodes that supply others, stores that sell, and links with lead times.

    **One period**: (1) all flows are decided from the stock at the start of the period; where customers want more of a
    supplier than it has on hand, each gets the same share of what it wants (a node that passes everything on splits
    all it has in the proportions wanted, equally where nothing is wanted); (2) demand meets what stores have on hand;
    (3) suppliers pay their holding cost for each unit left after shipping, stores theirs for each unit left after
    demand and `underage_cost` for each unit short, which is backlogged or lost, and links charge their unit cost; (4)
    goods move on: what is sent over a link with lead time L in period t is on hand in period t + L, before the demand
    of that period. Stock in transit costs nothing.

    **State**: units on hand at the nodes and in transit on the links, float64 (and the last flows and demand, for
    pictures). **Observation**: float32: on hand at each node, then what arrives in 1, 2, ... periods over each link
    that is long enough; both divided by the mean demand in a period of all stores that the node supplies. `network`
    says which entry is which. **Action**: float32 `[links]`, the flows wanted, links from outside first; with
    `action_mode="normalised"` in [-1, 1], for `max_order * (action + 1) / 2` units, with "orders" in units.
    **Masks**: none.

    **Demand**: `demand_mean + demand_std z` at each store, z standard normal with the same correlation between each
    two stores; below 0 it becomes 0 or, if not clipped, goods that come back.

    **Reward**: minus the cost of the period per store. **Start**: suppliers and their links are empty; at a store what
    is on hand and what arrives in each of the following periods that its longest link spans is its mean demand times a
    uniform draw on [0, 1). **End**: never terminated; truncated after `horizon` periods.

    **Info** after a step: `flows` `[links]`, `demand` `[stores]`, `inventory` `[nodes]` (what suppliers have left,
    what stores have on hand less demand) and `rationed` (wanted beyond what could be sent) in units; `holding`,
    `underage` and `supply`, the parts of the cost per store.

    **Noise**: draws "slots" (uniform) and "demand" (normal).

    **Oracle**: a bound on the mean cost per store and period in the long run: that of every store for itself if its
    supplier always had enough, by its shortest link, and stock upstream cost nothing. Under backlog that is the
    newsvendor's cost of lead time + 1 periods, where sales are lost the same at a penalty of
    `underage_cost / (lead_time + 1)`; unit costs count by the cheapest way. None where demand is not clipped and lost.

    **Experts**: none. **Reference policies**: "random"; "base-stock": every node orders up to a level of its echelon
    position (its own stock, all stock downstream, and what is on its way) over its fastest link, at the mean of the
    demand over its lead time + 1 periods plus the quantile's safety stock of the stores it serves.

    **Version history**: v0, first release.

    Args:
        links: `Link`s or `(supplier, customer, lead_time)` or `(supplier, customer, lead_time, unit_cost)`; the
            supplier None is the outside. The nodes that supply no other are the stores.
        holding_cost: Cost of each unit left in a period, at least 0, by node.
        underage_cost: Cost of each unit short in a period, above 0, by store.
        demand_mean: Mean demand in a period, in units, above 0, by store.
        demand_std: Its standard deviation, at least 0, by store.
        demand_correlation: Between each two stores, 0 to 1.
        clip_demand: Whether demand below 0 becomes 0.
        unmet_demand: "backlog" or "lost".
        pass_through: Names of suppliers that ship on all they have at once.
        horizon: Periods to truncation.
        action_mode: "normalised" or "orders".
        max_order: Largest flow, in units: one number for all links, or one for each in the order given; None for
            four times the mean demand of all stores that its customer supplies.

    Raises:
        ValueError: If an argument is outside its range, or a node is disconnected or on a cycle.

    Source: the settings of Alvo, Russo and Kanoria, "Neural inventory control in networks via hindsight differentiable
    policy optimization", arXiv 2306.11246.
    """

    render_modes: ClassVar[tuple[str, ...]] = ("rgb_array", "ansi")
    render_fps: ClassVar[int] = 4
    draws: ClassVar[tuple[str, ...]] = ("slots", "demand")

    def __init__(
        self,
        links: Sequence[Link | Sequence[Any]],
        holding_cost: Mapping[str, float],
        underage_cost: Mapping[str, float],
        demand_mean: Mapping[str, float],
        demand_std: Mapping[str, float],
        demand_correlation: float = 0.0,
        clip_demand: bool = True,
        unmet_demand: Literal["backlog", "lost"] = "backlog",
        pass_through: Sequence[str] = (),
        horizon: int = 100,
        action_mode: ActionMode = "normalised",
        max_order: float | Sequence[float] | None = None,
    ) -> None:
        world = type(self).__name__
        self.graph = graph = read_links(world, links)
        stores = graph.stores
        self.horizon = check_count(world, "horizon", horizon)
        self.holding_cost = read_amounts(world, "holding_cost", holding_cost, graph.nodes)
        self.underage_cost = read_amounts(world, "underage_cost", underage_cost, stores, positive=True)
        mean = read_amounts(world, "demand_mean", demand_mean, stores, positive=True)
        std = read_amounts(world, "demand_std", demand_std, stores)
        correlation = check_amount(world, "demand_correlation", demand_correlation)
        if correlation > 1.0:
            raise ValueError(f"{world}: demand_correlation={demand_correlation!r}; expected a number from 0 to 1")
        if unmet_demand not in ("backlog", "lost"):
            raise ValueError(f"{world}: unmet_demand={unmet_demand!r}; expected 'backlog' or 'lost'")
        suppliers = graph.nodes[: graph.num_suppliers]
        for name in pass_through:
            if name not in suppliers:
                raise ValueError(
                    f"{world}: pass_through names {name!r}; expected nodes that supply others: {suppliers}"
                )
        self.demand = NormalDemand(mean, std, correlation, bool(clip_demand))
        self.loses_sales = unmet_demand == "lost"
        self.passes_on = tuple(name in pass_through for name in suppliers)
        self.throughput = graph.reaches[:, graph.num_suppliers :] @ mean
        """Mean demand in a period of all stores that each node supplies, in units, float64 `[nodes]`."""
        self.flow_limits = self._limits(world, max_order, links)
        self._scale = OrderScale(world, action_mode, self.flow_limits)
        self.action_space = self._scale.space
        self._transit = Transit(graph.lead_times, graph.customers)
        self._customers = graph.num_customers
        self._one_customer = max(self._customers, default=1) == 1 and not any(self.passes_on)
        self._parts = (graph.num_suppliers, len(graph.stores), *self._transit.groups)
        self._sources = (graph.num_outside, len(graph.links) - graph.num_outside)
        count = len(stores)
        self._left_cost = Constant(self.holding_cost[: graph.num_suppliers] / count)
        self._store_cost = Constant(self.holding_cost[graph.num_suppliers :] / count)
        self._short_cost = Constant(self.underage_cost / count)
        self._unit_cost = Constant(graph.unit_costs / count) if graph.unit_costs.any() else None
        self._start = self._start_table()
        self._blanks = Constant(np.zeros(len(graph.links))), Constant(np.zeros(count))
        per_unit = 1.0 / self.network.units[: len(graph.nodes) + self._transit.size]
        self._per_unit = Constant(per_unit[0] if (per_unit == per_unit[0]).all() else per_unit)
        lowest = 0.0 if self.loses_sales else -np.inf
        self.observation_space = gym.spaces.Box(lowest, np.inf, self.network.units.shape, np.float32)

    @cached_property
    def network(self) -> Network:
        """Return the network, and where its parts stand in observations and actions."""
        graph, nodes = self.graph, len(self.graph.nodes)
        no_store = np.zeros(graph.num_suppliers)
        places = self._transit.places
        units = np.empty(nodes + self._transit.size)
        units[:nodes] = self.throughput
        for link, customer in enumerate(graph.customers):
            units[nodes + places[link][places[link] >= 0]] = self.throughput[customer]
        return Network(
            nodes=graph.nodes,
            suppliers=graph.suppliers,
            customers=graph.customers,
            lead_times=graph.lead_times,
            unit_costs=graph.unit_costs,
            flow_limits=self.flow_limits,
            holding_costs=self.holding_cost,
            underage_costs=np.concatenate((no_store, self.underage_cost)),
            demand_mean=np.concatenate((no_store, self.demand.mean)),
            demand_std=np.concatenate((no_store, self.demand.std)),
            holds_stock=np.array([not passes for passes in self.passes_on] + [True] * len(graph.stores)),
            on_hand=np.arange(nodes),
            in_transit=np.where(places >= 0, nodes + places, -1),
            units=units,
        )

    def initial(self, key: Key) -> NetworkState:
        """Return empty suppliers, and stores with up to one period's mean demand in each slot."""
        columns, amounts = self._start
        share = key.uniform("slots", amounts.values.shape)
        none = 0.0 * share[:, :1]
        filled = joined((share * amounts.like(share), none))
        flows, demand = (none + blank.like(share) for blank in self._blanks)
        return NetworkState(by_column(picked(filled, columns.like(share))), flows, demand)

    def flows_of(self, action: Array) -> Array:
        """Return the flows wanted of actions, in units, `[batch, links]`."""
        return self._scale.orders_of(action)

    def action_of(self, flows: Array) -> Array:
        """Return the actions of flows in units, `[batch, links]`, kept between 0 and the limits."""
        return self._scale.actions_of(flows)

    def decide(self, state: NetworkState, action: Array) -> ShippedState:
        """Return what is sent, what suppliers have left, and the costs of both."""
        return self.ship(state.stock, self.flows_of(action))

    def step(self, state: NetworkState, action: Array, key: Key) -> Transition[NetworkState]:
        """Return the whole transition, of chains on torch as one operation."""
        if not isinstance(state.stock, np.ndarray) and self._chain is not None:
            from palaestra.envs.inventory.fused_chain import fused_chain
            from palaestra.envs.inventory.fused_store import fusable

            if fusable(state.stock):
                demand = by_column(self.demand.sample(key))
                stock, reward, info = fused_chain(state.stock, self.flows_of(action), demand, self._chain)
                following = NetworkState(stock, info["flows"], demand)
                return Transition(following, reward, info["underage"] < 0.0, {**info, "demand": demand})
        return super().step(state, action, key)

    def ship(self, stock: Array, wanted: Array) -> ShippedState:
        """Return what is sent of wanted flows in units `[batch, links]`, what is left, and the costs of both."""
        flows = wanted = by_column(wanted)
        left, stores, *in_transit = parted(stock, self._parts)
        missed = supply = 0.0 * wanted[:, 0]
        if self.graph.num_suppliers:
            from_outside, inside = parted(wanted, self._sources)
            sent, left = self._ship(inside, left)
            flows = joined((from_outside, *sent))
            missed = row_sums(wanted - flows)
        holding = weighted_sums(left, self._left_cost.like(left))
        if self._unit_cost is not None:
            supply = weighted_sums(flows, self._unit_cost.like(flows))
        return ShippedState(left, stores, in_transit, flows, missed, holding, supply, -(holding + supply))

    def realise(self, post: ShippedState, key: Key) -> Transition[NetworkState]:
        """Return demand, its cost, and all goods one period further."""
        return self.meet(post, self.demand.sample(key))

    def meet(self, post: ShippedState, demand: Array) -> Transition[NetworkState]:
        """Return the cost of demand in units `[batch, stores]`, and all goods one period further."""
        demand = by_column(demand)
        in_stores = post.stores - demand
        over = positive_part(in_stores)
        holding = weighted_sums(over, self._store_cost.like(over))
        underage = weighted_sums(over - in_stores, self._short_cost.like(over))
        arrived, later = self._transit.advance(post.in_transit, post.flows)
        inventory = joined((post.left, in_stores))
        kept = joined((post.left, over)) if self.loses_sales else inventory
        stock = joined((kept + arrived, *later))
        info = {
            "flows": post.flows,
            "demand": demand,
            "inventory": inventory,
            "rationed": post.rationed,
            "holding": post.holding + holding,
            "underage": underage,
            "supply": post.supply,
        }
        never = underage < 0.0
        return Transition(NetworkState(stock, post.flows, demand), -(holding + underage), never, info)

    def observe(self, state: NetworkState) -> Array:
        """Return stock on hand and in transit in periods of the demand that it serves."""
        return state.stock * self._per_unit.like(state.stock)

    def on_hand(self, state: NetworkState) -> Array:
        """Return what is on hand at each node, less backlog, in units, `[batch, nodes]`."""
        return state.stock[:, : len(self.graph.nodes)]

    def positions(self, state: NetworkState) -> Array:
        """Return each node's stock on hand, less backlog, and in transit to it, in units, `[batch, nodes]`."""
        return self.on_hand(state) + self._transit.coming(state.stock[:, len(self.graph.nodes) :])

    def oracle(self) -> Oracle | None:
        """Return minus a lower bound on the cost: every store for itself, with ample supply."""
        bound = self._bound
        return None if bound is None else Oracle(-bound, LONG_RUN_PER_STORE, "bound", "single stores with ample supply")

    def reference_policies(self) -> Mapping[str, Actor]:
        """Return "random" and echelon base stock at quantile levels."""
        return {
            "random": RandomActor(self.action_space),
            "base-stock": EchelonBaseStock(self, safety_levels(self)),
        }

    def render(self, state: NetworkState, row: int = 0, mode: str = "rgb_array") -> np.ndarray | str:
        """Return the stock of every node by period of arrival, its last inflow and demand; as bars or text ("ansi")."""
        parts = (state.stock, state.last_flows, state.last_demand)
        rows = pictures.stock_rows(self.network, *(np.asarray(array[row], np.float64) for array in parts))
        if mode == "ansi":
            return pictures.stock_text(rows)
        if mode != "rgb_array":
            raise ValueError(f"render: mode={mode!r}; expected one of {self.render_modes}")
        return pictures.draw_stock(rows)

    def _ship(self, wanted: Array, available: Array) -> tuple[list[Array], Array]:
        """Return what each supplier sends to its customers, and what all have left."""
        if self._one_customer:
            sent = limited(wanted, available)
            return [sent], available - sent
        parts, left = [], []
        wishes, stocks = parted(wanted, self._customers), parted(available, (1,) * self.graph.num_suppliers)
        for asked, stock, passes in zip(wishes, stocks, self.passes_on, strict=True):
            parts.append(allotted(asked, stock) if passes else rationed(asked, stock))
            left.append(0.0 * stock if passes else positive_part(stock - row_sums(asked)[:, None]))
        return parts, joined(left)

    @cached_property
    def _chain(self) -> Any:
        """Return the tables of a chain, or None where the network is none or periods are those of another world."""
        # Only here, for worlds on NumPy do without torch.
        from palaestra.envs.inventory.fused_chain import chain_tables

        plain = self._one_customer and type(self).realise is SupplyNetwork.realise
        return chain_tables(self.network, self.loses_sales) if plain else None

    def _start_table(self) -> tuple[Constant, Constant]:
        """Return which draw fills each place of the observation (the one after the last: none), and the amounts."""
        nodes, places = len(self.graph.nodes), self._transit.places
        filled, amounts = [], []
        for store in range(self.graph.num_suppliers, nodes):
            links = self.graph.links_into(store)
            longest = links[np.argmax(self.graph.lead_times[links])]
            slots = [store, *(nodes + places[longest][places[longest] >= 0])]
            filled += slots
            amounts += [self.throughput[store]] * len(slots)
        columns = np.full(nodes + self._transit.size, len(filled))
        columns[filled] = np.arange(len(filled))
        return Constant(columns), Constant(np.array(amounts))

    def _limits(self, world: str, max_order: Any, links: Sequence[Any]) -> NDArray[np.float64]:
        """Return the largest flow of each link, in the order of the graph."""
        if max_order is None:
            return 4.0 * self.throughput[self.graph.customers]
        count = len(links)
        if np.ndim(max_order) == 0:
            return np.full(count, check_amount(world, "max_order", max_order, positive=True))
        if np.shape(max_order) != (count,):
            raise ValueError(
                f"{world}: max_order of shape {np.shape(max_order)}; expected one for each of {count} links"
            )
        given = [check_amount(world, f"max_order[{i}]", x, positive=True) for i, x in enumerate(max_order)]
        return np.array(given)[self.graph.given]

    @cached_property
    def _bound(self) -> float | None:
        if self.loses_sales and not self.demand.clipped:
            return None
        costs = []
        cheapest = self.graph.cheapest_ways()
        leads = self.graph.lead_times[self.graph.fastest_links()]
        for store in range(self.graph.num_suppliers, len(self.graph.nodes)):
            index = store - self.graph.num_suppliers
            costs.append(
                single_store_bound(
                    float(self.demand.mean[index]),
                    float(self.demand.std[index]),
                    int(leads[store]),
                    float(self.underage_cost[index]),
                    float(self.holding_cost[store]),
                    float(cheapest[store]),
                    clipped=self.demand.clipped,
                    lost=self.loses_sales,
                )
            )
        return sum(costs) / len(costs)
