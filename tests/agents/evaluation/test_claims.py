"""Claims in their short form: every file parses, and verdicts are what the rows say, whatever else lies among them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from palaestra.agents.evaluation import provenance
from palaestra.agents.evaluation.claim_files import make_claim, parse_claim, read_claims
from palaestra.agents.evaluation.rows import read_rows
from palaestra.agents.evaluation.statistics import Interval, difference_interval, mean_interval
from palaestra.agents.evaluation.verdicts import Verdict, overall, verdict

COMMITTED = Path(__file__).parents[3] / "results" / "claims"
CONFIG = {"gamma": 0.99}


def record_of(criterion="mean_at_least", margin=-200.0, **fields):
    defaults = {
        "name": "sac-pendulum",
        "system": "A Paper",
        "statement": "SAC is good.",
        "agent": "sac",
        "config_hash": provenance.config_hash("sac", CONFIG),
        "env": "Pendulum-v1",
        "metric": "mean_return",
        "criterion": criterion,
        "margin": margin,
        "budget": 1000,
        "seeds": [0, 1, 2],
        "eval_every": 100,
        "eval_episodes": 2,
        "tuning_budget": "none",
    }
    return {**defaults, **fields}


def claim_of(*criterion, **fields):
    return make_claim(record_of(*criterion, **fields))


def only(claim, rows):
    """Return what is found of the only criterion of a claim."""
    (finding,) = verdict(claim, rows).findings
    return finding


@pytest.fixture
def rows_for(make_result_row):
    """Return rows of a claim: one final row for each seed's value."""

    def make(claim, values, *, spread=1.0, seeds=None, **fields):
        return [
            make_result_row(value, spread=spread, **{"seed": seed, "claim_hash": claim.digest(), **fields})
            for seed, value in zip(seeds or claim.seeds, values, strict=False)
        ]

    return make


@pytest.mark.parametrize("path", sorted(COMMITTED.glob("*.json")), ids=lambda path: path.stem)
def test_committed_claims_parse(path):
    claim = parse_claim(path.read_text())
    assert claim.name == path.stem
    assert all(arm.eval_every <= arm.budget or arm.kind == "policy" for arm in claim.arms)


def test_the_claims_of_the_foundation_are_there():
    assert {claim.name for claim in read_claims(COMMITTED)} >= {
        "sac-pendulum",
        "td3-pendulum",
        "ppo-cartpole",
        "ppo-one-store-backlog",
        "ppo-text-corridor",
        "ppo-kuhn",
        "sac-halfcheetah-vs-sb3",
    }


@pytest.mark.parametrize("path", sorted(COMMITTED.parent.glob("*.jsonl")), ids=lambda path: path.stem)
def test_committed_rows_ran_from_a_revision_that_held_their_claim(path):
    rows = [row for row in read_rows(path) if row.claim is not None]
    for revision, name, claim_hash in sorted({(row.revision, row.claim, row.claim_hash) for row in rows}):
        place = f"{revision}:results/claims/{name}.json"
        shown = subprocess.run(["git", "show", place], cwd=path.parent, capture_output=True, text=True)
        if shown.returncode == 0:
            assert parse_claim(shown.stdout).digest() == claim_hash
        else:
            held = subprocess.run(["git", "cat-file", "-e", f"{revision}^{{commit}}"], cwd=path.parent)
            assert held.returncode != 0, f"{place} does not exist: the claim was committed after its rows"


@pytest.mark.parametrize(
    ("values", "status"),
    [((-150, -151, -149), "shown"), ((-250, -251, -249), "refuted"), ((-150, -190, -250), "inconclusive")],
)
def test_mean_over_seeds_against_a_threshold(rows_for, values, status):
    claim = claim_of()
    found = verdict(claim, rows_for(claim, values))
    assert (only(claim, rows_for(claim, values)).result, found.deciding.bound) == (mean_interval(values), -200.0)
    assert found.status == found.deciding.status == status
    assert (found.seeds_done, found.seeds_required) == (3, 3)


@pytest.mark.parametrize(
    ("values", "spread", "status"),
    [
        ((-150, -150, -150), 1.0, "shown"),
        ((-150, -150, -250), 1.0, "refuted"),
        # The interval of one seed's own episodes contains the threshold.
        ((-150, -150, -199), 1.0, "inconclusive"),
    ],
)
def test_each_seed_against_a_lower_threshold(rows_for, values, spread, status):
    claim = claim_of("each_seed_at_least")
    found = only(claim, rows_for(claim, values, spread=spread))
    assert found.status == status
    assert found.result == mean_interval([min(values) - spread, min(values) + spread])


@pytest.mark.parametrize(
    ("gaps", "status"),
    [
        ([(0.002, 0.001, 0.003), (0.008, 0.006, 0.01)], "shown"),
        ([(0.002, 0.001, 0.003), (0.009, 0.007, 0.011)], "inconclusive"),
        ([(0.02, 0.011, 0.03), (0.002, 0.001, 0.003)], "refuted"),
    ],
)
def test_gap_of_each_seed(rows_for, make_result_row, gaps, status):
    claim = claim_of("each_seed_at_most", 0.01, metric="gap", seeds=(0, 1))
    rows = [row for seed, gap in enumerate(gaps) for row in rows_for(claim, [0.0], seeds=[seed], gap=Interval(*gap))]
    found = only(claim, rows)
    assert found.status == status
    assert found.result == Interval(*max(gaps, key=lambda gap: gap[2]))


@pytest.mark.parametrize(
    ("ours", "status"), [((98, 100, 102), "shown"), ((60, 61, 62), "refuted"), ((70, 90, 110), "inconclusive")]
)
def test_difference_to_a_comparator(rows_for, ours, status):
    comparator = {"agent": "sb3/sac", "config": {"policy": "MlpPolicy"}}
    claim = claim_of("within_of_comparator", 0.1, comparator=comparator)
    theirs = (99.0, 100.0, 101.0)
    peer = {"agent_id": "sb3/sac", "agent_config": {"policy": "MlpPolicy", "num_envs": 1}}
    rows = rows_for(claim, ours) + rows_for(claim, theirs, **peer)
    found = only(claim, rows)
    assert (found.status, found.result, found.bound) == (status, difference_interval(ours, theirs), -10.0)
    assert verdict(claim, rows[:-1]).status == "none yet"
    assert verdict(claim, rows[:-1]).seeds_done == 2


def test_missing_seeds_leave_no_verdict(rows_for):
    claim = claim_of()
    found = verdict(claim, rows_for(claim, (-150, -150)))
    assert (found.status, found.seeds_done, found.deciding) == ("none yet", 2, None)
    assert verdict(claim, []) == Verdict("none yet", 0, 3)


@pytest.mark.parametrize(
    "fields",
    [
        {"claim_hash": "0" * 16},
        {"agent_config": {"gamma": 0.9}},
        {"agent_id": "td3"},
        {"env_id": "Pendulum-v0"},
        {"env_kwargs": {"g": 1.0}},
        {"budget": 2000, "env_steps": 2000},
        {"env_steps": 999},
        {"env_steps": 1011},
        {"deterministic": False},
        {"eval_seed": 17},
        {"returns": (-1.0, -1.0, -1.0), "lengths": (1, 1, 1)},
        {"kind": "curve"},
        {"seed": 3, "eval_seed": 3},
        {"arm": "another"},
        {"training": {"reward_scale": 2.0}},
    ],
    ids=str,
)
def test_rows_of_anything_else_do_not_count(rows_for, fields):
    claim = claim_of()
    rows = rows_for(claim, (-150, -150)) + rows_for(claim, [-150], seeds=[2], **fields)
    assert verdict(claim, rows).status == "none yet"
    assert verdict(claim, rows + rows_for(claim, [-150], seeds=[2])).status == "shown"


def test_a_rollouts_overshoot_counts(rows_for):
    claim = claim_of()
    assert verdict(claim, rows_for(claim, (-150, -150, -150), env_steps=1010)).status == "shown"


def test_the_first_final_row_of_a_seed_counts(rows_for):
    claim = claim_of()
    bad = rows_for(claim, (-900, -901, -902))
    assert verdict(claim, bad + rows_for(claim, (-150, -150, -150))).status == "refuted"


def test_a_changed_claim_has_no_rows_and_new_words_change_nothing(rows_for):
    claim = claim_of()
    rows = rows_for(claim, (-210, -211, -212))
    assert verdict(claim, rows).status == "refuted"
    assert verdict(claim_of(margin=-300.0), rows).status == "none yet"
    assert verdict(claim_of(statement="Other words."), rows).status == "refuted"


def test_rows_of_different_env_versions_are_refused(rows_for):
    claim = claim_of()
    rows = rows_for(claim, (-150, -150)) + rows_for(claim, [-150], seeds=[2], env_packages={"gymnasium": "0.1"})
    with pytest.raises(ValueError, match="rows differ in env_packages"):
        verdict(claim, rows)


def test_a_row_without_the_metric_is_an_error(rows_for):
    claim = claim_of("each_seed_at_most", 0.01, metric="gap")
    with pytest.raises(ValueError, match="seed 0 has no gap"):
        verdict(claim, rows_for(claim, (0, 0, 0)))


def test_verdicts_on_several_claims_together():
    assert overall(["shown", "shown"]) == "shown"
    assert overall(["shown", "inconclusive"]) == "inconclusive"
    assert overall(["inconclusive", "none yet"]) == "none yet"
    assert overall(["none yet", "refuted"]) == "refuted"
    assert overall([]) == "none yet"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"metric": "reward"}, "metric='reward'"),
        ({"criterion": "best_of"}, "criterion='best_of'"),
        ({"seeds": (1, 1)}, "seeds="),
        ({"seeds": (1,)}, "seeds="),
        ({"budget": 0}, "budget=0"),
        ({"eval_episodes": 1}, "eval_episodes=1"),
        ({"eval_every": 0}, "eval_every=0"),
        ({"preset": "best"}, "preset='best'"),
        ({"comparator": {"agent": "sb3/sac"}}, "comparator="),
        ({"criterion": "within_of_comparator"}, "comparator=None"),
        ({"agent": "rllib/ppo"}, "'sb3/' and the name of an algorithm"),
        ({"training": {"reward_scale": 0}}, "training="),
        ({"training": {"colour": 1}}, "training="),
        ({"metric": "goal-visits/entropy"}, "metric='goal-visits/entropy'"),
    ],
)
def test_undecidable_claims_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        claim_of(**fields)


def test_files_are_checked(tmp_path):
    record = record_of(comparator={"agent": "sb3/sac"}, criterion="within_of_comparator")
    path = tmp_path / f"{record['name']}.json"
    path.write_text(json.dumps(record))
    assert [claim.digest() for claim in read_claims(tmp_path)] == [make_claim(record).digest()]
    for changed, message in (
        ({**record, "colour": 1}, "colour"),
        ({name: value for name, value in record.items() if name != "margin"}, "margin"),
        ({**record, "name": "other"}, "expected the name of the file"),
        ({**record, "comparator": {"id": "sb3/sac"}}, "id"),
        ([], "list"),
    ):
        path.write_text(json.dumps(changed))
        with pytest.raises(ValueError, match=rf"sac-pendulum.json: .*{message}"):
            read_claims(tmp_path)
