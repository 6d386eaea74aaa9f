"""Small lot-sizing plants: dynamic programming over stocks, setups and the periods left."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palaestra.envs.inventory.exact.lattice import binomial
from palaestra.envs.inventory.lot_sizing_plants import Plant

MAX_PAIRS = 1_000_000
"""Pairs of a state and an action up to which a plant is solved."""


@dataclass(frozen=True)
class LotSizingOptimum:
    """The optimum of a plant over a number of periods.

    Attributes:
        cost: Least expected cost of all periods from each state, float64
            `[periods + 1, stock of item 0 + 1, ..., setup of machine 0 + 1, ...]`, by the number of periods left.
        actions: Index of the best action with each number of periods left (at least 1), of the same shape; an index
            counts the actions of the machines with the last machine fastest.
    """

    cost: NDArray[np.float64]
    actions: NDArray[np.int64]


def solvable(plant: Plant) -> bool:
    """Return whether a plant is small enough to be solved."""
    choices = (plant.items + 1) ** plant.machines
    return int(np.prod(plant.capacity + 1.0)) * choices * choices <= MAX_PAIRS


def lot_sizing_optimum(plant: Plant, periods: int) -> LotSizingOptimum:
    """Return the least expected cost with up to `periods` periods left, and the actions that attain it.

    Raises:
        ValueError: If the plant is too large.
    """
    if not solvable(plant):
        raise ValueError(
            f"lot_sizing_optimum: {plant.items} items of capacity {plant.capacity.max()} on {plant.machines} machines; "
            f"expected at most {MAX_PAIRS} pairs of a state and an action"
        )
    choices = list(itertools.product(range(plant.items + 1), repeat=plant.machines))
    stocks = tuple(int(most) + 1 for most in plant.capacity)
    setups = (plant.items + 1,) * plant.machines
    tables = [_period(plant, item) for item in range(plant.items)]
    cost = np.zeros((periods + 1, *stocks, *setups))
    actions = np.zeros((periods + 1, *stocks, *setups), np.int64)
    for left in range(1, periods + 1):
        after = cost[left - 1]
        for item, (moves, _) in enumerate(tables):
            after = np.moveaxis(np.tensordot(moves, after, axes=(1, item)), 0, item)
        for item, (_, charge) in enumerate(tables):
            shape = [1] * after.ndim
            shape[item] = len(charge)
            after = after + charge.reshape(shape)
        for setup in choices:
            here: Any = (left, ..., *setup)
            best = np.full(stocks, np.inf)
            chosen = np.zeros(stocks, np.int64)
            for index, action in enumerate(choices):
                made, paid = _production(plant, setup, action)
                window = tuple(slice(int(m), int(m) + size) for m, size in zip(made, stocks, strict=True))
                value = paid + after[(*window, *action)]
                better = value < best - 1e-12
                best, chosen = np.where(better, value, best), np.where(better, index, chosen)
            cost[here], actions[here] = best, chosen
    return LotSizingOptimum(cost, actions)


def fluid_bound(plant: Plant, periods: int, start: NDArray[np.float64]) -> float:
    """Return a lower bound on the expected cost of an episode: machine time may be divided, and setups are free.

    Let w be the share of periods in which an item has a given stock before demand. On average over the periods an
    item's sales are at most its supply, which is what it starts with over the number of periods and what machines make
    of it in the time they give it. The bound is the least mean cost of demand over all such shares and times, a linear
    programme.

    Args:
        plant: The plant.
        periods: Number of periods.
        start: Mean stock at the start, float64 `[items]`.
    """
    # Importing it takes a second, which only plants without a known optimum should cost.
    from scipy.optimize import linprog

    tables = [_period(plant, item) for item in range(plant.items)]
    sizes = [len(charge) for _, charge in tables]
    ends = np.cumsum([0, *sizes])
    times = plant.machines * plant.items
    cost = np.concatenate([charge for _, charge in tables] + [np.zeros(times)])
    shares, used = np.zeros((plant.items, len(cost))), np.zeros((plant.machines, len(cost)))
    supply = np.zeros((plant.items, len(cost)))
    for item, size in enumerate(sizes):
        here = slice(ends[item], ends[item + 1])
        shares[item, here] = 1.0
        supply[item, here] = _sales(plant, size)
        for machine in range(plant.machines):
            column = ends[-1] + machine * plant.items + item
            supply[item, column] = -plant.production[machine, item]
            used[machine, column] = 1.0
    limits = np.concatenate((start / periods, np.ones(plant.machines)))
    found = linprog(cost, np.concatenate((supply, used)), limits, shares, np.ones(plant.items), method="highs")
    return periods * float(found.fun)


def _sales(plant: Plant, size: int) -> NDArray[np.float64]:
    """Return the mean sales of an item in a period by its stock before demand, `[size]`."""
    demand = np.arange(plant.demand_trials + 1)
    chance = binomial(plant.demand_trials, plant.demand_probability).probabilities
    return np.minimum(np.arange(size)[:, None], demand) @ chance


def _period(plant: Plant, item: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the chances of stock after demand, `[before, after]`, and the mean cost of demand, `[before]`."""
    most = int(plant.capacity[item] + plant.production[:, item].sum())
    before = np.arange(most + 1)
    demand = np.arange(plant.demand_trials + 1)
    chance = binomial(plant.demand_trials, plant.demand_probability).probabilities
    kept = np.minimum(np.maximum(before[:, None] - demand, 0), plant.capacity[item])
    short = np.maximum(demand - before[:, None], 0)
    moves = np.zeros((most + 1, int(plant.capacity[item]) + 1))
    np.add.at(moves, (before[:, None] + 0 * demand, kept), chance)
    return moves, (plant.holding_cost[item] * kept + plant.shortage_cost[item] * short) @ chance


def _production(plant: Plant, setup: tuple[int, ...], action: tuple[int, ...]) -> tuple[NDArray[np.int64], float]:
    """Return the units made of each item, `[I]`, and the cost of the setups."""
    made, paid = np.zeros(plant.items, np.int64), 0.0
    for machine, (present, choice) in enumerate(zip(setup, action, strict=True)):
        if choice == 0:
            continue
        changed = choice != present
        units = plant.production[machine, choice - 1] - changed * plant.setup_loss[machine, choice - 1]
        made[choice - 1] += max(0, int(units))
        paid += changed * float(plant.setup_cost[machine, choice - 1])
    return made, paid
