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
        units: Units of stock that 1 in the observation stands for, float64 `[observation]`.
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


@runtime_checkable
class Networked(Protocol):
    """A world that is a supply network."""

    @property
    def network(self) -> Network:
        """Return the network, and where its parts stand in observations and actions."""
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
        if _changes_world(layer):
            changing.append(type(layer).__name__)
        layer = inner


def _changes_world(wrapper: Any) -> bool:
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
