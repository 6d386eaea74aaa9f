"""The optimal operation of one reservoir by dynamic programming on a grid that holds every kink, and so is exact."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palaestra.envs.energy.inflows import TableInflows
from palaestra.envs.energy.system import HydroSystem
from palaestra.envs.noise import Tape

_UNITS = 1_000_000
"""Parts of a unit of volume that data are rounded to in the search for a grid."""
_MOST_OPERATIONS = 50_000_000


@dataclass(frozen=True, eq=False)
class ReservoirOptimum:
    """Optimal costs and decisions.

    Attributes:
        step: Volume between two points of the grid.
        cost: Expected cost of the stages from t on, before the inflow of stage t is known, by volume at its start,
            float64 `[stages + 1, points]`.
        target: Optimal volume at the end of a stage by water at hand (volume and inflow), in steps of the grid, int64
            `[stages, points at hand]`.
    """

    step: float
    cost: NDArray[np.float64]
    target: NDArray[np.int64]

    def cost_from(self, stage: int, volume: float) -> float:
        """Return the expected cost from the start of a stage on, with any volume; costs are linear between points."""
        return float(np.interp(volume / self.step, np.arange(self.cost.shape[1]), self.cost[stage]))

    def water_value(self, stage: int, volume: float) -> float:
        """Return what a unit of water more saves at the start of a stage, the reservoir being not full."""
        point = min(math.floor(volume / self.step), self.cost.shape[1] - 2)
        return float(self.cost[stage, point] - self.cost[stage, point + 1]) / self.step


def reservoir_grid(system: HydroSystem, inflows: TableInflows, start: float) -> float | None:
    """Return the widest step of a grid that holds every volume and every kink of the cost, or None without one.

    On such a grid the dynamic programme is exact: costs and optimal decisions are linear between its points.
    """
    kinks = (system.load - np.append(0.0, np.cumsum(system.thermal_capacity))) / system.power[0]
    flows = np.concatenate((inflows.table.ravel(), system.turbine_capacity, kinks[kinks > 0.0]))
    volumes = np.concatenate((flows * system.volume_per_flow, system.capacity, [start])) * _UNITS
    whole = np.rint(volumes)
    if np.abs(whole - volumes).max() > 1e-3:
        return None
    step = float(np.gcd.reduce(whole.astype(np.int64))) / _UNITS
    return step or None


def reservoir_optimum(system: HydroSystem, inflows: TableInflows, start: float, stages: int) -> ReservoirOptimum | None:
    """Return the optimum of a system with one plant, or None where no grid of a workable size holds its data.

    `V_T = 0`, and before inflow `w` of stage t is known, for a volume v,

        V_t(v) = E[ min_u cost(u) + V_{t+1}(min(v + w - u, capacity)) ]

    where water beyond the capacity is spilled; water left after the last stage is worth nothing. Among decisions of the
    same cost the one that keeps most water is taken.

    Args:
        system: The system; it must have one plant.
        inflows: Its inflows.
        start: Volume at the start.
        stages: Number of stages.
    """
    step = reservoir_grid(system, inflows, start)
    if step is None:
        return None
    # A stage's flows, as volumes, in steps of the grid.
    arriving = np.rint(inflows.table * system.volume_per_flow / step).astype(np.int64)
    capacity = round(system.capacity[0] / step)
    limit = round(system.turbine_capacity[0] * system.volume_per_flow / step)
    at_hand = np.arange(capacity + int(arriving.max()) + 1)
    if stages * len(at_hand) * (limit + 1) > _MOST_OPERATIONS:
        return None
    hydro = system.power[0] * np.arange(limit + 1) * step / system.volume_per_flow
    charge = system.dispatch(hydro).cost
    cost = np.zeros((stages + 1, capacity + 1))
    target = np.zeros((stages, len(at_hand)), np.int64)
    for stage in reversed(range(stages)):
        best = np.full(len(at_hand), np.inf)
        for used, paid in enumerate(charge):
            left = np.minimum(at_hand[used:] - used, capacity)
            candidate = paid + cost[stage + 1, left]
            better = candidate < best[used:]
            best[used:] = np.where(better, candidate, best[used:])
            target[stage, used:] = np.where(better, left, target[stage, used:])
        volumes = np.arange(capacity + 1)
        for scenario, chance in enumerate(inflows.probabilities):
            cost[stage] += chance * best[volumes + arriving[stage % len(arriving), scenario]]
    return ReservoirOptimum(step, cost, target)


def expected_cost(world: Any, actor: Any) -> float:
    """Return the expected cost of an episode of a world with tabled inflows under any policy, by enumeration.

    All inflow paths are played at once: `scenarios ** horizon` rows in the last stage.

    Args:
        world: A `Hydro1R`.
        actor: A policy that draws no noise.
    """
    chances = world.inflows.probabilities
    # A draw in the middle of each scenario's interval.
    middles = np.cumsum(chances) - 0.5 * chances
    weight, shares = chances, middles
    state = world.initial(Tape({"inflow": shares}))
    total = 0.0
    for _ in range(world.horizon):
        action = actor(state, world.observe(state), Tape({"inflow": shares}))
        post = world.decide(state, action)
        total += float(weight @ post.dispatch[:, 3])
        rows = np.repeat(np.arange(len(weight)), len(chances))
        shares = np.tile(middles, len(weight))
        weight = weight[rows] * np.tile(chances, len(weight))
        kept = type(post)(**{name: getattr(post, name)[rows] for name in vars(post)})
        state = world.realise(kept, Tape({"inflow": shares})).state
    return total
