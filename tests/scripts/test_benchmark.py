"""A claim's runs: which are missing, what a run must be registered with, and one claim run to its end."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path

import pytest

from palaestra.agents.evaluation.claims import Claim, Comparator, read_claims, verdict
from palaestra.agents.evaluation.rows import append_rows, read_rows
from palaestra.scripts import benchmark, claim_run
from palaestra.scripts.benchmark import Job

CLAIM = Claim(
    name="ppo-cartpole",
    system="A Paper",
    statement="PPO stands.",
    agent="ppo",
    env="CartPole-v1",
    metric="mean_return",
    criterion="mean_at_least",
    margin=5.0,
    budget=256,
    seeds=(0, 1),
    eval_every=128,
    eval_episodes=2,
    tuning_budget="none",
)


@pytest.fixture
def claims(tmp_path):
    """Return a folder of results with the claim in it."""
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "ppo-cartpole.json").write_text(json.dumps(dataclasses.asdict(CLAIM)))
    return tmp_path


def test_finished_seeds_are_skipped(tmp_path, make_result_row):
    comparator = Comparator("sb3/ppo", {"policy": "MlpPolicy"})
    ours = make_result_row(agent_id="ppo")
    claim = dataclasses.replace(
        CLAIM, config_hash=ours.config_hash, criterion="within_of_comparator", comparator=comparator, seeds=(0, 1, 2)
    )
    path = tmp_path / "rows.jsonl"
    assert benchmark.missing_jobs(claim, path) == [
        Job(side, seed) for seed in claim.seeds for side in ("ours", "comparator")
    ]
    common = {"claim_hash": claim.digest(), "env_id": claim.env, "budget": claim.budget, "env_steps": claim.budget}
    peer = {"agent_id": "sb3/ppo", "agent_config": comparator.row_config()}
    append_rows(
        path,
        [
            make_result_row(agent_id="ppo", seed=0, **common),
            make_result_row(seed=2, **common, **peer),
            make_result_row(agent_id="ppo", seed=1, **{**common, "claim_hash": "0" * 16}),
        ],
    )
    assert benchmark.missing_jobs(claim, path) == [
        Job("comparator", 0), Job("ours", 1), Job("comparator", 1), Job("ours", 2),
    ]  # fmt: skip


def test_an_unregistered_or_uncommitted_claim_does_not_run(claims, capsys):
    arguments = ["ppo-cartpole", "--results", str(claims), "--runs", str(claims / "runs")]
    assert benchmark.main(["ppo-cartpoles", *arguments[1:]]) == 2
    assert "'ppo-cartpoles' is unknown; expected one of ppo-cartpole" in capsys.readouterr().err
    assert benchmark.main(arguments) == 2
    assert "no config_hash" in capsys.readouterr().err
    assert benchmark.main([*arguments, "--show-config"]) == 0
    assert claim_run.configuration(CLAIM)[1] in capsys.readouterr().out
    assert benchmark.main([*arguments, "--register"]) == 0
    registered = read_claims(claims / "claims")[0]
    assert registered == dataclasses.replace(CLAIM, config_hash=claim_run.configuration(CLAIM)[1])
    assert benchmark.main(arguments) == 2
    assert "committed before it runs" in capsys.readouterr().err
    assert not (claims / "runs").exists()


def test_a_run_refuses_another_configuration_than_the_claims():
    with pytest.raises(ValueError, match=r"config hash is .*; expected the claim's 0000"):
        claim_run.run_ours(dataclasses.replace(CLAIM, config_hash="0000"), 0, "command")


def test_pilots_never_see_the_claims_seeds():
    pilot = claim_run.pilot_claim(CLAIM)
    assert not set(pilot.seeds) & set(CLAIM.seeds)
    assert len(pilot.seeds) == len(CLAIM.seeds)
    assert pilot.config_hash == claim_run.configuration(CLAIM)[1]


def test_a_run_records_its_curve_and_its_end():
    claim = claim_run.pilot_claim(dataclasses.replace(CLAIM, eval_every=100))
    rows = claim_run.run_ours(claim, 1000, "command")
    final = rows[-1]
    assert [row.kind for row in rows] == ["curve"] * (len(rows) - 1) + ["final"]
    assert [row.env_steps for row in rows] == sorted({row.env_steps for row in rows})
    assert rows[0].env_steps == rows[0].updates == 0
    assert final.env_steps >= claim.budget
    assert final.updates > 0
    assert {row.claim_hash for row in rows} == {claim.digest()}
    # What the agent's seed decides is decided again by the same seed.
    again = claim_run.run_ours(claim, 1000, "command")
    assert [row.returns for row in again] == [row.returns for row in rows]


def test_a_comparator_is_measured_like_ours():
    pytest.importorskip("stable_baselines3")
    comparator = Comparator("sb3/ppo", {"policy": "MlpPolicy", "n_steps": 64}, num_envs=2)
    claim = dataclasses.replace(CLAIM, criterion="within_of_comparator", comparator=comparator)
    rows = claim_run.run_comparator(claim, 1, "command")
    assert [(row.kind, row.env_steps) for row in rows] == [("curve", 0), ("curve", 128), ("final", 256)]
    assert rows[-1].config_hash == comparator.config_hash
    assert (rows[-1].backend, rows[-1].eval_seed) == ("gymnasium", 1)
    assert [row.returns for row in claim_run.run_comparator(claim, 1, "command")] == [row.returns for row in rows]
    for agent, message in (("rllib/ppo", "'sb3/' and"), ("sb3/nothing", "no NOTHING")):
        wrong = dataclasses.replace(claim, comparator=Comparator(agent))
        with pytest.raises(ValueError, match=message):
            claim_run.run_comparator(wrong, 1, "command")
    with pytest.raises(ValueError, match="no comparator"):
        claim_run.run_comparator(CLAIM, 1, "command")


def test_failed_runs_leave_a_log_and_no_rows(tmp_path):
    arguments = ["--claim-file", str(tmp_path / "missing.json"), "--rows-file", str(tmp_path / "rows.jsonl")]
    jobs = [Job("ours", 0)]
    assert benchmark.run_jobs(jobs, arguments, tmp_path / "logs", jobs=2, threads=1) == jobs
    assert "FileNotFoundError" in benchmark.log_file(tmp_path / "logs", jobs[0]).read_text()
    assert not (tmp_path / "rows.jsonl").exists()
    with pytest.raises(ValueError, match="jobs=0"):
        benchmark.run_jobs(jobs, arguments, tmp_path / "logs", jobs=0, threads=1)


def test_a_committed_claim_runs_to_its_verdict(claims, capsys):
    git = ("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", str(claims))
    arguments = ["ppo-cartpole", "--results", str(claims), "--runs", str(claims / "runs")]
    benchmark.main([*arguments, "--register"])
    for call in (("init", "-q"), ("add", "."), ("commit", "-qm", "claim")):
        subprocess.run([*git, *call], check=True)
    assert benchmark.main(arguments) == 0
    claim = read_claims(claims / "claims")[0]
    rows = read_rows(claims / "ppo-cartpole.jsonl")
    found = verdict(claim, rows)
    assert found.seeds_done == 2
    assert found.status != "none yet"
    assert benchmark.describe(claim, found) in capsys.readouterr().out
    assert {row.command for row in rows} == {"palaestra benchmark ppo-cartpole"}
    assert {row.threads for row in rows} == {1}
    assert benchmark.missing_jobs(claim, claims / "ppo-cartpole.jsonl") == []
    # Everything is done: a second call starts nothing and adds nothing.
    assert benchmark.main(arguments) == 0
    assert read_rows(claims / "ppo-cartpole.jsonl") == rows
    assert Path(claims / "runs" / "ppo-cartpole" / "ours-0.log").read_text().count("steps") >= 2
