"""Pictures of results, drawn from rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np

from palaestra.agents.evaluation.rows import Row
from palaestra.agents.evaluation.statistics import mean_interval
from palaestra.scripts.curve_panel import CurvePanel
from palaestra.scripts.speed_report import RatioBar

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's palette, which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
STYLES = ("-", "--", ":")


def learning_curves(path: Path, panels: Sequence[CurvePanel]) -> None:
    """Draw means over seeds and their 95 % t-intervals against env steps, panels side by side.

    Args:
        path: PNG file to write.
        panels: What to draw, at least one.
    """
    size = (6.4 * len(panels), 3.8)
    figure, row = plt.subplots(ncols=len(panels), figsize=size, layout="constrained", squeeze=False)
    for axes, panel in zip(row[0], panels, strict=True):
        _draw_panel(axes, panel)
    _save(figure, path)


def _draw_panel(axes: Axes, panel: CurvePanel) -> None:
    for index, (label, rows) in enumerate(panel.curves.items()):
        colour, style = COLOURS[index % len(COLOURS)], STYLES[index // len(COLOURS) % len(STYLES)]
        steps, estimates, lows, highs = curve_points(rows, panel.metric)
        axes.plot(steps, estimates, color=colour, linestyle=style, marker=".", label=label)
        axes.fill_between(steps, lows, highs, color=colour, alpha=0.2, linewidth=0)
    for level in panel.levels:
        axes.axhline(level, color="0.4", linestyle="--", linewidth=1, label=f"claimed: {level:g}")
    axes.set(title=panel.title, xlabel="environment steps", ylabel=panel.metric.replace("_", " "))
    if panel.metric.endswith("gap"):
        # Gaps begin in the hundreds and matter in the thousandths; exact ones may be 0.
        axes.set_yscale("symlog", linthresh=1e-3)
        axes.set_ylim(bottom=0.0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small" if len(panel.curves) > 4 else None)


def direction_picture(path: Path, title: str, shares: Mapping[str, np.ndarray]) -> None:
    """Draw how actions are spread over directions: a rose of lines for each arm, one line for each seed.

    Args:
        path: PNG file to write.
        title: Of the picture.
        shares: For every arm the shares of the sectors, counted from the east, `[seeds, sectors]`.
    """
    size = (3.0 * len(shares), 3.4)
    projection = {"projection": "polar"}
    figure, row = plt.subplots(
        ncols=len(shares), figsize=size, layout="constrained", squeeze=False, subplot_kw=projection
    )
    for index, (axes, (arm, seeds)) in enumerate(zip(row[0], shares.items(), strict=True)):
        angles = 2.0 * np.pi * np.arange(seeds.shape[1] + 1) / seeds.shape[1]
        for share in seeds:
            axes.plot(angles, np.append(share, share[0]), color=COLOURS[index % len(COLOURS)], linewidth=1, alpha=0.6)
        axes.set(title=arm, yticklabels=[], ylim=(0.0, None))
        axes.tick_params(labelsize="small")
    figure.suptitle(title)
    _save(figure, path)


def ratio_picture(path: Path, title: str, bars: Sequence[RatioBar]) -> None:
    """Draw how many times better ours was than each peer, with the spread over turns and a line at each target.

    Args:
        path: PNG file to write.
        title: Title of the picture.
        bars: The ratios, from the top down.
    """
    figure, axes = plt.subplots(figsize=(6.4, 1.2 + 0.5 * len(bars)), layout="constrained")
    rows = np.arange(len(bars))
    ratios = np.array([bar.ratio for bar in bars])
    spread = np.array([(bar.ratio - bar.low, bar.high - bar.ratio) for bar in bars]).T
    # The ratio of medians may lie outside the ratios of single seeds.
    spread = np.maximum(spread, 0.0)
    reached = [bar.target is None or bar.ratio >= bar.target for bar in bars]
    colours = [COLOURS[0] if good else COLOURS[1] for good in reached]
    # Bars begin at 1, equality, on a logarithmic scale: twice as fast and half as fast are equally long.
    axes.barh(rows, ratios - 1.0, left=1.0, height=0.6, color=colours, xerr=spread, ecolor="0.3", capsize=2)
    for row, bar in zip(rows, bars, strict=True):
        if bar.target is not None:
            axes.vlines(bar.target, row - 0.4, row + 0.4, color="0.1", linestyle="--", linewidth=1.5)
    axes.axvline(1.0, color="0.4", linewidth=1)
    axes.set_xscale("log")
    ticks = [tick for tick in (0.25, 0.5, 1, 2, 5, 10, 20, 50, 100, 200) if _within(tick, bars)]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_yticks(rows, [bar.label for bar in bars], fontsize="small")
    axes.invert_yaxis()
    axes.set(title=title, xlabel="times better than the peer (dashes: target)")
    axes.grid(axis="x", alpha=0.3)
    _save(figure, path)


def _within(tick: float, bars: Sequence[RatioBar]) -> bool:
    marks = [1.0, *(mark for bar in bars for mark in (bar.low, bar.high, bar.target or 1.0))]
    return bool(min(marks) / 1.3 <= tick <= 1.3 * max(marks))


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without the library's version among its metadata the picture changes only when the rows do.
    figure.savefig(path, dpi=120, metadata={"Software": None})
    plt.close(figure)


def curve_points(rows: Sequence[Row], metric: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return env steps `[points]`, means over seeds, and the ends of their 95 % t-intervals (the mean for one seed).

    Args:
        rows: Rows of all seeds and points.
        metric: As for `Row.metric`; rows without it are left out.
    """
    by_step: dict[int, list[float]] = {}
    for row in rows:
        measured = row.metric(metric)
        if measured is not None:
            by_step.setdefault(row.env_steps, []).append(measured.estimate)
    steps = sorted(by_step)
    ends = []
    for step in steps:
        values = by_step[step]
        interval = mean_interval(values) if len(values) > 1 else None
        ends.append((interval.estimate, interval.low, interval.high) if interval else (values[0],) * 3)
    estimates, lows, highs = np.asarray(ends, np.float64).reshape(-1, 3).T
    return np.asarray(steps), estimates, lows, highs
