"""Action directions: how a policy's actions in one state are spread over the directions of the plane."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

SECTORS = 24
"""Sectors of the circle; sector k is centred on angle 2 pi k / SECTORS."""


def action_directions(
    policy: Any, env_id: str, *, env_kwargs: Mapping[str, Any], seed: int, samples: int = 2000
) -> dict[str, float]:
    """Measure the directions of actions drawn in the state that an episode starts in.

    Args:
        policy: An agent, or whatever else has its `predict`.
        env_id: Id of an env whose actions are a Box of two numbers.
        env_kwargs: Its parameters.
        seed: Seed of the start and of the draws.
        samples: Actions drawn.

    Returns:
        "share-00", "share-01", ...: of the actions in each sector; "entropy": of these shares, in nats.

    Raises:
        TypeError: If actions are of another kind.
    """
    # Reading the shares of rows is to cost no torch.
    import torch

    env = gym.make(env_id, **env_kwargs)
    try:
        if not isinstance(env.action_space, spaces.Box) or env.action_space.shape != (2,):
            raise TypeError(f"action_directions: action space {env.action_space}; expected a Box of shape (2,)")
        observation, _ = env.reset(seed=seed)
    finally:
        env.close()
    generator = torch.Generator(getattr(policy, "device", "cpu")).manual_seed(seed)
    repeated = (
        {key: np.repeat(np.asarray(value)[None], samples, 0) for key, value in observation.items()}
        if isinstance(observation, dict)
        else np.repeat(np.asarray(observation)[None], samples, 0)
    )
    action, _ = policy.predict(repeated, deterministic=False, generator=generator)
    shares = direction_shares(np.asarray(action))
    present = shares[shares > 0.0]
    entropy = float(-(present * np.log(present)).sum()) + 0.0
    return {**{share_name(k): float(share) for k, share in enumerate(shares)}, "entropy": entropy}


def share_name(sector: int) -> str:
    """Return the name under which a sector's share is measured."""
    return f"share-{sector:02d}"


def direction_shares(actions: np.ndarray) -> np.ndarray:
    """Return the share of actions `[n, 2]` in each sector, float64 `[SECTORS]`."""
    angle = np.arctan2(actions[:, 1], actions[:, 0])
    sector = np.rint(angle / (2.0 * math.pi) * SECTORS).astype(np.int64) % SECTORS
    shares: np.ndarray = np.bincount(sector, minlength=SECTORS) / len(actions)
    return shares
