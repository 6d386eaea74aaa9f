"""The parameters of stores in the published network settings, reproduced from their seeds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class StoreParameters:
    """Parameters of stores, `[stores]` each.

    Attributes:
        demand_mean: Mean demand in a period, in units, uniform on [2.5, 7.5].
        demand_std: Its standard deviation: the mean times a coefficient of variation, uniform on [0.25, 0.5].
        underage_cost: Of each unit short, uniform on [6.3, 11.7].
        holding_cost: Of each unit left, uniform on [0.7, 1.3].
        lead_time: 2 or 3 periods, int64.
    """

    demand_mean: NDArray[np.float64]
    demand_std: NDArray[np.float64]
    underage_cost: NDArray[np.float64]
    holding_cost: NDArray[np.float64]
    lead_time: NDArray[np.int64]


def published_stores(stores: int) -> StoreParameters:
    """Return the parameters of the first stores of the published configurations (arXiv 2306.11246).

    They were drawn with NumPy's legacy generator, whose stream never changes, from one seed for each parameter: 33
    (means), 92 (coefficients of variation), 28 (underage), 73 (holding), 41 (lead times).
    """
    mean = _legacy(33).uniform(2.5, 7.5, stores)
    return StoreParameters(
        demand_mean=mean,
        demand_std=mean * _legacy(92).uniform(0.25, 0.5, stores),
        underage_cost=_legacy(28).uniform(6.3, 11.7, stores),
        holding_cost=_legacy(73).uniform(0.7, 1.3, stores),
        lead_time=_legacy(41).randint(2, 4, stores),
    )


def _legacy(seed: int) -> np.random.RandomState:
    return np.random.RandomState(seed)
