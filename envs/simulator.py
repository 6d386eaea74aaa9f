"""The one contract that every own world keeps: a batched pure function of state, action and keyed noise.

A world subclasses `Simulator` and gets both Gymnasium faces from `palaestra.envs.faces`. Its methods take and
return arrays with a leading batch axis, on NumPy or torch alike (`array_namespace(state_array)` tells which), never
mutate their arguments, never loop over the batch in Python and never draw noise except from the key they are given.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import gymnasium as gym
import numpy as np
from array_api_compat import array_namespace

from palaestra.envs.arrays import rows_replaced, table_like
from palaestra.protocols import Actor, Array, Key, Oracle, State, Transition

Record = TypeVar("Record")


class Simulator(ABC, Generic[State]):
    """Base class of own worlds; the class docstring of each world is its specification.

    Attributes:
        observation_space: Space of one row's observation.
        action_space: Space of one row's action; boxes are normalised to [-1, 1] or [0, 1].
        horizon: Steps after which the face truncates an episode.
        render_modes: What `render` can draw, of "rgb_array" and "ansi".
        render_fps: Steps of the world that a film shows each second.
        elementwise: Whether `step` and `observe` also take one row without its batch axis: a state whose fields are
            NumPy scalars and an action of the shape of `action_space` (the key still has its axis, so such a world
            draws no noise in `step`). The single face then steps scalars, which cost a tenth of arrays of one element.
        starts_ahead: Rows of which a vector face draws the next starts together, before they are needed: for worlds
            whose `initial` makes so many array calls that a few rows cost as much as many.
        tasks: Number of tasks that `reset(options={"task_seed": q})` can choose from; 0 where tasks are not numbered.
        draws: Names of all draws that the world makes from its keys; their 16-bit codes must differ.
    """

    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    horizon: int
    render_modes: ClassVar[tuple[str, ...]] = ()
    render_fps: ClassVar[int] = 10
    draws: ClassVar[tuple[str, ...]] = ()
    elementwise: ClassVar[bool] = False
    starts_ahead: ClassVar[int] = 0
    tasks: int = 0

    @abstractmethod
    def initial(self, key: Key) -> State:
        """Return the state at the start of an episode, one row for each row of the key."""

    def initial_of_task(self, task: Array, key: Key) -> State:
        """Return the state at the start of an episode of chosen tasks `[batch]`, numbers from 0 to `tasks` - 1."""
        raise TypeError(f"{type(self).__name__} has no numbered tasks")

    def decide(self, state: State, action: Array) -> Any:
        """Return the post-decision state (deterministic half of a step); its `reward` `[batch]` is known already."""
        raise TypeError(f"{type(self).__name__} has no post-decision split: it defines step alone")

    def realise(self, post: Any, key: Key) -> Transition[State]:
        """Return the transition from a post-decision state; its reward is the random half's alone."""
        raise TypeError(f"{type(self).__name__} has no post-decision split: it defines step alone")

    def step(self, state: State, action: Array, key: Key) -> Transition[State]:
        """Return the whole transition; worlds without a useful split override this method alone."""
        post = self.decide(state, action)
        transition = self.realise(post, key)
        return Transition(transition.state, post.reward + transition.reward, transition.terminated, transition.info)

    @abstractmethod
    def observe(self, state: State) -> Any:
        """Return the observation of every row, as the arrays of `observation_space` with a batch axis in front."""

    def encode_action(self, state: State, actions: Sequence[Any]) -> Any:
        """Return the action arrays `[batch, ...]` that `step` takes, of one user action for each row.

        The faces call this where `action_space` is or contains a Text space, and only there: all other actions
        they check and turn into arrays themselves. A world decides here what a string means; whether one that means
        nothing is an error or an action with an effect is part of its specification.

        Args:
            state: The present state.
            actions: One member of `action_space` for each row (a string where the space is Text).

        Raises:
            TypeError: If an action is of a wrong type.
            ValueError: If an action has no meaning in the world.
        """
        raise TypeError(f"{type(self).__name__} has a Text action space but defines no encode_action")

    def decode_observation(self, observation: Any, state: State) -> Sequence[Any]:
        """Return one member of `observation_space` for each row, from the arrays that `observe(state)` returned.

        The faces call this where `observation_space` is or contains a Text space, and only there, so that strings
        are rendered for the eyes that read them and arrays stay arrays everywhere else.
        """
        raise TypeError(f"{type(self).__name__} has a Text observation space but defines no decode_observation")

    def action_masks(self, state: State) -> Array | None:
        """Return admissible actions `[batch, num_actions]` as bools, or None where every action always is."""
        return None

    def information(self, state: State) -> Mapping[str, Array]:
        """Return the info arrays `[batch, ...]` that are a function of the state (also given after a reset)."""
        return {}

    def state_key(self, state: State) -> np.ndarray:
        """Return an int64 hash `[batch]` of the true state, clock and noise excluded.

        Raises:
            TypeError: If the world defines none (continuous worlds need none).
        """
        raise TypeError(f"{type(self).__name__} defines no state key")

    def oracle(self) -> Oracle | None:
        """Return the best attainable value or a bound on it, or None where neither is known."""
        return None

    def experts(self) -> Mapping[str, Actor]:
        """Return scripted or exact policies by kind ("optimal" where exact)."""
        return {}

    def expert(self, kind: str = "optimal") -> Actor:
        """Return one of `experts()`; KeyError names the kinds there are."""
        experts = self.experts()
        if kind not in experts:
            raise KeyError(
                f"expert: kind={kind!r} is unknown to {type(self).__name__}; expected one of {sorted(experts)}"
            )
        return experts[kind]

    def reference_policies(self) -> Mapping[str, Actor]:
        """Return the policies that results are read against; "random" is always among them."""
        return {"random": RandomActor(self.action_space)}

    def render(self, state: State, row: int = 0, mode: str = "rgb_array") -> Any:
        """Return a picture `[height, width, 3]` uint8 ("rgb_array") or a text ("ansi") of one row of a NumPy state."""
        raise ValueError(
            f"render: mode={mode!r} is not drawn by {type(self).__name__}; expected one of {self.render_modes}"
        )


@dataclasses.dataclass(frozen=True)
class RandomActor:
    """Uniformly random actions from the world's own noise (draw "policy").

    Args:
        space: A bounded Box of floats, a Discrete or a MultiDiscrete space.
        masks: Admissible actions `[batch, num_actions]` of a state, for Discrete spaces; None where all are.
    """

    space: gym.Space[Any]
    masks: Callable[[Any], Array | None] | None = None

    def __call__(self, state: Any, observation: Any, key: Key) -> Array:
        """Return actions `[batch, ...]`; for Discrete spaces, uniform over the admissible ones."""
        space = self.space
        if isinstance(space, gym.spaces.Discrete):
            mask = self.masks(state) if self.masks is not None else None
            if mask is None:
                return key.integers("policy", int(space.n)) + int(space.start)
            xp = array_namespace(mask)
            scores = key.uniform("policy", (int(space.n),)) + 1.0
            return xp.argmax(xp.where(mask, scores, xp.zeros_like(scores)), axis=-1) + int(space.start)
        if isinstance(space, gym.spaces.Box) and space.is_bounded() and space.low.dtype.kind == "f":
            share = key.uniform("policy", space.shape)
            low, high = (table_like(bound.astype(np.float64), share) for bound in (space.low, space.high))
            return low + (high - low) * share
        if isinstance(space, gym.spaces.MultiDiscrete):
            share = key.uniform("policy", space.shape)
            count, start = (table_like(bound, share) for bound in (space.nvec, space.start))
            return array_namespace(share).astype(share * count, count.dtype) + start
        raise TypeError(f"RandomActor: space={space}; expected a bounded Box of floats, Discrete or MultiDiscrete")


def map_arrays(function: Callable[..., Array], *records: Record) -> Record:
    """Return a record like the first with `function` applied to the arrays of all records, field by field."""
    first = records[0]
    kind = type(first)
    return kind(**{name: function(*[getattr(record, name) for record in records]) for name in field_names(kind)})


_FIELD_NAMES: dict[type[Any], tuple[str, ...]] = {}


def field_names(kind: type[Any]) -> tuple[str, ...]:
    """Return the names of the fields of a dataclass; they are asked for at every step, so they are looked up once."""
    names = _FIELD_NAMES.get(kind)
    if names is None:
        names = _FIELD_NAMES[kind] = tuple(f.name for f in dataclasses.fields(kind))
    return names


def take_rows(record: Record, rows: Array) -> Record:
    """Return the given rows of a state (branching, sub-batches, resampling)."""
    return map_arrays(lambda array: array[rows], record)


def with_rows(record: Record, rows: Array, part: Record) -> Record:
    """Return a state with the given rows replaced by those of another, as many as there are indices."""
    return map_arrays(lambda array, values: rows_replaced(array, rows, values), record, part)


def where_rows(condition: Array, chosen: Record, other: Record) -> Record:
    """Return `chosen` in the rows where `condition` `[batch]` holds and `other` elsewhere."""

    def select(a: Array, b: Array) -> Array:
        xp = array_namespace(a, b)
        return xp.where(xp.reshape(condition, (-1,) + (1,) * (a.ndim - 1)), a, b)

    return map_arrays(select, chosen, other)
