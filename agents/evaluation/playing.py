"""One env played step by step, to be watched or recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from palaestra.agents.evaluation.players import acting_in, named_actor
from palaestra.protocols import simulator_of
from palaestra.wrappers.vectorize import make_single


def record_video(
    policy: Any, env_id: str, env_kwargs: Mapping[str, Any], folder: Path, name: str, episodes: int = 1, seed: int = 0
) -> list[float]:
    """Write an mp4 of each of some episodes and return their returns.

    Raises:
        gymnasium.error.DependencyNotInstalled: Without the extra `video`.
    """
    env = make_single(env_id, env_kwargs=env_kwargs, render_mode="rgb_array")
    recorded = gym.wrappers.RecordVideo(env, str(folder), lambda episode: True, name_prefix=name, disable_logger=True)
    try:
        return play_episodes(policy, recorded, episodes, seed)
    finally:
        recorded.close()


def play_episodes(
    policy: Any, env: gym.Env[Any, Any], episodes: int, seed: int, show: Callable[[], None] = lambda: None
) -> list[float]:
    """Return the returns of some episodes of one env.

    Args:
        policy: An agent, or the name of a reference policy or expert of the world.
        env: The env; episode `k` is reset with `seed + k`.
        episodes: Number of episodes.
        seed: Seed of the first episode.
        show: Called after every reset and step.
    """
    returns = []
    if not isinstance(policy, str):
        policy = acting_in(policy, simulator_of(env))
    for episode in range(episodes):
        observation, info = env.reset(seed=seed + episode)
        show()
        total, done, state = 0.0, False, None
        start = np.array([True])
        while not done:
            if isinstance(policy, str):
                action = _named_action(policy, env, info)
            else:
                action, state = policy.predict(observation, state, start, True, action_masks=info.get("action_mask"))
            observation, reward, terminated, truncated, info = env.step(action)
            start, done = np.array([False]), terminated or truncated
            total += float(reward)
            show()
        returns.append(total)
    return returns


def _named_action(name: str, env: gym.Env[Any, Any], info: Mapping[str, Any]) -> Any:
    simulator = simulator_of(env)
    if simulator is None:
        if name != "random":
            raise KeyError(f"policy {name!r}: {env.spec.id if env.spec else env} knows only 'random'")
        mask = info.get("action_mask")
        return env.action_space.sample() if mask is None else env.action_space.sample(np.asarray(mask, np.int8))
    face: Any = env.unwrapped
    return named_actor(simulator, name)(face.state, simulator.observe(face.state), face.key())[0]
