"""Timing side against side: turns, ratios, how idle the machine was, and the rows they are kept in."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch

from palaestra.agents.evaluation import provenance

OURS = "palaestra"
TURN_SECONDS = 1.0
IDLE_ENOUGH = 0.9
SETTLE_SECONDS = 1.0

Work = Callable[[], float]
"""Does some work and returns how many units of it were done."""


@dataclass(frozen=True)
class Timing:
    """One part: how fast each side was, turn by turn.

    Attributes:
        name: Name of the part.
        unit: Unit of the numbers; those "/s" are better when higher, all others when lower.
        sides: Numbers of every turn by side, ours (`OURS`) first; one for each turn or seed.
        threads: Threads torch computed with.
        details: What was timed, for whoever reads the row.
        ratio_of: "turns" compares the sides turn by turn and takes the median; "medians" compares their medians,
            where turns are seeds and no more alike than any two.
        skipped: Sides that are not installed, and how to install them.
    """

    name: str
    unit: str
    sides: Mapping[str, list[float]]
    threads: int
    details: Mapping[str, Any] = field(default_factory=dict)
    ratio_of: Literal["turns", "medians"] = "turns"
    skipped: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if next(iter(self.sides), None) != OURS:
            raise ValueError(f"Timing {self.name}: sides={list(self.sides)}; expected {OURS!r} first")
        if len({len(numbers) for numbers in self.sides.values()}) != 1 or not self.sides[OURS]:
            counts = {side: len(numbers) for side, numbers in self.sides.items()}
            raise ValueError(f"Timing {self.name}: turns of the sides {counts}; expected the same number, at least 1")

    @property
    def peers(self) -> list[str]:
        """The other sides."""
        return [side for side in self.sides if side != OURS]

    @property
    def higher_is_better(self) -> bool:
        """Whether the numbers are rates."""
        return self.unit.endswith("/s")

    def median(self, side: str) -> float:
        """Return a side's median over turns."""
        return statistics.median(self.sides[side])

    def ratios(self, peer: str) -> list[float]:
        """Return how many times better than a peer ours was, turn by turn."""
        return [self._better(ours, theirs) for ours, theirs in zip(self.sides[OURS], self.sides[peer], strict=True)]

    def ratio(self, peer: str) -> float:
        """Return the median of those ratios, or the ratio of the medians where turns are seeds."""
        if self.ratio_of == "turns":
            return statistics.median(self.ratios(peer))
        return self._better(self.median(OURS), self.median(peer))

    def _better(self, ours: float, theirs: float) -> float:
        worse, better = (theirs, ours) if self.higher_is_better else (ours, theirs)
        return better / worse if worse else math.inf


def turn_order(sides: Mapping[str, Any], turn: int) -> list[str]:
    """Return the order in which the sides take a turn: forwards in even turns, backwards in odd ones.

    So no side always meets the machine that another has just warmed up.
    """
    return list(sides) if turn % 2 == 0 else list(sides)[::-1]


def interleaved(
    name: str,
    unit: str,
    sides: Mapping[str, Work],
    repeats: int,
    threads: int,
    details: Mapping[str, Any],
    *,
    skipped: Mapping[str, str] | None = None,
    turn_seconds: float = TURN_SECONDS,
) -> Timing:
    """Return the rates of several sides that take turns in one process.

    Args:
        name: Name of the part.
        unit: Unit of the rates, "<units>/s".
        sides: What each side does, ours first; each is called once to warm up.
        repeats: Turns of each side.
        threads: Threads torch computes with.
        details: What is timed.
        skipped: Sides that are not installed, and how to install them.
        turn_seconds: A side repeats its work until a turn has taken this long.
    """
    torch.set_num_threads(threads)
    for work in sides.values():
        work()
    rates: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(repeats):
        for side in turn_order(sides, turn):
            rates[side].append(_rate(sides[side], turn_seconds))
    return Timing(name, unit, rates, threads, details, "turns", dict(skipped or {}))


def _rate(work: Work, turn_seconds: float) -> float:
    done, begun = 0.0, time.perf_counter()
    while True:
        done += work()
        elapsed = time.perf_counter() - begun
        if elapsed >= turn_seconds:
            return done / elapsed


def missing(packages: Mapping[str, str]) -> dict[str, str]:
    """Return those of {package: how to install it} that are not installed; nothing is imported."""
    return {package: install for package, install in packages.items() if find_spec(package) is None}


@dataclass(frozen=True)
class Load:
    """How much of the machine a timing had; shares in [0, 1] of all cores, None where the system does not tell.

    Attributes:
        idle_before: Idle share while nothing of ours ran, just before.
        idle_during: Idle share meanwhile.
        others_during: Share that other processes took meanwhile.
    """

    idle_before: float | None = None
    idle_during: float | None = None
    others_during: float | None = None

    @property
    def idle_enough(self) -> bool:
        """Whether the machine was free for the timing, as far as can be told."""
        before = self.idle_before is None or self.idle_before >= IDLE_ENOUGH
        return before and (self.others_during is None or self.others_during <= 1.0 - IDLE_ENOUGH)


def under_load(run: Callable[[], Timing], settle: float = SETTLE_SECONDS) -> tuple[Timing, Load]:
    """Return a timing and how much of the machine it had.

    Args:
        run: Does the timing.
        settle: Seconds over which the idle share before it is measured.
    """
    before = provenance.CpuMeter()
    time.sleep(settle)
    idle_before = before.idle_share()
    during = provenance.CpuMeter()
    timing = run()
    return timing, Load(idle_before, during.idle_share(), during.others_share())


@dataclass(frozen=True)
class SpeedRow:
    """A timing as it is kept in results/speed/<suite>.jsonl.

    Attributes:
        suite: Suite of `palaestra speed`.
        timing: The numbers.
        targets: The ratio to reach by peer; under `OURS` the number that is to be reached, a rate at least, any other
            number at most.
        load: How much of the machine the timing had.
        origin: Versions, hardware, revision, command and time.
    """

    suite: str
    timing: Timing
    targets: Mapping[str, float]
    load: Load
    origin: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def now(cls, suite: str, timing: Timing, targets: Mapping[str, float], load: Load) -> SpeedRow:
        """Return the row of a timing that this process has just made."""
        revision, modified = provenance.git_state()
        repeats = len(timing.sides[OURS])
        origin = {
            "versions": provenance.package_versions(),
            "hardware": provenance.hardware(),
            "revision": revision,
            "modified": modified,
            "command": f"palaestra speed {suite} --only {timing.name} --repeats {repeats} --results results",
            "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        return cls(suite, timing, dict(targets), load, origin)

    def reached(self, side: str) -> bool:
        """Return whether the target of a side was reached."""
        if side != OURS:
            return self.timing.ratio(side) >= self.targets[side]
        ours = self.timing.median(OURS)
        return ours >= self.targets[side] if self.timing.higher_is_better else ours <= self.targets[side]

    def to_json(self) -> str:
        """Return the row as one line."""
        timing = self.timing
        row = {
            "suite": self.suite,
            "part": timing.name,
            "unit": timing.unit,
            "sides": dict(timing.sides),
            "ratio": {peer: timing.ratio(peer) for peer in timing.peers},
            "ratios": {peer: timing.ratios(peer) for peer in timing.peers},
            "ratio_of": timing.ratio_of,
            "targets": dict(self.targets),
            "threads": timing.threads,
            "details": dict(timing.details),
            "skipped": dict(timing.skipped),
            "idle_before": self.load.idle_before,
            "idle_cpu": self.load.idle_during,
            "others_cpu": self.load.others_during,
            **self.origin,
        }
        return json.dumps(provenance.plain(row), sort_keys=True)

    @classmethod
    def from_json(cls, line: str, suite: str = "core") -> SpeedRow:
        """Return the row that a line holds; the first rows, of two sides, are read too.

        Args:
            line: The line.
            suite: Suite of a line that names none.
        """
        row = json.loads(line)
        details = dict(row["details"])
        if "sides" in row:
            # Keys are sorted in the file, but ours comes first.
            sides = {OURS: row["sides"].pop(OURS), **row["sides"]}
        else:
            peer = str(details.get("peer", "stable_baselines3"))
            sides = {OURS: row["ours"], peer: row["theirs"]}
            names = {"ours": OURS, "theirs": peer}
            for name in {"solved", "steps"} & details.keys():
                details[name] = {names[side]: values for side, values in details[name].items()}
        timing = Timing(
            row["part"],
            row["unit"],
            sides,
            row["threads"],
            details,
            row.get("ratio_of", "turns"),
            row.get("skipped", {}),
        )
        load = Load(row.get("idle_before"), row["idle_cpu"], row.get("others_cpu"))
        origin = {name: row.get(name) for name in ("versions", "hardware", "revision", "modified", "command")}
        return cls(
            row.get("suite", suite), timing, row.get("targets", {}), load, {**origin, "timestamp": row.get("timestamp")}
        )


def append_row(results: Path, row: SpeedRow) -> Path:
    """Append a row to its suite's file in a folder of results; return the file."""
    path = results / "speed" / f"{row.suite}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(row.to_json() + "\n")
    return path


def read_rows(path: Path) -> list[SpeedRow]:
    """Return the rows of a file, oldest first; none where there is no file."""
    if not path.exists():
        return []
    return [SpeedRow.from_json(line, path.stem) for line in path.read_text(encoding="utf-8").splitlines()]


def number_text(value: float) -> str:
    """Return a number as tables show it, with three to four digits that count."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
