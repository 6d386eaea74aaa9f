"""Verdicts on claims of several arms: what a run is summarised by, contrasts of means, and rows that do not count."""

from __future__ import annotations

import math

import numpy as np
import pytest

from palaestra.agents.evaluation import provenance
from palaestra.agents.evaluation.claim_files import make_claim
from palaestra.agents.evaluation.statistics import Interval, difference_interval, mean_interval
from palaestra.agents.evaluation.verdicts import arm_rows, runs_of, summarise, verdict

CONFIG = {"gamma": 0.99}
HASH = provenance.config_hash("sac", CONFIG)


def claim_of(*criteria, arms=("a", "b"), **fields):
    record = {
        "name": "compared",
        "system": "A Paper",
        "statement": "a is better than b.",
        "arms": {name: {} for name in arms},
        "agent": "sac",
        "config_hashes": dict.fromkeys(arms, HASH),
        "env": "Pendulum-v1",
        "budget": 1000,
        "eval_every": 100,
        "seeds": [0, 1, 2],
        "eval_episodes": 2,
        "criteria": list(criteria),
        "tuning_budget": "none",
    }
    return make_claim({**record, **fields})


def contrast(metric="mean_return", *, of, **fields):
    return {"metric": metric, "contrast": of, **fields}


@pytest.fixture
def rows_for(make_result_row):
    """Return final rows of a claim's arms: one for each seed's value."""

    def make(claim, **values):
        return [
            make_result_row(value, arm=name.replace("_", " "), seed=seed, claim_hash=claim.digest())
            for name, found in values.items()
            for seed, value in zip(claim.seeds, found, strict=False)
        ]

    return make


@pytest.fixture
def run_of(make_result_row):
    """Return the rows of one run from points (env steps, value); the last is the final one."""

    def make(claim, arm, seed, points, **fields):
        return [
            make_result_row(
                value,
                kind="final" if steps == points[-1][0] else "curve",
                arm=arm,
                seed=seed,
                env_steps=steps,
                claim_hash=claim.digest(),
                **{name: found[index] for name, found in fields.items()},
            )
            for index, (steps, value) in enumerate(points)
        ]

    return make


@pytest.mark.parametrize(
    ("a", "b", "bound", "status"),
    [
        ((10, 11, 12), (1, 2, 3), {"at_least": 0}, "shown"),
        ((10, 11, 12), (1, 2, 3), {"at_least": 8}, "inconclusive"),
        ((10, 11, 12), (1, 2, 3), {"at_least": 20}, "refuted"),
        ((1, 2, 3), (10, 11, 12), {"at_most": 0}, "shown"),
        ((1, 2, 3), (10, 11, 12), {"at_most": -20}, "refuted"),
        # Two that are exactly equal are not shown to be better than each other, and not refuted to be.
        ((5, 5, 5), (5, 5, 5), {"at_least": 0}, "inconclusive"),
        ((10, 11, 12), (10, 11, 13), {"within": 5}, "shown"),
        ((10, 11, 12), (10, 11, 13), {"within": 1}, "inconclusive"),
        ((10, 11, 12), (1, 2, 3), {"within": 5}, "refuted"),
        ((1, 2, 3), (10, 11, 12), {"within": 5}, "refuted"),
    ],
)
def test_the_difference_of_two_arms(rows_for, a, b, bound, status):
    claim = claim_of(contrast(of={"a": 1, "b": -1}, **bound))
    found = verdict(claim, rows_for(claim, a=a, b=b))
    assert found.status == status
    assert found.findings[0].result == difference_interval(a, b)


def test_a_share_of_the_other_arms_mean(rows_for):
    a, b = (4.0, 5.0, 6.0), (19.0, 20.0, 21.0)
    claim = claim_of(contrast(of={"a": 1, "b": -0.5}, at_most=0))
    found = verdict(claim, rows_for(claim, a=a, b=b)).findings[0]
    expected = difference_interval(a, np.multiply(0.5, b))
    assert found.status == "shown"
    np.testing.assert_allclose((found.result.low, found.result.high), (expected.low, expected.high))


def test_a_bound_in_units_of_an_arms_mean(rows_for):
    claim = claim_of(contrast(of={"a": 1, "b": -1}, within=0.1, relative_to="b"))
    found = verdict(claim, rows_for(claim, a=(-101, -100, -99), b=(-104, -105, -106))).findings[0]
    assert (found.bound, found.status) == (10.5, "shown")


def test_insensitive_variants_and_a_sensitive_comparator_are_one_claim(rows_for):
    """What the third refinement of DSAC is claimed to do, and its predecessor not."""
    names = ("new x1", "new x100", "old x1", "old x100")
    criteria = [
        contrast(of={"new x100": 1, "new x1": -1}, within=20),
        contrast(of={"old x1": 1, "old x100": -1}, at_least=100),
    ]
    claim = claim_of(*criteria, arms=names)
    new, old = {"new_x1": (-150, -151, -152), "new_x100": (-155, -154, -150)}, (-160, -161, -159)
    fails = rows_for(claim, **new, old_x1=old, old_x100=(-1200, -1190, -1210))
    assert verdict(claim, fails).status == "shown"
    copes = verdict(claim, rows_for(claim, **new, old_x1=old, old_x100=old))
    assert [finding.status for finding in copes.findings] == ["shown", "refuted"]
    assert copes.status == "refuted"
    assert copes.deciding == copes.findings[1]
    assert verdict(claim, fails[:-1]).status == "none yet"


def test_one_arm_among_several_against_a_threshold(rows_for):
    claim = claim_of(contrast(of={"b": 1}, at_most=3.0), contrast(of={"a": 1}, over="each_seed", at_least=9.0))
    found = verdict(claim, rows_for(claim, a=(10, 11, 12), b=(1, 1, 1))).findings
    assert found[0].result == Interval(1.0, 1.0, 1.0)
    assert found[1].result == mean_interval([9.0, 11.0])
    # The worst seed's own episodes leave it open.
    assert [finding.status for finding in found] == ["shown", "inconclusive"]


def points(*values):
    return [(100 * index if index < len(values) - 1 else 1000, value) for index, value in enumerate(values)]


def test_a_run_is_averaged_over_its_axis(run_of):
    claim = claim_of(contrast(of={"a": 1, "b": -1}, summary="average", at_least=0))
    run = run_of(claim, "a", 0, [(0, 0.0), (500, 10.0), (1000, 10.0)], updates=[0, 100, 1000])
    (criterion,) = claim.criteria
    assert summarise(run, criterion) == Interval(7.5, 7.5, 7.5)
    by_updates = claim_of(contrast(of={"a": 1, "b": -1}, summary="average", axis="updates", at_least=0)).criteria[0]
    assert summarise(run, by_updates).estimate == pytest.approx((100 * 5.0 + 900 * 10.0) / 1000)
    with pytest.raises(ValueError, match=r"1 points .* expected a curve"):
        summarise(run[-1:], criterion)


@pytest.mark.parametrize(
    ("axis", "place"), [("env_steps", 500), ("episodes", 7), ("wall_seconds", 2.5), ("updates", 100)]
)
def test_a_threshold_is_reached_at_the_first_point_there(run_of, axis, place):
    claim = claim_of(contrast(of={"a": 1, "b": -1}, summary="until_at_least", threshold=5.0, axis=axis, at_most=0))
    fields = {"updates": [0, 100, 1000], "episodes": [0, 7, 20], "wall_seconds": [0.0, 2.5, 9.0]}
    run = run_of(claim, "a", 0, [(0, 0.0), (500, 5.0), (1000, 4.0)], **fields)
    assert summarise(run, claim.criteria[0]) == Interval(place, place, place)


def test_a_low_metric_is_reached_from_above_and_may_never_be(run_of):
    below = claim_of(contrast(of={"a": 1, "b": -1}, summary="until_at_most", threshold=5.0, at_most=0))
    run = run_of(below, "a", 0, [(0, 9.0), (500, 7.0), (1000, 4.0)])
    assert summarise(run, below.criteria[0]).estimate == 1000
    never = run_of(below, "a", 0, [(0, 9.0), (500, 7.0), (1000, 6.0)])
    assert summarise(never, below.criteria[0]) == Interval(1000, 1000, math.inf)


def test_a_row_without_the_axis_is_an_error(run_of):
    claim = claim_of(
        contrast(of={"a": 1, "b": -1}, summary="until_at_least", threshold=5.0, axis="episodes", at_most=0)
    )
    with pytest.raises(ValueError, match="seed 0 has no episodes"):
        summarise(run_of(claim, "a", 0, [(0, 0.0), (1000, 9.0)]), claim.criteria[0])


FAST, SLOW, NEVER = points(0, 9, 9, 9), points(0, 1, 2, 3, 4, 4, 9, 9), points(0, 1, 2, 3)


@pytest.mark.parametrize(
    ("a", "b", "status"),
    [
        ([FAST] * 3, [SLOW] * 3, "shown"),
        # The comparator never gets there: it needs at least its whole budget, which is enough to say so.
        ([FAST] * 3, [NEVER] * 3, "shown"),
        # Ours never gets there: nothing is shown, however much longer the comparator takes.
        ([FAST, FAST, NEVER], [NEVER] * 3, "inconclusive"),
        ([NEVER] * 3, [FAST] * 3, "refuted"),
        # The comparator's true time is unknown, so that nothing can be refuted.
        ([SLOW] * 3, [FAST, FAST, NEVER], "inconclusive"),
    ],
)
def test_half_the_steps_to_a_threshold(run_of, a, b, status):
    criterion = contrast(of={"a": 1, "b": -0.5}, summary="until_at_least", threshold=5.0, at_most=0)
    claim = claim_of(criterion)
    runs = [run_of(claim, arm, seed, run) for arm, found in (("a", a), ("b", b)) for seed, run in enumerate(found)]
    found = verdict(claim, [row for run in runs for row in run])
    assert found.status == status


def test_points_without_a_measure_are_left_out(run_of):
    criterion = contrast("visits/entropy", of={"a": 1, "b": -1}, summary="average", at_least=0)
    claim = claim_of(criterion, measures={"visits": {}})
    measures = [{}, {"visits/entropy": 1.0}, {"visits/entropy": 3.0}]
    run = run_of(claim, "a", 0, [(0, 0.0), (500, 0.0), (1000, 0.0)], measures=measures)
    assert summarise(run, claim.criteria[0]).estimate == 2.0
    final = claim_of(contrast("visits/other", of={"a": 1}, at_least=0), measures={"visits": {}})
    with pytest.raises(ValueError, match="no visits/other"):
        summarise(run, final.criteria[0])


def test_only_the_first_complete_run_of_a_seed_counts_with_its_own_curve(run_of):
    claim = claim_of(contrast(of={"a": 1, "b": -1}, at_least=0))
    short = run_of(claim, "a", 0, [(0, 1.0), (900, 1.0)])
    first = run_of(claim, "a", 0, [(0, 2.0), (1000, 2.0)])
    again = run_of(claim, "a", 0, [(0, 3.0), (1000, 3.0)])
    other = run_of(claim, "b", 0, [(0, 4.0), (1000, 4.0)])
    rows = [*short, *first, *other, *again]
    assert runs_of(claim, claim.arm("a"), rows) == {0: first}
    assert runs_of(claim, claim.arm("b"), rows) == {0: other}
    assert arm_rows(claim, claim.arm("a"), rows) == [*short, *first, *again]


@pytest.mark.parametrize(
    "fields",
    [
        {"arm": "b"},
        {"arm": None},
        {"training": {"reward_scale": 2.0}},
        {"claim_hash": "0" * 16},
        {"env_kwargs": {"g": 1}},
    ],
    ids=str,
)
def test_rows_of_another_arm_do_not_count(rows_for, make_result_row, fields):
    claim = claim_of(contrast(of={"a": 1}, at_least=0))
    rows = rows_for(claim, a=(1, 2), b=(1, 2, 3))
    stranger = {"seed": 2, "claim_hash": claim.digest(), "arm": "a", **fields}
    assert verdict(claim, [*rows, make_result_row(3.0, **stranger)]).seeds_done == 2
    assert verdict(claim, [*rows, make_result_row(3.0, **{**stranger, "arm": "a"})]).seeds_done == (
        3 if "arm" in fields else 2
    )


def test_a_table_is_complete_and_says_nothing(rows_for):
    table = claim_of()
    assert verdict(table, rows_for(table, a=(1, 2, 3), b=(1, 2))).status == "none yet"
    found = verdict(table, rows_for(table, a=(1, 2, 3), b=(1, 2, 3)))
    assert (found.status, found.findings, found.deciding) == ("complete", (), None)


def test_arms_of_different_versions_of_an_env_are_not_compared(rows_for, make_result_row):
    claim = claim_of(contrast(of={"a": 1, "b": -1}, at_least=0))
    rows = rows_for(claim, a=(1, 2, 3), b=(1, 2))
    other = {"env_packages": {"gymnasium": "0.1"}, "arm": "b", "seed": 2, "claim_hash": claim.digest()}
    with pytest.raises(ValueError, match="rows differ in env_packages"):
        verdict(claim, [*rows, make_result_row(1.0, **other)])
