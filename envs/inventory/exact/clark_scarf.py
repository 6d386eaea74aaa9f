"""Serial supply chains: the decomposition of Clark and Scarf (1960) into one newsvendor-like problem per stage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from palaestra.envs.inventory.exact.lattice import Lattice, convolved


@dataclass(frozen=True)
class SerialOptimum:
    """The optimum of a serial chain.

    Attributes:
        levels: Optimal echelon base-stock levels in units, most upstream stage first. A stage orders up to its level
            of its echelon position: its own stock and all stock downstream of it, in transit or on hand, what is on
            its way to it, less the backlog.
        cost: Least long-run mean cost in a period, without any charge for stock in transit.
        cost_with_transit: The same where stock in transit is charged the holding cost of the stage that sent it, as
            textbooks do; no policy changes the difference.
    """

    levels: tuple[float, ...]
    cost: float
    cost_with_transit: float


def clark_scarf(
    lead_times: ArrayLike, holding_costs: ArrayLike, underage_cost: float, demand: Lattice
) -> SerialOptimum:
    """Return the optimum of a chain of stages, the outside supplier -> first stage -> ... -> last stage -> customers.

    With stage 1 the last one, echelon holding costs `h_j = H_j - H_(j+1)` and D^n the demand of n periods,

        C_1(y) = E[h_1 (y - D^(L_1 + 1)) + (p + H_1) max(D^(L_1 + 1) - y, 0)]
        C_j(y) = E[h_j (y - D^(L_j + 1)) + C_(j-1)(min(s_(j-1), y - D^(L_j)))],    s_j = argmin C_j

    and the optimal cost is C of the first stage at its level (orders are placed before the demand of a period, and an
    order of lead time L meets the demand L periods later).

    Args:
        lead_times: From each stage's supplier to it, in periods, most upstream stage first.
        holding_costs: Of each stage per unit and period, in the same order, never falling downstream.
        underage_cost: Per unit of backlog at the last stage and period.
        demand: Of a period, on a lattice fine enough for the accuracy wanted (errors are of order step ** 2).

    Raises:
        ValueError: If the sequences differ in length, or holding costs fall downstream.

    Source: Clark and Scarf, "Optimal policies for a multi-echelon inventory problem", Management Science 6 (1960).
    """
    leads, costs = np.asarray(lead_times)[::-1].tolist(), np.asarray(holding_costs, np.float64)[::-1].tolist()
    if len(leads) != len(costs) or not leads:
        raise ValueError(
            f"clark_scarf: {len(leads)} lead_times and {len(costs)} holding_costs; expected one of each for every stage"
        )
    echelon = -np.diff(costs, append=0.0)
    if (echelon < 0.0).any():
        raise ValueError(f"clark_scarf: holding_costs={costs[::-1]}; expected costs that never fall downstream")
    step, mean = demand.step, demand.mean
    last = demand.times(leads[0] + 1)
    size = sum(len(demand.times(lead + 1).probabilities) for lead in leads)
    y = step * np.arange(size)
    cost = echelon[0] * (y - last.mean) + (underage_cost + costs[0]) * last.expected_shortage(y)
    # Below 0 every C_j is linear, since demand is never negative.
    slope = echelon[0] - underage_cost - costs[0]
    levels = [int(np.argmin(cost))]
    for lead, rate in zip(leads[1:], echelon[1:], strict=True):
        moved = demand.times(lead)
        reach = len(moved.probabilities) - 1
        kept = cost[np.minimum(np.arange(size), levels[-1])]
        below = cost[0] - slope * step * np.arange(reach, 0, -1)
        ahead = convolved(np.concatenate((below, kept)), moved.probabilities)[reach : reach + size]
        cost = rate * (y - (lead + 1) * mean) + ahead
        slope += rate
        levels.append(int(np.argmin(cost)))
    with_transit = float(cost[levels[-1]])
    transit = mean * sum(cost_up * lead for cost_up, lead in zip(costs[1:], leads[:-1], strict=True))
    return SerialOptimum(tuple(step * level for level in reversed(levels)), with_transit - transit, with_transit)
