"""Episodes of a policy at a vector env: the same number in every row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from palaestra.agents.evaluation.players import Player


@dataclass(frozen=True)
class Episodes:
    """Episodes that were played, row by row.

    Attributes:
        returns: Undiscounted returns `[episodes]`.
        lengths: Steps `[episodes]`.
        success: Whether `info["success"]` (or `info["is_success"]`) held at the end `[episodes]`; None where the env
            reports none.
        final_info: Other infos at the end that were asked for, by name `[episodes, ...]`.
    """

    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]
    success: NDArray[np.bool_] | None
    final_info: Mapping[str, NDArray[Any]] = field(default_factory=dict)


def play_rows(
    env: gym.vector.VectorEnv[Any, Any, Any],
    player: Player,
    seeds: list[int],
    episodes_per_row: int,
    final_info: Sequence[str] = (),
) -> Episodes:
    """Play the same number of episodes in every row, so that short ones do not count more often than long ones.

    Args:
        env: A vector env that resets rows in the step in which they end.
        player: Who plays.
        seeds: A seed for every row.
        episodes_per_row: At least 1.
        final_info: Names of the infos to keep of every episode's end.

    Raises:
        ValueError: If the env resets at another time.
        KeyError: If the env does not report an info asked for.
    """
    if env.metadata.get("autoreset_mode") != AutoresetMode.SAME_STEP:
        raise ValueError(f"evaluate: autoreset_mode={env.metadata.get('autoreset_mode')}; expected SAME_STEP")
    num_envs = env.num_envs
    returns = np.zeros((num_envs, episodes_per_row))
    lengths = np.zeros((num_envs, episodes_per_row), np.int64)
    success = np.zeros((num_envs, episodes_per_row), np.bool_)
    kept: dict[str, dict[tuple[int, int], Any]] = {name: {} for name in final_info}
    reports_success = False
    finished = np.zeros(num_envs, np.int64)
    rows = np.arange(num_envs)
    observation, info = env.reset(seed=seeds)  # type: ignore[arg-type]
    episode_start = np.ones(num_envs, np.bool_)
    while (finished < episodes_per_row).any():
        observation, reward, terminated, truncated, info = env.step(player.act(observation, info, episode_start))
        counted = finished < episodes_per_row
        at = rows[counted], finished[counted]
        returns[at] += np.asarray(reward, np.float64)[counted]
        lengths[at] += 1
        episode_start = np.asarray(terminated) | np.asarray(truncated)
        ended = counted & episode_start
        if ended.any():
            outcome = _success(info)
            if outcome is not None:
                reports_success = True
                success[rows[ended], finished[ended]] = outcome[ended]
            for name, values in kept.items():
                found = _final(info, name)
                values |= {(int(row), int(finished[row])): found[row] for row in rows[ended]}
            finished += ended
    return Episodes(
        returns.ravel(),
        lengths.ravel(),
        success.ravel() if reports_success else None,
        {name: np.array([values[place] for place in sorted(values)]) for name, values in kept.items()},
    )


def _success(info: Mapping[str, Any]) -> NDArray[np.bool_] | None:
    final = info.get("final_info", {})
    for name in ("success", "is_success"):
        if name in final:
            return np.asarray(final[name]).astype(np.bool_)
    return None


def _final(info: Mapping[str, Any], name: str) -> Any:
    final = info.get("final_info", {})
    if name not in final:
        raise KeyError(f"final_info: the env reports no {name!r}; expected one of {sorted(final)}")
    return final[name]
