"""Batches of transitions that several agents' tests learn from."""

from __future__ import annotations

from typing import Any

import torch

from palaestra.agents.memory.replay import Batch


def pendulum_batch(seed: int = 0, following_mean: float = 0.0) -> Batch:
    """Return 32 random transitions of Pendulum's shapes, of which 8 end an episode and the others are cut off.

    Args:
        seed: Seed of the draws.
        following_mean: Mean of the next observations.
    """
    generator = torch.Generator().manual_seed(seed)
    observation, following = torch.randn(2, 32, 3, generator=generator)
    action = torch.rand(32, 1, generator=generator) * 2.0 - 1.0
    reward = torch.randn(32, generator=generator)
    terminated = torch.arange(32) < 8
    return Batch(observation, action, reward, following_mean + following, terminated, ~terminated)


def as_samples(batch: Batch) -> Any:
    """Return transitions with one discrete action each as stable-baselines3's replay hands them out."""
    # Only here: without stable-baselines3 the other tests run all the same.
    from stable_baselines3.common.type_aliases import ReplayBufferSamples

    return ReplayBufferSamples(
        batch.observation,
        batch.action[:, None],
        batch.next_observation,
        batch.terminated.float()[:, None],
        batch.reward[:, None],
    )
