"""A hydrothermal system on one bus: reservoirs along rivers, thermal units in merit order, and a load to be met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palaestra.envs.arrays import at_least, clamped, namespace_of
from palaestra.envs.checks import check_amount
from palaestra.envs.inventory.columns import positive_part, smaller, weighted_sums
from palaestra.envs.inventory.constants import Constant
from palaestra.protocols import Array, StageProgramme


@dataclass(frozen=True)
class Dispatch:
    """What meets the load that water leaves over.

    Attributes:
        thermal: Power of the thermal units together, `[batch]`.
        deficit: Load that is not met, `[batch]`.
        price: Cost of one more unit of load, `[batch]`.
        cost: Of thermal power and deficit, `[batch]`.
    """

    thermal: Array
    deficit: Array
    price: Array
    cost: Array


class HydroSystem:
    """Plants, thermal units and load; the arguments of worlds are checked here.

    Args:
        world: Name of the world, for errors.
        names: Of the plants.
        capacity: Volume that each reservoir holds, at least 0, `[plants]`.
        turbine_capacity: Flow that each plant can turbine, above 0, `[plants]`.
        power: Power from a unit of turbined flow, above 0, `[plants]`.
        downstream: Name of the plant that each one's water runs to, or None, `[plants]`.
        volume_per_flow: Volume that a unit of flow amounts to in a stage, above 0.
        load: Power wanted, at least 0.
        thermal_capacity: Power of each thermal unit, above 0, `[units]`.
        thermal_price: Cost of a unit of its power, at least 0, `[units]`.
        deficit_price: Cost of a unit of load not met, at least the highest thermal price.

    Raises:
        ValueError: If an argument is outside its range or of a wrong length, or water would run in a circle.
    """

    def __init__(
        self,
        world: str,
        *,
        names: Sequence[str],
        capacity: Sequence[float],
        turbine_capacity: Sequence[float],
        power: Sequence[float],
        downstream: Sequence[str | None],
        volume_per_flow: float,
        load: float,
        thermal_capacity: Sequence[float],
        thermal_price: Sequence[float],
        deficit_price: float,
    ) -> None:
        self.world, self.names = world, tuple(names)
        plants = len(self.names)
        if plants == 0 or len(set(self.names)) != plants:
            raise ValueError(f"{world}: names={self.names}; expected at least one name, all different")
        self.capacity = amounts(world, "capacity", capacity, plants)
        self.turbine_capacity = amounts(world, "turbine_capacity", turbine_capacity, plants, positive=True)
        self.power = amounts(world, "power", power, plants, positive=True)
        self.volume_per_flow = check_amount(world, "volume_per_flow", volume_per_flow, positive=True)
        self.load = check_amount(world, "load", load)
        units = len(tuple(thermal_capacity))
        size = amounts(world, "thermal_capacity", thermal_capacity, units, positive=True)
        price = amounts(world, "thermal_price", thermal_price, units)
        self.deficit_price = check_amount(world, "deficit_price", deficit_price, positive=True)
        if units and price.max() > self.deficit_price:
            raise ValueError(
                f"{world}: deficit_price={deficit_price}; expected at least the highest thermal price, {price.max()}"
            )
        merit = np.argsort(price, kind="stable")
        self.thermal_capacity, self.thermal_price = size[merit], price[merit]
        self.downstream = self._downstream(downstream)
        self.order = self._order()
        self._below = Constant(np.cumsum(self.thermal_capacity) - self.thermal_capacity)
        self._size = Constant(self.thermal_capacity)
        self._unit_price = Constant(self.thermal_price)
        self._margins = Constant(np.append(self.thermal_price, self.deficit_price))
        self._total = Constant(np.cumsum(self.thermal_capacity))

    @property
    def plants(self) -> int:
        """Number of plants."""
        return len(self.names)

    @cached_property
    def upstream(self) -> tuple[tuple[int, ...], ...]:
        """Plants whose water runs to each plant."""
        return tuple(tuple(int(i) for i in np.flatnonzero(self.downstream == plant)) for plant in range(self.plants))

    def operate(
        self, storage: Array, inflow: Array, wanted: Array, mode: str
    ) -> tuple[list[Array], list[Array], list[Array], list[Array]]:
        """Return what a stage does to the water, as columns `[batch]` by plant.

        Plants are operated from the springs down, and the water that a plant turbines or spills reaches the next one in
        the same stage. Water is turbined before it is spilled.

        Args:
            storage: Volumes at the start of the stage, `[batch, plants]`.
            inflow: Natural inflow of the stage, as flows, `[batch, plants]`.
            wanted: By mode, `[batch, plants]`. "target": volumes at the end of the stage; the nearest that can be
                reached are attained, by spilling if need be. "range": share of the range of volumes that can be reached
                without spilling more than must be. "release": flows to let go.
            mode: "target", "range" or "release".

        Returns:
            Volumes at the end of the stage, turbined flows, spilled flows, and what the target lies above the volume
            attained (0 in the other modes).
        """
        per_flow, columns = self.volume_per_flow, range(self.plants)
        end: list[Any] = [None for _ in columns]
        turbined, spilled, missed = list(end), list(end), list(end)
        for plant in self.order:
            arriving = inflow[:, plant]
            for above in self.upstream[plant]:
                arriving = arriving + turbined[above] + spilled[above]
            at_hand = storage[:, plant] + per_flow * arriving
            most = clamped(at_hand, 0.0, float(self.capacity[plant]))
            limit = float(self.turbine_capacity[plant])
            want = wanted[:, plant]
            missed[plant] = 0.0 * want
            if mode == "target":
                end[plant] = smaller(want, most)
                missed[plant] = want - end[plant]
            elif mode == "range":
                least = clamped(at_hand - per_flow * limit, 0.0, float(self.capacity[plant]))
                end[plant] = least + want * (most - least)
            else:
                end[plant] = smaller(positive_part(at_hand - per_flow * want), most)
            leaving = positive_part(at_hand - end[plant]) / per_flow
            turbined[plant] = clamped(leaving, 0.0, limit)
            spilled[plant] = leaving - turbined[plant]
        return end, turbined, spilled, missed

    def dispatch(self, hydro: Array) -> Dispatch:
        """Return how the load is met beside hydro power `[batch]`: the cheapest units first, what lacks is deficit."""
        xp = namespace_of(hydro)
        rest = at_least(self.load - hydro, 0.0)
        if not len(self.thermal_capacity):
            none = 0.0 * rest
            return Dispatch(none, rest, self.deficit_price + none, self.deficit_price * rest)
        above = positive_part(rest[:, None] - self._below.like(rest))
        size = self._size.like(rest)
        running = xp.where(above < size, above, size + 0.0 * above)
        deficit = at_least(rest - float(self.thermal_capacity.sum()), 0.0)
        cost = weighted_sums(running, self._unit_price.like(rest)) + self.deficit_price * deficit
        full = xp.sum(xp.astype(rest[:, None] >= self._total.like(rest), xp.int64), axis=1)
        return Dispatch(rest - deficit, deficit, self._margins.like(rest)[full], cost)

    def stage_programme(self, cost_unit: float) -> StageProgramme:
        """Return a stage as a linear programme in volumes, with costs in multiples of `cost_unit`.

        Its decisions are the turbined flows, the spilled flows, the thermal units in merit order, the deficit, and
        power that nobody wants.
        """
        plants, units, per_flow = self.plants, len(self.thermal_capacity), self.volume_per_flow
        passes_on = np.zeros((plants, plants))
        for plant, below in enumerate(self.downstream):
            passes_on[plant, plant] = -per_flow
            if below >= 0:
                passes_on[below, plant] = per_flow
        none = np.zeros((plants, units + 2))
        return StageProgramme(
            capacity=self.capacity,
            gain=per_flow * np.eye(plants),
            effect=np.concatenate((passes_on, passes_on, none), axis=1),
            balance=np.concatenate((self.power, np.zeros(plants), np.ones(units + 1), [-1.0]))[None],
            requirement=np.array([self.load]),
            limits=np.concatenate((self.turbine_capacity, [np.inf] * plants, self.thermal_capacity, [np.inf] * 2)),
            costs=np.concatenate((np.zeros(2 * plants), self.thermal_price, [self.deficit_price, 0.0])) / cost_unit,
            unit_values=self.deficit_price * self.power_below / per_flow / cost_unit,
        )

    @cached_property
    def power_below(self) -> NDArray[np.float64]:
        """Power from a unit of flow in a plant and all that its water runs through afterwards, `[plants]`."""
        total = self.power.copy()
        for plant in reversed(self.order):
            if self.downstream[plant] >= 0:
                total[plant] += total[self.downstream[plant]]
        return total

    def _downstream(self, names: Sequence[str | None]) -> NDArray[np.int64]:
        known = {name: plant for plant, name in enumerate(self.names)}
        given = tuple(names)
        unknown = [name for name in given if name is not None and name not in known]
        if len(given) != self.plants or unknown:
            raise ValueError(f"{self.world}: downstream={given}; expected None or one of {self.names} for each of them")
        return np.array([-1 if name is None else known[name] for name in given])

    def _order(self) -> tuple[int, ...]:
        """Return the plants with those upstream first."""
        order: list[int] = []
        while len(order) < self.plants:
            ready = [i for i in range(self.plants) if i not in order and set(self.upstream[i]) <= set(order)]
            if not ready:
                below = [self.names[plant] if plant >= 0 else None for plant in self.downstream]
                raise ValueError(f"{self.world}: downstream={below}; expected rivers that run in no circle")
            order += ready
        return tuple(order)


def amounts(world: str, name: str, values: Any, length: int, *, positive: bool = False) -> NDArray[np.float64]:
    """Return an argument of one number for each plant, unit or stage, float64 `[length]`.

    Raises:
        ValueError: If it is of another length, or a number is not finite, below 0, or 0 where it must be `positive`.
    """
    given = list(values)
    if len(given) != length:
        raise ValueError(f"{world}: {name}={values!r}; expected {length} numbers")
    checked = [check_amount(world, f"{name}[{i}]", x, positive=positive) for i, x in enumerate(given)]
    return np.array(checked, np.float64)
