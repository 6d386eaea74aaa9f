"""Demand of one store or of several, as a function of a world's noise."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from palaestra.envs.arrays import at_least, namespace_of
from palaestra.envs.inventory.constants import Constant
from palaestra.envs.inventory.exact.lattice import Lattice, binomial, clipped_normal, poisson
from palaestra.protocols import Array, Key


class Demand(Protocol):
    """What the stores sell: from the draw "demand" of a key to units.

    Attributes:
        mean: Mean in a period, in units, before any clipping: `()` for one store, `[stores]` for several.
        std: Standard deviation likewise.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]

    def sample(self, key: Key) -> Array:
        """Return the demand of a period, `[batch]` for one store, `[batch, stores]` for several."""
        ...


class NormalDemand:
    """Normal demand, at several stores with the same correlation between each two of them.

    Args:
        mean: Mean in a period, in units: a number for one store, `[stores]` for several.
        std: Standard deviation, of the same shape.
        correlation: Between each two stores, 0 to 1.
        clipped: Whether demand below 0 becomes 0; otherwise it is goods that come back.
    """

    def __init__(self, mean: ArrayLike, std: ArrayLike, correlation: float = 0.0, clipped: bool = True) -> None:
        self.mean, self.std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
        self.correlation = float(correlation)
        self.clipped = clipped
        self._common = self.mean.ndim > 0 and self.correlation > 0.0
        self._size = (self.mean.shape[0] + self._common,) if self.mean.ndim else ()
        self._mean = Constant(self.mean)
        self._shared_std = Constant(self.std * np.sqrt(self.correlation))
        self._own_std = Constant(self.std * np.sqrt(1.0 - self.correlation) if self._common else self.std)

    def sample(self, key: Key) -> Array:
        """Return `mean + std z`, where z is standard normal; with correlation r, `sqrt(r) common + sqrt(1 - r) own`."""
        noise = key.normal("demand", self._size)
        mean, own = self._mean.like(noise), self._own_std.like(noise)
        if self._common:
            demand = mean + self._shared_std.like(noise) * noise[:, :1] + own * noise[:, 1:]
        else:
            demand = mean + own * noise
        return at_least(demand, 0.0) if self.clipped else demand

    def lattice(self, step: float) -> Lattice:
        """Return the clipped demand of one store on a lattice."""
        return clipped_normal(float(self.mean), float(self.std), step)


class PoissonDemand:
    """Poisson demand of one store, in whole units, by inversion of a uniform draw.

    Args:
        mean: Mean in a period, in units.
    """

    def __init__(self, mean: float) -> None:
        self.mean = np.asarray(mean, np.float64)
        self.std = np.sqrt(self.mean)
        self._cumulative = _cumulative(poisson(mean).probabilities)

    def sample(self, key: Key) -> Array:
        """Return the smallest number whose cumulative probability exceeds the draw."""
        return _inverted(self._cumulative, key.uniform("demand"))

    def lattice(self) -> Lattice:
        """Return the distribution."""
        return poisson(float(self.mean))


class BinomialDemand:
    """Binomial demand of several items, the same and independent for all, by inversion of a uniform draw.

    Args:
        trials: Number of trials, the largest demand.
        probability: Of each trial, 0 to 1.
        items: Number of items.
    """

    def __init__(self, trials: int, probability: float, items: int) -> None:
        self.mean = np.full(items, trials * probability)
        self.std = np.full(items, np.sqrt(trials * probability * (1.0 - probability)))
        self._size = (items,)
        self._cumulative = _cumulative(binomial(trials, probability).probabilities)

    def sample(self, key: Key) -> Array:
        """Return the smallest numbers whose cumulative probability exceeds the draws, `[batch, items]`."""
        return _inverted(self._cumulative, key.uniform("demand", self._size))


def _cumulative(probabilities: NDArray[np.float64]) -> Constant:
    """Return cumulative probabilities of 0, 1, ... that end with the only 1 among them, which no draw reaches."""
    cumulative = np.cumsum(probabilities)
    return Constant(np.append(cumulative[cumulative < 1.0 - 1e-15], 1.0))


def _inverted(cumulative: Constant, share: Array) -> Array:
    """Return the smallest number whose cumulative probability exceeds each share, as floats of the same shape."""
    table = cumulative.like(share)
    if isinstance(share, np.ndarray):
        return table.searchsorted(share, side="right").astype(share.dtype)
    xp: Any = namespace_of(share)
    # Torch warns of shares that are a view with gaps, and copies them itself.
    return xp.astype(xp.searchsorted(table, share.contiguous(), side="right"), share.dtype)
