"""Running statistics that normalise observations and rewards."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from palaestra.agents.nn.networks import Observation


class RunningMoments(nn.Module):
    """Mean and variance of a stream of vectors, merged batch by batch (Chan et al. 1979), kept in float64.

    Args:
        shape: Shape of one element.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(shape, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def update(self, values: Tensor) -> None:
        """Merge a batch of values `[batch, *shape]` into the moments."""
        values = values.double()
        batch_count = values.shape[0]
        batch_mean = values.mean(0)
        batch_variance = values.var(0, correction=0)
        total = self.count + batch_count
        delta = batch_mean - self.mean
        squares = self.variance * self.count + batch_variance * batch_count
        self.variance.copy_((squares + delta.square() * self.count * batch_count / total) / total)
        self.mean.add_(delta * batch_count / total)
        self.count.copy_(total)


class ObservationNormalizer(nn.Module):
    """Standardises the float vectors of an observation, clipped to +-`clip`; images, tokens and codes pass unchanged.

    Statistics change only in `update`, never when normalising, so that evaluation leaves them frozen.

    Args:
        space: Observation space.
        clip: Largest magnitude of a normalised entry, in standard deviations.
    """

    def __init__(self, space: gym.Space[Any], clip: float = 10.0) -> None:
        super().__init__()
        self.clip = clip
        named = space.spaces if isinstance(space, spaces.Dict) else {"": space}
        self.moments = nn.ModuleDict(
            {
                f"key_{key}": RunningMoments(sub.shape)
                for key, sub in named.items()
                if isinstance(sub, spaces.Box) and len(sub.shape) <= 2 and np.issubdtype(sub.dtype, np.floating)
            }
        )

    def update(self, observation: Observation) -> None:
        """Merge a batch of observations into the statistics."""
        named = observation if isinstance(observation, dict) else {"": observation}
        for key, moments in self.moments.items():
            assert isinstance(moments, RunningMoments)
            moments.update(named[key.removeprefix("key_")])

    def forward(self, observation: Observation) -> Observation:
        """Return the observations with their float vectors standardised."""
        if isinstance(observation, dict):
            return {
                key: self._standardise(f"key_{key}", value) if f"key_{key}" in self.moments else value
                for key, value in observation.items()
            }
        return self._standardise("key_", observation) if "key_" in self.moments else observation

    def _standardise(self, key: str, value: Tensor) -> Tensor:
        moments = self.moments[key]
        assert isinstance(moments, RunningMoments)
        scale = torch.rsqrt(moments.variance + 1e-8).float()
        return ((value - moments.mean.float()) * scale).clamp(-self.clip, self.clip)


class RewardNormalizer(nn.Module):
    """Divides rewards by the running standard deviation of the discounted return (PPO continuous-control detail 8).

    Args:
        num_envs: Rows whose returns are accumulated.
        gamma: Discount.
        clip: Largest magnitude of a normalised reward.
    """

    returns: Tensor

    def __init__(self, num_envs: int, gamma: float, clip: float = 10.0) -> None:
        super().__init__()
        self.gamma, self.clip = gamma, clip
        self.moments = RunningMoments()
        self.register_buffer("returns", torch.zeros(num_envs, dtype=torch.float64))

    def update(self, reward: Tensor, done: Tensor) -> None:
        """Accumulate rewards `[steps, num_envs]`; rows whose episode ended at a step start anew after it."""
        returns = torch.empty(reward.shape, dtype=torch.float64, device=reward.device)
        for step, (rewards, ended) in enumerate(zip(reward, done, strict=True)):
            torch.add(rewards, self.returns, alpha=self.gamma, out=returns[step])
            self.returns.copy_(returns[step]).masked_fill_(ended, 0.0)
        self.moments.update(returns.flatten())

    def forward(self, reward: Tensor) -> Tensor:
        """Return normalised rewards of the same shape."""
        return (reward * torch.rsqrt(self.moments.variance + 1e-8).float()).clamp(-self.clip, self.clip)
