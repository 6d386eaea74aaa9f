from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from palaestra.envs.inventory.exact.lattice import (
    Lattice,
    binomial,
    clipped_normal,
    convolved,
    normal_shortage,
    poisson,
)


@pytest.mark.parametrize("mean", [0.3, 5.0, 20.0, 90.0])
def test_poisson(mean):
    demand = poisson(mean)
    np.testing.assert_allclose(demand.probabilities, stats.poisson.pmf(demand.points, mean), atol=1e-15)
    assert demand.mean == pytest.approx(mean, rel=1e-13)


def test_binomial():
    demand = binomial(20, 0.4)
    np.testing.assert_allclose(demand.probabilities, stats.binom.pmf(np.arange(21), 20, 0.4), atol=1e-15)
    assert binomial(3, 0.0).probabilities.tolist() == [1.0, 0.0, 0.0, 0.0]


def test_sums_of_poisson_are_poisson():
    total = poisson(5.0).times(4)
    np.testing.assert_allclose(total.probabilities[:60], stats.poisson.pmf(np.arange(60), 20.0), atol=1e-15)
    assert poisson(5.0).times(0).probabilities.tolist() == [1.0]
    np.testing.assert_array_equal(poisson(5.0).times(1).probabilities, poisson(5.0).probabilities)


def test_expected_shortage_is_the_sum_over_points_at_every_level():
    demand = poisson(5.0)
    for level in (-2.5, 0.0, 0.4, 5.0, 7.25, 60.0, 200.0):
        direct = float(np.maximum(demand.points - level, 0.0) @ demand.probabilities)
        assert float(demand.expected_shortage(level)) == pytest.approx(direct, abs=1e-12)
    lattice = Lattice(np.array([0.25, 0.5, 0.25]), 0.5)
    np.testing.assert_allclose(lattice.expected_shortage(np.array([0.0, 0.5, 0.75])), [0.5, 0.125, 0.0625])


@pytest.mark.parametrize(("mean", "std"), [(5.0, 2.0), (5.0, 1.6), (1.0, 2.0)])
def test_clipped_normal_keeps_mean_and_shortage(mean, std):
    demand = clipped_normal(mean, std, std / 100.0)
    clipped_mean = float(normal_shortage(0.0, mean, std))
    assert demand.mean == pytest.approx(clipped_mean, rel=1e-10)
    assert demand.probabilities.sum() == pytest.approx(1.0, abs=1e-12)
    # The expected shortage is exact at the points, by construction, and E max(N, 0) integrates to the same.
    level = 3.0 * std
    integral = stats.norm(mean, std).expect(lambda x: max(x - level, 0.0), lb=level, ub=mean + 12 * std)
    assert float(demand.expected_shortage(level)) == pytest.approx(integral, abs=1e-8)


def test_a_constant_is_one_point():
    demand = clipped_normal(5.0, 0.0, 0.025)
    assert demand.mean == pytest.approx(5.0)
    assert float(demand.probabilities.max()) == pytest.approx(1.0)


def test_convolution_by_transform_equals_the_direct_one():
    rng = np.random.default_rng(0)
    first, second = rng.random(500), rng.random(321)
    np.testing.assert_allclose(convolved(first, second), np.convolve(first, second), rtol=1e-12)
    np.testing.assert_array_equal(convolved(first, second[:50]), np.convolve(first, second[:50]))
