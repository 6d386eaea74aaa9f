"""Weekly sales: what is drawn, what is read, and the windows of both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from palaestra.envs.inventory.sales import (
    HISTORY,
    WeeklySales,
    negative_binomial,
    open_sales,
    read_sales,
    synthetic_sales,
)


def write(path: Path, **entries: np.ndarray) -> str:
    np.savez(path, **entries)  # type: ignore[arg-type]
    return str(path)


def test_windows_are_the_published_ones() -> None:
    sales = synthetic_sales(2, 3, 0)
    windows = {split: sales.window("World", split) for split in ("train", "dev", "test")}  # type: ignore[arg-type]
    assert windows == {"train": (0, 111), "dev": (88, 141), "test": (118, 171)}
    assert [end - first - HISTORY for first, end in windows.values()] == [95, 37, 37]


def test_calendar_is_that_of_the_published_weeks() -> None:
    """The first week starts a week after Christmas; the sign turns in the middle of the year."""
    days = synthetic_sales(1, 1, 0).days_from_christmas
    assert days[[0, 1, 24, 25, 26, 51, 52, 76, 77]].tolist() == [7, 14, 175, 182, -176, -1, 6, 174, 181]
    assert days[78] == -177
    assert np.abs(days).max() == 182


def test_sales_are_whole_and_the_same_for_the_same_seed() -> None:
    first, again, other = (synthetic_sales.__wrapped__(6, 4, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.units, again.units)
    assert not np.array_equal(first.units, other.units)
    assert first.units.shape == (6, 4, 171)
    np.testing.assert_array_equal(first.units, np.round(first.units))
    assert first.units.min() == 0.0


def test_negative_binomial_has_its_variance_and_correlation() -> None:
    """Variance m + m^2 / k, and between stores the covariance r m^2 / k."""
    mean, shape, shared = np.full((1, 2, 200_000), 20.0), np.full((1, 1, 1), 4.0), 0.3
    first, second = negative_binomial(np.random.RandomState(0), mean, shape, shared)[0]
    assert first.mean() == pytest.approx(20.0, rel=0.01)
    assert first.var() == pytest.approx(20.0 + 400.0 / 4.0, rel=0.02)
    assert np.cov(first, second)[0, 1] == pytest.approx(0.3 * 400.0 / 4.0, rel=0.05)


def test_series_have_the_features_of_a_grocer() -> None:
    sales = synthetic_sales(200, 6, 3)
    units, days = sales.units, sales.days_from_christmas
    share = units / np.maximum(units.mean(axis=2, keepdims=True), 1e-9)
    by_product = share.mean(axis=1)
    # Before Christmas more is sold than in the weeks around it.
    peak = by_product[:, np.abs(days + 7) <= 7].mean()
    assert peak > 1.15 * by_product[:, (np.abs(days + 7) > 21) & (np.abs(days + 7) < 60)].mean()
    # Stores move together from week to week, but not as one.
    moves = np.diff(share, axis=2)
    pairs = [np.corrcoef(product)[np.triu_indices(6, 1)].mean() for product in moves]
    assert 0.1 < float(np.mean(pairs)) < 0.5
    # Levels last: the means of the two halves differ by more than their noise.
    halves = np.log(np.maximum(by_product[:, :85].mean(1), 0.01) / np.maximum(by_product[:, 85:].mean(1), 0.01))
    assert halves.std() > 0.15
    # Some products are off sale for weeks on end, most never; by chance such a spell is next to impossible.
    spells = (units[:, :, :-4] + units[:, :, 1:-3] + units[:, :, 2:-2] + units[:, :, 3:-1] == 0.0).any(axis=2)
    often = (units.mean(axis=2) > 20.0) & spells
    assert 0.05 < often.any(axis=1).mean() < 0.4


def test_a_file_is_read(tmp_path: Path) -> None:
    sold = np.arange(2 * 3 * 120, dtype=np.float32).reshape(2, 3, 120) - 5.0
    path = write(
        tmp_path / "sales.npz",
        weekly_sales=sold,
        days_from_christmas=np.arange(120, dtype=np.int16),
        week_start=np.array(["2020-01-01"] * 120, dtype=object),
    )
    sales = read_sales("World", path)
    np.testing.assert_array_equal(sales.units, np.maximum(sold, 0.0))
    assert sales.days_from_christmas.dtype == np.int64
    np.testing.assert_array_equal(open_sales("World", path, 9, 9, 9).units, sales.units)
    np.testing.assert_array_equal(open_sales("World", None, 2, 2, 9).units, synthetic_sales(2, 2, 9).units)


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    days = np.zeros(120, np.int64)
    with pytest.raises(
        ValueError, match=r"World: sales=.* lacks \['weekly_sales'\]; it holds \['days_from_christmas'\]"
    ):
        read_sales("World", write(tmp_path / "a.npz", days_from_christmas=days))
    with pytest.raises(ValueError, match=r"holds weekly_sales \(2, 120\) .*; expected \[products, stores, weeks\]"):
        read_sales("World", write(tmp_path / "b.npz", days_from_christmas=days, weekly_sales=np.zeros((2, 120))))
    bad = np.full((1, 1, 120), np.nan)
    with pytest.raises(ValueError, match="NaN or infinite"):
        read_sales("World", write(tmp_path / "c.npz", days_from_christmas=days, weekly_sales=bad))
    with pytest.raises(FileNotFoundError):
        read_sales("World", tmp_path / "none.npz")


def test_too_few_weeks_and_unknown_splits_are_refused() -> None:
    short = WeeklySales(np.zeros((1, 1, 91)), np.zeros(91, np.int64))
    with pytest.raises(ValueError, match="World: sales of 91 weeks; expected at least 92"):
        short.window("World", "test")
    with pytest.raises(ValueError, match="split='all'; expected one of train, dev, test"):
        synthetic_sales(1, 1, 0).window("World", "all")  # type: ignore[arg-type]
