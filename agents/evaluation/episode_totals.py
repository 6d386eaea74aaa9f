"""Episode totals: what a world adds up over its episodes beside the return, for a whole episode and by the step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from palaestra.agents.evaluation.evaluate import play_episodes


def episode_totals(
    policy: Any,
    env_id: str,
    *,
    env_kwargs: Mapping[str, Any],
    seed: int,
    episodes: int = 100,
    deterministic: bool = True,
    info: str = "totals",
) -> dict[str, float]:
    """Measure what episodes have added up to by their ends.

    Args:
        policy: As for `evaluate`.
        env_id: Id of an env whose `info[info]` at the end of an episode is a vector `[entries]` of sums over its steps.
        env_kwargs: Its parameters.
        seed: Seed of the evaluation.
        episodes: Number of episodes.
        deterministic: Whether the policy acts by its mode.
        info: Name of that info.

    Returns:
        "length": mean steps of an episode; for every entry k, "k": its mean over episodes, and "k_by_step": the sum
        over all episodes divided by their steps.

    Raises:
        KeyError: If the env reports no such info.
        ValueError: If it is no vector.
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
    totals = played.final_info[info]
    if totals.ndim != played.lengths.ndim + 1:
        shape = totals.shape[played.lengths.ndim :]
        raise ValueError(f"episode_totals: info[{info!r}] of shape {shape}; expected a vector")
    totals = totals.reshape(-1, totals.shape[-1])
    length = float(played.lengths.mean())
    measured = {"length": length}
    for entry, mean in enumerate(totals.mean(axis=0)):
        measured |= {str(entry): float(mean), f"{entry}_by_step": float(mean) / length}
    return measured
