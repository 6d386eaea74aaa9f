"""`palaestra speed`: time the suite against its peers, interleaved in one run, imports and evaluation excluded."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from rich.table import Table

from palaestra.agents.evaluation import provenance
from palaestra.scripts.options import console


@dataclass(frozen=True)
class SpeedOptions:
    """Compare the suite's speed with stable-baselines3's.

    Ours and theirs take turns in the same process, so that a machine whose speed drifts drifts for both; the ratio of
    each turn is what counts. Run it on an otherwise idle machine: the idle share is printed and stored.
    """

    suite: Annotated[Literal["core"], tyro.conf.Positional] = "core"
    """What to time: core is SAC's update and PPO's time to the optimum of OneStoreBacklog."""
    only: Literal["sac-update", "ppo-update", "ppo-solve"] | None = None
    """Time one of its parts alone."""
    repeats: int = 5
    """Turns of each side, at least 3."""
    results: Path | None = None
    """Folder of results, to whose speed/ the rows are appended; by default they are only printed."""


@dataclass(frozen=True)
class Timing:
    """One part: how fast each side was in every turn, in units of `unit` (higher is better for rates)."""

    name: str
    unit: str
    ours: list[float]
    theirs: list[float]
    threads: int
    ratio_of: Literal["turns", "medians"]
    details: Mapping[str, Any]

    def ratios(self) -> list[float]:
        """Return how many times faster ours was, turn by turn."""
        faster = [(o / t) if self.unit.endswith("/s") else (t / o) for o, t in zip(self.ours, self.theirs, strict=True)]
        return faster

    def ratio(self) -> float:
        """Return the median ratio, or the ratio of the medians where the turns are different seeds."""
        if self.ratio_of == "turns":
            return statistics.median(self.ratios())
        ours, theirs = statistics.median(self.ours), statistics.median(self.theirs)
        return theirs / ours


def main(arguments: list[str]) -> int:
    """Run the parts, print the ratios and append the rows."""
    options = tyro.cli(SpeedOptions, prog="palaestra speed", args=arguments)
    if options.repeats < 3:
        print(f"palaestra speed: repeats={options.repeats}; expected at least 3", file=sys.stderr)
        return 2
    try:
        from palaestra.scripts import speed_core
    except ImportError as error:
        print(f"palaestra speed: {error} (pip install 'palaestra[sb3,mujoco]')", file=sys.stderr)
        return 2
    parts: dict[str, Callable[[int], Timing]] = {
        "sac-update": speed_core.sac_update,
        "ppo-update": speed_core.ppo_update,
        "ppo-solve": speed_core.ppo_solve,
    }
    table = Table("part", "ours", "theirs", "unit", "ratio", "spread", "threads", "idle CPU", box=None)
    for name in [options.only] if options.only else list(parts):
        assert name is not None
        meter = provenance.CpuMeter()
        timing = parts[name](options.repeats)
        idle = meter.idle_share()
        spread = f"{min(timing.ratios()):.2f} to {max(timing.ratios()):.2f}"
        medians = [f"{statistics.median(values):,.1f}" for values in (timing.ours, timing.theirs)]
        ratio, share = f"{timing.ratio():.2f}", "-" if idle is None else f"{idle:.0%}"
        table.add_row(name, *medians, timing.unit, ratio, spread, str(timing.threads), share)
        if options.results is not None:
            append(options.results / "speed" / f"{options.suite}.jsonl", timing, idle)
    console().print(table)
    return 0


def append(path: Path, timing: Timing, idle: float | None) -> None:
    """Append one timing as a row."""
    revision, modified = provenance.git_state()
    row = {
        "part": timing.name,
        "unit": timing.unit,
        "ours": timing.ours,
        "theirs": timing.theirs,
        "ratios": timing.ratios(),
        "ratio": timing.ratio(),
        "ratio_of": timing.ratio_of,
        "threads": timing.threads,
        "details": dict(timing.details),
        "idle_cpu": idle,
        "versions": provenance.package_versions(),
        "hardware": provenance.hardware(),
        "revision": revision,
        "modified": modified,
        "command": f"palaestra speed core --only {timing.name} --repeats {len(timing.ours)} --results results",
        "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, sort_keys=True) + "\n")


def interleaved(
    name: str,
    unit: str,
    ours: Callable[[], float],
    theirs: Callable[[], float],
    repeats: int,
    threads: int,
    details: Mapping[str, Any],
) -> Timing:
    """Return the rates of two functions that take turns; each returns units of work done per call, warmed up once."""

    def rate(work: Callable[[], float]) -> float:
        begun = time.perf_counter()
        done = work()
        return done / (time.perf_counter() - begun)

    torch.set_num_threads(threads)
    ours(), theirs()
    pairs = [(rate(ours), rate(theirs)) for _ in range(repeats)]
    return Timing(name, unit, [o for o, _ in pairs], [t for _, t in pairs], threads, "turns", details)
