"""One warehouse that holds no stock and many stores: the bound of perfectly balanced stock."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from palaestra.envs.inventory.exact.newsvendor import normal_newsvendor


@dataclass(frozen=True)
class PoolingBound:
    """The relaxed problem's optimum.

    Attributes:
        level: Its base-stock level of all stock of the system, in units.
        cost: Lower bound on the long-run cost of all stores together in a period.
    """

    level: float
    cost: float


def pooling_bound(
    demand_std: ArrayLike,
    demand_mean: ArrayLike,
    correlation: float,
    warehouse_lead_time: int,
    store_lead_time: int,
    underage_cost: float,
    holding_cost: float,
) -> PoolingBound:
    """Return the bound of a system in which stock could be evened out between stores at every moment.

    Then all stores have the same probability of a shortage, and the system is one store whose demand over the lead
    times has the standard deviation

        sqrt(L_w Var(sum D) + (L_s + 1) (sum sigma_k)^2)

    since demand is pooled until the warehouse allots, and borne by each store alone from then on. The cost is
    `(p + h) phi(z)` times that.

    Args:
        demand_std: Of the normal demand in a period, not clipped, `[stores]`.
        demand_mean: Its mean, `[stores]`.
        correlation: Between each two stores.
        warehouse_lead_time: From outside to the warehouse, in periods.
        store_lead_time: From the warehouse to each store.
        underage_cost: Of each unit of backlog, the same at all stores.
        holding_cost: Of each unit left, the same at all stores.

    Source: Eppen and Schrage (1981); Federgruen and Zipkin, Management Science 30 (1984).
    """
    std = np.asarray(demand_std, np.float64)
    mean = float(np.sum(demand_mean))
    total = float(std.sum())
    pooled = (1.0 - correlation) * float((std**2).sum()) + correlation * total**2
    spread = math.sqrt(warehouse_lead_time * pooled + (store_lead_time + 1) * total**2)
    periods = warehouse_lead_time + store_lead_time + 1
    optimum = normal_newsvendor(periods * mean, spread, underage_cost, holding_cost)
    return PoolingBound(optimum.level, optimum.cost)
