"""Exact costs against published and independently computed numbers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.special import ndtr

from palaestra.envs.inventory.exact.clark_scarf import clark_scarf
from palaestra.envs.inventory.exact.lattice import Lattice, clipped_normal, poisson
from palaestra.envs.inventory.exact.lost_sales import lost_sales_bound, lost_sales_optimum, poisson_lost_sales
from palaestra.envs.inventory.exact.newsvendor import (
    newsvendor,
    newsvendor_cost,
    normal_newsvendor,
    normal_newsvendor_cost,
)
from palaestra.envs.inventory.exact.risk_pooling import pooling_bound
from palaestra.envs.inventory.exact.single_store_bound import single_store_bound
from palaestra.envs.inventory.parameter_draws import published_stores

LEADS, HOLDING = (2, 4, 3), (0.1, 0.2, 0.5, 1.0)


@pytest.mark.parametrize(
    ("mean", "periods", "level", "cost"),
    [
        (5.0, 1, 8.0, 4.22109),
        (20.0, 1, 26.0, 8.18643),
        (5.0, 2, 14.0, 5.8694),
        (5.0, 3, 20.0, 7.1230),
        (5.0, 4, 26.0, 8.1864),
        (5.0, 5, 32.0, 9.1510),
    ],
)
def test_newsvendor_with_poisson_demand(mean, periods, level, cost):
    optimum = newsvendor(poisson(mean).times(periods), 9.0, 1.0)
    assert optimum.level == level
    assert optimum.cost == pytest.approx(cost, abs=5e-5 if periods > 1 else 5e-6)


def test_newsvendor_level_is_the_best_of_all():
    demand = poisson(5.0)
    for underage in (0.5, 4.0, 9.0, 39.0):
        costs = [newsvendor_cost(level, demand, underage, 1.0) for level in np.arange(0.0, 40.0, 0.25)]
        optimum = newsvendor(demand, underage, 1.0)
        assert optimum.cost == pytest.approx(min(costs), abs=1e-12)
    assert newsvendor(demand, 0.0, 1.0).cost == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(("order", "cost"), [(5, 8.77337), (8, 4.22109), (10, 5.22188)])
def test_value_after_ordering(order, cost):
    assert newsvendor_cost(order, poisson(5.0), 9.0, 1.0) == pytest.approx(cost, abs=5e-6)


def test_normal_newsvendor_is_the_minimum_of_its_cost():
    optimum = normal_newsvendor(25.0, 3.5, 9.0, 1.0)
    assert normal_newsvendor_cost(optimum.level, 25.0, 3.5, 9.0, 1.0) == pytest.approx(optimum.cost, rel=1e-12)
    for shift in (-0.1, 0.1):
        assert normal_newsvendor_cost(optimum.level + shift, 25.0, 3.5, 9.0, 1.0) > optimum.cost
    assert normal_newsvendor_cost(7.0, 5.0, 0.0, 9.0, 1.0) == 2.0
    assert normal_newsvendor_cost(4.0, 5.0, 0.0, 9.0, 1.0) == 9.0


def rounded_normal(step: float) -> Lattice:
    """N(5, 2) clipped at 0 and rounded to multiples of a step, as the published optima were computed."""
    points = np.arange(int(25.0 / step))
    chances = ndtr(((points + 0.5) * step - 5.0) / 2.0) - ndtr(((points - 0.5) * step - 5.0) / 2.0)
    chances[0] = ndtr((0.5 * step - 5.0) / 2.0)
    return Lattice(chances / chances.sum(), step)


SERIAL = {
    (4.0, 1): 6.8988,
    (4.0, 2): 7.5985,
    (4.0, 3): 8.2061,
    (4.0, 4): 8.7527,
    (9.0, 1): 8.3670,
    (9.0, 2): 9.2611,
    (9.0, 3): 10.0369,
    (9.0, 4): 10.7341,
    (19.0, 4): 12.4203,
    (39.0, 1): 10.7011,
    (39.0, 2): 11.9132,
    (39.0, 3): 12.9651,
    (39.0, 4): 13.9103,
}
"""Optimal costs of the serial chain with demand rounded to multiples of .05."""


@pytest.mark.parametrize(("underage", "store_lead"), SERIAL)
def test_clark_scarf(underage, store_lead):
    leads = (*LEADS, store_lead)
    coarse = clark_scarf(leads, HOLDING, underage, rounded_normal(0.05))
    assert round(coarse.cost, 4) == SERIAL[underage, store_lead]
    # Rounding adds variance: as the lattice gets finer the cost falls by 2 to 4 in ten thousand, and stays there.
    fine, finer = (clark_scarf(leads, HOLDING, underage, clipped_normal(5.0, 2.0, step)) for step in (0.01, 0.005))
    assert 1e-4 < coarse.cost - finer.cost < 4e-4
    assert abs(fine.cost - finer.cost) < 5e-5


def test_clark_scarf_levels_and_transit():
    optimum = clark_scarf((*LEADS, 4), HOLDING, 9.0, rounded_normal(0.05))
    np.testing.assert_allclose(optimum.levels, [83.20, 72.80, 49.00, 32.35], atol=1e-9)
    # The mean of clipped demand, times the holding cost of who sent it and how long it is on its way.
    assert optimum.cost_with_transit - optimum.cost == pytest.approx(15.0120, abs=5e-5)


def test_clark_scarf_of_one_stage_is_the_newsvendor():
    demand = poisson(5.0)
    for lead in (1, 3):
        optimum, single = clark_scarf([lead], [1.0], 9.0, demand), newsvendor(demand.times(lead + 1), 9.0, 1.0)
        assert optimum.cost == pytest.approx(single.cost, abs=1e-10)
        assert optimum.levels == (single.level,)


def test_a_stage_of_equal_cost_before_the_store_only_adds_its_lead_time():
    """Nothing is gained by holding stock back where it costs the same, so both lead times count as one."""
    demand = poisson(5.0)
    two, one = clark_scarf([2, 1], [1.0, 1.0], 9.0, demand), clark_scarf([3], [1.0], 9.0, demand)
    assert two.cost_with_transit - 1.0 * 5.0 * 1 == pytest.approx(two.cost)
    assert two.cost_with_transit == pytest.approx(one.cost + 5.0, abs=1e-9)


def test_clark_scarf_refuses_what_it_cannot_solve():
    with pytest.raises(ValueError, match="expected costs that never fall downstream"):
        clark_scarf([1, 1], [1.0, 0.5], 9.0, poisson(5.0))
    with pytest.raises(ValueError, match="2 lead_times and 1 holding_costs"):
        clark_scarf([1, 1], [1.0], 9.0, poisson(5.0))


LOST = {
    (1, 4.0): 4.0407,
    (1, 9.0): 5.4382,
    (1, 19.0): 6.6757,
    (1, 39.0): 7.8359,
    (2, 4.0): 4.3953,
    (2, 9.0): 6.0936,
    (2, 19.0): 7.6644,
    (2, 39.0): 9.1064,
}
TABLE = {(3, 4.0): 4.60, (3, 9.0): 6.53, (3, 19.0): 8.36, (3, 39.0): 10.04, (4, 4.0): 4.73, (4, 39.0): 10.79}
"""Two decimals of the table of Zipkin (2008)."""


@pytest.mark.parametrize(("lead", "underage"), LOST)
def test_lost_sales(lead, underage):
    optimum = lost_sales_optimum(poisson(5.0), lead, underage, 1.0, 25.0)
    assert round(optimum.cost, 4) == LOST[lead, underage]
    bound = lost_sales_bound(poisson(5.0), lead, underage, 1.0)
    assert bound < optimum.cost < newsvendor(poisson(5.0).times(lead + 1), underage, 1.0).cost
    # The largest order is far from the end of the table, so the table is large enough.
    assert optimum.orders.max() < optimum.orders.shape[0] - 1
    assert lost_sales_optimum(poisson(5.0), lead, underage, 1.0, 10.0).cost == pytest.approx(optimum.cost, abs=1e-7)


@pytest.mark.parametrize(("lead", "underage"), TABLE)
def test_lost_sales_with_long_lead_times(lead, underage):
    optimum = poisson_lost_sales(5.0, lead, underage, 1.0, 10.0)
    assert optimum is not None
    assert round(optimum.cost, 2) == TABLE[lead, underage]


@pytest.mark.parametrize("lead", [1, 2])
def test_half_units_gain_nothing(lead):
    whole = poisson(5.0)
    chances = np.zeros(2 * len(whole.probabilities))
    chances[::2] = whole.probabilities
    half = lost_sales_optimum(Lattice(chances, 0.5), lead, 9.0, 1.0, 10.0)
    assert half.cost == pytest.approx(lost_sales_optimum(whole, lead, 9.0, 1.0, 10.0).cost, abs=2e-7)


def test_lost_sales_against_enumeration():
    """Lead time 1, demand 0, 1 or 2: every stationary policy on stocks 0 to 4, by its stationary distribution."""
    demand, underage = Lattice(np.array([0.3, 0.4, 0.3]), 1.0), 3.0
    best = np.inf
    for policy in itertools.product(range(4), repeat=5):
        chain = np.zeros((5, 5))
        cost = np.zeros(5)
        for x, order in enumerate(policy):
            for units, chance in enumerate(demand.probabilities):
                left = max(x - units, 0)
                chain[x, min(left + order, 4)] += chance
                cost[x] += chance * (left + underage * max(units - x, 0))
        weights = np.linalg.matrix_power(chain, 4096)[0]
        best = min(best, float(weights @ cost))
    assert lost_sales_optimum(demand, 1, underage, 1.0, 3.0).cost == pytest.approx(best, abs=1e-6)


def test_lost_sales_too_large_to_solve():
    with pytest.raises(ValueError, match="expected at most 5000000"):
        lost_sales_optimum(poisson(5.0), 6, 9.0, 1.0, 10.0)
    assert poisson_lost_sales(5.0, 6, 9.0, 1.0, 10.0) is None


POOLED = {
    (3, 4.0, 0.0): 5.1514,
    (3, 4.0, 0.5): 5.7537,
    (3, 9.0, 0.0): 6.4585,
    (3, 9.0, 0.5): 7.2136,
    (5, 4.0, 0.0): 4.5912,
    (5, 4.0, 0.5): 5.2964,
    (5, 9.0, 0.0): 5.7561,
    (5, 9.0, 0.5): 6.6402,
    (10, 4.0, 0.0): 4.6735,
    (10, 4.0, 0.5): 5.5359,
    (10, 9.0, 0.0): 5.8593,
    (10, 9.0, 0.5): 6.9405,
}
"""Bounds per store computed from standard deviations rounded to three decimals."""


@pytest.mark.parametrize(("stores", "underage", "correlation"), POOLED)
def test_pooling_bound(stores, underage, correlation):
    drawn = published_stores(stores)

    def per_store(std: np.ndarray) -> float:
        return pooling_bound(std, drawn.demand_mean, correlation, 3, 2, underage, 1.0).cost / stores

    assert round(per_store(drawn.demand_std.round(3)), 4) == POOLED[stores, underage, correlation]
    assert per_store(drawn.demand_std) == pytest.approx(POOLED[stores, underage, correlation], rel=1e-4)


def test_pooling_bound_of_one_store_is_base_stock():
    bound = pooling_bound([1.6], [5.0], 0.0, 3, 2, 9.0, 1.0)
    single = normal_newsvendor(30.0, 1.6 * np.sqrt(6.0), 9.0, 1.0)
    assert bound.cost == pytest.approx(single.cost)
    assert bound.level == pytest.approx(single.level)
    # Stores that move as one gain nothing by pooling.
    together = pooling_bound([1.6] * 4, [5.0] * 4, 1.0, 3, 2, 9.0, 1.0)
    assert together.cost == pytest.approx(4.0 * single.cost)


def test_published_draws():
    drawn = published_stores(10)
    expected = {
        "demand_mean": [3.743, 4.750, 4.555, 3.801, 6.852, 3.425, 2.598, 7.266, 5.902, 4.933],
        "demand_std": [1.765, 2.124, 1.622, 1.405, 1.714, 1.590, 0.879, 2.701, 2.127, 2.391],
        "underage_cost": [10.237, 9.331, 6.975, 8.447, 10.519, 9.059, 7.287, 10.909, 11.459, 11.615],
        "holding_cost": [1.086, 1.023, 1.007, 1.066, 0.996, 0.829, 0.846, 1.043, 1.164, 0.886],
        "lead_time": [2, 3, 2, 2, 2, 3, 3, 3, 3, 3],
    }
    for name, values in expected.items():
        np.testing.assert_array_equal(np.round(getattr(drawn, name), 3), values)
        np.testing.assert_array_equal(getattr(published_stores(3), name), getattr(drawn, name)[:3])


def test_single_store_bound():
    def bound(**changes: object) -> float:
        given = {"lead_time": 2, "underage_cost": 9.0, "holding_cost": 1.0, "clipped": False, "lost": False, **changes}
        return single_store_bound(5.0, 1.6, **given)  # type: ignore[arg-type]

    plain = normal_newsvendor(15.0, 1.6 * np.sqrt(3.0), 9.0, 1.0).cost
    assert bound() == pytest.approx(plain)
    assert bound(clipped=True) == pytest.approx(plain, rel=1e-3)
    assert bound(unit_cost=0.5) == pytest.approx(plain + 2.5)
    lost = bound(clipped=True, lost=True)
    assert lost == pytest.approx(normal_newsvendor(15.0, 1.6 * np.sqrt(3.0), 3.0, 1.0).cost, rel=1e-3)
    # A unit that costs more than its shortage is never bought, so that all demand is lost.
    mean = clipped_normal(5.0, 1.6, 0.008).mean
    assert bound(clipped=True, lost=True, unit_cost=20.0) == pytest.approx(9.0 * mean)
    assert bound(clipped=True, holding_cost=0.0, unit_cost=0.5) == pytest.approx(0.5 * mean)
