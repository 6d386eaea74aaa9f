"""How much water comes: drawn scenario by scenario from a table, or a seasonal autoregression."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from palaestra.envs.arrays import namespace_of
from palaestra.envs.checks import check_amount, check_count
from palaestra.envs.energy.system import amounts
from palaestra.envs.inventory.constants import Constant
from palaestra.protocols import Array, Key


class Inflows(Protocol):
    """Natural inflows of all plants, stage by stage; what they remember of the past is their `climate`.

    Attributes:
        scale: What an inflow of 1 in the observation stands for, float64 `[plants]`.
        highest: Largest inflow there can be, in units of `scale`.
    """

    scale: NDArray[np.float64]
    highest: float

    def first(self, key: Key) -> Array:
        """Return the climate of stage 0, `[batch, plants]`."""
        ...

    def following(self, climate: Array, stage: Array, key: Key) -> Array:
        """Return the climate of a stage `[batch]`, given that of the stage before, `[batch, plants]`."""
        ...

    def flow(self, climate: Array, stage: Array) -> Array:
        """Return the inflow of a stage `[batch]` with a climate, `[batch, plants]`."""
        ...

    def mean(self, stage: int) -> NDArray[np.float64]:
        """Return the expected inflow of a stage, `[plants]`."""
        ...


class TableInflows:
    """One plant's inflow: in every stage one of a few numbers, independent of the stages before.

    The climate is the number of the scenario.

    Args:
        world: Name of the world, for errors.
        table: Inflow by stage and scenario, at least 0, `[stages][scenarios]`; after the last stage comes the first.
        probabilities: Of the scenarios, above 0, adding up to 1.

    Raises:
        ValueError: If the table has rows of different lengths, or a number is out of range.
    """

    def __init__(self, world: str, table: Sequence[Sequence[float]], probabilities: Sequence[float]) -> None:
        scenarios = len(list(probabilities))
        self.probabilities = amounts(world, "inflow_probabilities", probabilities, scenarios, positive=True)
        if abs(self.probabilities.sum() - 1.0) > 1e-9:
            raise ValueError(f"{world}: inflow_probabilities={list(probabilities)}; expected numbers that add up to 1")
        rows = [amounts(world, f"inflow_table[{i}]", row, scenarios) for i, row in enumerate(table)]
        if not rows or not np.any(rows):
            raise ValueError(f"{world}: inflow_table={table!r}; expected at least one stage, and water in one")
        self.table = np.array(rows)
        self.scale, self.highest = np.array([self.table.max()]), 1.0
        self._table = Constant(self.table)
        self._bounds = Constant(np.cumsum(self.probabilities)[:-1])

    def first(self, key: Key) -> Array:
        """Return scenarios `[batch, 1]`, as floats."""
        share = key.uniform("inflow")
        xp = namespace_of(share)
        passed = share[:, None] >= self._bounds.like(share)
        return xp.sum(xp.astype(passed, share.dtype), axis=1)[:, None]

    def following(self, climate: Array, stage: Array, key: Key) -> Array:
        """Return fresh scenarios `[batch, 1]`."""
        return self.first(key)

    def flow(self, climate: Array, stage: Array) -> Array:
        """Return what the table says, `[batch, 1]`."""
        scenario = namespace_of(climate).astype(climate[:, 0], stage.dtype)
        return self._table.like(climate)[stage % len(self.table), scenario][:, None]

    def mean(self, stage: int) -> NDArray[np.float64]:
        """Return the expected inflow of a stage, `[1]`."""
        return np.array([self.table[stage % len(self.table)] @ self.probabilities])


class SeasonalInflows:
    """Lognormal inflows around a yearly wave, whose logarithms follow an autoregression of the first order.

    With the climate z of a plant, standard normal in every stage, `z' = r z + sqrt(1 - r^2) e` and

        inflow = mean (1 + a cos(2 pi (stage - peak) / year)) exp(s z - s^2 / 2)

    so that the mean over a year is `mean`. The shocks e of two plants have the correlation `correlation`.

    Args:
        world: Name of the world, for errors.
        mean: Mean inflow of each plant over a year, above 0, `[plants]`.
        season: Amplitude a of the yearly wave, 0 to below 1.
        peak: Stage of the year with the most water.
        year: Stages in a year, at least 2.
        variation: Standard deviation s of the logarithm, at least 0.
        persistence: Correlation r of the logarithm with that of the stage before, 0 to below 1.
        correlation: Of the shocks of two plants, 0 to 1.

    Raises:
        ValueError: If an argument is outside its range.
    """

    def __init__(
        self,
        world: str,
        mean: Sequence[float],
        season: float,
        peak: float,
        year: int,
        variation: float,
        persistence: float,
        correlation: float,
    ) -> None:
        self.scale = amounts(world, "mean_inflow", mean, len(list(mean)), positive=True)
        self.highest = math.inf
        self.year = check_count(world, "year", year, 2)
        wave = check_amount(world, "season", season)
        memory = check_amount(world, "persistence", persistence)
        for name, value in (("season", wave), ("persistence", memory)):
            if value >= 1.0:
                raise ValueError(f"{world}: {name}={value}; expected a number from 0 to below 1")
        shared = check_amount(world, "correlation", correlation)
        if shared > 1.0:
            raise ValueError(f"{world}: correlation={correlation}; expected a number from 0 to 1")
        self._deviation = check_amount(world, "variation", variation)
        self._memory, self._fresh = memory, math.sqrt(1.0 - memory**2)
        self._common, self._own = math.sqrt(shared), math.sqrt(1.0 - shared)
        angle = 2.0 * np.pi * (np.arange(self.year) - check_amount(world, "peak", peak)) / self.year
        self.wave = 1.0 + wave * np.cos(angle)
        self._wave, self._mean = Constant(self.wave), Constant(self.scale)

    def first(self, key: Key) -> Array:
        """Return standard normal climates, `[batch, plants]`."""
        return self._shock(key)

    def following(self, climate: Array, stage: Array, key: Key) -> Array:
        """Return the next climate, `[batch, plants]`."""
        return self._memory * climate + self._fresh * self._shock(key)

    def flow(self, climate: Array, stage: Array) -> Array:
        """Return the inflow, `[batch, plants]`."""
        spread = self._deviation
        factor = namespace_of(climate).exp(spread * climate - 0.5 * spread**2)
        return self._mean.like(climate) * self._wave.like(climate)[stage % self.year][:, None] * factor

    def mean(self, stage: int) -> NDArray[np.float64]:
        """Return the expected inflow of a stage, `[plants]`."""
        found: NDArray[np.float64] = self.scale * self.wave[stage % self.year]
        return found

    def _shock(self, key: Key) -> Any:
        noise = key.normal("inflow", (len(self.scale) + 1,))
        return self._common * noise[:, :1] + self._own * noise[:, 1:]
