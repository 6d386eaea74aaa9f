"""Distributions of demand on an evenly spaced lattice, and their sums over periods."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, ndtr, pdtr

_TAIL = 8.5
"""Standard deviations above the mean at which a normal tail is cut; what lies beyond has a probability of 1e-17."""


@dataclass(frozen=True)
class Lattice:
    """A distribution on the points `0, step, 2 step, ...`.

    Attributes:
        probabilities: Of the points, float64 `[points]`.
        step: Distance of neighbouring points, in units.
    """

    probabilities: NDArray[np.float64]
    step: float

    @property
    def points(self) -> NDArray[np.float64]:
        """Return the points, in units."""
        return np.arange(len(self.probabilities), dtype=np.float64) * self.step

    @property
    def mean(self) -> float:
        """Return the mean, in units."""
        return float(self.probabilities @ self.points)

    def times(self, periods: int) -> Lattice:
        """Return the distribution of the sum of `periods` independent draws (at least 0)."""
        total, power, left = np.ones(1), self.probabilities, periods
        while left:
            if left & 1:
                total = convolved(total, power)
            left >>= 1
            if left:
                power = convolved(power, power)
        return Lattice(np.maximum(total, 0.0), self.step)

    def expected_shortage(self, level: ArrayLike) -> NDArray[np.float64]:
        """Return the mean of what demand exceeds each level by, `E max(D - level, 0)`; exact for every real level."""
        above = np.concatenate((np.cumsum(self.probabilities[::-1])[::-1], (0.0,)))
        # G(0) is the mean; between neighbouring points G falls with slope -P(D > point).
        losses = self.mean - self.step * np.concatenate(((0.0,), np.cumsum(above[1:])))
        levels = np.asarray(level, np.float64)
        inside = np.interp(levels, self.step * np.arange(len(losses)), losses)
        return np.where(levels < 0.0, self.mean - levels, np.maximum(inside, 0.0))


def convolved(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the full convolution of two arrays, by the fast Fourier transform where both are long."""
    if min(len(first), len(second)) < 200:
        return np.convolve(first, second)
    size = len(first) + len(second) - 1
    power = 1 << (size - 1).bit_length()
    return np.fft.irfft(np.fft.rfft(first, power) * np.fft.rfft(second, power), power)[:size]


def lattice_of(shortage: Callable[[NDArray[np.float64]], NDArray[np.float64]], step: float, highest: float) -> Lattice:
    """Return a demand that is never negative as a lattice of the same mean.

    Each point gets the mean of the hat function around it: second differences of the expected shortage. So the
    expectation of every function that is linear between the points is exact, and others are exact to order step ** 2.

    Args:
        shortage: `E max(D - level, 0)` as a function of levels of at least 0; of an array.
        step: Distance of the points, in units.
        highest: Where the lattice ends, in units; demand above it must be negligible.
    """
    count = math.ceil(highest / step) + 1
    losses = shortage(np.arange(count + 1, dtype=np.float64) * step)
    # Below 0 the expected shortage has slope -1.
    losses = np.concatenate((losses[:1] + step, losses))
    probabilities = np.maximum(np.diff(losses, 2) / step, 0.0)
    return Lattice(probabilities / probabilities.sum(), step)


def normal_shortage(level: NDArray[np.float64] | float, mean: float, std: float) -> NDArray[np.float64]:
    """Return `E max(N - level, 0)` of a normal N with `std` above 0."""
    z = (np.asarray(level, np.float64) - mean) / std
    density = np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
    return std * (density - z * ndtr(-z))


def clipped_normal(mean: float, std: float, step: float) -> Lattice:
    """Return `max(0, normal(mean, std))` on a lattice; a `std` of 0 is a constant."""
    if std == 0.0:
        return lattice_of(lambda level: np.maximum(mean - level, 0.0), step, mean + step)
    return lattice_of(lambda level: normal_shortage(level, mean, std), step, max(mean, 0.0) + _TAIL * std)


def binomial(trials: int, probability: float) -> Lattice:
    """Return the binomial distribution."""
    cumulative = bdtr(np.arange(trials + 1), trials, probability)
    return Lattice(np.diff(cumulative, prepend=0.0), 1.0)


def poisson(mean: float) -> Lattice:
    """Return the Poisson distribution, up to where its tail is below 1e-16."""
    highest = math.ceil(mean + 9.0 * math.sqrt(mean) + 20.0)
    cumulative = pdtr(np.arange(highest + 1), mean)
    return Lattice(np.diff(cumulative, prepend=0.0), 1.0)
