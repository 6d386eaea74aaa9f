"""One reservoir, two thermal units and an inflow of three scenarios: small enough to be solved exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import gymnasium as gym
import numpy as np

from palaestra.envs.arrays import clamped, namespace_of
from palaestra.envs.energy.exact.single_reservoir import ReservoirOptimum, reservoir_optimum
from palaestra.envs.energy.hydrothermal import EPISODE, ActionMode, HydroState, Hydrothermal, Releases
from palaestra.envs.energy.inflows import TableInflows
from palaestra.envs.energy.system import HydroSystem, amounts
from palaestra.envs.inventory.constants import Constant
from palaestra.protocols import Actor, Array, Key, Oracle

INFLOWS = (
    (120, 80, 40),
    (105, 70, 35),
    (90, 60, 30),
    (75, 50, 25),
    (60, 40, 20),
    (45, 30, 15),
    (30, 20, 10),
    (45, 30, 15),
    (60, 40, 20),
    (75, 50, 25),
    (90, 60, 30),
    (105, 70, 35),
)
"""Inflow by stage and scenario."""


@dataclass(frozen=True)
class OptimalStorage:
    """Keeps what the dynamic programme says, by stage and by the water at hand; linear between points of its grid."""

    world: Hydro1R
    optimum: ReservoirOptimum

    def __call__(self, state: HydroState, observation: Array, key: Key) -> Array:
        """Return actions `[batch, 1]`."""
        system, step = self.world.system, self.optimum.step
        at_hand = state.storage[:, 0] + system.volume_per_flow * state.inflow[:, 0]
        xp = namespace_of(at_hand)
        target = Constant(self.optimum.target).like(state.stage)
        stage = xp.clip(state.stage, 0, target.shape[0] - 1)
        place = clamped(at_hand / step, 0.0, target.shape[1] - 1.0)
        below = xp.floor(place)
        lower, upper = (
            xp.astype(target[stage, xp.astype(point, state.stage.dtype)], at_hand.dtype)
            for point in (below, xp.ceil(place))
        )
        end = step * (lower + (place - below) * (upper - lower))
        leaving = clamped((at_hand - end) / system.volume_per_flow, 0.0, float(system.turbine_capacity[0]))
        return self.world.action_of(state, end[:, None], leaving[:, None])


class Hydro1R(Hydrothermal):
    """One reservoir beside two thermal units: keep water for the dry stages, without knowing how dry they will be.

    **One stage**: (1) the inflow is seen; (2) the action says what the reservoir is to hold at the end of the stage:
    the nearest volume that can be reached is attained, water being turbined as far as the turbine takes it and then
    spilled; what does not fit is spilled in any case; (3) the power of the turbined water meets the load, the
    cheapest thermal units meet what is left, and what lacks then is deficit. Costs are in dollars, flows in volume a
    stage.

    **State**: volume, inflow of the stage, and stage (and, for pictures, what the last stage did). **Observation**:
    float32 `[3]` in [0, 1]: volume over the capacity, inflow over the largest of the table, stages gone over the
    horizon. **Action**: Box [0, 1] `[1]`; in `action_mode` "target" the volume wanted over the capacity; in "range" its
    place between the least and the most that can be reached without needless spilling; in "release" the flow turbined
    over what the turbine takes.

    **Reward**: minus the cost of the stage, over `cost_unit`. **Start**: `initial_storage`. **End**: terminated after
    `horizon` stages, for the plan is over then, and water left is worth nothing.

    **Info** after a step: `storage` at its end, `inflow`, `turbined`, `spilled`, `missed` (what the target lay above
    the volume attained), `[1]`; `hydro`, `thermal`, `deficit`, `price` (cost of one more unit of load) and `cost`.

    **Noise**: draw "inflow" (uniform, inverted).

    **Oracle**: of the mean return of an episode, the optimum by dynamic programming on a grid that holds all data: it
    costs 14224.26 by default. None where data have no common measure of a workable size.

    **Experts**: "optimal", where the optimum is known. **Reference policies**: "random"; "greedy" turbines all it can;
    "constant" turbines what leaves the cheapest unit at full load (15652); "run-of-river" what comes in.

    **Version history**: v0, first release.

    Args:
        capacity: Volume that the reservoir holds, above 0.
        initial_storage: Volume at the start, at most the capacity.
        turbine_capacity: Flow that the turbine takes, above 0.
        power: Power from a unit of flow, above 0.
        inflow_table: Inflow by stage and scenario; after the last stage comes the first. None for `INFLOWS`.
        inflow_probabilities: Of the scenarios, above 0, adding up to 1.
        load: Power wanted in every stage.
        thermal_capacity: Power of each thermal unit, above 0.
        thermal_price: Dollars for a unit of its power in a stage.
        deficit_price: Dollars for a unit of load not met, at least the highest thermal price.
        horizon: Stages of an episode.
        action_mode: "target", "range" or "release".
        cost_unit: Dollars that a reward of -1 stands for.

    Raises:
        ValueError: If an argument is outside its range or of a wrong length.

    Source: the hydrothermal setting of "Efficiently Training Deep-Learning Parametric Policies using Lagrangian
    Duality", arXiv 2405.14973, with one plant and the inflows of the authors' smallest example.
    """

    inflows: TableInflows

    def __init__(
        self,
        capacity: float = 150.0,
        initial_storage: float = 50.0,
        turbine_capacity: float = 80.0,
        power: float = 1.0,
        inflow_table: Sequence[Sequence[float]] | None = None,
        inflow_probabilities: Sequence[float] = (0.3, 0.4, 0.3),
        load: float = 100.0,
        thermal_capacity: Sequence[float] = (40.0, 40.0),
        thermal_price: Sequence[float] = (20.0, 50.0),
        deficit_price: float = 500.0,
        horizon: int = 12,
        action_mode: ActionMode = "target",
        cost_unit: float = 1.0,
    ) -> None:
        system = HydroSystem(
            "Hydro1R",
            names=("reservoir",),
            capacity=amounts("Hydro1R", "capacity", [capacity], 1, positive=True).tolist(),
            turbine_capacity=[turbine_capacity],
            power=[power],
            downstream=[None],
            volume_per_flow=1.0,
            load=load,
            thermal_capacity=thermal_capacity,
            thermal_price=thermal_price,
            deficit_price=deficit_price,
        )
        inflows = TableInflows("Hydro1R", INFLOWS if inflow_table is None else inflow_table, inflow_probabilities)
        start = amounts("Hydro1R", "initial_storage", [initial_storage], 1)
        super().__init__(system, inflows, start, horizon, action_mode, cost_unit)
        self.observation_space = gym.spaces.Box(0.0, 1.0, (3,), np.float32)

    def observe(self, state: HydroState) -> Array:
        """Return volume, inflow and stages gone, each over its largest value, `[batch, 3]`."""
        xp = namespace_of(state.storage)
        gone = xp.astype(state.stage, state.storage.dtype)[:, None] / self.horizon
        volume = state.storage * self._per_volume.like(state.storage)
        return xp.concat((volume, state.inflow * self._per_flow.like(state.inflow), gone), axis=1)

    @cached_property
    def optimum(self) -> ReservoirOptimum | None:
        """Costs and decisions of the optimal policy, or None where no grid holds the data."""
        return reservoir_optimum(self.system, self.inflows, float(self.initial_storage[0]), self.horizon)

    def oracle(self) -> Oracle | None:
        """Return minus the least expected cost of an episode, where it is known."""
        if self.optimum is None:
            return None
        cost = self.optimum.cost_from(0, float(self.initial_storage[0]))
        return Oracle(-cost / self.cost_unit, EPISODE, "optimum", "dynamic programming on a grid that holds all data")

    def experts(self) -> Mapping[str, Actor]:
        """Return "optimal", where the optimum is known."""
        return {} if self.optimum is None else {"optimal": OptimalStorage(self, self.optimum)}

    def reference_policies(self) -> Mapping[str, Actor]:
        """Return "random", "greedy", "constant" and "run-of-river"."""
        system = self.system
        cheapest = float(system.thermal_capacity[0]) if len(system.thermal_capacity) else 0.0
        flow = min(max(system.load - cheapest, 0.0) / float(system.power[0]), float(system.turbine_capacity[0]))
        return {**super().reference_policies(), "constant": Releases(self, (flow,))}
