"""The report is a function of claims and rows; the committed one is what the committed rows say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from palaestra.agents.evaluation.claim_files import make_claim
from palaestra.agents.evaluation.rows import append_rows
from palaestra.agents.evaluation.statistics import mean_interval
from palaestra.scripts import report

COMMITTED = Path(__file__).parents[2] / "results"


@pytest.fixture
def results(tmp_path, make_result_row):
    """Return a folder with a claim against a comparator whose three seeds ran, and one that never ran."""
    config = {"policy": "MlpPolicy"}
    record = {
        "name": "sac-pendulum",
        "system": "A Paper",
        "statement": "SAC is no worse.",
        "agent": "sac",
        "config_hash": make_result_row().config_hash,
        "env": "Pendulum-v1",
        "metric": "mean_return",
        "criterion": "within_of_comparator",
        "margin": 0.1,
        "comparator": {"agent": "sb3/sac", "config": config},
        "budget": 1000,
        "seeds": [0, 1, 2],
        "eval_every": 500,
        "eval_episodes": 2,
        "tuning_budget": "none",
    }
    threshold = {"criterion": "mean_at_least", "comparator": None, "margin": -200.0}
    (tmp_path / "claims").mkdir()
    for written in (record, {**record, "name": "td3-pendulum", "agent": "td3", **threshold}):
        (tmp_path / "claims" / f"{written['name']}.json").write_text(json.dumps(written))
    claim = make_claim(record)
    peer = {"agent_id": "sb3/sac", "agent_config": {**config, "num_envs": 1}}
    for side, shift in (({}, 0.0), (peer, -5.0)):
        for seed in claim.seeds:
            common = {**side, "seed": seed, "claim_hash": claim.digest()}
            curve = make_result_row(-1000.0 - seed, kind="curve", env_steps=500, **common)
            append_rows(tmp_path / "sac-pendulum.jsonl", [curve, make_result_row(-150.0 - seed + shift, **common)])
    return tmp_path


def test_the_report_says_what_the_rows_say(results):
    text = report.report_text(results)
    lines = text.splitlines()
    # Welch over (-150, -151, -152) and (-155, -156, -157): 5 +- t(.975; 4) sqrt(2 / 3).
    half = 2.7764451 * (2 / 3) ** 0.5
    assert "| [sac-pendulum](#sac-pendulum) | shown | 3 of 3 |" in text
    assert f"| 5 [{5 - half:.4g}, {5 + half:.4g}] | -15.6 |" in text
    assert "| [td3-pendulum](#td3-pendulum) | none yet | 0 of 3 | – | – |" in lines
    assert "SAC is no worse." in lines
    assert "- rows: [sac-pendulum.jsonl](sac-pendulum.jsonl), 12 of 12 made for this claim as it stands" in lines
    assert "- code: 0123456789ab" in lines
    assert "- hardware: a CPU, 2 cores; threads: 1" in lines
    assert "- idle CPU during the runs: median 25%" in lines
    interval = mean_interval([-151.0, -149.0])
    assert any(line.startswith(f"| 0 | -150 [{interval.low:.4g}, {interval.high:.4g}] | -155") for line in lines)


def test_check_tells_a_stale_report(results, capsys):
    assert report.main(["--results", str(results), "--check"]) == 1
    (results / "README.md").write_text(report.report_text(results))
    assert report.main(["--results", str(results), "--check"]) == 0
    with (results / "README.md").open("a") as file:
        file.write("edited")
    assert report.main(["--results", str(results), "--check"]) == 1
    assert "differs from what the rows say" in capsys.readouterr().err


def test_the_report_and_its_pictures_are_reproducible(results):
    pytest.importorskip("matplotlib")
    assert report.main(["--results", str(results)]) == 0
    picture = results / "pictures" / "sac-pendulum.png"
    first = (results / "README.md").read_bytes(), picture.read_bytes()
    assert report.main(["--results", str(results)]) == 0
    assert first == ((results / "README.md").read_bytes(), picture.read_bytes())
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in (results / "pictures").iterdir()] == ["sac-pendulum.png"]
    for link in ("pictures/sac-pendulum.png", "sac-pendulum.jsonl"):
        assert f"({link})" in first[0].decode()
        assert (results / link).exists()


def test_curve_points_are_means_over_seeds(make_result_row):
    pytest.importorskip("matplotlib")
    from palaestra.scripts.plots import curve_points

    rows = [make_result_row(value, seed=seed, env_steps=steps) for seed, steps, value in
            ((0, 200, 5.0), (1, 200, 7.0), (0, 100, 1.0), (1, 100, 3.0), (0, 300, 4.0))]  # fmt: skip
    steps, means, lows, highs = curve_points(rows, "mean_return")
    np.testing.assert_array_equal(steps, [100, 200, 300])
    np.testing.assert_allclose(means, [2.0, 6.0, 4.0])
    assert highs[0] == pytest.approx(mean_interval([1.0, 3.0]).high)
    assert lows[2] == highs[2] == 4.0
    assert [len(part) for part in curve_points(rows, "gap")] == [0, 0, 0, 0]


def test_the_committed_report_is_what_the_committed_rows_say():
    assert (COMMITTED / "README.md").read_text(encoding="utf-8") == report.report_text(COMMITTED)


ARMS = {
    "name": "table-of-two",
    "system": "A Paper",
    "statement": "Three agents on two envs.",
    "agent": "sac",
    "arms": {"fast": {}, "slow": {"training": {"reward_scale": 2.0}}, "still": {"agent": "policy/random", "budget": 0}},
    "env": "Pendulum-v1",
    "budget": 1000,
    "eval_every": 500,
    "seeds": [0, 1, 2],
    "eval_episodes": 2,
    "criteria": [],
    "tuning_budget": "none",
}


@pytest.fixture
def many_arms(tmp_path, make_result_row):
    """Return a function that makes a folder of results of a claim with three arms from changes to its record."""

    def make(missing=(), **fields):
        record = {**ARMS, **fields}
        ours = make_result_row().config_hash
        names = [arm.name for arm in make_claim(record).arms if arm.kind == "ours"]
        record["config_hashes"] = dict.fromkeys(names, ours)
        claim = make_claim(record)
        (tmp_path / "claims").mkdir()
        (tmp_path / "claims" / f"{claim.name}.json").write_text(json.dumps(record))
        for number, arm in enumerate(claim.arms):
            for seed in claim.seeds:
                if (arm.name, seed) in missing:
                    continue
                policy = {"agent_id": arm.agent, "agent_config": {}} if arm.kind == "policy" else {}
                common = {"arm": arm.name, "seed": seed, "claim_hash": claim.digest(), "env_id": arm.env, **policy}
                common |= {"training": dict(arm.training), "budget": arm.budget, "env_kwargs": dict(arm.env_kwargs)}
                rows = [make_result_row(-100.0 * number + 10.0 * seed, env_steps=arm.budget, **common)]
                if arm.kind == "ours":
                    rows.insert(0, make_result_row(-999.0, kind="curve", env_steps=0, **common))
                append_rows(tmp_path / f"{claim.name}.jsonl", rows)
        return tmp_path

    return make


def test_a_table_is_a_grid_of_means_over_seeds(many_arms):
    envs = {"Pendulum-v1": {}, "heavy": {"env": "Pendulum-v1", "env_kwargs": {"g": 20.0}}}
    results = many_arms(missing=[("slow on heavy", 1)], envs=envs)
    lines = report.report_text(results).splitlines()
    assert "| [table-of-two](#table-of-two) | 6 | 2 of 3 |" in lines
    start = lines.index("| mean_return | Pendulum-v1 | heavy |")
    fast = [mean_interval([value, value + 10, value + 20]) for value in (0.0, -100.0)]
    cells = [f"{found.estimate:.4g} [{found.low:.4g}, {found.high:.4g}]" for found in fast]
    assert lines[start + 2] == f"| fast | {cells[0]} | {cells[1]} |"
    assert lines[start + 3].startswith("| slow | -190 ")
    assert lines[start + 3].endswith("(2 of 3 seeds) |")
    assert "| wall_seconds | Pendulum-v1 | heavy |" in lines
    assert not any("verdict: **" in line for line in lines)


def test_every_criterion_of_a_claim_is_reported_with_its_arms(many_arms):
    criteria = [
        {"metric": "mean_return", "contrast": {"fast": 1, "slow": -1}, "at_least": 0},
        {"metric": "mean_return", "contrast": {"slow": 1, "fast": -0.5}, "summary": "average", "within": 9},
        {"metric": "mean_return", "contrast": {"fast": 1}, "summary": "until_at_least", "threshold": -50, "at_most": 1},
        {"metric": "mean_return", "contrast": {"still": 1}, "over": "each_seed", "at_most": 0},
    ]
    text = report.report_text(many_arms(criteria=criteria))
    lines = text.splitlines()
    for beginning in (
        "- mean over seeds of mean_return, fast - slow, at least the bound: 100 [",
        "- mean over seeds of the average of mean_return over env_steps, slow - 0.5 fast, within the bound: ",
        "- mean over seeds of env_steps until mean_return is at least -50, fast, at most the bound: 1000; bound 1 (ref",
        "- worst seed's mean_return of still: -180 [",
    ):
        assert any(line.startswith(beginning) for line in lines), (beginning, text)
    assert "- budget: 0 or 1,000 steps; tuning: none" in lines
    assert "| arm | seeds | mean_return | seconds |" in lines
    assert "refuted" in next(line for line in lines if line.startswith("| [table-of-two]"))


def test_one_picture_holds_the_curves_of_all_arms_and_the_levels_claimed(many_arms):
    pytest.importorskip("matplotlib")
    criteria = [
        {"metric": "mean_return", "contrast": {"fast": 1, "slow": -1}, "at_least": 0},
        {"metric": "mean_return", "contrast": {"fast": 1}, "at_least": -77},
        {"metric": "mean_return", "contrast": {"fast": 1}, "summary": "until_at_least", "threshold": -50, "at_most": 1},
    ]
    results = many_arms(criteria=criteria)
    (claim,) = report.read_claims(results / "claims")
    (panel,) = report.curve_panels(
        claim, report.claim_curves(claim, report.read_rows(report.rows_file(results, claim)))
    )
    assert list(panel.curves) == ["fast", "slow", "still"]
    assert panel.levels == (-77.0, -50.0)
    assert panel.title == "table-of-two on Pendulum-v1"
    (picture,) = report.draw_pictures(results)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_directions_that_were_measured_are_drawn_of_the_arms_that_have_them(many_arms):
    pytest.importorskip("matplotlib")
    results = many_arms()
    (claim,) = report.read_claims(results / "claims")
    path = report.rows_file(results, claim)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        if row["arm"] != "still":
            shares = {f"action-directions/share-{k:02d}": 0.0 for k in range(24)}
            row["measures"] = {**shares, f"action-directions/share-{row['seed']:02d}": 1.0}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = report.claim_directions(claim, report.read_rows(path))
    assert list(found) == ["fast", "slow"]
    np.testing.assert_array_equal(found["fast"], np.eye(24)[[0, 1, 2]])
    assert [picture.name for picture in report.draw_pictures(results)] == [
        "table-of-two.png",
        "table-of-two-directions.png",
    ]
    assert "![directions of actions](pictures/table-of-two-directions.png)" in report.report_text(results)
