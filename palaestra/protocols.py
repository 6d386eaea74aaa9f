"""The contracts between worlds and agents, free of torch: both sides import this module, never each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar, runtime_checkable

import gymnasium as gym
import numpy as np

Array = Any
"""A NumPy array or a torch tensor; worlds are written once for both in the Python array-API style."""

State = TypeVar("State")


class Key(Protocol):
    """A source of counter-keyed noise for a batch of worlds: the same key always yields the same draws.

    A key names one moment `(seed, episode, step, branch)` of every row; a tape is the same object with the
    values drawn beforehand. All draws have shape `[batch, *size]` and are named, so that adding a draw to a
    world never shifts the others.
    """

    @property
    def batch(self) -> int:
        """Number of rows."""
        ...

    def uniform(self, name: str, size: tuple[int, ...] = ()) -> Array:
        """Return float64 draws, uniform on [0, 1), of shape `[batch, *size]`."""
        ...

    def normal(self, name: str, size: tuple[int, ...] = ()) -> Array:
        """Return float64 standard normal draws of shape `[batch, *size]`."""
        ...

    def integers(self, name: str, high: int, size: tuple[int, ...] = ()) -> Array:
        """Return int64 draws, uniform on {0, ..., high - 1}, of shape `[batch, *size]`."""
        ...


@dataclass(frozen=True)
class Estimand:
    """What an oracle's value is the value of, and therefore what evaluation measures on a world.

    `kind="episode_return"` is the mean undiscounted return of an episode. `kind="long_run_reward"` is the mean
    reward per step of one unbroken run of `periods` steps whose first `ignore` steps are dropped; the time limit
    does not apply to it.
    """

    kind: Literal["episode_return", "long_run_reward"] = "episode_return"
    unit: str = "return"
    periods: int = 0
    ignore: int = 0


@dataclass(frozen=True)
class Oracle:
    """The best attainable value of a world, or a bound on it, in units of reward (higher is better)."""

    value: float
    estimand: Estimand
    kind: Literal["optimum", "bound"]
    source: str


@dataclass(frozen=True)
class Transition(Generic[State]):
    """What one step of a simulator yields for every row of a batch.

    Attributes:
        state: The next state; every array has a leading batch axis.
        reward: Float array `[batch]`.
        terminated: Bool array `[batch]`: the episode ended by the rules of the world, never by a time limit.
        info: Named arrays `[batch, ...]`.
    """

    state: State
    reward: Array
    terminated: Array
    info: Mapping[str, Array] = field(default_factory=dict)


class Actor(Protocol):
    """A scripted or exact policy of a world. It may read the true state."""

    def __call__(self, state: Any, observation: Any, key: Key) -> Array:
        """Return a batch of actions `[batch, ...]` inside the world's action space."""
        ...


@runtime_checkable
class Simulator(Protocol):
    """A world as a batched pure function; `palaestra.envs.simulator.Simulator` is the base class to inherit from."""

    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    horizon: int

    def initial(self, key: Key) -> Any:
        """Return the state at the start of an episode."""
        ...

    def step(self, state: Any, action: Array, key: Key) -> Transition[Any]:
        """Return the transition of every row."""
        ...

    def observe(self, state: Any) -> Any:
        """Return the observation of every row (an array, or a dict of arrays)."""
        ...

    def action_masks(self, state: Any) -> Array | None:
        """Return the admissible actions `[batch, num_actions]` as bools, or None where all are."""
        ...

    def oracle(self) -> Oracle | None:
        """Return the best attainable value, where one is known."""
        ...

    def expert(self, kind: str = "optimal") -> Actor:
        """Return a scripted or exact policy; KeyError names the kinds there are."""
        ...

    def reference_policies(self) -> Mapping[str, Actor]:
        """Return the policies that every result is read against: `random` and the field's best heuristics."""
        ...


@runtime_checkable
class PostDecisionSimulator(Simulator, Protocol):
    """A world whose step splits into a deterministic half (the decision) and a random half (nature)."""

    def decide(self, state: Any, action: Array) -> Any:
        """Return the post-decision state, whose `reward` attribute `[batch]` is known already."""
        ...

    def realise(self, post: Any, key: Key) -> Transition[Any]:
        """Return the transition from a post-decision state; its reward is the random half's alone."""
        ...


@runtime_checkable
class ShownDecision(PostDecisionSimulator, Protocol):
    """A world that shows its post-decision states in the form of its observations."""

    def observe_post(self, post: Any) -> Any:
        """Return the observation of every row once its decision has taken effect and nature has not moved."""
        ...


OUTSIDE = -1
"""The outside supplier of a network, which always has enough."""


@dataclass(frozen=True, eq=False)
class Network:
    """A supply network, and where its parts stand in a world's observation and action.

    With it a policy reads stocks by node and link out of the flat observation and asks for one flow per link, and knows
    nothing of any particular world. The action has one entry for each link, in the order of the links: its position
    between the bounds of the action space is the flow wanted, as a share of the link's limit.

    Attributes:
        nodes: Names; nodes are numbered in this order, those that supply others before those that meet demand.
        suppliers: Node that a link comes from, or `OUTSIDE`, int64 `[links]`; links from outside come first.
        customers: Node that it leads to, int64 `[links]`.
        lead_times: Periods from an order to its arrival, at least 1, int64 `[links]`.
        unit_costs: Cost of each unit ordered, float64 `[links]`.
        flow_limits: Largest flow that can be asked for in a period, in units, float64 `[links]`.
        holding_costs: Cost of each unit left at a node in a period, float64 `[nodes]`.
        underage_costs: Cost of each unit short in a period, 0 at nodes that meet no demand, float64 `[nodes]`.
        demand_mean: Mean demand in a period, in units, 0 at nodes that meet none, float64 `[nodes]`.
        demand_std: Its standard deviation, float64 `[nodes]`.
        holds_stock: False at nodes that ship on all they have at once, so that their wanted flows are shares of it;
            bools `[nodes]`.
        on_hand: Place of each node's stock on hand in the observation, int64 `[nodes]`.
        in_transit: Place of what arrives over a link in 1, 2, ... periods, -1 where the link has no such slot; int64
            `[links, longest lead time - 1]`.
        units: Units of stock that 1 in the observation stands for, 0 where it is no stock, float64 `[observation]`.
        least_flows: Least flow that can be asked for, in units, below 0 where goods can be sent back, float64
            `[links]`; empty where it is 0 for all links.
        history: Place of each node's demand of the periods before, the oldest first, -1 at nodes that meet none, int64
            `[nodes, periods]`; empty where the world shows none.
        calendar: Places of what tells the time of the year, int64 `[entries]`; empty where there is none.
        critical_ratio: Place of `underage_cost / (underage_cost + holding_cost)` of each node that meets demand, int64;
            empty unless it differs between rows.
        lead_share: Place of the lead time of each link, over the largest, int64; empty unless it differs between rows,
            and then `lead_times` are the longest.
    """

    nodes: tuple[str, ...]
    suppliers: np.ndarray
    customers: np.ndarray
    lead_times: np.ndarray
    unit_costs: np.ndarray
    flow_limits: np.ndarray
    holding_costs: np.ndarray
    underage_costs: np.ndarray
    demand_mean: np.ndarray
    demand_std: np.ndarray
    holds_stock: np.ndarray
    on_hand: np.ndarray
    in_transit: np.ndarray
    units: np.ndarray
    least_flows: np.ndarray = field(default_factory=lambda: np.zeros(0))
    history: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    calendar: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    critical_ratio: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    lead_share: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))


@runtime_checkable
class Networked(Protocol):
    """A world that is a supply network."""

    @property
    def network(self) -> Network:
        """Return the network, and where its parts stand in observations and actions."""
        ...


@dataclass(frozen=True, eq=False)
class StageProgramme:
    """One stage of a world as a linear programme, in what is held, what arrives, and a target for what is kept.

    With held amounts x and arrivals w, decisions y and kept amounts x' solve

        minimise   costs @ y + penalty @ |d|
        subject to x' = x + gain @ w + effect @ y,  balance @ y = requirement,  x' + d = target,
                   0 <= x' <= capacity,  0 <= y <= limits

    Attributes:
        capacity: Largest amounts that can be kept, at least 0, float64 `[held]`.
        gain: What arrivals add to the amounts held, float64 `[held, arrivals]`.
        effect: What decisions add to them, float64 `[held, decisions]`.
        balance: Coefficients of further equations, float64 `[equations, decisions]`.
        requirement: Their right-hand sides, float64 `[equations]`.
        limits: Largest decisions, perhaps infinite, float64 `[decisions]`.
        costs: Of a unit of each decision, in units of reward, float64 `[decisions]`.
        unit_values: Most that a further unit held can save, in units of reward, above 0, float64 `[held]`.
    """

    capacity: np.ndarray
    gain: np.ndarray
    effect: np.ndarray
    balance: np.ndarray
    requirement: np.ndarray
    limits: np.ndarray
    costs: np.ndarray
    unit_values: np.ndarray


@runtime_checkable
class Staged(Protocol):
    """A world whose stages are linear programmes and whose actions are targets, as shares of the capacity.

    What arrives in a stage is known before its decision and does not depend on earlier ones; episodes last for
    `horizon` stages.
    """

    @property
    def stage_programme(self) -> StageProgramme:
        """Return the programme of every stage; TypeError where actions are no targets."""
        ...

    def held(self, state: Any) -> Array:
        """Return the amounts held at the start of a stage, `[batch, held]`."""
        ...

    def arriving(self, state: Any) -> Array:
        """Return what arrives in it, `[batch, arrivals]`."""
        ...

    def with_held(self, state: Any, held: Array) -> Any:
        """Return the state with other amounts held."""
        ...


@runtime_checkable
class Enumerable(Protocol):
    """A world small enough to judge a policy exactly, with no sampling."""

    def enumerate_states(self) -> Any:
        """Return a state batch with one row for every decision that an agent can face, in a fixed order."""
        ...

    def exact_return(self, probabilities: np.ndarray) -> float:
        """Return the expected return of an episode under a policy.

        Args:
            probabilities: Of the actions `[num_states, num_actions]`, in the order of `enumerate_states`.
        """
        ...


@runtime_checkable
class KnownActionValue(Protocol):
    """A world in which the value of an action is known, whatever policy goes on after it."""

    def action_value(self, state: Any, action: Array) -> Array:
        """Return the expected return `[batch]` of actions `[batch, ...]` of the action space in states."""
        ...


@runtime_checkable
class Snapshotable(Protocol):
    """Something whose whole future can be saved and continued, identically or differently."""

    def snapshot(self) -> dict[str, Any]:
        """Return the state as a tree of dicts, lists, arrays, numbers and strings."""
        ...

    def restore(self, snapshot: Mapping[str, Any], branch: int = 0) -> Any:
        """Continue from a snapshot: `branch=0` replays the same noise, other branches draw fresh noise."""
        ...


@runtime_checkable
class MaskedEnv(Protocol):
    """An environment with admissible actions; the same mask stands in `info["action_mask"]`."""

    def action_masks(self) -> np.ndarray:
        """Return bools: `[num_actions]` for one env, `[num_envs, num_actions]` for a vector env."""
        ...


def simulator_of(env: Any) -> Simulator | None:
    """Return the simulator behind an env or vector env, or None where there is none.

    Args:
        env: A `gym.Env` or `gym.vector.VectorEnv`, possibly wrapped.

    Raises:
        ValueError: If a wrapper in between changes observations, actions or rewards, so that the simulator is
            not the world the caller sees.
    """
    layer = env
    changing: list[str] = []
    while True:
        simulator = layer.__dict__.get("simulator") if hasattr(layer, "__dict__") else None
        if simulator is not None:
            if changing:
                raise ValueError(
                    f"simulator_of: env is wrapped by {', '.join(changing)}, which changes what the simulator "
                    "yields; expected a world wrapped only by recorders, checkers and time limits"
                )
            return simulator
        inner = layer.__dict__.get("env") if hasattr(layer, "__dict__") else None
        if inner is None:
            return None
        if changes_world(layer):
            changing.append(type(layer).__name__)
        layer = inner


def changes_world(wrapper: Any) -> bool:
    """Return whether a wrapper may change observations, actions or rewards: all do but those known not to."""
    if getattr(wrapper, "transparent", False):
        return False
    transparent = (
        gym.wrappers.OrderEnforcing,
        gym.wrappers.PassiveEnvChecker,
        gym.wrappers.RecordEpisodeStatistics,
        gym.wrappers.RecordVideo,
        gym.wrappers.HumanRendering,
        gym.wrappers.vector.RecordEpisodeStatistics,
    )
    return not isinstance(wrapper, transparent)
