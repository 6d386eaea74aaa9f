"""Rules of thumb for supply networks: echelon base stock and myopic balancing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from palaestra.envs.arrays import at_least, namespace_of
from palaestra.envs.inventory.constants import Constant
from palaestra.protocols import Array, Key

if TYPE_CHECKING:
    from palaestra.envs.inventory.supply_network import NetworkState, SupplyNetwork


class EchelonBaseStock:
    """Every node orders up to a level of its echelon position, over one link, as far as its supplier can deliver.

    The echelon position of a node is its own stock and all stock downstream along these links, on hand and in transit,
    less the backlog; for a store it is the ordinary inventory position.

    Args:
        world: The network.
        levels: In units, `[nodes]`, or `[batch, nodes]` for a level of each row.
        links: Number of the link over which each node orders, int64 `[nodes]`; None for its fastest.
    """

    def __init__(self, world: SupplyNetwork, levels: ArrayLike, links: NDArray[np.int64] | None = None) -> None:
        self.world = world
        self.levels = Constant(np.asarray(levels, np.float64))
        used = world.graph.fastest_links() if links is None else links
        # The node that orders over each link; links that no node uses take the column of zeros behind the nodes.
        nodes = np.full(len(world.graph.links), len(world.graph.nodes))
        nodes[used] = np.arange(len(world.graph.nodes))
        self._nodes = Constant(nodes)
        self._echelons = Constant(world.graph.reaches_over(used).T.astype(np.float64))

    def __call__(self, state: NetworkState, observation: Array, key: Key) -> Array:
        """Return actions `[batch, links]`."""
        position = self.world.positions(state)
        xp = namespace_of(position)
        missing = at_least(self.levels.like(position) - position @ self._echelons.like(position), 0.0)
        columns = xp.concat((missing, 0.0 * missing[:, :1]), axis=1)
        return self.world.action_of(xp.take(columns, self._nodes.like(columns), axis=1))


class MyopicBalancing:
    """A warehouse orders up to an echelon level, and ships what it has so that its stores are as even as can be.

    What is on hand at the warehouse raises the stores with the lowest `(position - mean) / std` of their demand over
    lead time + 1 periods, all to the same value: the water level of a vessel with one column for each store.

    Args:
        world: A network of one warehouse, whose stores are all supplied by it.
        level: Echelon base-stock level of the warehouse, in units.
        means: Mean demand of each store over its lead time + 1 periods, `[stores]`.
        stds: Its standard deviation, above 0, `[stores]`.

    Source: Eppen and Schrage, "Centralized ordering policies in a multi-warehouse system with lead times and random
    demand", 1981; Federgruen and Zipkin, "Approximations of dynamic, multilocation production and inventory problems",
    Management Science 30 (1984).
    """

    def __init__(self, world: SupplyNetwork, level: float, means: ArrayLike, stds: ArrayLike) -> None:
        self.world = world
        self.level = level
        self._means, self._stds = Constant(means), Constant(stds)

    def __call__(self, state: NetworkState, observation: Array, key: Key) -> Array:
        """Return actions `[batch, 1 + stores]`."""
        world = self.world
        xp = namespace_of(state.stock)
        positions = world.positions(state)
        order = at_least(self.level - positions.sum(-1), 0.0)[:, None]
        position = positions[:, 1:]
        shipped = water_filling(
            position - self._means.like(position), self._stds.like(position), world.on_hand(state)[:, :1]
        )
        # Only the proportions of shipments count; scaled to fit between the bounds of the action space.
        limits = Constant(world.flow_limits[1:]).like(shipped)
        largest = at_least(xp.max(shipped / limits, axis=1, keepdims=True), 1.0)
        return world.action_of(xp.concat((order, shipped / largest), axis=1))


def water_filling(heights: Array, widths: Array, volume: Array) -> Array:
    """Return how much each column of a vessel takes when a volume is poured in, `[batch, columns]`.

    Column k is filled from `heights[k] / widths[k]` up and takes `widths[k]` for each unit of level, so all columns
    that take anything end at the same level.

    Args:
        heights: Level of each column's bottom times its width, `[batch, columns]`.
        widths: Above 0, `[columns]`.
        volume: At least 0, `[batch, 1]`.
    """
    xp = namespace_of(heights)
    bottoms = heights / widths
    order = xp.argsort(bottoms, axis=1)
    low = xp.take_along_axis(bottoms, order, axis=1)
    width = xp.take_along_axis(widths + 0.0 * heights, order, axis=1)
    height = xp.take_along_axis(heights, order, axis=1)
    # Level if only the lowest 1, 2, ... columns fill; the right number is the last whose own bottom is below it.
    levels = (volume + xp.cumulative_sum(height, axis=1)) / xp.cumulative_sum(width, axis=1)
    wet = xp.astype(xp.sum(xp.astype(levels >= low, xp.int64), axis=1, keepdims=True), xp.int64)
    level = xp.take_along_axis(levels, xp.clip(wet - 1, 0, None), axis=1)
    return at_least(level * widths - heights, 0.0)


def safety_levels(world: SupplyNetwork) -> NDArray[np.float64]:
    """Return echelon levels at the newsvendor's quantile, in units, float64 `[nodes]`.

    A node's level is the mean of all demand that it serves from its order to the last demand before the next one's
    goods reach the store, and the quantile's multiple of the standard deviation of that demand, pooled over its stores.
    """
    graph, correlation = world.graph, world.demand.correlation
    periods = graph.lead_times[graph.fastest_links()][:, None] + graph.periods_between() + 1.0
    first = graph.num_suppliers
    quantile = ndtri(world.underage_cost / (world.underage_cost + world.holding_cost[first:]))
    levels = np.zeros(len(graph.nodes))
    for node in range(len(graph.nodes)):
        served = graph.reaches[node, first:]
        span, std = periods[node, first:][served], world.demand.std[served]
        pooled = np.sqrt((1.0 - correlation) * (std**2).sum() + correlation * std.sum() ** 2)
        safety = quantile[served].mean() * pooled * np.sqrt(span.mean())
        levels[node] = (world.demand.mean[served] * span).sum() + safety
    return levels


def pooled_base_stock(
    world: SupplyNetwork, store_safety: Any, supplier_safety: Any, links: NDArray[np.int64] | None = None
) -> EchelonBaseStock:
    """Return base stock with one safety factor z for stores and another for those that supply them.

    A store's level is `(L + 1) mean + z std sqrt(L + 1)`. A supplier's echelon level is the sum of the levels of the
    stores that it serves, the mean demand of its own lead time + 1 periods, and its factor times the standard
    deviation of that demand.

    Args:
        world: A network of suppliers that are supplied from outside, and stores.
        store_safety: Safety factor of the stores, a number or one for each row.
        supplier_safety: Safety factor of their suppliers likewise.
        links: Number of the link over which each node orders, int64 `[nodes]`; None for its fastest.
    """
    graph, demand = world.graph, world.demand
    used = graph.fastest_links() if links is None else links
    periods, first = graph.lead_times[used] + 1.0, graph.num_suppliers
    own, shared = (np.asarray(factor, np.float64)[..., None] for factor in (store_safety, supplier_safety))
    store_levels = periods[first:] * demand.mean + own * demand.std * np.sqrt(periods[first:])
    served = graph.reaches_over(used)[:first, first:].astype(np.float64)
    pooled = np.sqrt(
        (1.0 - demand.correlation) * (served @ demand.std**2) + demand.correlation * (served @ demand.std) ** 2
    )
    supplier_levels = store_levels @ served.T + periods[:first] * (served @ demand.mean)
    supplier_levels = supplier_levels + shared * np.sqrt(periods[:first]) * pooled
    return EchelonBaseStock(world, np.concatenate((supplier_levels, store_levels), axis=-1), used)
