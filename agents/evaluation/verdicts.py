"""Verdicts: what became of a claim, computed from rows alone.

Rows count only if they were made by a run that began from this very claim (its digest stands in the row), for one of
its arms, on that arm's env, with its agent, configuration, budget and evaluation, and to the end of its budget. Of two
runs of one seed the first counts, so that repeating a seed until it succeeds proves nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from palaestra.agents.evaluation.claims import Arm, Claim, Criterion
from palaestra.agents.evaluation.rows import Row, require_same
from palaestra.agents.evaluation.statistics import Interval, contrast_interval

Status = Literal["shown", "refuted", "inconclusive", "none yet", "complete"]

OVERSHOOT = 0.01
"""Share of the budget that a run may overshoot, because agents stop at the end of a rollout."""

_SAME_ON_AN_ENV = ("env_packages", "backend", "estimand")


@dataclass(frozen=True)
class Finding:
    """What the rows say about one criterion.

    Attributes:
        criterion: The criterion.
        status: "shown", "refuted" or "inconclusive".
        result: What the status was decided on: the contrast of means over seeds, or the worst seed.
        bound: What `result` is compared with.
    """

    criterion: Criterion
    status: Status
    result: Interval
    bound: float


@dataclass(frozen=True)
class Verdict:
    """What the rows say about a claim.

    Attributes:
        status: The verdict on all criteria together; "none yet" while runs are missing, "complete" for a table none of
            whose runs is.
        seeds_done: Seeds that every arm has run.
        seeds_required: Seeds the claim asks for.
        findings: What is found of each criterion, once no run is missing.
    """

    status: Status
    seeds_done: int
    seeds_required: int
    findings: tuple[Finding, ...] = ()

    @property
    def deciding(self) -> Finding | None:
        """The first finding that gives the verdict its status."""
        return next((finding for finding in self.findings if finding.status == self.status), None)


def arm_rows(claim: Claim, arm: Arm, rows: Sequence[Row]) -> list[Row]:
    """Return the rows, of learning curves and final ones, that were made for this very claim by one of its arms."""
    digest = claim.digest()
    return [row for row in rows if row.claim_hash == digest and _belongs(claim, arm, row)]


def runs_of(claim: Claim, arm: Arm, rows: Sequence[Row]) -> dict[int, list[Row]]:
    """Return the rows of the runs that count, by seed, in the order of their making; the final row is the last."""
    found: dict[int, list[Row]] = {}
    curves: dict[int, list[Row]] = {}
    for row in arm_rows(claim, arm, rows):
        curve = curves.setdefault(row.seed, [])
        curve.append(row)
        if row.kind == "final":
            if row.seed not in found and arm.budget <= row.env_steps <= arm.budget * (1 + OVERSHOOT):
                found[row.seed] = curve
            del curves[row.seed]
    return found


def verdict(claim: Claim, rows: Sequence[Row]) -> Verdict:
    """Return what the rows say about a claim.

    Raises:
        ValueError: If rows that count were measured on different versions of an env, or lack a metric of the claim's.
    """
    runs = {arm.name: runs_of(claim, arm, rows) for arm in claim.arms}
    for env in {arm.env for arm in claim.arms}:
        ends = [run[-1] for arm in claim.arms if arm.env == env for run in runs[arm.name].values()]
        require_same(ends, _SAME_ON_AN_ENV)
    done = set(claim.seeds).intersection(*runs.values())
    pending = Verdict("none yet", len(done), len(claim.seeds))
    if len(done) < len(claim.seeds):
        return pending
    if claim.is_table:
        return replace(pending, status="complete")
    findings = tuple(_judge(claim, criterion, runs) for criterion in claim.criteria)
    return replace(pending, status=overall([finding.status for finding in findings]), findings=findings)


def overall(statuses: Sequence[Status]) -> Status:
    """Return the verdict on several claims or criteria together.

    It is the first of refuted, none yet, inconclusive and shown found among them; tables say nothing.
    """
    order: tuple[Status, ...] = ("refuted", "none yet", "inconclusive", "shown")
    return next((status for status in order if status in statuses), "none yet")


def summarise(run: Sequence[Row], criterion: Criterion) -> Interval:
    """Return the number that a run is summarised by.

    Its interval is that of the final metric over episodes; of zero width for an average or a threshold reached; and
    open above for a threshold that was never reached. Points of a curve without the metric are left out.

    Args:
        run: Rows of one run in the order of their making.
        criterion: Says how.

    Raises:
        ValueError: If the final row lacks the metric, fewer than two points of a curve have it, or a row the axis.
    """
    if criterion.summary == "final":
        return _metric(run[-1], criterion.metric)
    points = [
        (_place(row, criterion.axis), found.estimate)
        for row in run
        if (found := row.metric(criterion.metric)) is not None
    ]
    start, end = points[0][0] if points else 0.0, points[-1][0] if points else 0.0
    if end <= start:
        raise ValueError(
            f"{run[-1].claim}: {criterion.metric} of seed {run[-1].seed} has {len(points)} points from {start} to "
            f"{end} {criterion.axis}; expected a curve"
        )
    if criterion.summary == "average":
        pairs = pairwise(points)
        area = sum((right - left) * (first + second) / 2 for (left, first), (right, second) in pairs)
        return _exactly(area / (end - start))
    assert criterion.threshold is not None
    sign = 1 if criterion.summary == "until_at_least" else -1
    reached = (place for place, value in points if sign * value >= sign * criterion.threshold)
    place = next(reached, None)
    return Interval(end, end, math.inf) if place is None else _exactly(place)


def _judge(claim: Claim, criterion: Criterion, runs: Mapping[str, Mapping[int, Sequence[Row]]]) -> Finding:
    arms = {*criterion.contrast, *filter(None, [criterion.relative_to])}
    summaries = {arm: [summarise(runs[arm][seed], criterion) for seed in claim.seeds] for arm in sorted(arms)}
    if criterion.over == "each_seed":
        ((arm, _),) = criterion.contrast.items()
        return _judge_each_seed(criterion, summaries[arm])
    bound = criterion.bound
    if criterion.relative_to is not None:
        reference = [summary.estimate for summary in summaries[criterion.relative_to]]
        bound *= abs(sum(reference) / len(reference))
    result = _contrast(criterion, summaries)
    return Finding(criterion, _compare(criterion, result, bound), result, bound)


def _contrast(criterion: Criterion, summaries: Mapping[str, Sequence[Interval]]) -> Interval:
    """Return the interval of the contrast; open where runs that never arrived may lie beyond their end."""
    estimates = {arm: [summary.estimate for summary in found] for arm, found in summaries.items()}
    result = contrast_interval(estimates, criterion.contrast)
    for arm, coefficient in criterion.contrast.items():
        if any(math.isinf(summary.high) for summary in summaries[arm]):
            result = replace(result, high=math.inf) if coefficient > 0 else replace(result, low=-math.inf)
    return result


def _compare(criterion: Criterion, result: Interval, bound: float) -> Status:
    """Shown if the interval lies on the bound's right side, refuted if it lies on the wrong one.

    A bound belongs to the right side where one arm is held against a threshold, and to neither where arms are compared:
    two that are exactly equal are not shown to be better than each other.
    """
    if criterion.within is not None:
        inside = -bound <= result.low and result.high <= bound
        return _position(inside, result.low > bound or result.high < -bound)
    signed, bound = (result, bound) if criterion.at_least is not None else (result.scaled(-1), -bound)
    shown = signed.low >= bound if len(criterion.contrast) == 1 else signed.low > bound
    return _position(shown, signed.high < bound)


def _judge_each_seed(criterion: Criterion, summaries: Sequence[Interval]) -> Finding:
    """Every seed's interval lies on the bound's right side (shown), or any seed's on its wrong side (refuted)."""
    sign = 1 if criterion.at_least is not None else -1
    signed = [interval.scaled(sign) for interval in summaries]
    bound = sign * criterion.bound
    status = _position(
        all(interval.low >= bound for interval in signed), any(interval.high < bound for interval in signed)
    )
    worst = min(signed, key=lambda interval: interval.low).scaled(sign)
    return Finding(criterion, status, worst, criterion.bound)


def _belongs(claim: Claim, arm: Arm, row: Row) -> bool:
    return (
        row.arm == arm.name
        and (row.agent_id, row.config_hash) == (arm.agent, arm.row_hash)
        and (row.env_id, dict(row.env_kwargs)) == (arm.env, dict(arm.env_kwargs))
        and dict(row.training) == dict(arm.training)
        and (row.budget, row.deterministic) == (arm.budget, claim.deterministic)
        and (row.eval_seed, len(row.returns)) == (row.seed, claim.eval_episodes)
        and row.seed in claim.seeds
    )


def _metric(row: Row, name: str) -> Interval:
    interval = row.metric(name)
    if interval is None:
        raise ValueError(f"{row.claim}: a row of seed {row.seed} has no {name}; expected the metric claimed")
    return interval


def _place(row: Row, axis: str) -> float:
    place = getattr(row, axis)
    if place is None:
        raise ValueError(f"{row.claim}: a row of seed {row.seed} has no {axis}; expected the axis claimed")
    return float(place)


def _exactly(value: float) -> Interval:
    return Interval(value, value, value)


def _position(shown: bool, refuted: bool) -> Status:
    return "shown" if shown else "refuted" if refuted else "inconclusive"
