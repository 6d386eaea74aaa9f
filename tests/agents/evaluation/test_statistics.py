"""Intervals and aggregates against closed forms, SciPy and, where it imports, rliable."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from palaestra.agents.evaluation.statistics import (
    Interval,
    contrast_interval,
    difference_interval,
    interquartile_mean,
    mean_interval,
    paired_interval,
    performance_profile,
    probability_of_improvement,
    stratified_bootstrap,
)


def test_mean_interval_is_students():
    # Five values 1..5: standard error sqrt(2.5 / 5), t(.975; 4) = 2.776445.
    interval = mean_interval([1, 2, 3, 4, 5])
    assert interval.estimate == 3.0
    assert interval.high - 3.0 == pytest.approx(2.7764451 * 0.5**0.5, rel=1e-7)
    assert 3.0 - interval.low == pytest.approx(interval.high - 3.0, rel=1e-12)
    assert mean_interval([1, 2, 3, 4, 5], level=0.99).high > interval.high


def test_mean_interval_covers_as_often_as_it_says():
    samples = np.random.default_rng(0).normal(loc=2.0, size=(2000, 5))
    intervals = [mean_interval(sample, level=0.9) for sample in samples]
    covered = np.mean([interval.low <= 2.0 <= interval.high for interval in intervals])
    # Three standard errors of a proportion of .9 over 2,000 samples.
    assert abs(covered - 0.9) < 3 * (0.9 * 0.1 / 2000) ** 0.5


def test_paired_interval_sees_only_the_differences():
    noise = np.random.default_rng(0).normal(scale=100.0, size=20)
    shifted = paired_interval(noise + 3.0, noise)
    assert (shifted.low, shifted.high) == pytest.approx((3.0, 3.0), abs=1e-9)
    first, second = np.array([1.0, 4.0, 2.0]), np.array([0.0, 1.0, 3.0])
    assert paired_interval(first, second) == mean_interval(first - second)


def test_a_contrast_of_one_or_two_arms_is_a_mean_or_a_difference():
    samples = {"a": [1.0, 2.0, 4.0], "b": [3.0, 3.5], "c": [9.0, 1.0]}
    assert contrast_interval(samples, {"a": 2}) == mean_interval([2.0, 4.0, 8.0])
    assert contrast_interval(samples, {"a": 1, "b": -1}) == difference_interval(samples["a"], samples["b"])
    scaled = contrast_interval(samples, {"a": 1, "b": -0.5})
    expected = difference_interval(samples["a"], [1.5, 1.75])
    assert (scaled.low, scaled.high) == pytest.approx((expected.low, expected.high))
    with pytest.raises(ValueError, match="expected at least one"):
        contrast_interval(samples, {})


def test_a_contrast_of_three_arms_holds_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(0)
    coefficients, spreads = {"a": 1.0, "b": -0.5, "c": -0.5}, {"a": 1.0, "b": 2.0, "c": 0.5}
    held = 0
    for _ in range(2000):
        samples = {name: generator.normal(0.0, spread, 8) for name, spread in spreads.items()}
        interval = contrast_interval(samples, coefficients)
        held += interval.low <= 0.0 <= interval.high
    # Three standard errors of a share of 0.95 in 2,000 draws, and Satterthwaite's approximation.
    assert 0.93 < held / 2000 < 0.97


def test_difference_interval_is_welchs():
    generator = np.random.default_rng(1)
    first, second = generator.normal(1.0, 1.0, 7), generator.normal(0.0, 5.0, 12)
    oracle = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    interval = difference_interval(first, second)
    assert (interval.low, interval.high) == pytest.approx((oracle.low, oracle.high), rel=1e-9)
    assert interval.estimate == pytest.approx(first.mean() - second.mean())


def test_difference_of_constants_has_no_width():
    assert difference_interval([500.0, 500.0], [400.0, 400.0]) == Interval(100.0, 100.0, 100.0)


def test_scaling_an_interval_by_a_negative_number_swaps_its_ends():
    assert Interval(2.0, 1.0, 4.0).scaled(-2.0) == Interval(-4.0, -8.0, -2.0)


def test_interquartile_mean_is_the_mean_of_the_middle_half():
    scores = {"a": [0.0, 1.0, 2.0, 3.0], "b": [4.0, 5.0, 6.0, 1e9]}
    assert interquartile_mean(scores) == 3.5


def test_performance_profile_weighs_envs_equally():
    profile = performance_profile({"a": [0.0, 1.0], "b": [1.0, 1.0, 1.0, 3.0]}, [-1.0, 0.5, 2.0, 3.0])
    np.testing.assert_allclose(profile, [1.0, (0.5 + 1.0) / 2, (0.0 + 0.25) / 2, 0.0])


def test_probability_of_improvement_counts_ties_half():
    first, second = {"a": [1.0, 2.0], "b": [0.0]}, {"a": [1.0, 0.0], "b": [5.0, 0.0]}
    # Env a: three wins and a tie of four; env b: a loss and a tie of two.
    assert probability_of_improvement(first, second) == pytest.approx((3.5 / 4 + 0.5 / 2) / 2)
    assert probability_of_improvement(second, first) == pytest.approx(1 - (3.5 / 4 + 0.5 / 2) / 2)


def test_bootstrap_resamples_within_envs():
    # Each env is constant: resampling across envs would move the mean, within envs it cannot.
    scores = {"a": [0.0] * 5, "b": [10.0] * 5}
    assert stratified_bootstrap(lambda s: np.mean(list(s.values())), scores) == Interval(5.0, 5.0, 5.0)


def test_bootstrap_of_a_mean_approaches_the_normal_interval():
    runs = np.random.default_rng(2).normal(size=400)
    interval = stratified_bootstrap(lambda s: s["a"].mean(), {"a": runs}, resamples=4000)
    width = 2 * 1.959964 * runs.std() / 400**0.5
    assert interval.high - interval.low == pytest.approx(width, rel=0.06)
    assert interval.estimate == pytest.approx(runs.mean())


def test_bootstrap_is_seeded_and_takes_two_groups():
    generator = np.random.default_rng(3)
    first = {"a": generator.normal(1.5, 1.0, 10), "b": generator.normal(1.5, 1.0, 6)}
    second = {"a": generator.normal(0.0, 1.0, 8), "b": generator.normal(0.0, 1.0, 10)}
    one, again, other = (
        stratified_bootstrap(probability_of_improvement, first, second, resamples=200, seed=seed) for seed in (0, 0, 1)
    )
    assert one == again != other
    assert 0.5 < one.low < one.estimate < one.high <= 1.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_interval([1.0]), "at least two"),
        (lambda: mean_interval([1.0, np.nan]), "finite"),
        (lambda: mean_interval([1.0, 2.0], level=1.0), "level=1.0"),
        (lambda: paired_interval([1.0, 2.0], [1.0, 2.0, 3.0]), "2 values and second 3"),
        (lambda: probability_of_improvement({"a": [1.0]}, {"b": [1.0]}), "same"),
        (lambda: interquartile_mean({}), "no envs"),
        (lambda: interquartile_mean({"a": []}), "at least one run"),
        (lambda: stratified_bootstrap(interquartile_mean, {"a": [1.0]}, resamples=0), "resamples=0"),
    ],
)
def test_impossible_samples_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_aggregates_equal_rliables():
    pytest.importorskip("rliable", exc_type=ImportError)
    from rliable import metrics

    scores = np.random.default_rng(4).normal(size=(10, 6))
    by_env = {str(env): scores[:, env] for env in range(6)}
    assert interquartile_mean(by_env) == pytest.approx(metrics.aggregate_iqm(scores))
    other = np.random.default_rng(5).normal(size=(10, 6))
    theirs = metrics.probability_of_improvement(scores, other)
    assert probability_of_improvement(by_env, {str(env): other[:, env] for env in range(6)}) == pytest.approx(theirs)
