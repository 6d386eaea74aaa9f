"""Three warehouses and a chain of stores that order one product from week to week, with sales that trend and peak."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
from scipy.special import ndtri

from palaestra.envs.arrays import at_least, namespace_of
from palaestra.envs.checks import check_count
from palaestra.envs.inventory.columns import by_column
from palaestra.envs.inventory.constants import Constant
from palaestra.envs.inventory.links import links_of_warehouses
from palaestra.envs.inventory.orders import ActionMode
from palaestra.envs.inventory.parameter_draws import published_stores
from palaestra.envs.inventory.retail_store import counted_demand, read_horizon, retail_estimand
from palaestra.envs.inventory.sales import HISTORY, Split, open_sales
from palaestra.envs.inventory.series_table import SeriesTable
from palaestra.envs.inventory.stores import each_amount, store_amounts, store_names
from palaestra.envs.inventory.supply_network import NetworkState, ShippedState, SupplyNetwork
from palaestra.envs.simulator import RandomActor
from palaestra.protocols import Actor, Array, Key, Network, Oracle, Transition

PUBLISHED_LEAD_TIMES: tuple[tuple[int | None, int | None, int | None], ...] = (
    (6, 1, 5),
    (6, 1, 5),
    (6, 1, 5),
    (None, 1, 5),
    (6, 1, 4),
    (5, None, 6),
    (5, 2, 5),
    (5, 2, 5),
    (5, 1, 5),
    (5, 2, 5),
    (5, None, 5),
    (5, None, None),
    (5, None, 5),
    (5, None, 6),
    (None, 1, 5),
    (6, 1, 5),
    (6, 1, 5),
    (6, 1, 5),
    (6, 1, 5),
    (5, 1, 4),
    (5, 2, 5),
)
"""Weeks from each of the three published warehouses to each of the 21 stores; None where there is no link."""


@dataclass(frozen=True)
class RetailNetworkState(NetworkState):
    """Stock of a network for one product, in units, and the week.

    Attributes:
        series: Which product, int64 `[batch]`.
        period: Weeks since the first order, int64 `[batch]`.
        scale: Mean weekly demand of a store before the first order, at least 1, float64 `[batch]`.
    """

    series: Array
    period: Array
    scale: Array


@dataclass(frozen=True)
class RetailShipment(ShippedState):
    """Post-decision state: goods have been sent, the week's demand is unknown.

    Attributes:
        series: As before the decision, int64 `[batch]`.
        period: Likewise.
        scale: Likewise, float64 `[batch]`.
    """

    series: Array
    period: Array
    scale: Array


class MovingAverageNetwork:
    """Echelon base stock over the fastest links, with the mean and the deviation of the past weeks' demand.

    A store's level is its quantile of normal demand over its lead time + 1 weeks. A warehouse's is the sum of the
    levels of the stores that it supplies fastest and their mean demand over its own lead time + 1 weeks.

    Args:
        world: The world.
    """

    def __init__(self, world: RetailNetwork) -> None:
        graph = world.graph
        self.world, self._links = world, graph.fastest_links()
        first = graph.num_suppliers
        self._periods = Constant(graph.lead_times[self._links[first:]] + 1.0)
        self._supplier_periods = Constant(graph.lead_times[self._links[:first]] + 1.0)
        reaches = graph.reaches_over(self._links)
        self._served = Constant(reaches[:first, first:].T.astype(np.float64))
        self._downstream = Constant(reaches.T.astype(np.float64))
        margin, holding = world.underage_cost, world.holding_cost[first:]
        self._safety = Constant(ndtri(margin / (margin + holding)))

    def __call__(self, state: RetailNetworkState, observation: Array, key: Key) -> Array:
        """Return actions `[batch, links]`."""
        world, stock = self.world, state.stock
        xp = namespace_of(stock)
        past = world.table.history(state.series, state.period, stock)
        mean = past.sum(1) / HISTORY
        std = (((past - mean[:, None]) ** 2).sum(1) / HISTORY) ** 0.5
        periods = self._periods.like(stock)
        levels = periods * mean + self._safety.like(stock) * std * periods**0.5
        served = self._served.like(stock)
        above = levels @ served + self._supplier_periods.like(stock) * (mean @ served)
        positions = world.positions(state) @ self._downstream.like(stock)
        return world.over_links(at_least(xp.concat((above, levels), axis=1) - positions, 0.0), self._links, state)


class JustInTimeNetwork:
    """Knows the future, and has sent, over the fastest links, what will be sold in the week in which it arrives.

    Prices and what warehouses have are ignored: a yardstick, not the best that could be done.

    Args:
        world: The world.
    """

    def __init__(self, world: RetailNetwork) -> None:
        graph = world.graph
        self.world, self._links = world, graph.fastest_links()
        self._first = graph.num_suppliers
        self._leads = graph.lead_times[self._links]
        self._served = graph.reaches_over(self._links)[: self._first, self._first :]

    def __call__(self, state: RetailNetworkState, observation: Array, key: Key) -> Array:
        """Return actions `[batch, links]`."""
        xp = namespace_of(state.stock)
        columns = []
        for node, lead in enumerate(self._leads.tolist()):
            if node >= self._first:
                columns.append(self._sold(state, node - self._first, lead))
                continue
            stores = np.flatnonzero(self._served[node]).tolist()
            later = [self._sold(state, store, lead + int(self._leads[self._first + store])) for store in stores]
            columns.append(sum(later, 0.0 * state.scale))
        return self.world.over_links(xp.stack(columns, axis=1), self._links, state)

    def _sold(self, state: RetailNetworkState, store: int, ahead: int) -> Array:
        return self.world.table.demand(state.series, state.period + ahead, state.stock)[:, store]


class RetailNetwork(SupplyNetwork):
    """One product at a chain of stores, supplied by near and dear or far and cheap warehouses, with weekly sales.

    **One period**, a week: (1) all orders are decided from the stock at the start of the week; where stores want more
    of a warehouse than it has, each gets the same share of what it wants; (2) demand meets what stores have on hand,
    and what is not met is lost; (3) stores earn their margin for each unit sold and pay their holding cost for each
    unit left, warehouses pay `supply_cost` for each unit they order and their holding cost for each unit left after
    shipping; (4) goods move on: what is sent with lead time L in period t is on hand in period t + L, before the demand
    of that period. Stock in transit costs nothing.

    **Series**: an episode is one product at all stores, drawn at random with equal chances; product i is task i, from
    which `reset(options={"task_seed": ...})` chooses. What is sold is what the data say, whatever is ordered.

    **State**: units on hand and in transit, product and week. **Observation**: float32 (on hand at the warehouses and
    at the stores; what arrives over each link in 1, 2, ... weeks; demand of each store in the 16 weeks before, store by
    store, the oldest first; all divided by the scale of the product, its mean weekly demand at a store before the first
    order, at least 1 unit, and stock by the mean share of the stores that its node serves, too; days from the nearest
    Christmas over 182, negative before it). `network` says which entry is which. **Action**: float32 `[links]`, the
    orders of the warehouses, then those placed with warehouse 0, 1, ..., by the number of the store; with
    `action_mode="normalised"` in [-1, 1], for `max_order * (action + 1) / 2` times the scale, with "orders" for the
    action times it. **Masks**: none; `network` lists the links there are.

    **Reward**: profit of the week per store, over the scale of the product, so that all products count alike. (The
    published setting adds up money.) **Start**: nothing is on hand or ordered.
    **End**: never terminated; truncated after `horizon` weeks.

    **Info** after a step: `flows` `[links]`, `demand` `[stores]`, `inventory` `[nodes]` (on hand less demand; what is
    below 0 is lost) and `rationed` in units; `margin` earned, `holding` and `supply` paid and `underage` (the margin
    lost), per store, in money.

    **Noise**: draw "series" (uniform), at the start alone.

    **Oracle**: a bound, the margin of all demand, for nothing paid. Mean reward per week of one run of the whole
    window, of which the first 16 weeks do not count; as the mean over all products, which differ far more from each
    other than policies do: compare policies on the same seeds.

    **Experts**: "just-in-time", which reads the future and ignores prices and shortages upstream: a yardstick.
    **Reference policies**: "random"; "moving-average", echelon base stock over the fastest links at the newsvendor's
    quantile of normal demand with mean and deviation of the past 16 weeks.

    **Data**: as in `RetailStore`. **Version history**: v0, first release.

    Args:
        split: Window of the data: "train", "dev" or "test".
        sales: File of weekly sales (see `read_sales`), with as many stores as there are rows of lead times; None draws
            them.
        products: Number of products that are drawn.
        data_seed: Seed of what is drawn, 0 to 2**32 - 1.
        store_lead_times: From each warehouse to each store, in weeks, `[stores][warehouses]`, None where there is no
            link; None for the published table of 21 stores and three warehouses.
        warehouse_lead_time: From outside to every warehouse, in weeks, at least 1.
        warehouse_holding_costs: Of each unit left at each warehouse in a week, at least 0.
        supply_costs: Of each unit that each warehouse orders, at least 0.
        underage_cost: Margin of a unit sold, one number or `[stores]`, above 0; None for the published draws, uniform
            on [6.3, 11.7].
        holding_cost: Cost of each unit left at a store in a week, one number or `[stores]`; None for the published
            draws, uniform on [0.7, 1.3].
        horizon: Weeks to truncation; None for the whole window.
        action_mode: "normalised" or "orders".
        max_order: Largest order over the scale of the product: one number for all links, or one for each, those of the
            warehouses first and then those of store 0, store 1, ...; None for six times the mean share of the stores
            served.

    Raises:
        FileNotFoundError: If there is no such file of sales.
        ValueError: If an argument is outside its range, a store or a warehouse has no link, or the file holds something
            else.

    Source: the setting "many warehouses, retail series" of Alvo, Russo and Kanoria, "Neural inventory control in
    networks via hindsight differentiable policy optimization", arXiv 2306.11246.
    """

    draws = ("series",)

    def __init__(
        self,
        split: Split = "train",
        sales: str | None = None,
        products: int = 64,
        data_seed: int = 0,
        store_lead_times: Sequence[Sequence[int | None]] | None = None,
        warehouse_lead_time: int = 3,
        warehouse_holding_costs: Sequence[float] = (0.3, 0.4, 0.2),
        supply_costs: Sequence[float] = (0.5, 1.5, 0.7),
        underage_cost: float | Sequence[float] | None = None,
        holding_cost: float | Sequence[float] | None = None,
        horizon: int | None = None,
        action_mode: ActionMode = "normalised",
        max_order: float | Sequence[float] | None = None,
    ) -> None:
        world = type(self).__name__
        table = PUBLISHED_LEAD_TIMES if store_lead_times is None else store_lead_times
        count, warehouses = len(table), len(warehouse_holding_costs)
        if count == 0 or warehouses == 0 or len(supply_costs) != warehouses:
            raise ValueError(
                f"{world}: {count} stores, {warehouses} warehouse_holding_costs and {len(supply_costs)} supply_costs; "
                "expected at least one store, and one holding cost and one supply cost for each warehouse"
            )
        drawn = check_count(world, "products", products), count, check_count(world, "data_seed", data_seed, 0)
        data = open_sales(world, sales, *drawn)
        if data.units.shape[1] != count:
            raise ValueError(
                f"{world}: sales={sales!r} of {data.units.shape[1]} stores; expected {count}, one for each row of "
                "store_lead_times"
            )
        self.table = SeriesTable(world, data, split, data.units)
        self.tasks = len(data.units)
        self._scales = Constant(self.table.scales)
        # Like the network they describe, they must be the same in all windows.
        known = data.units[:, :, slice(*data.window(world, "train"))]
        share = known / np.maximum(known.mean(axis=(1, 2), keepdims=True), 1.0)
        names, published = store_names(count), published_stores(count)
        hubs = tuple(f"warehouse {index}" for index in range(warehouses))
        means = np.maximum(share.mean(axis=(0, 2)), 1e-3)
        largest = max_order
        if max_order is None:
            serves = [[lead is not None for lead in row] for row in table]
            hub_share = [sum(m for m, row in zip(means, serves, strict=True) if row[hub]) for hub in range(warehouses)]
            store_share = [m for m, row in zip(means, serves, strict=True) for served in row if served]
            largest = [float(6.0 * mean) for mean in (*hub_share, *store_share)]
        super().__init__(
            links=links_of_warehouses(world, table, warehouse_lead_time, supply_costs, hubs, names),
            holding_cost={
                **each_amount(world, "warehouse_holding_costs", warehouse_holding_costs, hubs),
                **store_amounts(world, "holding_cost", holding_cost, published.holding_cost, names),
            },
            underage_cost=store_amounts(
                world, "underage_cost", underage_cost, published.underage_cost, names, positive=True
            ),
            demand_mean=dict(zip(names, means.tolist(), strict=True)),
            demand_std=dict(zip(names, share.std(axis=2).mean(axis=0).tolist(), strict=True)),
            unmet_demand="lost",
            horizon=read_horizon(world, horizon, self.table.periods),
            action_mode=action_mode,
            max_order=largest,
        )
        self._blank = Constant(np.zeros(len(self.graph.nodes) + self._transit.size))
        self._none_sent = Constant(np.zeros(len(self.graph.links)))
        low = np.zeros(len(self.network.units), np.float32)
        low[-1] = -np.inf
        self.observation_space = gym.spaces.Box(low, np.inf, low.shape, np.float32)

    @cached_property
    def network(self) -> Network:
        """Return the network; units are those of the scale of the product."""
        stock = super().network
        places, stores = len(stock.units), len(self.graph.stores)
        history = np.full((len(self.graph.nodes), HISTORY), -1)
        history[self.graph.num_suppliers :] = places + np.arange(stores * HISTORY).reshape(stores, HISTORY)
        parts: dict[str, Any] = {**vars(stock)}
        parts["units"] = np.concatenate((stock.units, np.ones(stores * HISTORY), np.zeros(1)))
        parts["history"], parts["calendar"] = history, np.array([places + stores * HISTORY])
        return Network(**parts)

    def initial(self, key: Key) -> RetailNetworkState:
        """Return an empty network for a product drawn at random."""
        share = key.uniform("series")
        xp = namespace_of(share)
        return self._empty(xp.clip(xp.astype(share * self.tasks, xp.int64), 0, self.tasks - 1), share)

    def initial_of_task(self, task: Array, key: Key) -> RetailNetworkState:
        """Return an empty network for chosen products, numbers `[batch]` from 0 to `tasks - 1`."""
        return self._empty(task, key.uniform("series"))

    def _empty(self, series: Array, like: Array) -> RetailNetworkState:
        none = (0.0 * like)[:, None]
        last = self.table.history(series, 0 * series, like)[:, -1]
        stock, flows = none + self._blank.like(like), none + self._none_sent.like(like)
        return RetailNetworkState(by_column(stock), flows, last, series, 0 * series, self._scales.like(like)[series])

    def over_links(self, orders: Array, links: np.ndarray, state: RetailNetworkState) -> Array:
        """Return the actions `[batch, links]` of the orders of all nodes `[batch, nodes]` in units, each over one link.

        Args:
            orders: In units, `[batch, nodes]`.
            links: Number of the link over which each node orders, int64 `[nodes]`.
            state: The present state.
        """
        xp = namespace_of(orders)
        nodes = np.full(len(self.graph.links), len(self.graph.nodes))
        nodes[links] = np.arange(len(self.graph.nodes))
        columns = xp.concat((orders / state.scale[:, None], 0.0 * orders[:, :1]), axis=1)
        return self.action_of(xp.take(columns, Constant(nodes).like(columns), axis=1))

    def decide(self, state: NetworkState, action: Array) -> RetailShipment:
        """Return what is sent, what suppliers have left, and the costs of both."""
        assert isinstance(state, RetailNetworkState)
        shipped = self.ship(state.stock, self.flows_of(action) * state.scale[:, None])
        parts: dict[str, Any] = {**vars(shipped), "reward": shipped.reward / state.scale}
        return RetailShipment(**parts, series=state.series, period=state.period, scale=state.scale)

    def realise(self, post: ShippedState, key: Key) -> Transition[NetworkState]:
        """Return demand, the margin of what is sold, and all goods one week further."""
        assert isinstance(post, RetailShipment)
        demand = self.table.demand(post.series, post.period, post.stores)
        met = self.meet(post, demand)
        wanted = (demand * self._short_cost.like(demand)).sum(-1)
        following = RetailNetworkState(**vars(met.state), series=post.series, period=post.period + 1, scale=post.scale)
        info = {**met.info, "margin": wanted - met.info["underage"]}
        return Transition(following, (met.reward + wanted) / post.scale, met.terminated, info)

    def observe(self, state: NetworkState) -> Array:
        """Return stock, past demand and the calendar, `[batch, observation]`."""
        assert isinstance(state, RetailNetworkState)
        xp, scale = namespace_of(state.stock), state.scale[:, None]
        past = self.table.history(state.series, state.period, state.stock)
        by_store = xp.reshape(xp.permute_dims(past, (0, 2, 1)), (past.shape[0], -1))
        days = self.table.days(state.period, state.stock)[:, None]
        return xp.concat((super().observe(state) / scale, by_store / scale, days), axis=1)

    def oracle(self) -> Oracle:
        """Return the margin of all demand, per store and week, over the scales of the products."""
        earned = counted_demand(self.table, self.horizon) @ self.underage_cost / len(self.graph.stores)
        value = float((earned / self.table.scales).mean())
        return Oracle(value, retail_estimand(self.horizon), "bound", "just-in-time orders at no price")

    def experts(self) -> Mapping[str, Actor]:
        """Return "just-in-time"."""
        return {"just-in-time": JustInTimeNetwork(self)}

    def reference_policies(self) -> Mapping[str, Actor]:
        """Return "random" and "moving-average"."""
        return {"random": RandomActor(self.action_space), "moving-average": MovingAverageNetwork(self)}
