"""Eleven plants on several rivers, two dozen thermal units, and inflows that remember: too large for tables."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import gymnasium as gym
import numpy as np

from palaestra.envs.arrays import namespace_of
from palaestra.envs.energy.exact.mean_inflow import mean_inflow_bound
from palaestra.envs.energy.hydrothermal import EPISODE, ActionMode, HydroState, Hydrothermal, Releases
from palaestra.envs.energy.inflows import SeasonalInflows
from palaestra.envs.energy.system import HydroSystem
from palaestra.envs.inventory.constants import Constant
from palaestra.protocols import Actor, Array, Oracle

PLANTS: tuple[tuple[str, float, float, float, float, str | None], ...] = (
    ("SIS", 0.1, 10.29, 7.0, 0.61, None),
    ("COR", 137.99, 10.55, 5.12, 7.34, "SIS"),
    ("KAN", 0.042, 0.79, 9.68, 0.48, None),
    ("MIG", 16.76, 3.63, 5.06, 2.61, None),
    ("ZON", 10.35, 8.74, 8.11, 4.18, "CHU"),
    ("CHU", 0.32, 17.01, 6.35, 6.42, None),
    ("ACH", 9.72, 1.25, 3.2, 0.3, None),
    ("TAQ1", 0.07, 7.0, 4.81, 4.68, "TAQ2"),
    ("TAQ2", 0.04, 11.0, 4.47, 3.78, None),
    ("CHJ", 0.0, 0.84, 1.2, 0.96, None),
    ("YUR", 2.93, 3.24, 2.5, 2.42, None),
)
"""Name, volume (hm3), turbined flow at most (m3/s), power (MW per m3/s), mean natural inflow (m3/s), plant below."""

THERMAL_UNITS, THERMAL_CAPACITY, CHEAPEST, DEAREST = 23, 507.0, 14.0, 42.0
STAGES_OF_A_YEAR, HOURS_OF_A_STAGE = 48, 168.0
HM3_PER_HOUR = 0.0036
"""Volume of a flow of 1 m3/s in an hour, in hm3."""


class HydroCascade11(Hydrothermal):
    """The eleven plants of a country's grid, some below others on one river, run by volumes to keep, week by week.

    **One stage**: (1) the natural inflows are seen; (2) the action says what every reservoir is to hold at the end of
    the week; from the springs down, the nearest volume that can be reached is attained, water being turbined as far as
    the turbines take it and then spilled, and what leaves a plant reaches the next one below in the same week; (3)
    hydro power meets the load, thermal units in merit order meet what is left, and what lacks then is deficit. All
    plants and units feed one bus.

    **State**: volumes, inflows and what they remember, and stage (and, for pictures, what the last stage did).
    **Observation**: float32 `[25]`: volumes over capacity (0 for the plant that holds nothing), inflows over their
    yearly means, sine and cosine of the time of the year, stages gone over the horizon. **Action**: Box [0, 1] `[11]`;
    in `action_mode` "target" the volumes wanted over capacity; in "range" their places between the least and the most
    that can be reached without needless spilling; in "release" the flows turbined over what the turbines take.

    **Reward**: minus the cost of a mean hour of the week, over `cost_unit`. **Start**: every reservoir filled to the
    share `initial_fill`. **End**: terminated after `horizon` stages, for the plan is over then, and water left is worth
    nothing.

    **Inflows**: lognormal around a yearly wave, with logarithms that follow an autoregression and shocks that plants
    partly share; see `palaestra.envs.energy.inflows.SeasonalInflows`. They are synthetic: volumes, turbines, powers and
    mean inflows are those of the published data, wave, spread and memory are not, nor are the single prices of the
    thermal units, which rise evenly from 14 to 42 dollars per MWh over 23 units of 507 MW together.

    **Info** after a step: `storage` at its end (hm3), `inflow`, `turbined`, `spilled` (m3/s), `missed` (what the target
    lay above the volume attained, hm3), `[11]`; `hydro`, `thermal`, `deficit` (MW), `price` (dollars per MWh) and
    `cost` (dollars per hour).

    **Noise**: draw "inflow" (normal).

    **Oracle**: of the mean return of an episode, a bound: the optimum if every inflow were its mean.

    **Reference policies**: "random"; "greedy" turbines all it can; "run-of-river" what would pass if none stored water;
    "mean-flow" what passes on average.

    **Version history**: v0, first release.

    Args:
        load: Power wanted, in MW.
        initial_fill: Share of its capacity that every reservoir holds at the start, 0 to 1.
        deficit_price: Dollars per MWh not met, at least 42.
        season: Amplitude of the yearly wave of inflows, 0 to below 1.
        peak: Stage of the year with the most water.
        variation: Standard deviation of the logarithm of inflows, at least 0.
        persistence: Its correlation from one stage to the next, 0 to below 1.
        correlation: Of the shocks of two plants, 0 to 1.
        horizon: Weeks of an episode; a year of inflows has 48.
        action_mode: "target", "range" or "release".
        cost_unit: Dollars per hour that a reward of -1 stands for.

    Raises:
        ValueError: If an argument is outside its range.

    Source: the Bolivian setting of "Efficiently Training Deep-Learning Parametric Policies using Lagrangian Duality",
    arXiv 2405.14973, without its electric network.
    """

    inflows: SeasonalInflows

    def __init__(
        self,
        load: float = 804.0,
        initial_fill: float = 0.5,
        deficit_price: float = 60.0,
        season: float = 0.6,
        peak: float = 4.0,
        variation: float = 0.5,
        persistence: float = 0.7,
        correlation: float = 0.5,
        horizon: int = 48,
        action_mode: ActionMode = "target",
        cost_unit: float = 1000.0,
    ) -> None:
        names, capacity, turbine_capacity, power, mean, downstream = zip(*PLANTS, strict=True)
        if np.asarray(initial_fill).dtype.kind not in "iuf" or not 0.0 <= initial_fill <= 1.0:
            raise ValueError(f"HydroCascade11: initial_fill={initial_fill!r}; expected a number from 0 to 1")
        system = HydroSystem(
            "HydroCascade11",
            names=names,
            capacity=capacity,
            turbine_capacity=turbine_capacity,
            power=power,
            downstream=downstream,
            volume_per_flow=HM3_PER_HOUR * HOURS_OF_A_STAGE,
            load=load,
            thermal_capacity=[THERMAL_CAPACITY / THERMAL_UNITS] * THERMAL_UNITS,
            thermal_price=np.linspace(CHEAPEST, DEAREST, THERMAL_UNITS).tolist(),
            deficit_price=deficit_price,
        )
        inflows = SeasonalInflows(
            "HydroCascade11", mean, season, peak, STAGES_OF_A_YEAR, variation, persistence, correlation
        )
        super().__init__(system, inflows, initial_fill * system.capacity, horizon, action_mode, cost_unit)
        low, high = np.zeros(25), np.ones(25)
        high[11:22], low[22:24] = np.inf, -1.0
        self.observation_space = gym.spaces.Box(low.astype(np.float32), high.astype(np.float32))
        angle = 2.0 * np.pi * np.arange(STAGES_OF_A_YEAR) / STAGES_OF_A_YEAR
        self._calendar = Constant(np.stack((np.sin(angle), np.cos(angle)), axis=1))

    def observe(self, state: HydroState) -> Array:
        """Return volumes, inflows, time of the year and stages gone, `[batch, 25]`."""
        storage, xp = state.storage, namespace_of(state.storage)
        date = self._calendar.like(storage)[state.stage % STAGES_OF_A_YEAR]
        gone = xp.astype(state.stage, storage.dtype)[:, None] / self.horizon
        volumes, flows = storage * self._per_volume.like(storage), state.inflow * self._per_flow.like(storage)
        return xp.concat((volumes, flows, date, gone), axis=1)

    @cached_property
    def _bound(self) -> float:
        return mean_inflow_bound(self.system, self.inflows, self.initial_storage, self.horizon)

    def oracle(self) -> Oracle:
        """Return minus a lower bound on the expected cost of an episode."""
        return Oracle(-self._bound / self.cost_unit, EPISODE, "bound", "linear programme with every inflow at its mean")

    def reference_policies(self) -> Mapping[str, Actor]:
        """Return "random", "greedy", "run-of-river" and "mean-flow"."""
        system, passing = self.system, self.inflows.scale.copy()
        for plant in system.order:
            for above in system.upstream[plant]:
                passing[plant] += passing[above]
        flows = np.minimum(passing, system.turbine_capacity)
        return {**super().reference_policies(), "mean-flow": Releases(self, tuple(flows.tolist()))}
