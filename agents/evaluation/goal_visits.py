"""Goal visits: how many of several goals a policy reaches, by the entropy of where its episodes end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from palaestra.agents.evaluation.evaluate import play_episodes


def goal_visits(
    policy: Any,
    env_id: str,
    *,
    env_kwargs: Mapping[str, Any],
    seed: int,
    episodes: int = 100,
    deterministic: bool = False,
    info: str = "goal",
) -> dict[str, float]:
    """Measure over episodes which goal each ended in.

    Args:
        policy: As for `evaluate`; it acts by samples unless `deterministic`.
        env_id: Id of an env whose `info[info]` is an integer: the goal an episode is in, -1 for none.
        env_kwargs: Its parameters.
        seed: Seed of the evaluation.
        episodes: Number of episodes.
        deterministic: Whether the policy acts by its mode.
        info: Name of that info.

    Returns:
        "entropy": of the goals visited, in nats, 0 to log(number of goals); "goals": how many were visited at all;
        "rate": the share of episodes that ended in one.

    Raises:
        KeyError: If the env reports no such info.
    """
    played = play_episodes(
        policy,
        env_id,
        env_kwargs=env_kwargs,
        episodes=episodes,
        seed=seed,
        deterministic=deterministic,
        final_info=(info,),
    )
    goals = played.final_info[info]
    visits = np.unique(goals[goals >= 0], return_counts=True)[1]
    shares = visits / max(int(visits.sum()), 1)
    return {
        "entropy": float(-(shares * np.log(shares)).sum()) + 0.0,
        "goals": float(len(visits)),
        "rate": float(np.mean(goals >= 0)),
    }
