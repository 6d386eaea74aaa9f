"""Weekly sales of products at stores: read from a file, or drawn so that they look like those of a grocer."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

HISTORY = 16
"""Weeks of sales that are known when the first order is placed, and seen at every later one."""

CHRISTMAS_SPAN = 182.0
"""Days by which days from Christmas are divided."""

DATA_FOLDER = "PALAESTRA_DATA"
"""Environment variable that names the folder where files of sales may be given by their names alone."""

Split = Literal["train", "dev", "test"]

_DEV, _TEST = 53, 53
_DEV_START, _TRAIN_END = 83, 60
"""Weeks before the end of the data at which the window of "dev" starts and that of "train" ends."""


@dataclass(frozen=True, eq=False)
class WeeklySales:
    """Sales by week.

    Attributes:
        units: Units sold, at least 0, float64 `[products, stores, weeks]`.
        days_from_christmas: Days from the nearest Christmas to the start of the week, negative before it, int64
            `[weeks]`.
    """

    units: NDArray[np.float64]
    days_from_christmas: NDArray[np.int64]

    @property
    def weeks(self) -> int:
        """Return the number of weeks."""
        return self.units.shape[2]

    def window(self, world: str, split: Split) -> tuple[int, int]:
        """Return the first week of a split and the one after its last.

        The last 53 weeks are "test", 53 weeks that start 30 weeks earlier are "dev", and all but the last 60 weeks are
        "train": of 171 weeks 118 to 170, 88 to 140 and 0 to 110. The first `HISTORY` weeks of each are its history.

        Raises:
            ValueError: If the split is unknown, or there are too few weeks.
        """
        weeks = self.weeks
        least = _TRAIN_END + 2 * HISTORY
        if weeks < least:
            raise ValueError(f"{world}: sales of {weeks} weeks; expected at least {least}")
        windows = {
            "train": (0, weeks - _TRAIN_END),
            "dev": (weeks - _DEV_START, weeks - _DEV_START + _DEV),
            "test": (weeks - _TEST, weeks),
        }
        if split not in windows:
            raise ValueError(f"{world}: split={split!r}; expected one of {', '.join(windows)}")
        return windows[split]


def read_sales(world: str, path: str | Path) -> WeeklySales:
    """Return the sales of a NumPy archive (`.npz`) of weekly sales.

    It holds `weekly_sales`, numbers `[products, stores, weeks]`, of which those below 0 (returns) count as 0, and
    `days_from_christmas`, integers `[weeks]`. Other entries are not read.

    Args:
        world: Name of the world, for errors.
        path: The file; a relative path that leads to none is also looked for in the folder that the environment
            variable `PALAESTRA_DATA` names, so that claims need not say where a machine keeps its data.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If an entry is missing or of a wrong shape, or a number is not finite.
    """
    found = Path(path)
    if not found.exists() and DATA_FOLDER in os.environ:
        found = Path(os.environ[DATA_FOLDER]) / found
    with np.load(found, allow_pickle=False) as archive:
        missing = {"weekly_sales", "days_from_christmas"} - set(archive.files)
        if missing:
            raise ValueError(f"{world}: sales={str(path)!r} lacks {sorted(missing)}; it holds {sorted(archive.files)}")
        units, days = np.asarray(archive["weekly_sales"], np.float64), np.asarray(archive["days_from_christmas"])
    if units.ndim != 3 or 0 in units.shape or days.shape != units.shape[2:] or days.dtype.kind not in "iu":
        raise ValueError(
            f"{world}: sales={str(path)!r} holds weekly_sales {units.shape} and days_from_christmas {days.shape} "
            f"{days.dtype}; expected [products, stores, weeks] and integers [weeks]"
        )
    if not np.isfinite(units).all():
        raise ValueError(f"{world}: sales={str(path)!r} holds NaN or infinite weekly_sales; expected finite numbers")
    return WeeklySales(np.maximum(units, 0.0), days.astype(np.int64))


@lru_cache(maxsize=8)
def synthetic_sales(products: int, stores: int, seed: int, weeks: int = 171) -> WeeklySales:
    """Return sales that were never made: negative binomial around levels that move as a grocer's do.

    The mean of a product at a store in a week is the product of the level of the product (log-normal, median 45 units),
    the size of the store and a share of the two, a season of the year, a peak before Christmas that differs
    between products, and a level that jumps now and then for all stores. Of one product in four a store has nothing on
    sale in spells of about six weeks. Sales are Poisson with that mean times a gamma variable of mean 1, one part of
    which is shared by all stores: so they are negative binomial, and stores are correlated.

    Args:
        products: Number of products.
        stores: Number of stores.
        seed: Of NumPy's legacy generator, whose stream never changes; 0 to 2**32 - 1.
        weeks: Number of weeks, the first of which starts 7 days after Christmas.
    """
    # The legacy generator alone promises the same numbers in every version of NumPy.
    draw = np.random.RandomState(seed)
    days = (7 * np.arange(1, weeks + 1) + 182) % 365 - 182
    level = 45.0 * np.exp(1.1 * draw.standard_normal((products, 1, 1)))
    size = np.exp(0.35 * draw.standard_normal((1, stores, 1)) + 0.3 * draw.standard_normal((products, stores, 1)))
    phase, amplitude = draw.uniform(0.0, 1.0, (products, 1, 1)), draw.uniform(0.0, 0.3, (products, 1, 1))
    season = 1.0 + amplitude * np.sin(2.0 * np.pi * (np.arange(weeks) / 52.0 + phase))
    height = draw.exponential(0.4, (products, 1, 1))
    christmas = 1.0 + height * np.exp(-0.5 * ((days + 7.0) / 10.0) ** 2)
    jumps = (
        (draw.uniform(0.0, 1.0, (products, 1, weeks)) < 1.0 / 60.0) * 0.25 * draw.standard_normal((products, 1, weeks))
    )
    mean = level * size * season * christmas * np.exp(np.cumsum(jumps, axis=2))
    mean *= _on_sale(draw, products, stores, weeks)
    shape = np.exp(draw.uniform(np.log(3.0), np.log(20.0), (products, 1, 1)))
    units = negative_binomial(draw, mean, shape, 0.3)
    units.setflags(write=False)
    return WeeklySales(units, days.astype(np.int64))


def negative_binomial(
    draw: np.random.RandomState, mean: NDArray[np.float64], shape: NDArray[np.float64], shared: float
) -> NDArray[np.float64]:
    """Return negative binomial draws of variance `mean + mean**2 / shape`, correlated between stores.

    They are Poisson of mean `mean * (common + own) / shape`, where `common`, the same at all stores, and `own` are
    gamma variables of shapes `shared * shape` and `(1 - shared) * shape`, whose sum is one of shape `shape`.

    Args:
        draw: Source of the draws.
        mean: `[products, stores, weeks]`, at least 0.
        shape: `[products, 1, 1]`, above 0.
        shared: Share of the shape that all stores have in common, above 0 and below 1.
    """
    products, _, weeks = mean.shape
    common = draw.gamma(np.broadcast_to(shared * shape, (products, 1, weeks)))
    own = draw.gamma(np.broadcast_to((1.0 - shared) * shape, mean.shape))
    return draw.poisson(mean * (common + own) / shape).astype(np.float64)


def _on_sale(draw: np.random.RandomState, products: int, stores: int, weeks: int) -> NDArray[np.bool_]:
    """Return whether a product is on sale, `[products, stores, weeks]`; one in four is not, now and then."""
    leaves = np.where(draw.uniform(0.0, 1.0, (products, 1)) < 0.25, 1.0 / 40.0, 0.0)
    on_sale = np.ones((products, stores, weeks), bool)
    chance = draw.uniform(0.0, 1.0, (weeks, products, stores))
    for week in range(1, weeks):
        before = on_sale[:, :, week - 1]
        on_sale[:, :, week] = np.where(before, chance[week] >= leaves, chance[week] < 1.0 / 6.0)
    return on_sale


def open_sales(world: str, sales: str | Path | None, products: int, stores: int, seed: int) -> WeeklySales:
    """Return the sales of a file, or drawn ones where there is none."""
    return synthetic_sales(products, stores, seed) if sales is None else read_sales(world, sales)
