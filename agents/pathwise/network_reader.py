"""A supply network as tensors: what policies read out of observations, and flows as actions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from palaestra.protocols import OUTSIDE, Network


class NetworkReader(nn.Module):
    """Between flat observations and actions, and the stocks and flows of a network in units.

    Args:
        network: The network.

    Attributes:
        throughput: Mean demand of all stores that each node supplies, in units, `[nodes]`.
        shares: Mean flow over each link where every node splits what it needs equally over its links, in units, float64
            `[links]`.
        needs: What each node needs then, float64 `[nodes]`; the throughput where no node has several suppliers.
        lead_times: Of the fastest link into each node, int64 `[nodes]`.
        fastest: Number of that link, int64 `[nodes]`.
        reaches: Whether goods get from one node to another over fastest links, or the two are the same; bools
            `[nodes, nodes]`.
    """

    limits: Tensor
    rates: Tensor
    shift: Tensor
    on_hand_units: Tensor
    on_hand_places: Tensor
    position_weights: Tensor
    echelon_weights: Tensor
    link_of_node: Tensor

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        nodes, links = len(network.nodes), len(network.suppliers)
        into = [np.flatnonzero(network.customers == node) for node in range(nodes)]
        self.fastest = np.array([found[np.argmin(network.lead_times[found])] for found in into])
        self.lead_times = network.lead_times[self.fastest]
        self.throughput = _closure(network, np.arange(links)) @ network.demand_mean
        self.shares, self.needs = _equal_shares(network, [len(found) for found in into])
        self.reaches = _closure(network, self.fastest)
        positions = np.zeros((len(network.units), nodes))
        positions[network.on_hand, np.arange(nodes)] = 1.0
        for customer, slots in zip(network.customers, network.in_transit, strict=True):
            positions[slots[slots >= 0], customer] = 1.0
        positions *= network.units[:, None]
        link_of_node = np.zeros((nodes, links))
        link_of_node[np.arange(nodes), self.fastest] = 1.0
        least = network.least_flows if network.least_flows.size else np.zeros(links)
        self._keep("limits", network.flow_limits)
        rates = 2.0 / (network.flow_limits - least)
        self._keep("rates", rates)
        self._keep("shift", -1.0 - least * rates)
        self._keep("on_hand_units", network.units[network.on_hand])
        self._keep("on_hand_places", network.on_hand)
        self._keep("position_weights", positions)
        self._keep("echelon_weights", positions @ self.reaches.T)
        self._keep("link_of_node", link_of_node)

    def seen_by_nodes(self) -> np.ndarray:
        """Return the places that each node reads beside its stock, -1 where it has none, int64 `[nodes, entries]`.

        Its past demand, then what tells the time of year and, where they differ between rows, critical ratio and lead
        time.
        """
        network, nodes = self.network, len(self.network.nodes)
        meets = network.demand_mean > 0.0
        columns = [network.history] if network.history.size else []
        columns += [np.tile(network.calendar, (nodes, 1))] if network.calendar.size else []
        for places in (network.critical_ratio, network.lead_share):
            if places.size:
                column = np.full((nodes, 1), -1)
                column[meets, 0] = places
                columns.append(column)
        return np.concatenate(columns, 1) if columns else np.zeros((nodes, 0), np.int64)

    def on_hand(self, observation: Tensor) -> Tensor:
        """Return what is on hand at each node, in units, negative under backlog, `[batch, nodes]`."""
        return observation.index_select(1, self.on_hand_places) * self.on_hand_units

    def positions(self, observation: Tensor) -> Tensor:
        """Return each node's stock on hand and in transit to it, less backlog, in units, `[batch, nodes]`."""
        return observation @ self.position_weights

    def echelon_positions(self, observation: Tensor) -> Tensor:
        """Return each node's position and those of all nodes downstream of it, in units, `[batch, nodes]`."""
        return observation @ self.echelon_weights

    def over_fastest_links(self, orders: Tensor) -> Tensor:
        """Return the flows `[batch, links]` of orders of the nodes `[batch, nodes]`, each over its fastest link."""
        return orders @ self.link_of_node

    def actions(self, flows: Tensor) -> Tensor:
        """Return flows in units as positions between the bounds of the action space, -1 to 1, `[batch, links]`.

        Flows above their limits yield actions above 1 and those below the least actions below -1, which are clipped
        where they are taken.
        """
        return torch.addcmul(self.shift, flows, self.rates)

    def base_stock_levels(self) -> np.ndarray:
        """Return each node's mean demand over its lead time + 1 periods, in units, float64 `[nodes]`."""
        return self.throughput * (self.lead_times + 1)

    def echelon_levels(self) -> np.ndarray:
        """Return the mean demand that each node serves until its next goods reach stores, float64 `[nodes]`."""
        periods = self.lead_times[:, None] + self._periods_between() + 1.0
        return np.where(self.reaches, periods * self.network.demand_mean, 0.0).sum(1)

    def _periods_between(self) -> np.ndarray:
        """Return the sum of lead times over fastest links from each node to each other; 0 where there is no way."""
        nodes = len(self.network.nodes)
        periods = np.zeros((nodes, nodes))
        for _ in range(nodes):
            for node, link in enumerate(self.fastest):
                supplier = self.network.suppliers[link]
                if supplier != OUTSIDE:
                    upstream = self.reaches[:, supplier]
                    periods[upstream, node] = periods[upstream, supplier] + self.lead_times[node]
        return periods

    def _keep(self, name: str, values: np.ndarray) -> None:
        # Floats keep all their digits until the policy as a whole is cast.
        dtype = torch.int64 if values.dtype.kind in "iu" else torch.float64
        self.register_buffer(name, torch.tensor(values, dtype=dtype), persistent=False)


def _closure(network: Network, links: np.ndarray) -> np.ndarray:
    """Return whether goods get from one node to another over some of the links; bools `[nodes, nodes]`."""
    nodes = len(network.nodes)
    reaches = np.eye(nodes, dtype=bool)
    for _ in range(nodes):
        for link in links:
            if network.suppliers[link] != OUTSIDE:
                reaches[network.suppliers[link]] |= reaches[network.customers[link]]
    return reaches


def _equal_shares(network: Network, suppliers: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return flows `[links]` and what nodes need `[nodes]` where each splits that equally over its links."""
    parts = 1.0 / np.array(suppliers)[network.customers]
    inside = network.suppliers != OUTSIDE
    passed = np.zeros((len(network.nodes), len(network.nodes)))
    np.add.at(passed, (network.suppliers[inside], network.customers[inside]), parts[inside])
    needs = np.linalg.solve(np.eye(len(passed)) - passed, network.demand_mean)
    return needs[network.customers] * parts, needs


def longest_way(network: Network) -> int:
    """Return the number of suppliers on the longest way from outside to a store, at least 1."""
    before = np.zeros(len(network.nodes), np.int64)
    for _ in network.nodes:
        for supplier, customer in zip(network.suppliers, network.customers, strict=True):
            if supplier != OUTSIDE:
                before[customer] = max(before[customer], before[supplier] + 1)
    return max(1, int(before.max()))


def features(network: Network) -> dict[str, int]:
    """Return what nodes and links show of themselves, by name: what policies for any number of nodes are made for."""
    return {
        "longest lead time": int(network.lead_times.max()),
        "suppliers in a row": longest_way(network),
        "prices": int(network.unit_costs.any()),
        "periods of past demand": network.history.shape[1] if network.history.size else 0,
        "entries of the calendar": network.calendar.size,
        "critical ratios of rows": int(network.critical_ratio.size > 0),
        "lead times of rows": int(network.lead_share.size > 0),
    }


def network_to_json(network: Network) -> dict[str, Any]:
    """Return a network as a JSON tree, for checkpoints."""
    values = {field.name: getattr(network, field.name) for field in fields(network)}
    return {
        name: list(value) if isinstance(value, tuple) else [str(value.dtype), value.tolist()]
        for name, value in values.items()
    }


def network_from_json(tree: Mapping[str, Any]) -> Network:
    """Return the network that `network_to_json` described."""
    links = len(tree["suppliers"][1])
    arrays = {name: np.asarray(value[1], np.dtype(value[0])) for name, value in tree.items() if name != "nodes"}
    # The table of a network without slots in transit has no columns, which a list of lists does not show.
    arrays["in_transit"] = arrays["in_transit"].reshape(links, -1)
    return Network(nodes=tuple(tree["nodes"]), **arrays)
