"""From the outputs of a network to flows that the stock on hand allows."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from palaestra.agents.pathwise.network_reader import NetworkReader
from palaestra.protocols import OUTSIDE

HOLD_BACK = 1.0
"""Logit of what a supplier keeps, beside the logits of its customers."""

ONE = math.log(math.e - 1.0)
"""Where softplus is 1."""

_NONE = 1e-10
"""Stands for a total of 0 in a divisor."""


class Shares(nn.Module):
    """Orders from outside in units of demand, and shares of what suppliers have on hand.

    With x the output for a link: a store orders `softplus(x + 1)` periods of its mean demand from outside, any other
    node `sigmoid(x)` of its limit. A supplier of one customer ships `sigmoid(x)` of its stock, one of several splits it
    by a softmax over their outputs and a constant 1 for what it keeps; without that constant, and so all of it,
    if it holds no stock.

    Source: the output layers of arXiv 2306.11246, in units of mean demand where those are in units.
    """

    demand: Tensor

    def __init__(self, reader: NetworkReader) -> None:
        super().__init__()
        self.reader = reader
        network = reader.network
        suppliers, customers = network.suppliers, network.customers
        outside = suppliers == OUTSIDE
        to_store = ~np.isin(customers, suppliers)
        count = np.array([(suppliers == supplier).sum() for supplier in suppliers])
        alone = ~outside & (count == 1) & network.holds_stock[suppliers]
        rest = ~outside & ~alone
        groups = [np.flatnonzero(kind) for kind in (outside & to_store, outside & ~to_store, alone)]
        splits = [np.flatnonzero(rest & (suppliers == node)) for node in np.unique(suppliers[rest])]
        order = np.concatenate((*groups, *splits))
        self._back = None if np.array_equal(order, np.arange(len(order))) else torch.tensor(np.argsort(order))
        self._to_stores, self._to_others, self._alone = (_columns(links) if len(links) else None for links in groups)
        self._givers = _columns(suppliers[groups[2]])
        self._splits = [
            (_columns(links), int(suppliers[links[0]]), bool(network.holds_stock[suppliers[links[0]]]))
            for links in splits
        ]
        self.register_buffer("demand", torch.tensor(reader.throughput[customers]), persistent=False)

    def forward(self, outputs: Tensor, observation: Tensor) -> Tensor:
        """Return flows in units `[batch, links]` of outputs of the same shape."""
        on_hand = self.reader.on_hand(observation)
        flows = []
        if self._to_stores is not None:
            flows.append(softplus(outputs[:, self._to_stores] + 1.0) * self.demand[self._to_stores])
        if self._to_others is not None:
            flows.append(outputs[:, self._to_others].sigmoid() * self.reader.limits[self._to_others])
        if self._alone is not None:
            flows.append(outputs[:, self._alone].sigmoid() * on_hand[:, self._givers])
        for links, node, holds in self._splits:
            logits = outputs[:, links]
            if holds:
                shares = torch.cat((logits, torch.full_like(logits[:, :1], HOLD_BACK)), 1).softmax(1)[:, :-1]
            else:
                shares = logits.softmax(1)
            flows.append(shares * on_hand[:, node : node + 1])
        joined = flows[0] if len(flows) == 1 else torch.cat(flows, 1)
        return joined if self._back is None else joined[:, self._back]


def _columns(places: np.ndarray) -> slice | Tensor:
    """Return an index of the given columns, a slice where they are neighbours."""
    if len(places) and np.array_equal(places, np.arange(places[0], places[0] + len(places))):
        return slice(int(places[0]), int(places[-1]) + 1)
    return torch.tensor(places)


class Quantities(nn.Module):
    """Wanted quantities, cut in proportion where they add up to more than the supplier has.

    With x the output for a link, its customer wants `softplus(x + ONE)` times what it would order over that link, on
    average, if it split its orders equally over its links: a period of the demand that it serves where it has but one.
    Where a supplier's customers, and what it wants to keep itself, add up to more than it has on hand, each gets the
    same share of what it wants; a supplier that holds no stock ships all it has, in the same proportions.

    Source: the data-driven and graph networks of arXiv 2306.11246.
    """

    gives: Tensor
    outside: Tensor
    demand: Tensor
    most: Tensor

    def __init__(self, reader: NetworkReader) -> None:
        super().__init__()
        self.reader = reader
        network = reader.network
        inside = network.suppliers != OUTSIDE
        gives = np.zeros((len(network.suppliers), len(network.nodes)))
        gives[np.flatnonzero(inside), network.suppliers[inside]] = 1.0
        self.register_buffer("gives", torch.tensor(gives), persistent=False)
        self.register_buffer("outside", torch.tensor((~inside).astype(np.float64)), persistent=False)
        self.register_buffer("demand", torch.tensor(reader.shares), persistent=False)
        most = np.where(network.holds_stock, 1.0, np.inf)
        self.register_buffer("most", torch.tensor(most), persistent=False)

    def forward(self, outputs: Tensor, observation: Tensor, kept: Tensor | None = None) -> Tensor:
        """Return flows in units `[batch, links]`.

        Args:
            outputs: One for each link `[batch, links]`.
            observation: `[batch, observation]`.
            kept: What suppliers want to keep, in units, at least 0, `[batch, nodes]`.
        """
        wanted = softplus(outputs + ONE) * self.demand
        total = wanted @ self.gives
        if kept is not None:
            total = total + kept
        share = torch.minimum(self.reader.on_hand(observation).relu() / (total + _NONE), self.most)
        return wanted * (share @ self.gives.T + self.outside)
