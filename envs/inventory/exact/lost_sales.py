"""One store that loses unmet demand: dynamic programming over on-hand stock and the orders on their way."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from palaestra.envs.inventory.exact.lattice import Lattice, poisson
from palaestra.envs.inventory.exact.newsvendor import newsvendor

MAX_ENTRIES = 5_000_000
"""Pairs of a state and an order up to which the programme is solved: seconds of work, 40 MB."""

_TOLERANCE = 1e-7
_MAX_SWEEPS = 100_000


@dataclass(frozen=True)
class LostSalesOptimum:
    """The optimum of a store with lost sales.

    Attributes:
        cost: Least long-run mean cost in a period, to 1e-7.
        orders: Optimal order in lattice steps, int64 `[stock + 1, order + 1, ...]`, by what is on hand and what is in
            each further slot of the pipeline, next arrival first: as many axes as the lead time.
        sweeps: Number of value iterations.
    """

    cost: float
    orders: NDArray[np.int64]
    sweeps: int


def lost_sales_optimum(
    demand: Lattice, lead_time: int, underage_cost: float, holding_cost: float, max_order: float
) -> LostSalesOptimum:
    """Return the least average cost where orders and stock are on the lattice of demand, by value iteration.

    The state before ordering is `(x, q_1, ..., q_(L-1))`: on hand, and what arrives in 1, ..., L - 1 periods. An order
    q and demand D lead to `(max(x - D, 0) + q_1, q_2, ..., q)` at cost `h max(x - D, 0) + p max(D - x, 0)`. Relative
    value iteration brackets the average cost by the least and the greatest change of a sweep (Odoni, 1969).

    The table reaches to the base-stock level that would be optimal under backlog with the same costs, and orders
    to that level for a lead time of 1: more than the optimum ever uses.

    Args:
        demand: Of a period.
        lead_time: Periods from an order to its arrival, at least 1.
        underage_cost: Cost of each unit of lost demand.
        holding_cost: Cost of each unit left in a period.
        max_order: Largest order, in units.

    Raises:
        ValueError: If the table would have more than `MAX_ENTRIES` entries.

    Source: Zipkin, "Old and new methods for lost-sales inventory systems", Operations Research 56 (2008).
    """
    stock, most = _table_size(demand, lead_time, underage_cost, holding_cost, max_order)
    if not _fits(stock, most, lead_time):
        raise ValueError(
            f"lost_sales_optimum: lead_time={lead_time} with demand of mean {demand.mean:.4g} makes "
            f"{(stock + 1) * (most + 1) ** lead_time} pairs of state and order; expected at most {MAX_ENTRIES}"
        )
    leftover = _leftover(demand, stock)
    on_hand = demand.step * np.arange(stock + 1)
    shortage = demand.expected_shortage(on_hand)
    held = on_hand - demand.mean + shortage
    charge = (holding_cost * held + underage_cost * shortage).reshape(-1, *[1] * (lead_time - 1))
    # Stock after an arrival, by what was left and what arrives: the second slot or, with a lead time of 1, the order.
    arrived = np.minimum(np.arange(stock + 1)[:, None] + np.arange(most + 1), stock)
    value = np.zeros((stock + 1, *[most + 1] * (lead_time - 1)))
    for sweep in range(1, _MAX_SWEEPS):
        ahead = np.tensordot(leftover, value[arrived], axes=1)
        following = charge + ahead.min(axis=-1)
        change = following - value
        value = following - following.flat[0]
        if change.max() - change.min() < _TOLERANCE:
            cost = 0.5 * float(change.max() + change.min())
            return LostSalesOptimum(cost, ahead.argmin(axis=-1), sweep)
    raise ArithmeticError(f"lost_sales_optimum: no convergence after {_MAX_SWEEPS} sweeps")


@lru_cache(maxsize=64)
def poisson_lost_sales(
    demand_mean: float, lead_time: int, underage_cost: float, holding_cost: float, max_order: float
) -> LostSalesOptimum | None:
    """Return the optimum for Poisson demand and whole orders, or None where the table would be too large."""
    demand = poisson(demand_mean)
    stock, most = _table_size(demand, lead_time, underage_cost, holding_cost, max_order)
    if not _fits(stock, most, lead_time):
        return None
    return lost_sales_optimum(demand, lead_time, underage_cost, holding_cost, max_order)


def lost_sales_bound(demand: Lattice, lead_time: int, underage_cost: float, holding_cost: float) -> float:
    """Return a lower bound on the optimal cost: that of backlog at a penalty of `underage_cost / (lead_time + 1)`.

    Source: Janakiraman, Seshadri and Shanthikumar, "A comparison of the optimal costs of two canonical inventory
    systems", Operations Research 55 (2007).
    """
    return newsvendor(demand.times(lead_time + 1), underage_cost / (lead_time + 1), holding_cost).cost


def _table_size(
    demand: Lattice, lead_time: int, underage_cost: float, holding_cost: float, max_order: float
) -> tuple[int, int]:
    """Return the largest stock and the largest order of the table, in steps."""
    stock, most = (
        round(newsvendor(demand.times(periods), underage_cost, holding_cost).level / demand.step)
        for periods in (lead_time + 1, 2)
    )
    return stock, min(math.floor(max_order / demand.step), most)


def _fits(stock: int, most: int, lead_time: int) -> bool:
    return (stock + 1) * (most + 1) ** lead_time <= MAX_ENTRIES


def _leftover(demand: Lattice, stock: int) -> NDArray[np.float64]:
    """Return the probabilities of max(x - D, 0), `[x, left]`, for x up to `stock`."""
    probabilities = np.zeros(stock + 1)
    kept = min(stock + 1, len(demand.probabilities))
    probabilities[:kept] = demand.probabilities[:kept]
    table = np.zeros((stock + 1, stock + 1))
    for x in range(stock + 1):
        table[x, 1 : x + 1] = probabilities[:x][::-1]
        table[x, 0] = 1.0 - table[x, 1:].sum()
    return table
