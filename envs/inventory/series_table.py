"""What a retail world knows of its series: demand, its past and the calendar, week by week of a window."""

from __future__ import annotations

import numpy as np

from palaestra.envs.inventory.constants import Constant
from palaestra.envs.inventory.sales import CHRISTMAS_SPAN, HISTORY, Split, WeeklySales
from palaestra.protocols import Array


class SeriesTable:
    """Series of demand over the window of a split, looked up by series and period.

    Periods are those in which orders are placed, 0, 1, ...; the history lies before period 0. After the last period of
    the window its first follows again, so that nothing of a later split is ever read.

    Args:
        world: Name of the world, for errors.
        sales: The sales.
        split: "train", "dev" or "test".
        units: Series of demand, `[series, weeks]` or `[series, stores, weeks]`.

    Attributes:
        periods: Number of periods of the window.
        scales: Mean demand in a week of a series (and of a store of it), of all weeks of the data before period 0, at
            least 1 unit; `[series]`.

    Raises:
        ValueError: If the split is unknown, or there are too few weeks.
    """

    def __init__(self, world: str, sales: WeeklySales, split: Split, units: np.ndarray) -> None:
        first, end = sales.window(world, split)
        self.periods = end - first - HISTORY
        window = np.moveaxis(units[..., first:end], -1, 1)
        self.window = Constant(np.ascontiguousarray(window))
        known = units[..., : first + HISTORY]
        self.scales = np.maximum(known.mean(axis=tuple(range(1, known.ndim))), 1.0)
        self._days = Constant(sales.days_from_christmas[first:end] / CHRISTMAS_SPAN)
        self._past = Constant(np.arange(HISTORY))

    def demand(self, series: Array, period: Array, like: Array) -> Array:
        """Return the demand of a period, `[batch]` or `[batch, stores]`, in the precision of another array."""
        return self.window.like(like)[series, HISTORY + period % self.periods]

    def history(self, series: Array, period: Array, like: Array) -> Array:
        """Return the demand of the weeks before a period, the oldest first, `[batch, HISTORY]` or with stores last."""
        weeks = (period % self.periods)[:, None] + self._past.like(period)
        return self.window.like(like)[series[:, None], weeks]

    def days(self, period: Array, like: Array) -> Array:
        """Return the days from Christmas over `CHRISTMAS_SPAN`, `[batch]`, about -1 to 1."""
        return self._days.like(like)[HISTORY + period % self.periods]
