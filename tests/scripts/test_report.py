"""The report is a function of claims and rows; the committed one is what the committed rows say."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from palaestra.agents.evaluation.claims import Claim, Comparator
from palaestra.agents.evaluation.rows import append_rows
from palaestra.agents.evaluation.statistics import mean_interval
from palaestra.scripts import report

COMMITTED = Path(__file__).parents[2] / "results"


@pytest.fixture
def results(tmp_path, make_result_row):
    """Return a folder with a claim against a comparator whose three seeds ran, and one that never ran."""
    comparator = Comparator("sb3/sac", {"policy": "MlpPolicy"})
    ours = make_result_row()
    claim = Claim(
        name="sac-pendulum",
        system="A Paper",
        statement="SAC is no worse.",
        agent="sac",
        config_hash=ours.config_hash,
        env="Pendulum-v1",
        metric="mean_return",
        criterion="within_of_comparator",
        margin=0.1,
        comparator=comparator,
        budget=1000,
        seeds=(0, 1, 2),
        eval_every=500,
        eval_episodes=2,
        tuning_budget="none",
    )
    threshold = {"criterion": "mean_at_least", "comparator": None, "margin": -200.0}
    (tmp_path / "claims").mkdir()
    for written in (claim, dataclasses.replace(claim, name="td3-pendulum", agent="td3", **threshold)):
        text = json.dumps(dataclasses.asdict(written))
        (tmp_path / "claims" / f"{written.name}.json").write_text(text)
    peer = {"agent_id": "sb3/sac", "agent_config": comparator.row_config()}
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
