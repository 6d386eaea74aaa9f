"""Where the noise of an episode's start comes from: the suite's keys, or the generators of Gymnasium's own envs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from palaestra.envs.arrays import namespace_of
from palaestra.protocols import Array, Key

ATTEMPTS = 64
"""Attempts of rejection sampling that a key draws at once; more would be needed with probability below 1e-18."""


class Starts(Protocol):
    """Named draws for every row of a batch."""

    def uniform(self, name: str, low: float, high: float, size: int) -> Array:
        """Return draws `[batch, size]`, uniform on [low, high)."""
        ...

    def normal(self, name: str, size: int) -> Array:
        """Return standard normal draws `[batch, size]`."""
        ...

    def accepted(
        self, name: str, low: Sequence[float], high: Sequence[float], accept: Callable[[Array], Array]
    ) -> Array:
        """Return points `[batch, len(low)]`, uniform on the part of a box whose points `accept` maps to True."""
        ...


class KeyStarts:
    """Draws from a key of the suite."""

    def __init__(self, key: Key) -> None:
        self.key = key

    def uniform(self, name: str, low: float, high: float, size: int) -> Array:
        return low + (high - low) * self.key.uniform(name, (size,))

    def normal(self, name: str, size: int) -> Array:
        return self.key.normal(name, (size,))

    def accepted(
        self, name: str, low: Sequence[float], high: Sequence[float], accept: Callable[[Array], Array]
    ) -> Array:
        share = self.key.uniform(name, (ATTEMPTS, len(low)))
        xp = namespace_of(share)
        base, width = (
            xp.asarray(values, dtype=share.dtype, device=share.device)
            for values in (list(low), [h - b for h, b in zip(high, low, strict=True)])
        )
        points = base + width * share
        # Argmax of bools is the first True.
        first = xp.argmax(xp.astype(accept(points), xp.int8), axis=1)
        return points[xp.arange(points.shape[0], device=share.device), first]


class GeneratorStarts:
    """Draws from one NumPy generator for each row, in the order in which Gymnasium's envs make them."""

    def __init__(self, generators: Sequence[np.random.Generator]) -> None:
        self.generators = generators

    def uniform(self, name: str, low: float, high: float, size: int) -> np.ndarray:
        return np.stack([generator.uniform(low, high, size) for generator in self.generators])

    def normal(self, name: str, size: int) -> np.ndarray:
        return np.stack([generator.standard_normal(size) for generator in self.generators])

    def accepted(
        self, name: str, low: Sequence[float], high: Sequence[float], accept: Callable[[Array], Array]
    ) -> np.ndarray:
        points = []
        for generator in self.generators:
            point = generator.uniform(low, high)
            while not accept(point):
                point = generator.uniform(low, high)
            points.append(point)
        return np.stack(points)
