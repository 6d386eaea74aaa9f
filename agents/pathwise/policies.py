"""Policies of supply networks: the rules that theory calls for, and a network that knows only what it reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from palaestra.agents.nn.networks import mlp
from palaestra.agents.pathwise.elu import perceptron
from palaestra.agents.pathwise.network_reader import NetworkReader
from palaestra.agents.pathwise.output_layers import Quantities, Shares

Output = Literal["shares", "quantities"]

FIRST_CAP = 1.5
"""Where caps on orders start, in periods of mean demand."""


class BaseStock(nn.Module):
    """Every node orders up to a level of its own stock, on hand and on its way, over its fastest link.

    Levels are in units, `[nodes]`, and start at the mean demand of lead time + 1 periods.
    """

    def __init__(self, reader: NetworkReader) -> None:
        super().__init__()
        self.reader = reader
        self.levels = nn.Parameter(torch.tensor(reader.base_stock_levels()))

    def forward(self, observation: Tensor) -> Tensor:
        """Return actions `[batch, links]` between -1 and 1 of observations `[batch, observation]`."""
        return self.reader.actions(self.reader.over_fastest_links(self.orders(observation)))

    def orders(self, observation: Tensor) -> Tensor:
        """Return the orders of the nodes in units, `[batch, nodes]`."""
        return (self.levels - self.reader.positions(observation)).relu()


class CappedBaseStock(BaseStock):
    """Base stock whose orders never exceed a cap; good where sales are lost (Xin, 2021).

    Caps are in units, `[nodes]`, and start at `FIRST_CAP` periods of mean demand.
    """

    def __init__(self, reader: NetworkReader) -> None:
        super().__init__(reader)
        self.caps = nn.Parameter(torch.tensor(FIRST_CAP * reader.throughput))

    def orders(self, observation: Tensor) -> Tensor:
        """Return the orders of the nodes in units, `[batch, nodes]`."""
        return torch.minimum(super().orders(observation), self.caps)


class EchelonBaseStock(BaseStock):
    """Every node orders up to a level of its own and all downstream stock; optimal in series (Clark and Scarf, 1960).

    Levels are in units, `[nodes]`, and start at the mean demand until the goods ordered next could reach stores.
    """

    def __init__(self, reader: NetworkReader) -> None:
        super().__init__(reader)
        self.levels = nn.Parameter(torch.tensor(reader.echelon_levels()))

    def orders(self, observation: Tensor) -> Tensor:
        """Return the orders of the nodes in units, `[batch, nodes]`."""
        return (self.levels - self.reader.echelon_positions(observation)).relu()


class Perceptron(nn.Module):
    """A multilayer perceptron over the whole observation, under an output layer that keeps flows feasible.

    Args:
        reader: The network.
        hidden: Widths of the hidden layers.
        activation: Activation of the hidden layers.
        output: "shares" of the stock on hand or wanted "quantities".
    """

    def __init__(self, reader: NetworkReader, hidden: Sequence[int], activation: str, output: Output) -> None:
        super().__init__()
        self.reader = reader
        self.body = perceptron((len(reader.network.units), *hidden, len(reader.network.suppliers)), activation)
        self.output = Shares(reader) if output == "shares" else Quantities(reader)

    def forward(self, observation: Tensor) -> Tensor:
        """Return actions `[batch, links]` between -1 and 1 of observations `[batch, observation]`."""
        return self.reader.actions(self.output(self.body(observation), observation))


class SymmetricPerceptron(nn.Module):
    """One small network for all links into stores and one for all others, each told of the rest by a shared context.

    The context is `[batch, 256]`, a sigmoid layer over the whole observation. Each link's network reads it, what is on
    hand at its customer and on its way over the link, and the customer's demand, costs, lead time and, where the world
    shows them, past demand and the calendar. Links into
    stores take networks [32, 32], all others [16, 16].

    Args:
        reader: The network.
        activation: Activation of the hidden layers.
        output: "shares" of the stock on hand or wanted "quantities".

    Source: the symmetry-aware network of the first versions of arXiv 2306.11246.
    """

    context_size = 256
    facts: Tensor

    def __init__(self, reader: NetworkReader, activation: str, output: Output) -> None:
        super().__init__()
        self.reader = reader
        network = reader.network
        to_store = ~np.isin(network.customers, network.suppliers)
        self._links = [torch.tensor(np.flatnonzero(kind)) for kind in (to_store, ~to_store) if kind.any()]
        self._back = torch.argsort(torch.cat(self._links))
        # Slots that a link lacks read the column of zeros behind the observation.
        seen = reader.seen_by_nodes()[network.customers]
        slots = np.concatenate((network.on_hand[network.customers][:, None], network.in_transit, seen), 1)
        self._slots = torch.tensor(np.where(slots < 0, len(network.units), slots))
        self.register_buffer("facts", torch.tensor(_facts_of_links(reader)), persistent=False)
        self.context = nn.Sequential(nn.Linear(len(network.units), self.context_size), nn.Sigmoid())
        read = self.context_size + self._slots.shape[1] + self.facts.shape[1]
        widths = [(32, 32) if bool(to_store[links[0]]) else (16, 16) for links in self._links]
        self.bodies = nn.ModuleList(mlp((read, *hidden, 1), activation) for hidden in widths)
        self.output = Shares(reader) if output == "shares" else Quantities(reader)

    def forward(self, observation: Tensor) -> Tensor:
        """Return actions `[batch, links]` between -1 and 1 of observations `[batch, observation]`."""
        batch = len(observation)
        padded = torch.cat((observation, torch.zeros_like(observation[:, :1])), 1)
        context = self.context(observation)[:, None]
        parts = []
        for links, body in zip(self._links, self.bodies, strict=True):
            stock, facts = padded[:, self._slots[links]], self.facts[links]
            rows = (context, facts[None], stock)
            parts.append(body(torch.cat([row.expand(batch, len(links), -1) for row in rows], -1)).squeeze(-1))
        return self.reader.actions(self.output(torch.cat(parts, 1)[:, self._back], observation))


class BoxPerceptron(nn.Module):
    """A multilayer perceptron whose outputs are squashed into the action space, for worlds that are no network.

    Args:
        inputs: Size of the observation.
        outputs: Size of the action.
        hidden: Widths of the hidden layers.
        activation: Activation of the hidden layers.
    """

    def __init__(self, inputs: int, outputs: int, hidden: Sequence[int], activation: str) -> None:
        super().__init__()
        self.body = perceptron((inputs, *hidden, outputs), activation)

    def forward(self, observation: Tensor) -> Tensor:
        """Return actions `[batch, outputs]` between -1 and 1 of observations `[batch, inputs]`."""
        return self.body(observation).tanh()


def _facts_of_links(reader: NetworkReader) -> np.ndarray:
    """Return demand, its deviation, both costs and lead times of each link and its customer, `[links, 5]`."""
    network = reader.network
    nodes = node_facts(reader)[network.customers]
    return np.concatenate((nodes, network.lead_times[:, None] / network.lead_times.max()), 1)


def node_facts(reader: NetworkReader) -> np.ndarray:
    """Return demand and its deviation, over the mean demand of a store, and both costs of each node, `[nodes, 4]`."""
    network = reader.network
    store_demand = network.demand_mean[network.demand_mean > 0.0].mean()
    return np.stack(
        (
            network.demand_mean / store_demand,
            network.demand_std / store_demand,
            network.underage_costs,
            network.holding_costs,
        ),
        1,
    )
