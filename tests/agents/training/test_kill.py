"""A run that is killed at random moments and resumed ends as the run that was never killed."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from palaestra.agents.training.checkpoint import CheckpointStore
from palaestra.agents.training.logging import is_time_column, read_metrics
from palaestra.agents.training.run import RunConfig
from palaestra.agents.training.tree import first_difference
from tests.agents.training import run_worker

OFF_POLICY = {"hidden": [32, 32], "learning_starts": 200, "batch_size": 32, "buffer_size": 1_500}
ON_POLICY = {"hidden": [32, 32], "n_steps": 64, "batch_size": 64, "n_epochs": 4, "normalize_observation": True}
CASES = {
    "sac-own-world": ("sac", "palaestra/MultiGoal2D-v0", {**OFF_POLICY, "num_envs": 3}),
    "sac-half-cheetah": ("sac", "HalfCheetah-v5", OFF_POLICY),
    "td3-own-world": ("td3", "palaestra/OneStoreBacklog-v0", {**OFF_POLICY, "num_envs": 2}),
    "td3-half-cheetah": ("td3", "HalfCheetah-v5", OFF_POLICY),
    "ppo-own-world": ("ppo", "palaestra/TextCorridor-v0", {**ON_POLICY, "num_envs": 4}),
    "ppo-half-cheetah": ("ppo", "HalfCheetah-v5", {**ON_POLICY, "normalize_reward": True}),
    "ppo-minigrid": ("ppo", "MiniGrid-Empty-Random-5x5-v0", {**ON_POLICY, "num_envs": 2, "recurrent_size": 8}),
}


def run_config(case: str) -> RunConfig:
    agent, env, config = CASES[case]
    return RunConfig(
        agent,
        env,
        1_700,
        seed=3,
        config=config,
        log_freq=150,
        eval_freq=700,
        eval_episodes=2,
        checkpoint_freq=130,
        tensorboard=False,
    )


def start(directory: Path, config: RunConfig) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.agents.training.run_worker", str(directory), json.dumps(asdict(config))]
    root = Path(run_worker.__file__).parents[3]
    return subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(directory: Path, config: RunConfig) -> None:
    process = start(directory, config)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


def kill_after(directory: Path, config: RunConfig, seconds: float) -> bool:
    """Kill a run some time after its training began; return whether it was still alive."""
    process = start(directory, config)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(seconds)
    alive = process.poll() is None
    process.kill()
    process.communicate()
    return alive


class Rows(dict[str, Any]):
    """Collects the rows of a replay buffer as they are read from a checkpoint."""

    rows_written = rows_kept_from = 0

    def read_rows(self, start: int, stop: int) -> dict[str, Any]:
        raise AssertionError("only loaded")

    def begin_load(self, rows_written: int, rows_kept_from: int) -> None:
        self["kept"] = (rows_written, rows_kept_from)

    def write_rows(self, start: int, rows: Any) -> None:
        self[str(start)] = {name: rows[name] for name in sorted(rows)}


def outcome(directory: Path) -> dict[str, Any]:
    """Everything a run leaves: parameters, optimisers, counters, generators, env, replay, metrics."""
    checkpoint = CheckpointStore(directory / "checkpoints").load()
    replay = {name: Rows() for name in checkpoint.stream_names}
    checkpoint.fill(replay)
    state = dict(checkpoint.state)
    state.pop("logger")  # byte offsets of logs whose time columns differ in length
    metrics = [{k: v for k, v in row.items() if not is_time_column(k)} for row in read_metrics(directory)]
    rows = {name: dict(stream) for name, stream in replay.items()}
    return {"step": checkpoint.step, "state": state, "replay": rows, "metrics": metrics}


def assert_survives(case: str, folder: Path, kills: int, moments: random.Random) -> int:
    config = run_config(case)
    finish(folder / "whole", config)
    hits = sum(kill_after(folder / "killed", config, moments.uniform(0.05, 1.5)) for _ in range(kills))
    finish(folder / "killed", config)
    whole, killed = outcome(folder / "whole"), outcome(folder / "killed")
    assert whole["step"] >= config.total_timesteps
    assert len(whole["metrics"]) > 10
    assert first_difference(whole, killed) is None
    return hits


@pytest.mark.parametrize("case", ["sac-own-world", "td3-half-cheetah", "ppo-minigrid"])
def test_killed_and_resumed_run_ends_the_same(case: str, tmp_path: Path) -> None:
    assert assert_survives(case, tmp_path, 1, random.Random(case)) == 1


@pytest.mark.slow
def test_twenty_random_kills(tmp_path: Path) -> None:
    """Three kills for each of seven pairs of agent and env; at least twenty of them must find the run alive."""
    moments = random.Random(20)
    hits = sum(assert_survives(case, tmp_path / case, 3, moments) for case in CASES)
    assert hits >= 20
