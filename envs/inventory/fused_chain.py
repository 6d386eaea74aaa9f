"""A period of chains as one differentiable operation, with its backward pass derived by hand.

A chain is a network in which every node has one supplier and one customer at most, such as a serial supply chain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from palaestra.envs.inventory.constants import Constant
from palaestra.protocols import OUTSIDE, Network


@dataclass(frozen=True)
class ChainTables:
    """What a period of chains does, as tables.

    Attributes:
        suppliers: Number of nodes that supply others; they come first.
        outside: Number of links from outside; they come first.
        nodes: Number of nodes.
        sources: Which entry of stock and flows, side by side, moves to each entry of the next stock, int64
            `[nodes + slots]`; a node gets what arrives.
        targets: Where each entry of stock and flows moves to, int64 `[nodes + slots + links]`; the entry behind the
        last
            of the next stock where it moves nowhere.
        left_cost: Holding cost of each supplier, `[suppliers, 1]`.
        store_cost: Holding cost of each store, `[stores, 1]`.
        short_cost: Underage cost of each store, `[stores, 1]`.
        unit_cost: Cost of each unit sent over each link, `[links, 1]`, or None where all are 0.
        lost: Whether unmet demand is lost.
    """

    suppliers: int
    outside: int
    nodes: int
    sources: Constant
    targets: Constant
    left_cost: Constant
    store_cost: Constant
    short_cost: Constant
    unit_cost: Constant | None
    lost: bool


def chain_tables(network: Network, lost: bool) -> ChainTables | None:
    """Return the tables of a network, or None if a node has several suppliers, or no node supplies another.

    Args:
        network: A network all of whose nodes have one customer at most, in whose observation stock alone stands.
        lost: Whether unmet demand is lost.
    """
    nodes, links, stock = len(network.nodes), len(network.suppliers), len(network.units)
    suppliers = int((network.suppliers != OUTSIDE).sum())
    if links != nodes or not suppliers:
        return None
    sources = np.zeros(stock, np.int64)
    for link, customer in enumerate(network.customers):
        slots = network.in_transit[link]
        way = [customer, *slots[slots >= 0]]
        sources[way] = [*way[1:], stock + link]
    targets = np.full(stock + links, stock)
    targets[sources] = np.arange(stock)
    # Costs are those of the mean over stores.
    costs = (network.holding_costs[:suppliers], network.holding_costs[suppliers:], network.underage_costs[suppliers:])
    count = nodes - suppliers
    unit = Constant(network.unit_costs[:, None] / count) if network.unit_costs.any() else None
    left, store, short = (Constant(cost[:, None] / count) for cost in costs)
    moves = Constant(sources), Constant(targets)
    return ChainTables(suppliers, links - suppliers, nodes, *moves, left, store, short, unit, lost)


def fused_chain(
    stock: Tensor, wanted: Tensor, demand: Tensor, tables: ChainTables
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return the next stock, the reward and, without gradient, flows, inventory, rationed units and parts of the cost.

    Args:
        stock: On hand at the nodes and in transit, `[batch, nodes + slots]`.
        wanted: Flows wanted, `[batch, links]`.
        demand: `[batch, stores]`.
        tables: What a period does.
    """
    following, reward, *others = _Period.apply(stock, wanted, demand, tables)
    names = ("flows", "inventory", "rationed", "holding", "underage", "supply")
    return following, reward, dict(zip(names, others, strict=True))


class _Period(torch.autograd.Function):
    """All arrays are transposed inside, so that ranges of nodes are contiguous."""

    @staticmethod
    def forward(ctx: Any, stock: Tensor, wanted: Tensor, demand: Tensor, t: ChainTables) -> tuple[Tensor, ...]:
        s, w = stock.T, wanted.T.contiguous()
        available, inside = s[: t.suppliers], w[t.outside :]
        sent = torch.minimum(inside, available)
        left = available - sent
        in_stores = s[t.suppliers : t.nodes] - demand.T
        over = in_stores.relu()
        flows = torch.cat((w[: t.outside], sent))
        following = torch.cat((s, flows)).index_select(0, t.sources.like(s))
        following[: t.suppliers] += left
        following[t.suppliers : t.nodes] += over if t.lost else in_stores
        held = (left * t.left_cost.like(s)).sum(0)
        supply = 0.0 * held if t.unit_cost is None else (flows * t.unit_cost.like(s)).sum(0)
        kept, short = (over * t.store_cost.like(s)).sum(0), ((over - in_stores) * t.short_cost.like(s)).sum(0)
        rationed = (w - flows).sum(0)
        inventory = torch.cat((left, in_stores)).T
        ctx.save_for_backward(inside < available, in_stores > 0.0)
        ctx.tables = t
        others = (flows.T, inventory, rationed, held + kept, short, supply)
        ctx.mark_non_differentiable(*others)
        return following.T, -(held + supply) - (kept + short), *others

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, following: Tensor, reward: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        free, over = ctx.saved_tensors
        t: ChainTables = ctx.tables
        f = following.T.contiguous()
        moved = torch.cat((f, torch.zeros_like(f[:1]))).index_select(0, t.targets.like(f))
        stock, flows = moved[: len(f)], moved[len(f) :]
        if t.unit_cost is not None:
            flows = flows - reward * t.unit_cost.like(f)
        left = f[: t.suppliers] - reward * t.left_cost.like(f)
        sent = flows[t.outside :] - left
        inside = sent * free
        on_hand = f[t.suppliers : t.nodes]
        above = on_hand - reward * t.store_cost.like(f)
        below = reward * t.short_cost.like(f)
        in_stores = torch.where(over, above, below if t.lost else on_hand + below)
        stock[: t.suppliers] += left + (sent - inside)
        stock[t.suppliers : t.nodes] += in_stores
        wanted = torch.cat((flows[: t.outside], inside))
        return stock.T, wanted.T, -in_stores.T if ctx.needs_input_grad[2] else None, None
