"""The `palaestra` command as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import palaestra
from palaestra import cli
from palaestra.agents.training.logging import read_metrics
from palaestra.scripts.options import parse_assignments
from palaestra.scripts.train import parse

TINY = ["--total-timesteps", "128", "--n-steps", "32", "--batch-size", "32", "--n-epochs", "1", "--num-envs", "2"]
QUIET = ["--no-progress", "--no-tensorboard", "--eval-freq", "64", "--eval-episodes", "2", "--log-freq", "32"]


def test_train_evaluate_play_and_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path / "run")
    train = ["train", "--agent", "ppo", "--env", "palaestra/Kuhn-v0", "--env-kwargs", "seat=0", "--name", run]
    assert cli.main([*train, *TINY, *QUIET, "--profile"]) == 0
    output = capsys.readouterr().out
    assert "update" in output
    assert f"done: {run}" in output
    assert [row["step"] for row in read_metrics(Path(run)) if "eval/exact_value" in row] == [64, 128]

    assert cli.main(["evaluate", run, "--episodes", "8", "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["deterministic"]["oracle_value"] == 0.5
    assert set(measured) == {"deterministic", "stochastic"}

    assert cli.main(["play", run, "--episodes", "2"]) == 0
    assert "returns:" in capsys.readouterr().out

    assert cli.main(["resume", run, "--no-progress"]) == 0
    assert "is done" in capsys.readouterr().out
    assert cli.main(["resume", run, "--no-progress", "--total-timesteps", "192"]) == 0
    assert read_metrics(Path(run))[-1]["step"] == 192

    assert cli.main([*train, *TINY, *QUIET]) == 2
    assert "expected a new one" in capsys.readouterr().err


def test_reference_policies_are_evaluated_and_played(capsys: pytest.CaptureFixture[str]) -> None:
    store = ["--env", "palaestra/OneStoreBacklog-v0", "--env-kwargs", "horizon=5"]
    assert cli.main(["play", "base-stock", *store]) == 0
    assert "on hand" in capsys.readouterr().out
    assert cli.main(["evaluate", "random", "--env", "CartPole-v1", "--episodes", "4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["deterministic"]["mean_return"] > 0


@pytest.mark.parametrize("command", ["envs", "agents", "systems"])
def test_lists(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([command]) == 0
    assert ("palaestra/Kuhn-v0" if command == "envs" else "sac") in capsys.readouterr().out.replace("SAC", "sac")


def test_descriptions(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["envs", "palaestra/OneStoreBacklog-v0"]) == 0
    assert "base stock" in capsys.readouterr().out
    assert cli.main(["agents", "sac"]) == 0
    output = capsys.readouterr().out
    assert "target_entropy" in output
    assert "Temperature" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "did you mean 'train'"),
        (["train", "--agent", "ppoo", "--env", "CartPole-v1"], "did you mean 'ppo'"),
        (["train", "--agent", "ppo", "--env", "CartPoll-v1"], "did you mean 'CartPole-v1'"),
        (["train", "--agent", "sac", "--env", "CartPole-v1"], "Agents that fit this space: bac, bpg, dqn"),
        (["train", "--agent", "ppo", "--env", "CartPole-v1", "--clip-range", "0"], "clip_range=0.0"),
        (["train", "--agent", "no.such:Agent", "--env", "CartPole-v1"], "cannot be imported"),
        (["train", "--agent", "json:loads", "--env", "CartPole-v1"], "expected a subclass"),
        (["train", "--agent", "ppo", "--env", "CartPole-v1", "--env-kwargs", "oops"], "expected NAME=VALUE"),
        (["evaluate", "nowhere"], "is no directory"),
        (["evaluate", "randon", "--env", "palaestra/Kuhn-v0"], "expected one of its reference"),
        (["resume", "nowhere"], "holds no run.json"),
        (["envs", "palaestra/Khun-v0"], "did you mean 'palaestra/Kuhn-v0'"),
        (["agents", "sax"], "did you mean 'sac'"),
    ],
)
def test_mistakes_are_explained(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        status = cli.main(arguments)
    except SystemExit as end:
        status = int(end.code or 0)
    assert status == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_presets_are_defaults_of_the_command_line() -> None:
    options, config = parse(["--agent", "sac", "--env", "Pendulum-v1", "--gamma", "0.9"])
    assert options.total_timesteps == 100_000
    assert config is not None
    assert (config.learning_rate, config.gamma) == (1e-3, 0.9)


def test_without_preset_the_defaults_of_the_class_hold(tmp_path: Path) -> None:
    command = ["train", "--agent", "sac", "--env", "Pendulum-v1", "--total-timesteps", "5", "--no-preset"]
    assert cli.main([*command, "--name", str(tmp_path / "run"), "--no-progress", "--no-tensorboard"]) == 0
    assert palaestra.load(tmp_path / "run").config.learning_rate == 3e-4


def test_assignments() -> None:
    assert parse_assignments(["a=2", "b=2.5", "c=text", "d=(1, 2)"]) == {"a": 2, "b": 2.5, "c": "text", "d": (1, 2)}
    with pytest.raises(ValueError, match="expected NAME=VALUE"):
        parse_assignments(["oops"])
