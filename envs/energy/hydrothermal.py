"""What hydrothermal worlds share: their state, their step, rules of thumb and pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from palaestra.envs.arrays import namespace_of, stacked
from palaestra.envs.checks import check_amount, check_count
from palaestra.envs.energy import pictures
from palaestra.envs.energy.inflows import Inflows
from palaestra.envs.energy.system import HydroSystem
from palaestra.envs.inventory.columns import weighted_sums
from palaestra.envs.inventory.constants import Constant
from palaestra.envs.simulator import RandomActor, Simulator
from palaestra.protocols import Actor, Array, Estimand, Key, StageProgramme, Transition

ActionMode = Literal["target", "range", "release"]

EPISODE = Estimand("episode_return", "reward (minus cost) per episode")


@dataclass(frozen=True)
class HydroState:
    """Water at the start of a stage, its inflow included, which is known before the decision.

    Attributes:
        storage: Volumes, float64 `[batch, plants]`.
        inflow: Natural inflow of the stage, as flows, float64 `[batch, plants]`.
        climate: What the inflow process remembers, float64 `[batch, plants]`.
        stage: Number of stages so far, int64 `[batch]`.
        last_flows: Flows turbined in the stage before, then those spilled, float64 `[batch, 2 * plants]`; shown in
            pictures, without effect, as is the next.
        last_dispatch: Its hydro power, thermal power and deficit, and its cost, float64 `[batch, 4]`.
    """

    storage: Array
    inflow: Array
    climate: Array
    stage: Array
    last_flows: Array
    last_dispatch: Array


@dataclass(frozen=True)
class OperatedState:
    """Post-decision state: water and power of the stage are settled, the next inflow is unknown.

    Attributes:
        storage: Volumes at the end of the stage, float64 `[batch, plants]`.
        climate: As before the decision, float64 `[batch, plants]`.
        stage: Number of stages before this one, int64 `[batch]`.
        flows: Flows turbined, then those spilled, float64 `[batch, 2 * plants]`.
        dispatch: Hydro power, thermal power, deficit and cost, float64 `[batch, 4]`.
        price: Cost of one more unit of load, float64 `[batch]`.
        inflow: Of the stage, float64 `[batch, plants]`.
        missed: What targets lay above the volumes attained, float64 `[batch, plants]`.
        reward: Minus the cost, in multiples of the world's `cost_unit`, float64 `[batch]`.
    """

    storage: Array
    climate: Array
    stage: Array
    flows: Array
    dispatch: Array
    price: Array
    inflow: Array
    missed: Array
    reward: Array


@dataclass(frozen=True)
class Releases:
    """Lets go what a rule says, as far as there is water, and what reservoirs cannot hold.

    Attributes:
        world: The world.
        rule: "greedy": all that the turbines take; "run-of-river": what comes in, the turbines' limit notwithstanding
            (where actions are targets; other actions cannot ask for that); or flows `[plants]`.
    """

    world: Hydrothermal
    rule: Literal["greedy", "run-of-river"] | tuple[float, ...]

    def __call__(self, state: HydroState, observation: Array, key: Key) -> Array:
        """Return actions `[batch, plants]`."""
        system = self.world.system
        if self.rule == "run-of-river":
            wanted = self._natural_flow(state.inflow)
        else:
            flows = system.turbine_capacity if self.rule == "greedy" else np.array(self.rule)
            wanted = Constant(flows).like(state.inflow) + 0.0 * state.inflow
        end, turbined, _, _ = system.operate(state.storage, state.inflow, wanted, "release")
        return self.world.action_of(state, stacked(end), stacked(turbined))

    def _natural_flow(self, inflow: Array) -> Array:
        """Return the flow that would pass each plant if none stored water."""
        system = self.world.system
        passing: list[Any] = [inflow[:, plant] for plant in range(system.plants)]
        for plant in system.order:
            for above in system.upstream[plant]:
                passing[plant] = passing[plant] + passing[above]
        return stacked(passing)


class Hydrothermal(Simulator[HydroState]):
    """A hydrothermal system, stage by stage; what its worlds add are data, observation and what is known of them.

    Args:
        system: Plants, thermal units and load.
        inflows: How much water comes.
        initial_storage: Volumes at the start, 0 to the capacity, `[plants]`.
        horizon: Stages of an episode.
        action_mode: What actions mean, see `HydroSystem.operate`.
        cost_unit: Cost that a reward of -1 stands for, above 0.

    Raises:
        ValueError: If an argument is outside its range.
    """

    render_modes: ClassVar[tuple[str, ...]] = ("rgb_array", "ansi")
    render_fps: ClassVar[int] = 4
    draws: ClassVar[tuple[str, ...]] = ("inflow",)

    def __init__(
        self,
        system: HydroSystem,
        inflows: Inflows,
        initial_storage: NDArray[np.float64],
        horizon: int,
        action_mode: ActionMode,
        cost_unit: float,
    ) -> None:
        world = type(self).__name__
        if action_mode not in get_args(ActionMode):
            raise ValueError(f"{world}: action_mode={action_mode!r}; expected one of {get_args(ActionMode)}")
        if np.any(initial_storage > system.capacity):
            raise ValueError(
                f"{world}: initial_storage={initial_storage.tolist()}; expected at most {system.capacity.tolist()}"
            )
        self.system, self.inflows = system, inflows
        self.initial_storage = initial_storage
        self.horizon = check_count(world, "horizon", horizon)
        self.action_mode, self.cost_unit = action_mode, check_amount(world, "cost_unit", cost_unit, positive=True)
        self.action_space = gym.spaces.Box(0.0, 1.0, (system.plants,), np.float32)
        # A reservoir that holds nothing shows 0.
        self._capacity, self._start = Constant(system.capacity), Constant(initial_storage)
        self._per_volume = Constant(1.0 / np.where(system.capacity > 0.0, system.capacity, np.inf))
        self._per_flow = Constant(1.0 / inflows.scale)
        self._scale = Constant(system.capacity if action_mode == "target" else system.turbine_capacity)
        self._power = Constant(system.power)

    def initial(self, key: Key) -> HydroState:
        """Return the storage at the start, and the inflow of the first stage."""
        climate = self.inflows.first(key)
        xp = namespace_of(climate)
        stage = xp.astype(0.0 * climate[:, 0], xp.int64)
        none = 0.0 * climate
        flows = xp.concat((none, none), axis=1)
        nothing = stacked([none[:, 0]] * 4)
        storage = self._start.like(climate) + none
        return HydroState(storage, self.inflows.flow(climate, stage), climate, stage, flows, nothing)

    def decide(self, state: HydroState, action: Array) -> OperatedState:
        """Return what becomes of the water, and what meets the load; all costs are known with that."""
        wanted = action if self.action_mode == "range" else action * self._scale.like(state.storage)
        operated = self.system.operate(state.storage, state.inflow, wanted, self.action_mode)
        end, turbined, spilled, missed = (stacked(columns) for columns in operated)
        hydro = weighted_sums(turbined, self._power.like(turbined))
        dispatch = self.system.dispatch(hydro)
        return OperatedState(
            storage=end,
            climate=state.climate,
            stage=state.stage,
            flows=namespace_of(turbined).concat((turbined, spilled), axis=1),
            dispatch=stacked([hydro, dispatch.thermal, dispatch.deficit, dispatch.cost]),
            price=dispatch.price,
            inflow=state.inflow,
            missed=missed,
            reward=-dispatch.cost / self.cost_unit,
        )

    def realise(self, post: OperatedState, key: Key) -> Transition[HydroState]:
        """Return the inflow of the next stage; after the last one the plan is over."""
        stage = post.stage + 1
        climate = self.inflows.following(post.climate, stage, key)
        inflow = self.inflows.flow(climate, stage)
        plants, dispatch = self.system.plants, post.dispatch
        info = {
            "storage": post.storage,
            "inflow": post.inflow,
            "turbined": post.flows[:, :plants],
            "spilled": post.flows[:, plants:],
            "missed": post.missed,
            "hydro": dispatch[:, 0],
            "thermal": dispatch[:, 1],
            "deficit": dispatch[:, 2],
            "cost": dispatch[:, 3],
            "price": post.price,
        }
        state = HydroState(post.storage, inflow, climate, stage, post.flows, dispatch)
        return Transition(state, 0.0 * post.reward, stage >= self.horizon, info)

    def action_of(self, state: HydroState, storage: Array, turbined: Array) -> Array:
        """Return the actions `[batch, plants]` that end a stage with volumes that can be reached without need to spill.

        Args:
            state: At the start of the stage.
            storage: Volumes at its end, `[batch, plants]`.
            turbined: The flows turbined on the way there, `[batch, plants]`.
        """
        if self.action_mode == "target":
            return storage * self._per_volume.like(storage)
        scale = Constant(self.system.turbine_capacity).like(turbined)
        if self.action_mode == "release":
            return turbined / scale
        # Upstream plants first: what they release decides the range of those below.
        share = [0.0 * storage[:, plant] for plant in range(self.system.plants)]
        xp = namespace_of(storage)
        for plant in self.system.order:
            bounds = []
            for bound in (0.0, 1.0):
                share[plant] = bound + 0.0 * share[plant]
                bounds.append(self.system.operate(state.storage, state.inflow, stacked(share), "range")[0][plant])
            width = bounds[1] - bounds[0]
            wide = width > 0.0
            share[plant] = xp.where(wide, (storage[:, plant] - bounds[0]) / xp.where(wide, width, 1.0 + width), width)
        return stacked(share)

    @property
    def stage_programme(self) -> StageProgramme:
        """The linear programme of a stage, in targets for the volumes at its end.

        Raises:
            TypeError: If actions are no targets.
        """
        if self.action_mode != "target":
            raise TypeError(
                f"{type(self).__name__}: action_mode={self.action_mode!r} gives no targets; expected 'target'"
            )
        return self.system.stage_programme(self.cost_unit)

    def held(self, state: HydroState) -> Array:
        """Return the volumes at the start of the stage, `[batch, plants]`."""
        return state.storage

    def arriving(self, state: HydroState) -> Array:
        """Return the inflow of the stage, `[batch, plants]`."""
        return state.inflow

    def with_held(self, state: HydroState, held: Array) -> HydroState:
        """Return the state with other volumes `[batch, plants]`."""
        return dataclasses.replace(state, storage=held)

    def reference_policies(self) -> Mapping[str, Actor]:
        """Return "random", "greedy" and "run-of-river"."""
        return {
            "random": RandomActor(self.action_space),
            "greedy": Releases(self, "greedy"),
            "run-of-river": Releases(self, "run-of-river"),
        }

    def render(self, state: HydroState, row: int = 0, mode: str = "rgb_array") -> np.ndarray | str:
        """Return storage and flows of every plant and what met the load in the stage before; as bars or text."""
        if mode not in self.render_modes:
            raise ValueError(f"render: mode={mode!r}; expected one of {self.render_modes}")
        draw = pictures.moment_text if mode == "ansi" else pictures.draw_moment
        return draw(
            self.system,
            np.asarray(state.storage[row], np.float64),
            np.asarray(state.inflow[row], np.float64),
            np.asarray(state.last_flows[row], np.float64),
            np.asarray(state.last_dispatch[row], np.float64),
        )
