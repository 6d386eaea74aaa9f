"""Runs: their directory, their interruptions, and what goes wrong in the middle of them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import palaestra
from palaestra.agents.training.callbacks import FunctionCallback, StopOnThreshold
from palaestra.agents.training.checkpoint import CheckpointError, CheckpointStore
from palaestra.agents.training.logging import read_metrics
from palaestra.agents.training.metrics import NonFiniteError
from palaestra.agents.training.run import Run, RunConfig, default_directory
from palaestra.agents.training.tree import first_difference
from tests.agents import worlds

SAC = {"hidden": [16, 16], "learning_starts": 20, "batch_size": 16, "buffer_size": 500}
CONFIG = RunConfig(
    "sac",
    "TestFaulty-v0",
    60,
    config=SAC,
    log_freq=10,
    eval_freq=1_000,
    checkpoint_freq=25,
    tensorboard=False,
)


@pytest.fixture
def mended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worlds.Faulty, "mended", True)


def test_a_run_leaves_logs_checkpoints_and_the_best_agent(tmp_path: Path, mended: None) -> None:
    config = replace(CONFIG, eval_freq=30, eval_episodes=2, tensorboard=True)
    run = Run.create(tmp_path / "run", config)
    assert run.store.steps() == [0]
    run.train()
    assert run.store.steps() == [50, 60]
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {
        "run.json",
        "metrics.jsonl",
        "progress.csv",
        "best",
        "tensorboard",
    }
    rows = read_metrics(tmp_path / "run")
    assert [row["step"] for row in rows if "eval/mean_return" in row] == [30, 60]
    assert [row["step"] for row in rows if "train/critic_loss" in row] == [30, 40, 50, 60]
    assert palaestra.load(tmp_path / "run").num_timesteps == 60
    assert palaestra.load(tmp_path / "run" / "best").num_timesteps in (30, 60)


def test_a_directory_that_exists_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="expected a new one"):
        Run.create(tmp_path, CONFIG)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_resuming_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no run\.json"):
        Run.resume(tmp_path)


def test_default_directories_are_free(tmp_path: Path) -> None:
    first = default_directory(CONFIG, tmp_path)
    first.mkdir()
    assert default_directory(CONFIG, tmp_path) != first


@pytest.mark.parametrize("num_envs", [1, 3])
def test_an_env_that_raises_leaves_a_checkpoint_that_goes_on_exactly(
    num_envs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state saved is that before the failing step: with the env mended, all goes on as if it had never failed."""
    config = replace(CONFIG, total_timesteps=150, config={**SAC, "num_envs": num_envs})
    broken = Run.create(tmp_path / "broken", config)
    with pytest.raises(RuntimeError, match="the joint broke") as caught:
        broken.train()
    assert any("worlds.py" in str(entry.path) for entry in caught.traceback)
    monkeypatch.setattr(worlds.Faulty, "mended", True)
    whole = Run.create(tmp_path / "whole", config).train()
    resumed = Run.resume(tmp_path / "broken").train()
    assert first_difference(whole.state_dict(), resumed.state_dict()) is None


def test_a_loss_that_is_not_finite_stops_without_another_checkpoint(tmp_path: Path, mended: None) -> None:
    def poison(agent: Any) -> None:
        if agent.num_timesteps == 33:
            next(agent.critics.parameters()).data.fill_(torch.nan)

    run = Run.create(tmp_path / "run", CONFIG, [FunctionCallback(poison)])
    with pytest.raises(NonFiniteError, match=r"critic_loss was not finite at update 14 \(env step 34\)"):
        run.train()
    assert run.store.steps() == [0, 25]
    loaded = palaestra.load(tmp_path / "run")
    assert all(torch.isfinite(p).all() for p in loaded.critics.parameters())


def test_evaluation_never_changes_training(tmp_path: Path, mended: None) -> None:
    seldom = Run.create(tmp_path / "seldom", CONFIG).train()
    often = Run.create(tmp_path / "often", replace(CONFIG, eval_freq=7, eval_episodes=2)).train()
    assert first_difference(seldom.state_dict(), often.state_dict()) is None


def test_stop_on_threshold(tmp_path: Path, mended: None) -> None:
    agent = palaestra.make_agent("sac", "TestFaulty-v0", **{**SAC, "hidden": (16, 16)})
    agent.learn(500, StopOnThreshold(-1e9, episodes=3, interval=1))
    assert agent.num_timesteps == 60


def test_a_damaged_checkpoint_is_refused_and_the_older_one_loads(tmp_path: Path, mended: None) -> None:
    Run.create(tmp_path / "run", CONFIG).train()
    tensors = tmp_path / "run/checkpoints/step-000000000060/tensors.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"tensors\.safetensors.*50"):
        Run.resume(tmp_path / "run")
    again = Run.resume(tmp_path / "run", step=50)
    assert again.train().num_timesteps == 60


@pytest.mark.parametrize(
    ("key", "value"), [("agent", "os:system"), ("agent", "nothing"), ("observation_space", {"kind": "Odd"})]
)
def test_a_checkpoint_that_names_code_is_refused(key: str, value: Any, tmp_path: Path, mended: None) -> None:
    agent = palaestra.make_agent("sac", "TestFaulty-v0", **{**SAC, "hidden": (16, 16)})
    header = {**agent.header(), key: value}
    CheckpointStore(tmp_path / "bad").save(0, {"agent": agent.state_dict()}, header=header)
    with pytest.raises(CheckpointError, match="does not describe an agent"):
        palaestra.load(tmp_path / "bad")


def test_an_encoder_named_in_a_checkpoint_cannot_call_a_function() -> None:
    with pytest.raises(ValueError, match="'os:system' is unknown"):
        palaestra.make_agent("sac", "TestFaulty-v0", encoder="os:system")


def test_ctrl_c_saves_and_exits_cleanly(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "palaestra.cli", "train", "--agent", "sac", "--env", "Pendulum-v1"]
    command += ["--total-timesteps", "1000000", "--name", str(tmp_path / "run"), "--no-progress", "--log-freq", "50"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    log = tmp_path / "run/metrics.jsonl"
    while not (log.exists() and len(read_metrics(log.parent)) >= 3) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "saved. Continue with: palaestra resume" in output
    step = CheckpointStore(tmp_path / "run" / "checkpoints").steps()[-1]
    assert step >= 150
    assert json.loads((tmp_path / "run/run.json").read_text())["env"] == "Pendulum-v1"
    assert Run.resume(tmp_path / "run").agent.num_timesteps == step
