"""What one store of a network must cost at least, whatever happens upstream."""

from __future__ import annotations

import math

from palaestra.envs.inventory.exact.lattice import clipped_normal
from palaestra.envs.inventory.exact.lost_sales import lost_sales_bound
from palaestra.envs.inventory.exact.newsvendor import newsvendor, normal_newsvendor

_POINTS = 200
"""Points of a lattice in one standard deviation of demand."""


def single_store_bound(
    demand_mean: float,
    demand_std: float,
    lead_time: int,
    underage_cost: float,
    holding_cost: float,
    unit_cost: float = 0.0,
    *,
    clipped: bool,
    lost: bool,
) -> float:
    """Return a lower bound on a store's long-run cost in a period, by which it has ample supply.

    Under backlog every unit sold must be bought, so the bound is `c E[D]` plus the newsvendor's cost of lead time + 1
    periods. Where sales are lost, a unit lost saves its unit cost: `c E[D]` plus the bound of `lost_sales_bound` at the
    penalty `p - c` (c at most p, for it is never better to buy at more).

    Args:
        demand_mean: Mean of the normal demand in a period, before clipping.
        demand_std: Its standard deviation.
        lead_time: The shortest over which the store is supplied.
        underage_cost: p, for each unit short in a period.
        holding_cost: For each unit left in a period, at least 0.
        unit_cost: c, the least that a unit costs on its way to the store.
        clipped: Whether demand below 0 becomes 0.
        lost: Whether unmet demand is lost; then it must be clipped.
    """
    if not clipped:
        mean, std = (lead_time + 1) * demand_mean, math.sqrt(lead_time + 1) * demand_std
        free = normal_newsvendor(mean, std, underage_cost, holding_cost).cost if holding_cost > 0.0 else 0.0
        return unit_cost * demand_mean + free
    demand = clipped_normal(demand_mean, demand_std, (demand_std or demand_mean) / _POINTS)
    if holding_cost == 0.0:
        return min(unit_cost, underage_cost) * demand.mean if lost else unit_cost * demand.mean
    if lost:
        paid = min(unit_cost, underage_cost)
        return paid * demand.mean + lost_sales_bound(demand, lead_time, underage_cost - paid, holding_cost)
    total = demand.times(lead_time + 1)
    return unit_cost * demand.mean + newsvendor(total, underage_cost, holding_cost).cost
