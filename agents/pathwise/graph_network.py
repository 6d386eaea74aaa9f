"""A policy shaped like the supply network: messages along its links, the same functions at every node and link."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from palaestra.agents.nn.networks import mlp
from palaestra.agents.pathwise.network_reader import NetworkReader, longest_way
from palaestra.agents.pathwise.output_layers import ONE, Quantities
from palaestra.agents.pathwise.policies import node_facts
from palaestra.protocols import OUTSIDE


class GraphNetwork(nn.Module):
    """Message passing over the links, whose parameters depend neither on how many nodes there are nor on their order.

    Nodes know what is on hand and what arrives in 1, 2, ... periods (in periods of the demand they serve), demand, its
    deviation and costs, and, where the world shows them, past demand and the calendar. Edges are the links, one from
    each store to its customers outside, and a loop at every supplier that holds stock, for what it keeps; they know
    their lead time and, where goods have a price, it. With D the number of edges into or out of a node, one round is

        node += f[node, sum of edges in / sqrt(D in), sum of edges out / sqrt(D out)]
        edge += g[edge, its supplier, its customer]

    with zeros for what is outside. There are as many rounds as suppliers on the longest way to a store, at least 1. An
    edge's last state is turned into a wanted quantity, at first about its share of a period's demand, and cut as in
    `Quantities`.

    Args:
        reader: The network.
        hidden: Widths of the hidden layers of all functions; the last is also that of node and edge states.
        activation: Activation of the hidden layers.

    Source: the graph network of arXiv 2306.11246. Parameters of one network fit any other with the same `features`.
    """

    slots: Tensor
    facts: Tensor
    leads: Tensor
    into: Tensor
    out_of: Tensor
    loop_demand: Tensor
    loop_nodes: Tensor

    def __init__(self, reader: NetworkReader, hidden: Sequence[int], activation: str) -> None:
        super().__init__()
        self.reader = reader
        network = reader.network
        nodes, links = len(network.nodes), len(network.suppliers)
        stores = np.flatnonzero(~np.isin(np.arange(nodes), network.suppliers))
        keepers = np.flatnonzero(np.isin(np.arange(nodes), network.suppliers) & network.holds_stock)
        self._links, self._loops = links, len(keepers)
        # The node behind the last stands for all that is outside.
        sources = np.concatenate((np.where(network.suppliers == OUTSIDE, nodes, network.suppliers), keepers, stores))
        targets = np.concatenate((network.customers, keepers, np.full(len(stores), nodes)))
        leads = np.concatenate((network.lead_times, np.zeros(len(keepers) + len(stores)))) / network.lead_times.max()
        self._sources, self._targets = torch.tensor(sources), torch.tensor(targets)
        if network.unit_costs.any():
            prices = np.concatenate((network.unit_costs, np.zeros(len(keepers) + len(stores))))
            leads = np.stack((leads, prices), 1)
        seen, longest = reader.seen_by_nodes(), network.lead_times.max()
        slots = np.zeros((len(network.units), nodes, longest + seen.shape[1]))
        slots[network.on_hand, np.arange(nodes), 0] = 1.0
        for customer, places in zip(network.customers, network.in_transit, strict=True):
            for ahead, place in enumerate(places):
                if place >= 0:
                    slots[place, customer, 1 + ahead] = 1.0
        for node, entry in zip(*np.nonzero(seen >= 0), strict=True):
            slots[seen[node, entry], node, longest + entry] = 1.0
        self._keep("slots", slots.reshape(len(slots), -1))
        self._keep("facts", node_facts(reader))
        self._keep("leads", leads.reshape(len(leads), -1))
        self._keep("into", _scaled_sums(targets, nodes))
        self._keep("out_of", _scaled_sums(sources, nodes))
        self._keep("loop_demand", reader.needs[keepers])
        loops = np.zeros((len(keepers), nodes))
        loops[np.arange(len(keepers)), keepers] = 1.0
        self._keep("loop_nodes", loops)
        self.rounds = longest_way(network)
        size = hidden[-1]

        def function(inputs: int) -> nn.Module:
            return mlp((inputs, *hidden, size), activation)

        self.node_start = function(slots.shape[2] + 4)
        self.edge_start = function(2 * size + self.leads.shape[1])
        self.node_round = nn.ModuleList(function(3 * size) for _ in range(self.rounds))
        self.edge_round = nn.ModuleList(function(3 * size) for _ in range(self.rounds))
        self.wanted = mlp((size, *hidden, 1), activation)
        self.output = Quantities(reader)

    def forward(self, observation: Tensor) -> Tensor:
        """Return actions `[batch, links]` between -1 and 1 of observations `[batch, observation]`."""
        outputs = self.wanted(self._edges(observation)).squeeze(-1)
        links, loops = outputs.split((self._links, self._loops), 1)
        kept = (torch.nn.functional.softplus(loops + ONE) * self.loop_demand) @ self.loop_nodes
        return self.reader.actions(self.output(links, observation, kept))

    def _edges(self, observation: Tensor) -> Tensor:
        """Return the last states of links and loops, `[batch, links + loops, size]`."""
        batch = len(observation)
        stock = (observation @ self.slots).view(batch, len(self.facts), -1)
        facts = self.facts.expand(batch, -1, -1)
        node = _with_outside(self.node_start(torch.cat((stock, facts), -1)))
        leads = self.leads.expand(batch, -1, -1)
        edge = self.edge_start(torch.cat((node[:, self._sources], node[:, self._targets], leads), -1))
        for node_round, edge_round in zip(self.node_round, self.edge_round, strict=True):
            inner = node[:, :-1]
            messages = (inner, self.into @ edge, self.out_of @ edge)
            node = _with_outside(inner + node_round(torch.cat(messages, -1)))
            edge = edge + edge_round(torch.cat((edge, node[:, self._sources], node[:, self._targets]), -1))
        return edge[:, : self._links + self._loops]

    def _keep(self, name: str, values: np.ndarray) -> None:
        self.register_buffer(name, torch.tensor(values, dtype=torch.float64), persistent=False)


def _with_outside(node: Tensor) -> Tensor:
    return torch.cat((node, torch.zeros_like(node[:, :1])), 1)


def _scaled_sums(ends: np.ndarray, nodes: int) -> np.ndarray:
    """Return the matrix `[nodes, edges]` that adds up the edges at each node, over the root of their number."""
    table = np.zeros((nodes, len(ends)))
    inside = ends < nodes
    table[ends[inside], np.flatnonzero(inside)] = 1.0
    return table / np.sqrt(np.maximum(table.sum(1, keepdims=True), 1.0))
