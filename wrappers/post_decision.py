"""What an env shows between a decision and what nature makes of it: its post-decision state."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array, iterate

from palaestra.protocols import ShownDecision, changes_world, simulator_of

PostDecision = Callable[[np.ndarray], tuple[Any, np.ndarray]]
"""From the actions of all rows to the observations of their post-decision states and the rewards known by then."""


def post_decision_of(env: VectorEnv[Any, Any, Any]) -> PostDecision:
    """Return the function that shows every row once its action has taken effect and nature has not moved.

    It takes actions `[num_envs, ...]` as `env.step` does and changes nothing. It returns observations of the form of
    the env's own and float64 rewards `[num_envs]`, the part of each step's reward that the decision fixes.

    An env has such states if it is a world of the suite whose simulator defines `observe_post`, or if it has a method
    `post_decision(action)` that returns an observation and a reward; a `SyncVectorEnv` has them if all its envs do.

    Raises:
        TypeError: If the env shows no post-decision states.
        ValueError: If a wrapper may change observations or rewards and defines no `post_decision` of its own.
    """
    whole = _shown_by(env)
    if whole is not None:
        return whole
    if isinstance(env.unwrapped, SyncVectorEnv):
        rows = [_shown_by(row) for row in env.unwrapped.envs]
        found = [row for row in rows if row is not None]
        if len(found) == len(rows):
            return partial(_by_row, env.unwrapped, found)
    raise TypeError(
        f"post_decision_of: env={env} shows no post-decision states; expected a world whose simulator defines "
        "observe_post, or an env with a method post_decision(action) that returns an observation and a reward"
    )


def _shown_by(env: Any) -> Callable[[Any], tuple[Any, Any]] | None:
    layer = env
    changing: list[str] = []
    while layer is not None:
        found: Callable[[Any], tuple[Any, Any]] | None = getattr(layer, "post_decision", None)
        if found is not None and (layer.unwrapped is not layer or _shows(layer)):
            if changing:
                raise ValueError(
                    f"post_decision_of: env is wrapped by {', '.join(changing)}, which may change what it shows; "
                    "expected a wrapper with a post_decision of its own, or one that only records, checks or limits"
                )
            return found
        if changes_world(layer):
            changing.append(type(layer).__name__)
        layer = layer.__dict__.get("env")
    return None


def _shows(env: Any) -> bool:
    """Return whether an env that can be asked has an answer: all do, but worlds of the suite without `observe_post`."""
    simulator = simulator_of(env)
    return simulator is None or isinstance(simulator, ShownDecision)


def _by_row(
    env: SyncVectorEnv[Any, Any], rows: list[Callable[[Any], tuple[Any, Any]]], actions: np.ndarray
) -> tuple[Any, np.ndarray]:
    results = [row(action) for row, action in zip(rows, iterate(env.action_space, actions), strict=True)]
    space: gym.Space[Any] = env.single_observation_space
    empty: Any = create_empty_array(space, len(rows))
    return concatenate(space, [shown for shown, _ in results], empty), np.array(
        [reward for _, reward in results], np.float64
    )
