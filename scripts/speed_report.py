"""The report's part on speed: tables and bars of all suites of `palaestra speed`, made from their rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from palaestra.scripts.timing import IDLE_ENOUGH, OURS, SpeedRow, number_text, read_rows

SUITES = ("core", "worlds", "updates", "solve", "memory")
COLUMNS = [*"part, ours, peer, theirs, unit, ratio, spread, target, threads".split(", "), "idle before, during; others"]
HEADER = """
## Speed

What `palaestra speed` measured: all sides take turns in one process; imports and evaluation are excluded. A ratio
above 1 means that ours is better; it is the median over turns, or of medians where turns are seeds (solve), with the
smallest and largest of the turns beside it. [docs/performance.md](../docs/performance.md) explains what makes the
numbers. *Idle* is the machine's idle share before the part began, and while it ran; *others* is what other
processes took meanwhile.
"""


@dataclass(frozen=True)
class RatioBar:
    """One ratio as it is drawn.

    Attributes:
        label: Part and peer.
        ratio: How many times better ours was.
        low: The smallest of the turns.
        high: The largest.
        target: What is to be reached, or None.
    """

    label: str
    ratio: float
    low: float
    high: float
    target: float | None


def newest_rows(results: Path) -> dict[str, list[SpeedRow]]:
    """Return the newest row of each part by suite, for the suites that have rows, in the order of the suites."""
    newest = {}
    for suite in SUITES:
        by_part = {row.timing.name: row for row in read_rows(speed_file(results, suite))}
        if by_part:
            newest[suite] = [*by_part.values()]
    return newest


def speed_file(results: Path, suite: str) -> Path:
    """Return the file that a suite's rows are appended to."""
    return results / "speed" / f"{suite}.jsonl"


def picture_file(results: Path, suite: str) -> Path:
    """Return the file of a suite's picture."""
    return results / "pictures" / f"speed-{suite}.png"


def ratio_bars(rows: Iterable[SpeedRow]) -> list[RatioBar]:
    """Return the bars of a suite's picture, one a peer."""
    return [
        RatioBar(
            f"{row.timing.name}\n{peer}",
            row.timing.ratio(peer),
            min(row.timing.ratios(peer)),
            max(row.timing.ratios(peer)),
            row.targets.get(peer),
        )
        for row in rows
        for peer in row.timing.peers
    ]


def speed_section(results: Path) -> list[str]:
    """Return the lines of the report on speed, newest timing of each part; none where nothing was timed."""
    suites = newest_rows(results)
    if not suites:
        return []
    lines = HEADER.splitlines()
    for suite, rows in suites.items():
        lines += ["", f"### {suite}", "", *_table(rows), "", *_notes(suite, rows)]
        if ratio_bars(rows):
            lines += ["", f"![ratios](pictures/{picture_file(results, suite).name})"]
    return lines


def row_cells(row: SpeedRow) -> list[list[str]]:
    """Return the cells of a row under `COLUMNS`: a line for each peer, and one for a target of ours alone."""
    timing, load = row.timing, row.load
    shares = f"{_share(load.idle_before)}, {_share(load.idle_during)}; {_share(load.others_during)}"
    lines = []
    for side in [*timing.peers, *([OURS] if OURS in row.targets or not timing.peers else [])]:
        theirs, ratio, spread = "–", "–", "–"
        if side != OURS:
            theirs, ratio = number_text(timing.median(side)), f"{timing.ratio(side):.2f}"
            spread = f"{min(timing.ratios(side)):.2f} to {max(timing.ratios(side)):.2f}"
        target = "–"
        if side in row.targets:
            target = f"{number_text(row.targets[side])}: {'reached' if row.reached(side) else 'missed'}"
        ours, peer = number_text(timing.median(OURS)), "–" if side == OURS else side
        lines.append([timing.name, ours, peer, theirs, timing.unit, ratio, spread, target, str(timing.threads), shares])
    return lines


def _table(rows: list[SpeedRow]) -> list[str]:
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    cells = (cells for row in rows for cells in row_cells(row))
    return lines + [f"| {' | '.join(line)} |".replace(": missed |", ": **missed** |") for line in cells]


def _notes(suite: str, rows: list[SpeedRow]) -> list[str]:
    commands = f"`palaestra speed {suite} --results results`"
    notes = [f"Command: {commands}; all numbers of every turn, settings and versions: [rows](speed/{suite}.jsonl)."]
    busy = [row.timing.name for row in rows if not row.load.idle_enough]
    if busy:
        notes.append(f"The machine was less than {IDLE_ENOUGH:.0%} idle for: {', '.join(busy)}.")
    for row in rows:
        timing = row.timing
        for side, solved in timing.details.get("solved", {}).items():
            missed = [str(seed) for seed, done in enumerate(solved) if not done]
            if missed:
                seeds = ", ".join(missed)
                notes.append(
                    f"{timing.name}: {side} did not get there with seed {seeds}, which counts with its budget."
                )
        if timing.skipped:
            notes.append(f"{timing.name}: without {', '.join(timing.skipped)}, not installed.")
    machines = {
        f"{row.origin['hardware']['cpu']}, {row.origin['hardware']['cores']} cores"
        for row in rows
        if row.origin.get("hardware")
    }
    revisions = {_revision(row) for row in rows}
    notes.append(f"Hardware: {'; '.join(sorted(machines)) or 'unknown'}; code: {', '.join(sorted(revisions))}.")
    return [f"- {note}" for note in notes]


def _revision(row: SpeedRow) -> str:
    revision = row.origin.get("revision")
    if revision is None:
        return "an installed package"
    return f"{revision[:12]} (modified)" if row.origin.get("modified") else str(revision[:12])


def _share(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}"
