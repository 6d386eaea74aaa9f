"""The newsvendor, and base-stock policies with backlog: the quantile of demand that balances two costs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from palaestra.envs.inventory.exact.lattice import Lattice, normal_shortage


@dataclass(frozen=True)
class BaseStockOptimum:
    """The best base-stock level, in units, and its expected cost in a period."""

    level: float
    cost: float


def newsvendor_cost(level: float, demand: Lattice, underage_cost: float, holding_cost: float) -> float:
    """Return the expected cost of meeting one demand from a stock of `level` units.

    `holding_cost` is charged for each unit left, `underage_cost` for each unit short.
    """
    shortage = float(demand.expected_shortage(level))
    return holding_cost * (level - demand.mean) + (holding_cost + underage_cost) * shortage


def newsvendor(demand: Lattice, underage_cost: float, holding_cost: float) -> BaseStockOptimum:
    """Return the optimum of one demand on a lattice: the smallest point with P(D <= level) >= p / (p + h).

    With the demand of L + 1 periods it is the optimal base-stock level of a store with lead time L that backlogs,
    and its long-run cost in a period (Karlin and Scarf, 1958).
    """
    ratio = underage_cost / (underage_cost + holding_cost)
    # Rounding in the cumulative sum must not move a quantile that is met exactly.
    index = int(np.searchsorted(np.cumsum(demand.probabilities), ratio - 1e-12))
    level = demand.step * min(index, len(demand.probabilities) - 1)
    return BaseStockOptimum(level, newsvendor_cost(level, demand, underage_cost, holding_cost))


def normal_newsvendor_cost(level: float, mean: float, std: float, underage_cost: float, holding_cost: float) -> float:
    """Return the expected cost of meeting one normal demand, not clipped, from a stock of `level` units."""
    shortage = max(mean - level, 0.0) if std == 0.0 else float(normal_shortage(level, mean, std))
    return holding_cost * (level - mean) + (holding_cost + underage_cost) * shortage


def normal_newsvendor(mean: float, std: float, underage_cost: float, holding_cost: float) -> BaseStockOptimum:
    """Return the optimum of one normal demand in closed form: `mean + z std` and `(p + h) phi(z) std`."""
    z = float(ndtri(underage_cost / (underage_cost + holding_cost)))
    density = math.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
    return BaseStockOptimum(mean + z * std, (holding_cost + underage_cost) * density * std)
