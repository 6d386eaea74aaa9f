"""Statistics of results: intervals for claims on one env, aggregates with stratified bootstraps across envs.

A claim on one env uses t-intervals. An aggregate across envs uses the interquartile mean, performance profiles and the
probability of improvement of Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice"
(NeurIPS 2021), with percentile bootstrap intervals that resample runs within each env.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Scores = Mapping[str, ArrayLike]
"""One score per run, by env: `{env_id: [num_runs]}`. Envs may differ in their number of runs."""


@dataclass(frozen=True)
class Interval:
    """A point estimate inside its confidence interval.

    Attributes:
        estimate: The point estimate.
        low: Lower end.
        high: Upper end.
        level: Confidence level in (0, 1).
    """

    estimate: float
    low: float
    high: float
    level: float = 0.95

    def scaled(self, factor: float) -> Interval:
        """Return the interval of `factor` times the quantity; a negative factor swaps the ends."""
        ends = sorted((self.low * factor, self.high * factor))
        return Interval(self.estimate * factor, ends[0], ends[1], self.level)


def mean_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Return Student's t-interval of the mean of independent values.

    Args:
        values: Sample `[n]`, n at least 2.
        level: Confidence level in (0, 1).

    Raises:
        ValueError: If there are fewer than two values, or one is not finite, or `level` is outside (0, 1).
    """
    sample = _sample("mean_interval", "values", values, level)
    return _student(float(sample.mean()), float(sample.var(ddof=1)) / sample.size, sample.size - 1, level)


def paired_interval(first: ArrayLike, second: ArrayLike, level: float = 0.95) -> Interval:
    """Return Student's t-interval of the mean of `first - second`, whose entries were measured on the same noise.

    Args:
        first: Sample `[n]`, n at least 2.
        second: Sample `[n]`; entry i belongs to entry i of `first`.
        level: Confidence level in (0, 1).

    Raises:
        ValueError: If the samples differ in length, or for the reasons of `mean_interval`.
    """
    a = _sample("paired_interval", "first", first, level)
    b = _sample("paired_interval", "second", second, level)
    if a.size != b.size:
        raise ValueError(f"paired_interval: first has {a.size} values and second {b.size}; expected as many")
    return mean_interval(a - b, level)


def difference_interval(first: ArrayLike, second: ArrayLike, level: float = 0.95) -> Interval:
    """Return Welch's t-interval of mean(first) - mean(second) for independent samples of unequal variance.

    Args:
        first: Sample `[n]`, n at least 2.
        second: Sample `[m]`, m at least 2.
        level: Confidence level in (0, 1).

    Raises:
        ValueError: For the reasons of `mean_interval`.

    Source: Welch, "The Generalization of 'Student's' Problem when Several Different Population Variances are
    Involved" (1947), with Satterthwaite's degrees of freedom.
    """
    samples = {"first": first, "second": second}
    return contrast_interval(samples, {"first": 1.0, "second": -1.0}, level)


def contrast_interval(
    samples: Mapping[str, ArrayLike], coefficients: Mapping[str, float], level: float = 0.95
) -> Interval:
    """Return Welch's t-interval of a sum of coefficients times means, of independent samples of unequal variance.

    Args:
        samples: By name, `[n]` each, n at least 2; those without a coefficient are left out.
        coefficients: By name: {"a": 1, "b": -1} is a difference, {"a": 1, "b": -0.5} below 0 means that a's mean is
            less than half of b's.
        level: Confidence level in (0, 1).

    Raises:
        ValueError: If there are no coefficients, or for the reasons of `mean_interval`.

    Source: Satterthwaite, "An Approximate Distribution of Estimates of Variance Components" (1946).
    """
    if not coefficients:
        raise ValueError("contrast_interval: coefficients={}; expected at least one")
    named = {name: _sample("contrast_interval", name, samples[name], level) for name in coefficients}
    if len(named) == 1:
        ((name, sample),) = named.items()
        return mean_interval(coefficients[name] * sample, level)
    estimate = sum(coefficients[name] * float(sample.mean()) for name, sample in named.items())
    variances = {
        name: coefficients[name] ** 2 * float(sample.var(ddof=1)) / sample.size for name, sample in named.items()
    }
    spread = sum(variance**2 / (named[name].size - 1) for name, variance in variances.items())
    degrees = sum(variances.values()) ** 2 / spread if spread > 0 else float(sum(s.size - 1 for s in named.values()))
    return _student(estimate, sum(variances.values()), degrees, level)


def interquartile_mean(scores: Scores) -> float:
    """Return the mean of the middle half of all scores, runs and envs pooled (25 % cut from each end)."""
    return float(stats.trim_mean(np.concatenate(_strata(scores)), 0.25))


def performance_profile(scores: Scores, thresholds: ArrayLike) -> NDArray[np.float64]:
    """Return the fraction of runs that score above each threshold, averaged over envs.

    Args:
        scores: Scores by env.
        thresholds: Score levels `[k]`.

    Returns:
        Fractions `[k]` in [0, 1]; every env weighs the same, whatever its number of runs.
    """
    levels = np.asarray(thresholds, dtype=np.float64)
    return np.mean([(runs[:, None] > levels).mean(axis=0) for runs in _strata(scores)], axis=0)


def probability_of_improvement(first: Scores, second: Scores) -> float:
    """Return the chance that a run of `first` beats a run of `second` on an env drawn at random; ties count half.

    Args:
        first: Scores by env.
        second: Scores by env, of the same envs.

    Raises:
        ValueError: If the two do not name the same envs.
    """
    if set(first) != set(second):
        raise ValueError(
            f"probability_of_improvement: first has envs {sorted(first)} and second {sorted(second)}; expected the same"
        )
    chances = []
    for env_id in sorted(first):
        a, b = np.asarray(first[env_id], dtype=np.float64)[:, None], np.asarray(second[env_id], dtype=np.float64)
        chances.append(float((a > b).mean() + 0.5 * (a == b).mean()))
    return float(np.mean(chances))


def stratified_bootstrap(
    statistic: Callable[..., Any],
    *groups: Scores,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return the percentile bootstrap interval of a statistic, resampling runs within each env of each group.

    Args:
        statistic: Function of as many `Scores` as there are groups, such as `interquartile_mean` (one group) or
            `probability_of_improvement` (two); returns a number.
        groups: Scores by env, one mapping for each group of runs (one agent).
        resamples: Number of bootstrap samples, at least 1.
        level: Confidence level in (0, 1).
        seed: Seed of the resampling; equal seeds give equal intervals.

    Raises:
        ValueError: If `resamples` or `level` is out of range, or an env has no finite scores.
    """
    if resamples < 1:
        raise ValueError(f"stratified_bootstrap: resamples={resamples}; expected at least 1")
    _check_level("stratified_bootstrap", level)
    generator = np.random.default_rng(seed)
    strata = [dict(zip(sorted(group), _strata(group), strict=True)) for group in groups]
    draws = np.empty(resamples)
    for index in range(resamples):
        resampled = [
            {env_id: runs[generator.integers(runs.size, size=runs.size)] for env_id, runs in group.items()}
            for group in strata
        ]
        draws[index] = statistic(*resampled)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(statistic(*groups)), float(low), float(high), level)


def _student(estimate: float, variance_of_mean: float, degrees: float, level: float) -> Interval:
    half_width = float(stats.t.ppf((1 + level) / 2, degrees)) * variance_of_mean**0.5
    return Interval(estimate, estimate - half_width, estimate + half_width, level)


def _sample(caller: str, name: str, values: ArrayLike, level: float) -> NDArray[np.float64]:
    _check_level(caller, level)
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size < 2 or not np.isfinite(sample).all():
        raise ValueError(f"{caller}: {name}={values!r}; expected at least two finite numbers in one dimension")
    return sample


def _check_level(caller: str, level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"{caller}: level={level}; expected a number between 0 and 1")


def _strata(scores: Scores) -> list[NDArray[np.float64]]:
    if not scores:
        raise ValueError("scores: no envs; expected a mapping from env id to one score per run")
    strata = []
    for env_id in sorted(scores):
        runs = np.asarray(scores[env_id], dtype=np.float64)
        if runs.ndim != 1 or runs.size == 0 or not np.isfinite(runs).all():
            raise ValueError(f"scores: {env_id!r} has {scores[env_id]!r}; expected finite scores of at least one run")
        strata.append(runs)
    return strata
