"""`palaestra report`: make results/README.md and its pictures from claims and rows, and from nothing else."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import tyro

from palaestra.agents.evaluation.claim_files import read_claims
from palaestra.agents.evaluation.claims import Arm, Claim, Criterion
from palaestra.agents.evaluation.rows import Row, pool, read_rows
from palaestra.agents.evaluation.statistics import Interval, mean_interval
from palaestra.agents.evaluation.verdicts import Verdict, arm_rows, runs_of, verdict
from palaestra.scripts.curve_panel import CurvePanel
from palaestra.scripts.direction_picture import claim_directions, direction_file
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
    measured = [(claim, read_rows(rows_file(results, claim))) for claim in read_claims(results / "claims")]
    judged = [(claim, rows, verdict(claim, rows)) for claim, rows in measured]
    lines = [HEADER, "| claim | verdict | seeds | result | bound |", "|---|---|---|---|---|"]
    lines += [_summary(claim, found) for claim, _, found in judged if not claim.is_table]
    tables = [_table_summary(claim, found) for claim, _, found in judged if claim.is_table]
    lines += ["", "| table | arms | seeds |", "|---|---|---|", *tables] if tables else []
    for claim, rows, found in judged:
        lines += ["", *_section(claim, rows, found)]
    lines += speed_section(results)
    return "\n".join(lines) + "\n"


def draw_pictures(results: Path) -> list[Path]:
    """Draw the learning curves and action directions of all claims, and the ratios of all timings, that have rows.

    Returns the files.

    None are drawn without matplotlib.
    """
    if find_spec("matplotlib") is None:
        print("matplotlib is not installed (pip install palaestra[plots]); the pictures stay as they are")
        return []
    from palaestra.scripts.plots import direction_picture, learning_curves, ratio_picture

    drawn = []
    for claim in read_claims(results / "claims"):
        measured = read_rows(rows_file(results, claim))
        curves, directions = claim_curves(claim, measured), claim_directions(claim, measured)
        if curves:
            path = results / "pictures" / f"{claim.name}.png"
            learning_curves(path, curve_panels(claim, curves))
            drawn.append(path)
        if directions:
            direction_picture(direction_file(results, claim), "directions of actions at the start", directions)
            drawn.append(direction_file(results, claim))
    for suite, rows in newest_rows(results).items():
        bars = ratio_bars(rows)
        if bars:
            ratio_picture(picture_file(results, suite), f"palaestra speed {suite}", bars)
            drawn.append(picture_file(results, suite))
    return drawn


def claim_curves(claim: Claim, rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the rows of a claim's learning curves by arm, final rows as their last points.

    Raises:
        ValueError: If rows of one arm were measured on different versions of the env.
    """
    curves = {}
    for arm in claim.arms:
        found = arm_rows(claim, arm, rows)
        if found:
            pool(found, by=("kind",))
            curves[arm.name] = found
    return curves


def curve_panels(claim: Claim, curves: Mapping[str, Sequence[Row]]) -> list[CurvePanel]:
    """Return what to draw: for each env and metric the curves of all arms, and the levels claimed of one of them."""
    panels = []
    for env in dict.fromkeys(arm.env for arm in claim.arms):
        arms = [arm for arm in claim.arms if arm.env == env and arm.name in curves]
        for metric in claim.reported if arms else ():
            names = arms[0].label if len(claim.arms) == 1 else claim.name
            levels = sorted({level for criterion in claim.criteria for level in _levels(criterion, metric)})
            drawn = {arm.label if arm.world == env else arm.name: curves[arm.name] for arm in arms}
            panels.append(CurvePanel(f"{names} on {env}", metric, drawn, tuple(levels)))
    return panels


def _levels(criterion: Criterion, metric: str) -> list[float]:
    if criterion.metric != metric:
        return []
    if criterion.threshold is not None:
        return [criterion.threshold]
    held = criterion.summary == "final" and list(criterion.contrast.values()) == [1.0] and criterion.within is None
    return [criterion.bound] if held and criterion.relative_to is None else []


def rows_file(results: Path, claim: Claim) -> Path:
    """Return the file that a claim's rows are appended to."""
    return results / f"{claim.name}.jsonl"


def _summary(claim: Claim, found: Verdict) -> str:
    deciding = found.deciding
    cells = (
        f"[{claim.name}](#{claim.name})",
        found.status,
        f"{found.seeds_done} of {found.seeds_required}",
        _interval(deciding.result if deciding else None),
        _number(deciding.bound if deciding else None),
    )
    return f"| {' | '.join(cells)} |"


def _table_summary(claim: Claim, found: Verdict) -> str:
    return f"| [{claim.name}](#{claim.name}) | {len(claim.arms)} | {found.seeds_done} of {found.seeds_required} |"


def _section(claim: Claim, rows: Sequence[Row], found: Verdict) -> list[str]:
    lines = [f"## {claim.name}", "", claim.statement, ""]
    if not claim.is_table:
        lines.append(f"- verdict: **{found.status}**, {found.seeds_done} of {found.seeds_required} seeds")
    for finding in found.findings:
        status = f" ({finding.status})" if len(found.findings) > 1 else ""
        decided = f"{_interval(finding.result)}; bound {_number(finding.bound)}"
        lines.append(f"- {_decided_on(claim, finding.criterion)}: {decided}{status}")
    budgets = " or ".join(f"{budget:,}" for budget in sorted({arm.budget for arm in claim.arms}))
    lines.append(f"- budget: {budgets} steps; tuning: {claim.tuning_budget}")
    lines.append(f"- command: `palaestra benchmark {claim.name}`")
    curves = claim_curves(claim, rows)
    counted = [row for side in curves.values() for row in side]
    if not counted:
        return lines
    made = f"{len(counted)} of {len(rows)} made for this claim as it stands"
    lines.append(f"- rows: [{claim.name}.jsonl]({claim.name}.jsonl), {made}")
    lines += _origin(counted)
    runs = {arm.name: {seed: run[-1] for seed, run in runs_of(claim, arm, rows).items()} for arm in claim.arms}
    if any(arm.world for arm in claim.arms):
        lines += _grids(claim, runs)
    elif len(claim.arms) > 2:
        lines += ["", *_arm_table(claim, runs)]
    else:
        lines += ["", *_seed_table(claim, {name: runs[name] for name in curves})]
    lines += ["", f"![learning curve](pictures/{claim.name}.png)"]
    if claim_directions(claim, rows):
        lines += ["", f"![directions of actions](pictures/{claim.name}-directions.png)"]
    return lines


def _decided_on(claim: Claim, criterion: Criterion) -> str:
    """Return what a criterion compares with its bound, in words."""
    metric = criterion.metric
    if criterion.threshold is not None:
        side = "at least" if criterion.summary == "until_at_least" else "at most"
        metric = f"{criterion.axis} until {metric} is {side} {criterion.threshold:g}"
    elif criterion.summary == "average":
        metric = f"the average of {metric} over {criterion.axis}"
    about = "" if len(claim.arms) == 1 else f" of {_contrast_text(criterion)}"
    if criterion.over == "each_seed":
        return f"worst seed's {metric}{about}"
    if "criterion" in claim.record and criterion.relative_to is not None:
        return f"difference (ours - theirs) of the mean over seeds of {metric}"
    return f"mean over seeds of {metric}{f',{about[3:]}' if about else ''}{_bound_text(criterion)}"


def _contrast_text(criterion: Criterion) -> str:
    parts: list[str] = []
    for arm, coefficient in criterion.contrast.items():
        sign = "-" if coefficient < 0 else "+" if parts else ""
        size = "" if abs(coefficient) == 1 else f"{abs(coefficient):g} "
        parts.append(f"{sign}{' ' if parts else ''}{size}{arm}")
    return " ".join(parts)


def _bound_text(criterion: Criterion) -> str:
    if len(criterion.contrast) == 1 and criterion.within is None and criterion.at_most is None:
        return ""
    side = "at least" if criterion.at_least is not None else "at most" if criterion.at_most is not None else "within"
    return f", {side} the bound"


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


def _seed_table(claim: Claim, ends: Mapping[str, Mapping[int, Row]]) -> list[str]:
    """Return a line for each seed: the metrics and the seconds of every arm."""
    metrics = claim.reported
    names = [f"{arm}: {metric}" for arm in ends for metric in metrics]
    seconds = [f"{arm}: seconds" for arm in ends]
    lines = [f"| seed | {' | '.join(names + seconds)} |", "|---" * (1 + len(names) + len(seconds)) + "|"]
    for seed in claim.seeds:
        rows = [found.get(seed) for found in ends.values()]
        values = [_interval(row.metric(metric) if row else None) for row in rows for metric in metrics]
        times = [f"{row.wall_seconds:.0f}" if row else "–" for row in rows]
        lines.append(f"| {seed} | {' | '.join(values + times)} |")
    return lines


def _arm_table(claim: Claim, ends: Mapping[str, Mapping[int, Row]]) -> list[str]:
    """Return a line for each arm: its final metrics, means over the seeds that have been run."""
    metrics = claim.reported
    lines = [f"| arm | seeds | {' | '.join(metrics)} | seconds |", "|---" * (3 + len(metrics)) + "|"]
    for arm, found in ends.items():
        rows = list(found.values())
        values = [_mean(rows, metric) for metric in [*metrics, "wall_seconds"]]
        lines.append(f"| {arm} | {len(rows)} | {' | '.join(values)} |")
    return lines


def _grids(claim: Claim, ends: Mapping[str, Mapping[int, Row]]) -> list[str]:
    """Return a table for each metric, a line for each agent and a column for each env: means over seeds."""
    worlds = list(dict.fromkeys(arm.world for arm in claim.arms))
    places: dict[str, dict[str, Arm]] = {}
    for arm in claim.arms:
        places.setdefault(arm.label, {})[arm.world] = arm
    lines = []
    for metric in [*claim.reported, "wall_seconds"]:
        lines += ["", f"| {metric} | {' | '.join(worlds)} |", "|---" * (1 + len(worlds)) + "|"]
        for label, arms in places.items():
            cells = []
            for world in worlds:
                rows = list(ends[arms[world].name].values())
                partly = f" ({len(rows)} of {len(claim.seeds)} seeds)" if 0 < len(rows) < len(claim.seeds) else ""
                cells.append(f"{_mean(rows, metric)}{partly}")
            lines.append(f"| {label} | {' | '.join(cells)} |")
    return lines


def _mean(rows: Sequence[Row], metric: str) -> str:
    found = [interval.estimate for row in rows if (interval := row.metric(metric)) is not None]
    return _interval(mean_interval(found)) if len(found) > 1 else _number(found[0] if found else None)


def _interval(interval: Interval | None) -> str:
    if interval is None:
        return "–"
    if interval.low == interval.high:
        return _number(interval.estimate)
    return f"{_number(interval.estimate)} [{_number(interval.low)}, {_number(interval.high)}]"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
