"""A claim's runs: which are missing, what a run must be registered with, and one claim run to its end."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from palaestra.agents.evaluation.claim_files import make_claim, read_claims
from palaestra.agents.evaluation.rows import append_rows, read_rows
from palaestra.agents.evaluation.verdicts import verdict
from palaestra.scripts import benchmark, claim_run
from palaestra.scripts.benchmark import Job

RECORD = {
    "name": "ppo-cartpole",
    "system": "A Paper",
    "statement": "PPO stands.",
    "agent": "ppo",
    "env": "CartPole-v1",
    "metric": "mean_return",
    "criterion": "mean_at_least",
    "margin": 5.0,
    "budget": 256,
    "seeds": [0, 1],
    "eval_every": 128,
    "eval_episodes": 2,
    "tuning_budget": "none",
}
ARMS = {
    "name": "ppo-two-ways",
    "system": "A Paper",
    "statement": "PPO stands, and longer than with other rewards.",
    "arms": {
        "ppo": {"agent": "ppo"},
        "scaled": {"agent": "ppo", "training": {"reward_scale": 100.0}},
    },
    "env": "CartPole-v1",
    "config": {"num_envs": 2, "n_steps": 32, "batch_size": 32, "n_epochs": 2, "hidden": [16]},
    "budget": 128,
    "eval_every": 32,
    "seeds": [0, 1],
    "eval_episodes": 2,
    "measures": {"sampling-error": {"minimum": 8}},
    "criteria": [
        {"metric": "mean_return", "contrast": {"ppo": 1, "scaled": -1}, "at_least": 0},
        {"metric": "mean_return", "contrast": {"ppo": 1}, "over": "each_seed", "at_least": 1.0},
    ],
    "tuning_budget": "none",
}
CLAIM = make_claim(RECORD)


def claim_of(**fields):
    return make_claim({**RECORD, **fields})


def run(claim, arm, seed):
    return claim_run.run_arm(claim, claim.arm(arm), seed, "command")


def written(folder, record):
    (folder / "claims").mkdir(exist_ok=True)
    (folder / "claims" / f"{record['name']}.json").write_text(json.dumps(record))


def committed(folder):
    git = ("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", str(folder))
    for call in (("init", "-q"), ("add", "."), ("commit", "-qm", "claim")):
        subprocess.run([*git, *call], check=True)


@pytest.fixture
def claims(tmp_path):
    """Return a folder of results with the claim in it."""
    written(tmp_path, RECORD)
    return tmp_path


def test_finished_seeds_are_skipped(tmp_path, make_result_row):
    config = {"policy": "MlpPolicy"}
    ours = make_result_row(agent_id="ppo")
    claim = claim_of(
        config_hash=ours.config_hash,
        criterion="within_of_comparator",
        comparator={"agent": "sb3/ppo", "config": config},
        seeds=[0, 1, 2],
    )
    path = tmp_path / "rows.jsonl"
    assert benchmark.missing_jobs(claim, []) == [Job(arm, seed) for seed in claim.seeds for arm in ("ppo", "sb3/ppo")]
    common = {"claim_hash": claim.digest(), "env_id": "CartPole-v1", "budget": 256, "env_steps": 256}
    peer = {"agent_id": "sb3/ppo", "agent_config": {**config, "num_envs": 1}}
    append_rows(
        path,
        [
            make_result_row(agent_id="ppo", seed=0, **common),
            make_result_row(seed=2, **common, **peer),
            make_result_row(agent_id="ppo", seed=1, **{**common, "claim_hash": "0" * 16}),
        ],
    )
    assert benchmark.missing_jobs(claim, read_rows(path)) == [
        Job("sb3/ppo", 0), Job("ppo", 1), Job("sb3/ppo", 1), Job("ppo", 2),
    ]  # fmt: skip


def test_an_unregistered_or_uncommitted_claim_does_not_run(claims, capsys):
    arguments = ["ppo-cartpole", "--results", str(claims), "--runs", str(claims / "runs")]
    assert benchmark.main(["ppo-cartpoles", *arguments[1:]]) == 2
    assert "'ppo-cartpoles' is unknown; expected one of ppo-cartpole" in capsys.readouterr().err
    assert benchmark.main(arguments) == 2
    assert "no config_hash" in capsys.readouterr().err
    assert benchmark.main([*arguments, "--show-config"]) == 0
    found = claim_run.configuration_hashes(CLAIM)["ppo"]
    assert found in capsys.readouterr().out
    assert benchmark.main([*arguments, "--register"]) == 0
    registered = read_claims(claims / "claims")[0]
    assert registered.record == make_claim({**RECORD, "config_hash": found}).record
    assert benchmark.main(arguments) == 2
    assert "committed before it runs" in capsys.readouterr().err
    assert not (claims / "runs").exists()


def test_a_run_refuses_another_configuration_than_the_claims():
    with pytest.raises(ValueError, match=r"config hash is .*; expected the claim's 0000"):
        run(claim_of(config_hash="0000"), "ppo", 0)


def test_pilots_never_see_the_claims_seeds():
    pilot = claim_run.pilot_claim(CLAIM)
    assert not set(pilot.seeds) & set(CLAIM.seeds)
    assert len(pilot.seeds) == len(CLAIM.seeds)
    assert pilot.arms[0].config_hash == claim_run.configuration_hashes(CLAIM)["ppo"]
    # Nor could their rows count for it.
    assert pilot.digest() != make_claim({**RECORD, "config_hash": pilot.arms[0].config_hash}).digest()


def test_a_run_records_its_curve_and_its_end():
    claim = claim_run.pilot_claim(claim_of(eval_every=100))
    rows = run(claim, "ppo", 1000)
    final = rows[-1]
    assert [row.kind for row in rows] == ["curve"] * (len(rows) - 1) + ["final"]
    assert [row.env_steps for row in rows] == sorted({row.env_steps for row in rows})
    assert rows[0].env_steps == rows[0].updates == 0
    assert final.env_steps >= 256
    assert final.episodes > 0
    assert final.updates > 0
    assert {row.claim_hash for row in rows} == {claim.digest()}
    # What the agent's seed decides is decided again by the same seed.
    again = run(claim, "ppo", 1000)
    assert [row.returns for row in again] == [row.returns for row in rows]


def test_a_comparator_is_measured_like_ours():
    pytest.importorskip("stable_baselines3")
    comparator = {"agent": "sb3/ppo", "config": {"policy": "MlpPolicy", "n_steps": 64}, "num_envs": 2}
    claim = claim_of(criterion="within_of_comparator", comparator=comparator)
    rows = run(claim, "sb3/ppo", 1)
    assert [(row.kind, row.env_steps) for row in rows] == [("curve", 0), ("curve", 128), ("final", 256)]
    assert rows[-1].config_hash == claim.arm("sb3/ppo").row_hash
    assert (rows[-1].backend, rows[-1].eval_seed) == ("gymnasium", 1)
    assert 0 == rows[0].episodes < rows[1].episodes < rows[2].episodes
    assert [row.returns for row in run(claim, "sb3/ppo", 1)] == [row.returns for row in rows]
    with pytest.raises(ValueError, match="no NOTHING"):
        run(claim_of(criterion="within_of_comparator", comparator={"agent": "sb3/nothing"}), "sb3/nothing", 1)


def test_failed_runs_leave_a_log_and_no_rows(tmp_path):
    arguments = ["--claim-file", str(tmp_path / "missing.json"), "--rows-file", str(tmp_path / "rows.jsonl")]
    jobs = [Job("ppo", 0)]
    assert benchmark.run_jobs(jobs, arguments, tmp_path / "logs", jobs=2, threads=1) == jobs
    assert "FileNotFoundError" in benchmark.log_file(tmp_path / "logs", jobs[0]).read_text()
    assert not (tmp_path / "rows.jsonl").exists()
    with pytest.raises(ValueError, match="jobs=0"):
        benchmark.run_jobs(jobs, arguments, tmp_path / "logs", jobs=0, threads=1)


def test_a_committed_claim_runs_to_its_verdict(claims, capsys):
    arguments = ["ppo-cartpole", "--results", str(claims), "--runs", str(claims / "runs")]
    benchmark.main([*arguments, "--register"])
    committed(claims)
    assert benchmark.main(arguments) == 0
    claim = read_claims(claims / "claims")[0]
    rows = read_rows(claims / "ppo-cartpole.jsonl")
    found = verdict(claim, rows)
    assert found.seeds_done == 2
    assert found.status != "none yet"
    assert benchmark.describe(found) in capsys.readouterr().out
    assert {row.command for row in rows} == {"palaestra benchmark ppo-cartpole"}
    assert {row.threads for row in rows} == {1}
    assert benchmark.missing_jobs(claim, rows) == []
    # Everything is done: a second call starts nothing and adds nothing.
    assert benchmark.main(arguments) == 0
    assert read_rows(claims / "ppo-cartpole.jsonl") == rows
    assert Path(claims / "runs" / "ppo-cartpole" / "ppo-0.log").read_text().count("steps") >= 2


def test_a_claim_of_several_arms_runs_to_its_verdict_and_is_reported(tmp_path, capsys):
    written(tmp_path, ARMS)
    arguments = ["ppo-two-ways", "--results", str(tmp_path), "--runs", str(tmp_path / "runs")]
    assert benchmark.main(["--list", *arguments[1:]]) == 0
    assert "0 of 4" in (listed := capsys.readouterr().out)
    assert "unknown" in listed
    assert benchmark.main([*arguments, "--register"]) == 0
    committed(tmp_path)
    assert benchmark.main(arguments) == 0
    claim = read_claims(tmp_path / "claims")[0]
    hashes = [arm.config_hash for arm in claim.arms]
    # What training changes is no part of the agent's configuration, but of the arm.
    assert hashes[0] == hashes[1]
    rows = read_rows(tmp_path / "ppo-two-ways.jsonl")
    assert {(row.arm, row.seed) for row in rows} == {(arm.name, seed) for arm in claim.arms for seed in (0, 1)}
    scaled = [row for row in rows if row.arm == "scaled"]
    assert {row.training["reward_scale"] for row in scaled} == {100.0}
    # Rows report raw returns: one a step that the pole stands.
    assert all(row.returns == tuple(map(float, row.lengths)) for row in scaled)
    assert {"sampling-error/kl", "sampling-error/steps"} in [set(row.measures) for row in rows]
    assert verdict(claim, rows).status != "none yet"
    assert len(verdict(claim, rows).findings) == 2
    out = capsys.readouterr().out
    assert "4 of 4" in out
    assert benchmark.describe(verdict(claim, rows)) in out
    benchmark.main(["--list", *arguments[1:]])
    assert "4 of 4" in capsys.readouterr().out


def test_scaled_rewards_are_learnt_from_and_others_are_not_touched():
    claim = make_claim(ARMS)
    agents = {arm.name: claim_run._make_ours(arm, seed=3) for arm in claim.arms}
    for agent in agents.values():
        agent.learn(64)
    plain, scaled = (agents[name].collector.recent_returns for name in ("ppo", "scaled"))
    lengths = agents["scaled"].collector.recent_lengths
    assert len(lengths) > 0
    assert list(scaled) == [100.0 * length for length in lengths]
    assert list(plain) == list(agents["ppo"].collector.recent_lengths)


def test_training_may_run_on_other_parameters_than_evaluation():
    training = {"env_kwargs": {"underage_cost": 2.0}, "reward_scale": 3.0}
    world = {"env": "palaestra/OneStoreBacklog-v0", "env_kwargs": {"underage_cost": 9.0}, "config": {}}
    claim = make_claim({**ARMS, **world, "arms": {"ppo": {"agent": "ppo", "training": training}}, "criteria": []})
    assert claim_run._make_ours(claim.arm("ppo"), 0).env_kwargs["underage_cost"] == 2.0


def test_a_policy_of_the_world_is_an_arm_without_training():
    arms = {"straight": {"agent": "policy/nearest", "budget": 0}}
    claim = make_claim({**ARMS, "env": "palaestra/MultiGoal2D-v0", "config": {}, "arms": arms, "measures": {},
                        "criteria": [{"metric": "success", "at_least": 1.0}]})  # fmt: skip
    rows = [row for seed in (0, 1) for row in run(claim, "straight", seed)]
    assert [(row.kind, row.env_steps, row.agent_id) for row in rows] == [("final", 0, "policy/nearest")] * 2
    assert verdict(claim, rows).status == "shown"


@pytest.mark.parametrize(("name", "kind"), [("td3", "TD3"), ("trpo", "TRPO"), ("crossq", "CrossQ")])
def test_peers_come_from_both_libraries(name, kind):
    pytest.importorskip("sb3_contrib")
    assert claim_run._peer_class(name).__name__ == kind


def test_a_peers_exploration_noise_is_a_number():
    pytest.importorskip("stable_baselines3")
    config = {"policy": "MlpPolicy", "action_noise": 0.1, "buffer_size": 10}
    arm = make_claim({**ARMS, "env": "Pendulum-v1", "config": {}, "measures": {}, "criteria": [],
                      "arms": {"peer": {"agent": "sb3/td3", "config": config}}}).arm("peer")  # fmt: skip
    noise = claim_run._make_peer(arm, seed=0).action_noise
    assert (noise._mu.tolist(), noise._sigma.tolist()) == ([0.0], [0.1])


def test_the_time_left_is_judged_by_the_runs_that_are_done(make_result_row):
    claim = claim_of(config_hash=make_result_row(agent_id="ppo").config_hash, seeds=[0, 1, 2, 3])
    common = {"agent_id": "ppo", "env_id": "CartPole-v1", "budget": 256, "env_steps": 256, "claim_hash": claim.digest()}
    rows = [make_result_row(seed=seed, wall_seconds=wall, **common) for seed, wall in ((0, 10.0), (1, 30.0))]
    missing = benchmark.missing_jobs(claim, rows)
    assert benchmark.seconds_left(claim, rows, missing, jobs=2) == 20.0
    assert benchmark.seconds_left(claim, [], missing, jobs=2) is None
