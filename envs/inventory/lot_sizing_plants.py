"""The plants of the lot-sizing world: machines, items, costs and demand, by preset or by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palaestra.envs.checks import check_count
from palaestra.envs.noise import CounterKey


@dataclass(frozen=True, eq=False)
class Plant:
    """A plant of M machines that make I items.

    Attributes:
        production: Units that a machine makes in a period, 0 where it cannot make the item, int64 `[M, I]`.
        setup_cost: Cost of setting a machine up for an item, at least 0, float64 `[M, I]`.
        setup_loss: Units lost in the period of the setup, int64 `[M, I]`.
        capacity: Most units that are kept from period to period, int64 `[I]`.
        holding_cost: Of each unit kept for a period, at least 0, float64 `[I]`.
        shortage_cost: Of each unit of demand lost, at least 0, float64 `[I]`.
        demand_trials: Demand of an item in a period is binomial: n, at least 1.
        demand_probability: p, from 0 to 1.
    """

    production: NDArray[np.int64]
    setup_cost: NDArray[np.float64]
    setup_loss: NDArray[np.int64]
    capacity: NDArray[np.int64]
    holding_cost: NDArray[np.float64]
    shortage_cost: NDArray[np.float64]
    demand_trials: int
    demand_probability: float

    @property
    def machines(self) -> int:
        """Return the number of machines."""
        return len(self.production)

    @property
    def items(self) -> int:
        """Return the number of items."""
        return len(self.capacity)


PRESETS: Mapping[str, tuple[int, int, int]] = {
    "easy": (2, 1, 3),
    "i5m2": (5, 2, 50),
    "i15m5": (15, 5, 100),
    "i25m15": (25, 15, 100),
}
"""Items, machines and horizon of each preset."""


def preset_plant(preset: str, seed: int) -> Plant:
    """Return the plant of a preset; the seed draws the parameters of all presets but "easy".

    Raises:
        ValueError: If there is no such preset, or the seed is no integer of at least 0.
    """
    if preset not in PRESETS:
        raise ValueError(f"LotSizing: preset={preset!r}; expected one of {sorted(PRESETS)}")
    items, machines, _ = PRESETS[preset]
    draw = _Draws(check_count("LotSizing", "instance_seed", seed, 0))
    if preset == "easy":
        return Plant(
            production=np.full((1, 2), 2),
            setup_cost=np.ones((1, 2)),
            setup_loss=np.ones((1, 2), np.int64),
            capacity=np.full(2, 3),
            holding_cost=np.full(2, 0.1),
            shortage_cost=np.full(2, 2.0),
            demand_trials=1,
            demand_probability=0.5,
        )
    shape = (machines, items)
    if preset == "i5m2":
        return Plant(
            production=_makeable(draw.biased("production", shape, 0, 4, 0.2)),
            setup_cost=draw.biased("setup_cost", shape, 1, 2, 0.2).astype(np.float64),
            setup_loss=np.ones(shape, np.int64),
            capacity=np.full(items, 10),
            holding_cost=np.full(items, 0.1),
            shortage_cost=draw.biased("shortage_cost", (items,), 1, 3, 0.5).astype(np.float64),
            demand_trials=4,
            demand_probability=0.4,
        )
    return Plant(
        production=_makeable(draw.biased("production", shape, 0, 40, 0.4)),
        setup_cost=draw.biased("setup_cost", shape, 15, 30, 0.2).astype(np.float64),
        setup_loss=draw.biased("setup_loss", shape, 1, 3, 0.7),
        capacity=np.full(items, 100),
        holding_cost=np.full(items, 0.01),
        shortage_cost=0.1 + draw.biased("shortage_cost", (items,), 0, 1, 0.5).astype(np.float64),
        demand_trials=20,
        demand_probability=0.4,
    )


def changed_plant(plant: Plant, changes: Mapping[str, Any]) -> Plant:
    """Return a plant with parameters replaced; a number stands for an array of it.

    Raises:
        ValueError: If an array has a wrong shape, a value is outside its range, or no machine makes some item.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    if "production" in given and np.ndim(given["production"]) != 2:
        raise ValueError(f"LotSizing: production of shape {np.shape(given['production'])}; expected [machines, items]")
    machines, items = np.shape(given["production"]) if "production" in given else plant.production.shape
    shapes = {
        "production": (machines, items),
        "setup_cost": (machines, items),
        "setup_loss": (machines, items),
        "capacity": (items,),
        "holding_cost": (items,),
        "shortage_cost": (items,),
    }
    whole = ("production", "setup_loss", "capacity")
    values: dict[str, Any] = {field.name: getattr(plant, field.name) for field in fields(plant)}
    for name, shape in shapes.items():
        array = np.asarray(given.get(name, values[name]))
        if array.dtype.kind not in ("iu" if name in whole else "iuf") or array.shape not in ((), shape):
            raise ValueError(
                f"LotSizing: {name} of dtype {array.dtype} and shape {array.shape}; expected "
                f"{'integers' if name in whole else 'numbers'}, one or of shape {shape}"
            )
        if not (np.isfinite(array).all() and (array >= (1 if name == "capacity" else 0)).all()):
            least = "1" if name == "capacity" else "0"
            raise ValueError(f"LotSizing: {name}={array.tolist()!r}; expected finite values of at least {least}")
        values[name] = np.broadcast_to(array, shape).astype(np.int64 if name in whole else np.float64)
    values["demand_trials"] = check_count("LotSizing", "demand_trials", given.get("demand_trials", plant.demand_trials))
    chance = given.get("demand_probability", plant.demand_probability)
    if not (np.asarray(chance).dtype.kind in "iuf" and 0.0 <= chance <= 1.0):
        raise ValueError(f"LotSizing: demand_probability={chance!r}; expected a number from 0 to 1")
    values["demand_probability"] = float(chance)
    for item in np.flatnonzero((values["production"] == 0).all(axis=0)):
        raise ValueError(f"LotSizing: production[:, {item}] is 0; expected a machine that makes item {item}")
    for machine in np.flatnonzero((values["production"] == 0).all(axis=1)):
        raise ValueError(f"LotSizing: production[{machine}] is 0; expected an item that machine {machine} makes")
    return replace(plant, **values)


class _Draws:
    """Parameters drawn by name from a seed, the same on every machine and version."""

    def __init__(self, seed: int) -> None:
        self._key = CounterKey([seed])

    def biased(self, name: str, shape: tuple[int, ...], least: int, most: int, chance: float) -> NDArray[np.int64]:
        """Return integers that are `least` with a given chance and otherwise uniform on {least + 1, ..., most}."""
        first, second = self._key.uniform(name, (*shape, 2))[0].T
        others = least + 1 + np.floor(second * (most - least)).astype(np.int64)
        return np.where(first < chance, least, others).T


def _makeable(production: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a table in which every item that no machine makes is given, one unit a period, to a machine in turn."""
    production = production.copy()
    for item in np.flatnonzero((production == 0).all(axis=0)):
        production[item % len(production), item] = 1
    for machine in np.flatnonzero((production == 0).all(axis=1)):
        production[machine, machine % production.shape[1]] = 1
    return production
