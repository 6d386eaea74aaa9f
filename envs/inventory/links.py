"""Who supplies whom: the links of a supply network, checked and put in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palaestra.envs.checks import check_amount, check_count
from palaestra.protocols import OUTSIDE


@dataclass(frozen=True)
class Link:
    """A way that goods take.

    Attributes:
        supplier: Name of the node they come from; None for the outside supplier, who always has enough.
        customer: Name of the node they go to.
        lead_time: Periods from an order to its arrival, at least 1.
        unit_cost: Cost of each unit ordered, at least 0.
    """

    supplier: str | None
    customer: str
    lead_time: int
    unit_cost: float = 0.0


@dataclass(frozen=True, eq=False)
class Graph:
    """A checked network: suppliers are numbered before stores, links from outside before the others.

    Attributes:
        nodes: Names; first those that supply others, then the stores, each in the order in which links name them.
        links: From outside first, then by the number of their supplier; otherwise in the order given.
        num_suppliers: Number of nodes that supply others.
        num_outside: Number of links from outside.
        suppliers: Node that each link comes from, or `OUTSIDE`, int64 `[links]`.
        customers: Node that each link goes to, int64 `[links]`.
        lead_times: int64 `[links]`.
        unit_costs: float64 `[links]`.
        reaches: Whether goods can get from one node to another, or the two are the same; bools `[nodes, nodes]`.
        given: Place of each link among those that were given, int64 `[links]`.
    """

    nodes: tuple[str, ...]
    links: tuple[Link, ...]
    num_suppliers: int
    num_outside: int
    suppliers: NDArray[np.int64]
    customers: NDArray[np.int64]
    lead_times: NDArray[np.int64]
    unit_costs: NDArray[np.float64]
    reaches: NDArray[np.bool_]
    given: NDArray[np.int64]

    @property
    def stores(self) -> tuple[str, ...]:
        """Return the names of the nodes that supply no other."""
        return self.nodes[self.num_suppliers :]

    @property
    def num_customers(self) -> tuple[int, ...]:
        """Return how many links go out from each supplier."""
        return tuple(int((self.suppliers == node).sum()) for node in range(self.num_suppliers))

    def links_into(self, node: int) -> NDArray[np.int64]:
        """Return the numbers of the links that lead to a node."""
        return np.flatnonzero(self.customers == node)

    def reaches_over(self, links: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return `reaches` of the network of these links alone."""
        return _closure(len(self.nodes), self.suppliers[links], self.customers[links])

    def fastest_links(self) -> NDArray[np.int64]:
        """Return the number of the link with the shortest lead time into each node, the first of equals; `[nodes]`."""
        into = (self.links_into(node) for node in range(len(self.nodes)))
        return np.array([links[np.argmin(self.lead_times[links])] for links in into])

    def cheapest_links(self) -> NDArray[np.int64]:
        """Return the number of the link into each node on its cheapest way from outside, the first of equals."""
        costs = self._costs_of_links()
        into = (self.links_into(node) for node in range(len(self.nodes)))
        return np.array([links[np.argmin(costs[links])] for links in into])

    def cheapest_ways(self) -> NDArray[np.float64]:
        """Return the least total of unit costs on a way from outside to each node, float64 `[nodes]`."""
        return self._costs_of_links()[self.cheapest_links()]

    def periods_between(self) -> NDArray[np.float64]:
        """Return the least total of lead times from each node to each other, inf where there is no way."""
        periods = np.full((len(self.nodes), len(self.nodes)), np.inf)
        np.fill_diagonal(periods, 0.0)
        for _ in self.nodes:
            for link in range(self.num_outside, len(self.links)):
                through = self.lead_times[link] + periods[self.customers[link]]
                periods[self.suppliers[link]] = np.minimum(periods[self.suppliers[link]], through)
        return periods

    def _costs_of_links(self) -> NDArray[np.float64]:
        """Return the least total of unit costs from outside over each link, float64 `[links]`."""
        costs = np.full(len(self.links), np.inf)
        for _ in self.nodes:
            for link, supplier in enumerate(self.suppliers):
                before = 0.0 if supplier == OUTSIDE else costs[self.links_into(supplier)].min()
                costs[link] = self.unit_costs[link] + before
        return costs


def read_links(world: str, links: Sequence[Link | Sequence[Any]]) -> Graph:
    """Return the graph of links, which may be given as `(supplier, customer, lead_time[, unit_cost])`.

    Raises:
        ValueError: If a link is malformed, leads back to its own supplier or stands there twice, or if a node cannot
            be reached from the outside supplier.
    """
    read = [_read(world, index, link) for index, link in enumerate(links)]
    if not read:
        raise ValueError(f"{world}: links={list(links)!r}; expected at least one link, from None to a node")
    pairs = [(link.supplier, link.customer) for link in read]
    for index, pair in enumerate(pairs):
        if pair in pairs[:index]:
            raise ValueError(f"{world}: links[{index}] leads from {pair[0]!r} to {pair[1]!r} again; expected one such")
    names = list(dict.fromkeys(name for pair in pairs for name in pair if name is not None))
    giving = {link.supplier for link in read}
    nodes = [name for name in names if name in giving] + [name for name in names if name not in giving]
    number = {name: index for index, name in enumerate(nodes)}
    origin = np.array([OUTSIDE if link.supplier is None else number[link.supplier] for link in read])
    given = np.argsort(origin, kind="stable")
    ordered, suppliers = [read[place] for place in given], origin[given]
    customers = np.array([number[link.customer] for link in ordered])
    reaches = _closure(len(nodes), suppliers, customers)
    for index, name in enumerate(nodes):
        if any(reaches[customers[link], suppliers[link]] for link in np.flatnonzero(suppliers == index)):
            raise ValueError(f"{world}: links lead from {name!r} back to it; expected a network without cycles")
    from_outside = reaches[customers[suppliers == OUTSIDE]].any(axis=0)
    for index, name in enumerate(nodes):
        if not from_outside[index]:
            raise ValueError(
                f"{world}: node {name!r} is disconnected; expected links that reach it from the outside supplier (None)"
            )
    return Graph(
        tuple(nodes),
        tuple(ordered),
        len([name for name in nodes if name in giving]),
        int((suppliers == OUTSIDE).sum()),
        suppliers,
        customers,
        np.array([link.lead_time for link in ordered]),
        np.array([link.unit_cost for link in ordered], np.float64),
        reaches,
        given,
    )


def links_of_warehouses(
    world: str,
    lead_times: Sequence[Sequence[int | None]],
    warehouse_lead_time: int,
    supply_costs: Sequence[float],
    warehouses: Sequence[str],
    stores: Sequence[str],
) -> list[Link]:
    """Return the links from outside to every warehouse, and those from warehouses to stores, store by store.

    Args:
        world: Name of the world, for errors.
        lead_times: From each warehouse to each store, `[stores][warehouses]`, None where there is no link.
        warehouse_lead_time: From outside to every warehouse.
        supply_costs: Of each unit that each warehouse orders.
        warehouses: Names of the warehouses.
        stores: Names of the stores.

    Raises:
        ValueError: If a number is outside its range, or a store or a warehouse has no link.
    """
    lead = check_count(world, "warehouse_lead_time", warehouse_lead_time)
    supply = [check_amount(world, f"supply_costs[{index}]", cost) for index, cost in enumerate(supply_costs)]
    links = [Link(None, hub, lead, cost) for hub, cost in zip(warehouses, supply, strict=True)]
    for store, row in enumerate(lead_times):
        if len(row) != len(warehouses) or all(periods is None for periods in row):
            raise ValueError(
                f"{world}: store_lead_times[{store}]={row!r}; expected an entry for each of {len(warehouses)} "
                "warehouses, at least one of them a lead time"
            )
        for hub, periods in enumerate(row):
            if periods is not None:
                name = f"store_lead_times[{store}][{hub}]"
                links.append(Link(warehouses[hub], stores[store], check_count(world, name, periods)))
    for hub, name in enumerate(warehouses):
        if all(row[hub] is None for row in lead_times):
            raise ValueError(
                f"{world}: store_lead_times[:][{hub}] holds no lead time; expected a store that {name} supplies"
            )
    return links


def read_amounts(
    world: str, argument: str, amounts: Mapping[str, float], names: Sequence[str], *, positive: bool = False
) -> NDArray[np.float64]:
    """Return one amount for each of the named nodes, float64 `[names]`.

    Raises:
        ValueError: If a node has none or a name is no such node, or an amount is outside its range.
    """
    given: Any = amounts
    if not isinstance(given, Mapping) or set(given) != set(names):
        shown = sorted(given, key=str) if isinstance(given, Mapping) else given
        raise ValueError(f"{world}: {argument} of {shown!r}; expected one for each of {sorted(names)}")
    values = [check_amount(world, f"{argument}[{name!r}]", amounts[name], positive=positive) for name in names]
    return np.array(values, np.float64)


def _read(world: str, index: int, given: Any) -> Link:
    if not isinstance(given, Link | tuple | list) or (not isinstance(given, Link) and len(given) not in (3, 4)):
        raise ValueError(
            f"{world}: links[{index}]={given!r}; expected (supplier, customer, lead_time) or with a unit_cost"
        )
    link: Any = given if isinstance(given, Link) else Link(*given)
    if not isinstance(link.supplier, str | None) or not isinstance(link.customer, str):
        raise ValueError(
            f"{world}: links[{index}] leads from {link.supplier!r} to {link.customer!r}; expected names of nodes, or "
            "None as supplier for the outside"
        )
    return Link(
        link.supplier,
        link.customer,
        check_count(world, f"links[{index}].lead_time", link.lead_time),
        check_amount(world, f"links[{index}].unit_cost", link.unit_cost),
    )


def _closure(nodes: int, suppliers: NDArray[np.int64], customers: NDArray[np.int64]) -> NDArray[np.bool_]:
    reaches = np.eye(nodes, dtype=bool)
    inner = suppliers != OUTSIDE
    reaches[suppliers[inner], customers[inner]] = True
    for _ in range(max(1, nodes.bit_length())):
        reaches = (reaches.astype(np.int64) @ reaches.astype(np.int64)) > 0
    return reaches
