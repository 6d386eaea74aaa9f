"""Measures: what a claim has measured beside the returns, by name.

A measure is a function of the form of `evaluate`, whose result goes into the row as "measure/key":

    def visits(policy, env_id, *, env_kwargs, seed, **options) -> {"entropy": 1.2, ...}

It may be asked at every point of a learning curve, of an agent in the midst of its training. So it leaves the agent as
it is: it draws from no generator of the agent's, plays on an env of its own (`play_episodes` does both), and takes its
own noise from `seed`, the run's seed. What it needs beyond `predict` it reads off the agent's attributes, and says what
is missing by a TypeError. Options are those that the claim's file gives an arm, JSON values by name. A new measure is a
file and a line in `MEASURES`; one outside the suite is named "package.module:function".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any

MEASURES: Mapping[str, str] = MappingProxyType(
    {
        "action-directions": "palaestra.agents.evaluation.action_directions:action_directions",
        "decision-frequency": "palaestra.agents.evaluation.decision_frequency:decision_frequencies",
        "episode-totals": "palaestra.agents.evaluation.episode_totals:episode_totals",
        "every-task": "palaestra.agents.evaluation.every_task:every_task",
        "goal-visits": "palaestra.agents.evaluation.goal_visits:goal_visits",
        "gradient-error": "palaestra.agents.evaluation.gradient_error:gradient_error",
        "overestimation": "palaestra.agents.evaluation.overestimation:overestimation",
        "ratio-error": "palaestra.agents.evaluation.ratio_error:ratio_error",
        "sampling-error": "palaestra.agents.evaluation.sampling_error:batch_sampling_error",
    }
)
"""Where the suite's measures are, by name."""


def find_measure(name: str) -> Callable[..., Any]:
    """Return the measure of a name, or of "package.module:function".

    Raises:
        ValueError: If there is none.
    """
    module, colon, function = MEASURES.get(name, name).partition(":")
    if not colon:
        raise ValueError(f"measure {name!r} is unknown; expected 'package.module:function' or one of {list(MEASURES)}")
    try:
        found: Callable[..., Any] = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"measure {name!r} cannot be imported ({error}); expected a function there") from error
    return found


def measure_all(
    measures: Mapping[str, Mapping[str, Any]], policy: Any, env_id: str, env_kwargs: Mapping[str, Any], seed: int
) -> dict[str, float]:
    """Return what several measures say of a policy, as "measure/key".

    Args:
        measures: Options of each measure, by its name.
        policy: An agent, or whatever else `evaluate` takes.
        env_id: Id of the env.
        env_kwargs: Its parameters.
        seed: Seed of the run.

    Raises:
        ValueError: If a measure is unknown, or its result is no mapping, or not of numbers.
        TypeError: If a measure does not fit the policy.
    """
    numbers: dict[str, float] = {}
    for name, options in measures.items():
        found = find_measure(name)(policy, env_id, env_kwargs=dict(env_kwargs), seed=seed, **options)
        # Evaluators that return a record give its numbers by `metrics()`, as `evaluate`'s own record does.
        result = found.metrics() if hasattr(found, "metrics") else found
        if not isinstance(result, Mapping):
            raise ValueError(f"measure {name!r} returned {result!r}; expected numbers by key")
        numbers |= {f"{name}/{key}": float(value) for key, value in result.items()}
    return numbers
