"""Generative heads whose answers are known in closed form, and distances to known mixtures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from scipy.stats import norm
from torch import Tensor, nn

NOTHING = spaces.Box(-1.0, 1.0, (1,), np.float32)
"""Observations that say nothing."""


class Known(nn.Module):
    """What stands for a head's network: a given function of points and times."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def encode(self, observation: Tensor) -> Tensor:
        return observation

    def forward(self, features: Tensor, point: Tensor, time: Tensor) -> Tensor:
        return self.function(point, time.unsqueeze(-1))

    def along(self, features: Tensor, times: Tensor) -> Callable[[int, Tensor], Tensor]:
        return lambda step, point: self.function(point, times[step])


def gaussian_velocity(mean: float, std: float) -> Callable[[Tensor, Tensor], Tensor]:
    """E[a - z | x_t = x] for independent z ~ N(0, 1) and a ~ N(mean, std^2), in every dimension."""

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        variance = (1.0 - t) ** 2 + t**2 * std**2
        return mean + (t * std**2 - (1.0 - t)) * (x - t * mean) / variance

    return velocity


def gaussian_noise_prediction(
    mean: float, std: float, signal: Tensor, noise: Tensor
) -> Callable[[Tensor, Tensor], Tensor]:
    """E[eps | x_k = x] for a ~ N(mean, std^2), given the coefficients of the levels `[K + 1]`."""
    levels = len(signal) - 1

    def prediction(x: Tensor, time: Tensor) -> Tensor:
        level = (time * levels).round().long()
        return noise[level] * (x - signal[level] * mean) / (signal[level] ** 2 * std**2 + noise[level] ** 2)

    return prediction


def zeros(count: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return observations that say nothing."""
    return torch.zeros(count, 1, dtype=dtype)


MODES, SPREAD = (-0.6, 0.6), 0.1


def mixture_samples(count: int, generator: torch.Generator) -> Tensor:
    """Return samples `[count, 1]` of an even mixture of N(-0.6, 0.1^2) and N(0.6, 0.1^2)."""
    modes = torch.tensor(MODES)[torch.randint(2, (count,), generator=generator)]
    return (modes + SPREAD * torch.randn(count, generator=generator)).unsqueeze(-1)


def distance_to_mixture(samples: Tensor) -> float:
    """Return the first Wasserstein distance of samples `[count, 1]` to that mixture, in one dimension."""
    grid = np.linspace(-2.0, 2.0, 4001)
    distribution = 0.5 * sum(norm.cdf(grid, mode, SPREAD) for mode in MODES)
    empirical = np.searchsorted(np.sort(samples.flatten().numpy()), grid, side="right") / len(samples)
    return float(np.abs(empirical - distribution).mean() * (grid[-1] - grid[0]))


def trained(head: Any, draw_time: Callable[[torch.Generator], Tensor], steps: int = 1200, batch: int = 256) -> Any:
    """Return a head trained on the mixture."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(head.parameters(), 2e-3)
    for _ in range(steps):
        action = mixture_samples(batch, generator)
        noise = torch.randn(batch, 1, generator=generator)
        optimizer.zero_grad()
        head.loss(zeros(batch), action, noise, draw_time(generator)).mean().backward()
        optimizer.step()
    return head
