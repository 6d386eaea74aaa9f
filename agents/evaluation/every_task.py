"""Every task of a world, once: a measurement without the noise of which tasks happened to be drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from palaestra.agents.evaluation.evaluate import simulator_for
from palaestra.agents.evaluation.players import make_player
from palaestra.seeding import row_seeds
from palaestra.wrappers.vectorize import make_vec, native_backend


def every_task(
    policy: Any,
    env_id: str,
    *,
    env_kwargs: Mapping[str, Any],
    seed: int,
    deterministic: bool = True,
    ignore: int = 0,
) -> dict[str, float]:
    """Measure one episode of each task of a world with numbered tasks, such as each series of `RetailStore`.

    Tasks may differ far more from each other than policies do. Where they alone are drawn, as there, the result is
    exact: it has no noise left, and is the same for every seed.

    Args:
        policy: As for `evaluate`.
        env_id: Id of an own world whose simulator has `tasks`.
        env_kwargs: Its parameters.
        seed: Seed of the evaluation.
        deterministic: Whether the policy acts by its mode.
        ignore: Steps at the start of an episode that "reward" leaves out.

    Returns:
        "return": mean over tasks of the undiscounted return; "reward": mean over tasks of the mean reward of a step.

    Raises:
        ValueError: If the world has no numbered tasks, or an episode ends within the steps that are left out.
    """
    simulator = simulator_for(env_id, env_kwargs)
    tasks = int(getattr(simulator, "tasks", 0))
    if tasks < 1:
        raise ValueError(
            f"every_task: {env_id} has no numbered tasks; expected a world such as palaestra/RetailStore-v0"
        )
    stack = int(getattr(getattr(policy, "config", None), "frame_stack", 1))
    backend = native_backend(env_id)
    env = make_vec(env_id, tasks, env_kwargs=dict(env_kwargs), frame_stack=stack, backend=backend)
    try:
        player = make_player(policy, env, simulator, deterministic, seed)
        seeds: Any = row_seeds(seed, "eval", tasks)
        observation, info = env.reset(seed=seeds, options={"task_seed": list(range(tasks))})
        going, start = np.ones(tasks, bool), np.ones(tasks, bool)
        total, counted, steps = np.zeros(tasks), np.zeros(tasks), np.zeros(tasks)
        step = 0
        while going.any():
            observation, reward, terminated, truncated, info = env.step(player.act(observation, info, start))
            total += going * reward
            if step >= ignore:
                counted += going * reward
                steps += going
            start = terminated | truncated
            going &= ~start
            step += 1
    finally:
        env.close()
    if not steps.all():
        raise ValueError(f"every_task: ignore={ignore}; expected fewer steps than the {step} of the longest episode")
    return {"return": float(total.mean()), "reward": float((counted / steps).mean())}
