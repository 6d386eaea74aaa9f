"""Rows: what one holds, what it refuses, and that appending is all or nothing."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from palaestra.agents.evaluation import provenance, rows
from palaestra.agents.evaluation.evaluate import Evaluation
from palaestra.agents.evaluation.rows import Row, append_rows, make_row, pool, read_rows
from palaestra.agents.evaluation.statistics import Interval, mean_interval


def evaluation(returns=(1.0, 2.0, 3.0)):
    values = np.array(returns)
    return Evaluation(
        env_id="CartPole-v1",
        env_kwargs={},
        backend="gymnasium",
        seed=7,
        deterministic=True,
        frame_stack=1,
        num_envs=1,
        returns=values,
        lengths=np.full(values.size, 5),
        success=np.array([True, False, True])[: values.size],
        estimand="episode_return",
        value=float(values.mean()),
        interval=mean_interval(values) if values.size > 1 else None,
    )


def row_of(evaluated):
    return make_row(
        evaluated,
        kind="final",
        agent_id="ppo",
        agent_config={"gamma": 0.99, "hidden": (64, 64)},
        seed=7,
        budget=100,
        env_steps=128,
        updates=40,
        wall_seconds=1.23456,
        idle_cpu=0.5,
        command="palaestra train",
    )


def test_a_row_survives_the_file(tmp_path):
    row = row_of(evaluation())
    append_rows(tmp_path / "folder" / "rows.jsonl", [row, row])
    assert read_rows(tmp_path / "folder" / "rows.jsonl") == [row, row]
    assert row.agent_config == {"gamma": 0.99, "hidden": [64, 64]}
    assert row.config_hash == provenance.config_hash("ppo", {"hidden": [64, 64], "gamma": 0.99})
    assert (row.returns, row.lengths, row.wall_seconds) == ((1.0, 2.0, 3.0), (5, 5, 5), 1.235)
    assert row.success == pytest.approx(2 / 3)
    assert row.versions["palaestra"]
    assert row.versions["gymnasium"] == row.env_packages["gymnasium"]
    assert row.timestamp.endswith("+00:00")


def test_a_missing_file_has_no_rows(tmp_path):
    assert read_rows(tmp_path / "rows.jsonl") == []


def test_metrics_carry_their_intervals(make_result_row):
    row = make_result_row(5.0, exact_gap=0.25, gap=Interval(0.1, 0.0, 0.2), success=1.0)
    assert row.metric("mean_return") == mean_interval([4.0, 6.0]) == row.metric("value")
    assert row.metric("gap") == Interval(0.1, 0.0, 0.2)
    assert row.metric("exact_gap") == Interval(0.25, 0.25, 0.25)
    assert row.metric("success") == Interval(1.0, 1.0, 1.0)
    assert row.metric("exact_value") is None
    with pytest.raises(ValueError, match="'reward'; expected one of"):
        row.metric("reward")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "best"}, "kind='best'"),
        ({"seed": -1}, "seed=-1"),
        ({"wall_seconds": float("nan")}, "wall_seconds=nan"),
        ({"returns": (1.0, float("inf"))}, "returns=inf"),
        ({"lengths": (1,)}, "2 returns, 1 lengths"),
        ({"returns": (1.0,), "lengths": (1,)}, "at least 2"),
        ({"config_hash": "0" * 16}, "config_hash"),
        ({"format": 2}, "format=2"),
        ({"command": "python /home/someone/train.py"}, "command=.*path of this machine"),
        ({"env_kwargs": {"file": "/data/sales.npz"}}, "env_kwargs.file=.*path of this machine"),
        ({"hardware": {"cpu": object()}}, "JSON values only"),
    ],
)
def test_wrong_rows_are_refused(make_result_row, fields, message):
    with pytest.raises(ValueError, match=message):
        make_result_row(**fields)


def test_a_single_episode_makes_no_row():
    with pytest.raises(ValueError, match="one episode"):
        row_of(evaluation([1.0]))


def test_unknown_and_missing_keys_are_refused(tmp_path, make_result_row):
    record = json.loads(make_result_row().to_json())
    path = tmp_path / "rows.jsonl"
    good = make_result_row().to_json()
    for changed, message in (
        ({**record, "colour": 1}, r"unknown keys \['colour'\]"),
        ({name: value for name, value in record.items() if name != "seed"}, r"missing keys \['seed'\]"),
        ([], "JSON object"),
    ):
        path.write_text(f"{good}\n{json.dumps(changed)}\n")
        with pytest.raises(ValueError, match=f"rows.jsonl, line 2: .*{message}"):
            read_rows(path)
    path.write_text(good[:50])
    with pytest.raises(ValueError, match=r"rows.jsonl, line 1"):
        read_rows(path)


def test_a_short_write_leaves_the_file_as_it_was(tmp_path, monkeypatch, make_result_row):
    path = tmp_path / "rows.jsonl"
    append_rows(path, [make_result_row()])
    before = path.read_bytes()
    write = rows.os.write
    monkeypatch.setattr(rows.os, "write", lambda descriptor, data: write(descriptor, data[:100]))
    with pytest.raises(OSError, match=r"100 of \d+ bytes"):
        append_rows(path, [make_result_row()])
    assert path.read_bytes() == before


def test_processes_may_append_at_the_same_time(tmp_path, make_result_row):
    line = make_result_row().to_json()
    program = (
        "import sys\nfrom pathlib import Path\nfrom palaestra.agents.evaluation.rows import Row, append_rows\n"
        "for _ in range(50): append_rows(Path(sys.argv[1]), [Row.from_json(sys.argv[2])] * 3)"
    )
    path = tmp_path / "rows.jsonl"
    processes = [subprocess.Popen([sys.executable, "-c", program, str(path), line]) for _ in range(2)]
    assert [process.wait(120) for process in processes] == [0, 0]
    assert read_rows(path) == [Row.from_json(line)] * 300


def test_rows_of_different_measurements_are_not_pooled(make_result_row):
    one, two = make_result_row(seed=0), make_result_row(seed=1)
    assert pool([one, two]) == {(): [one, two]}
    for fields in (
        {"env_id": "Pendulum-v0"},
        {"env_kwargs": {"g": 9.81}},
        {"env_packages": {"gymnasium": "1.5.0"}},
        {"backend": "envpool"},
        {"estimand": "long_run_reward"},
        {"deterministic": False},
        {"agent_id": "td3"},
        {"agent_config": {"gamma": 0.9}},
        {"budget": 5, "env_steps": 5},
        {"kind": "curve"},
    ):
        # The digest follows from agent id and configuration, so that it differs first where one of them does.
        name = "config_hash" if "agent_config" in fields else next(iter(fields))
        with pytest.raises(ValueError, match=f"rows differ in {name}: .* and "):
            pool([one, make_result_row(seed=1, **fields)])


def test_groups_are_pooled_apart(make_result_row):
    stochastic = make_result_row(deterministic=False)
    plain = make_result_row()
    other = make_result_row(env_kwargs={"g": 1.0})
    groups = pool([plain, stochastic, other], by=("env_kwargs", "deterministic"))
    assert list(groups) == [("{}", True), ("{}", False), ('{"g": 1.0}', True)]
    assert list(groups.values()) == [[plain], [stochastic], [other]]


def test_rows_are_frozen(make_result_row):
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_result_row().seed = 3


def test_rows_older_than_some_fields_are_read_as_what_they_were(make_result_row):
    """A claim had an agent and a comparator then, which trained on the env that was evaluated."""
    for claim, agent_id, arm in (
        ("sac-pendulum", "sac", "sac"),
        ("sac-pendulum", "sb3/sac", "sb3/sac"),
        (None, "sac", None),
    ):
        record = json.loads(make_result_row(agent_id=agent_id, claim=claim).to_json())
        for name in ("arm", "training", "episodes", "measures"):
            del record[name]
        row = Row.from_json(json.dumps(record))
        assert (row.arm, row.training, row.episodes, row.measures) == (arm, {}, None, {})


def test_measures_are_metrics_and_rows_trained_otherwise_are_not_pooled(make_result_row):
    row = make_result_row(measures={"goal-visits/entropy": 1.5})
    assert row.metric("goal-visits/entropy") == Interval(1.5, 1.5, 1.5)
    assert row.metric("goal-visits/goals") is None
    assert row.metric("wall_seconds") == Interval(12.5, 12.5, 12.5)
    with pytest.raises(ValueError, match="rows differ in training"):
        pool([row, make_result_row(training={"reward_scale": 2.0})])
    with pytest.raises(ValueError, match=r"measures\.x/y=nan"):
        make_result_row(measures={"x/y": float("nan")})
