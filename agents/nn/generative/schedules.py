"""Noise schedules of diffusions, and the coefficients of a denoising step."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

SMALLEST_ALPHA = 1e-3
"""A single level leaves at least this share of the signal's variance."""


def cosine(levels: int) -> np.ndarray:
    """Return the shares of variance that each level leaves `[levels]`, alpha_bar_k ~ cos^2(pi/2 (k/K + s) / (1 + s)).

    Source: Nichol and Dhariwal 2021, arXiv 2102.09672, with s = 0.008.
    """
    share = np.cos((np.linspace(0.0, 1.0, levels + 1) + 0.008) / 1.008 * math.pi / 2.0) ** 2
    return share[1:] / share[:-1]


def variance_preserving(levels: int) -> np.ndarray:
    """Return the shares of variance that each level leaves `[levels]`: those of the SDE with rates from 0.1 to 10.

    Source: Song et al. 2021, arXiv 2011.13456, eq. 11, integrated over each level (Xiao, Kreis and Vahdat 2022, arXiv
    2112.07804).
    """
    level = np.arange(1, levels + 1)
    return np.exp(-0.1 / levels - 0.5 * 9.9 * (2 * level - 1) / levels**2)


def linear(levels: int) -> np.ndarray:
    """Return the shares of variance that each level leaves `[levels]`: 1 - beta with beta from 1e-4 to 0.02.

    Those are meant for 1,000 levels (Ho, Jain and Abbeel 2020, arXiv 2006.11239) and are scaled by 1000 / levels, so
    that fewer levels end in noise too.
    """
    share: np.ndarray = 1.0 - np.linspace(1e-4, 2e-2, levels) * (1000.0 / levels)
    return share


SCHEDULES: dict[str, Callable[[int], np.ndarray]] = {"cosine": cosine, "vp": variance_preserving, "linear": linear}
"""Shares of variance that each of so many levels leaves, by name."""


class Schedule:
    """Coefficients of the levels k = 0..K of a diffusion, float64 `[K + 1]`.

    Noised actions are x_k = signal_k a + noise_k eps, with signal^2 + noise^2 = 1. A denoising step from level k is
    x_{k-1} = of_action_k a_hat + of_point_k x_k + std_k eps, with a_hat the action predicted at level k; at k = 0,
    where none starts, the three are 0.

    Args:
        name: A key of `SCHEDULES`.
        levels: K, at least 1.
        eta: Share of the ancestral noise in a step, in [0, 1]: 1 is DDPM's posterior, 0 is deterministic DDIM
            (Song, Meng and Ermon 2021, arXiv 2010.02502, eq. 12).

    Raises:
        ValueError: If an argument is outside its range.
    """

    def __init__(self, name: str, levels: int, eta: float = 1.0) -> None:
        if name not in SCHEDULES:
            raise ValueError(f"Schedule: name={name!r}; expected one of {', '.join(SCHEDULES)}")
        if levels < 1:
            raise ValueError(f"Schedule: levels={levels}; expected an integer of at least 1")
        if not 0.0 <= eta <= 1.0:
            raise ValueError(f"Schedule: eta={eta}; expected a number in [0, 1]")
        share = np.concatenate([[1.0], np.cumprod(np.maximum(SCHEDULES[name](levels), SMALLEST_ALPHA))])
        self.signal, self.noise = np.sqrt(share), np.sqrt(1.0 - share)
        after, now = share[:-1], share[1:]
        std = eta * np.sqrt((1.0 - after) / (1.0 - now) * (1.0 - now / after))
        of_point = np.sqrt(1.0 - after - std**2) / self.noise[1:]
        of_action = self.signal[:-1] - of_point * self.signal[1:]
        self.std, self.of_point, self.of_action = (np.concatenate([[0.0], c]) for c in (std, of_point, of_action))
