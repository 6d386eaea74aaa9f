"""`palaestra report`: make results/README.md and its pictures from claims and rows, and from nothing else."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import tyro

from palaestra.agents.evaluation.claims import Claim, Verdict, belongs, read_claims, verdict
from palaestra.agents.evaluation.rows import Row, pool, read_rows
from palaestra.agents.evaluation.statistics import Interval
from palaestra.scripts.speed_report import newest_rows, picture_file, ratio_bars, speed_section

HEADER = """# Results

Made by `palaestra report` from the claims and rows in this folder. A claim is committed before it
runs; its verdict is computed from rows alone (`palaestra.agents.evaluation.claims` says how). Intervals are 95 %
t-intervals; environment steps, seeds and evaluation stand in every row.
"""


@dataclass(frozen=True)
class ReportOptions:
    """Make the report on all claims from their rows."""

    results: Path = Path("results")
    """Folder of claims and rows."""
    check: bool = False
    """Fail if the report differs from what the rows say, and write nothing."""


def main(arguments: list[str]) -> int:
    """Make the report or check it."""
    options = tyro.cli(ReportOptions, prog="palaestra report", args=arguments)
    try:
        return check_report(options.results) if options.check else write_report(options.results)
    except (ValueError, OSError) as error:
        print(f"palaestra report: {error}", file=sys.stderr)
        return 2


def check_report(results: Path) -> int:
    """Return 0 if the report is what the rows say, otherwise say so and return 1."""
    path = results / "README.md"
    if path.exists() and path.read_text(encoding="utf-8") == report_text(results):
        return 0
    print(f"{path.name} differs from what the rows say; run palaestra report", file=sys.stderr)
    return 1


def write_report(results: Path) -> int:
    """Write the report and its pictures; return 0."""
    text = report_text(results)
    (results / "README.md").write_text(text, encoding="utf-8")
    print(f"wrote README.md and {len(draw_pictures(results))} pictures")
    return 0


def report_text(results: Path) -> str:
    """Return the report on a folder of results as Markdown."""
    claims = read_claims(results / "claims")
    measured = [(claim, read_rows(rows_file(results, claim))) for claim in claims]
    verdicts = [verdict(claim, rows) for claim, rows in measured]
    lines = [HEADER, "| claim | verdict | seeds | result | bound |", "|---|---|---|---|---|"]
    for claim, found in zip(claims, verdicts, strict=True):
        cells = (
            f"[{claim.name}](#{claim.name})",
            found.status,
            f"{found.seeds_done} of {found.seeds_required}",
            _interval(found.result),
            _number(found.bound),
        )
        lines.append(f"| {' | '.join(cells)} |")
    for (claim, rows), found in zip(measured, verdicts, strict=True):
        lines += ["", *_section(claim, rows, found)]
    lines += speed_section(results)
    return "\n".join(lines) + "\n"


def draw_pictures(results: Path) -> list[Path]:
    """Draw the learning curves of all claims, and the ratios of all timings, that have rows; return the files.

    None are drawn without matplotlib.
    """
    if find_spec("matplotlib") is None:
        print("matplotlib is not installed (pip install palaestra[plots]); the pictures stay as they are")
        return []
    from palaestra.scripts.plots import learning_curves, ratio_picture

    drawn = []
    for claim in read_claims(results / "claims"):
        curves = claim_curves(claim, read_rows(rows_file(results, claim)))
        if curves:
            path = results / "pictures" / f"{claim.name}.png"
            bound = None if claim.comparator is not None else claim.margin
            learning_curves(path, f"{claim.agent} on {claim.env}", claim.metric, curves, bound)
            drawn.append(path)
    for suite, rows in newest_rows(results).items():
        bars = ratio_bars(rows)
        if bars:
            ratio_picture(picture_file(results, suite), f"palaestra speed {suite}", bars)
            drawn.append(picture_file(results, suite))
    return drawn


def claim_curves(claim: Claim, rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the rows of a claim's learning curves by agent id, final rows as their last points.

    Raises:
        ValueError: If rows of one agent were measured on different versions of the env.
    """
    sides = [(claim.agent, claim.config_hash)]
    if claim.comparator is not None:
        sides.append((claim.comparator.agent, claim.comparator.config_hash))
    curves = {}
    for agent_id, config_hash in sides:
        found = [row for row in rows if belongs(claim, row, agent_id, config_hash)]
        if found:
            pool(found, by=("kind",))
            curves[agent_id] = found
    return curves


def rows_file(results: Path, claim: Claim) -> Path:
    """Return the file that a claim's rows are appended to."""
    return results / f"{claim.name}.jsonl"


def _section(claim: Claim, rows: Sequence[Row], found: Verdict) -> list[str]:
    lines = [f"## {claim.name}", "", claim.statement, ""]
    lines.append(f"- verdict: **{found.status}**, {found.seeds_done} of {found.seeds_required} seeds")
    if found.result is not None:
        decided = f"{_interval(found.result)}; bound {_number(found.bound)}"
        lines.append(f"- {_RESULTS[claim.criterion]} {claim.metric}: {decided}")
    lines.append(f"- budget: {claim.budget:,} steps; tuning: {claim.tuning_budget}")
    lines.append(f"- command: `palaestra benchmark {claim.name}`")
    curves = claim_curves(claim, rows)
    counted = [row for side in curves.values() for row in side]
    if not counted:
        return lines
    made = f"{len(counted)} of {len(rows)} made for this claim as it stands"
    lines.append(f"- rows: [{claim.name}.jsonl]({claim.name}.jsonl), {made}")
    lines += _origin(counted)
    lines += ["", *_seed_table(claim, found, curves), "", f"![learning curve](pictures/{claim.name}.png)"]
    return lines


def _origin(rows: Sequence[Row]) -> list[str]:
    revisions = sorted({_revision(row) for row in rows})
    threads = ", ".join(str(count) for count in sorted({row.threads for row in rows}))
    machines = sorted({f"{row.hardware.get('cpu', 'unknown CPU')}, {row.hardware.get('cores')} cores" for row in rows})
    idle = [row.idle_cpu for row in rows if row.idle_cpu is not None]
    lines = [f"- code: {', '.join(revisions)}", f"- hardware: {'; '.join(machines)}; threads: {threads}"]
    return [*lines, f"- idle CPU during the runs: median {median(idle):.0%}"] if idle else lines


def _revision(row: Row) -> str:
    revision = "an installed package" if row.revision is None else row.revision[:12]
    return f"{revision} (modified)" if row.modified else revision


def _seed_table(claim: Claim, found: Verdict, curves: dict[str, list[Row]]) -> list[str]:
    measured = dict(zip(curves, (found.ours, found.theirs), strict=False))
    names = [f"{agent_id}: {claim.metric}" for agent_id in curves]
    seconds = [f"{agent_id}: seconds" for agent_id in curves]
    lines = [f"| seed | {' | '.join(names + seconds)} |", "|---" * (1 + 2 * len(curves)) + "|"]
    for seed in claim.seeds:
        values = [_interval(measured[agent_id].get(seed)) for agent_id in curves]
        times = [_seconds(rows, seed) for rows in curves.values()]
        lines.append(f"| {seed} | {' | '.join(values + times)} |")
    return lines


def _seconds(rows: Sequence[Row], seed: int) -> str:
    return next((f"{row.wall_seconds:.0f}" for row in rows if row.kind == "final" and row.seed == seed), "–")


def _interval(interval: Interval | None) -> str:
    if interval is None:
        return "–"
    if interval.low == interval.high:
        return _number(interval.estimate)
    return f"{_number(interval.estimate)} [{_number(interval.low)}, {_number(interval.high)}]"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


_RESULTS = {
    "mean_at_least": "mean over seeds of",
    "each_seed_at_least": "worst seed's",
    "each_seed_at_most": "worst seed's",
    "within_of_comparator": "difference (ours - theirs) of the mean over seeds of",
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
