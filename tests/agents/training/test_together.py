"""Runs trained as one batch: ordinary run directories, equal to those of single runs up to rounding."""

from __future__ import annotations

import math
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import palaestra
from palaestra.agents.agent import Agent
from palaestra.agents.training.callbacks import FunctionCallback
from palaestra.agents.training.logging import is_time_column, read_metrics
from palaestra.agents.training.many_seeds import SeedBatch
from palaestra.agents.training.metrics import NonFiniteError
from palaestra.agents.training.run import Run, RunConfig
from palaestra.agents.training.together import POLL_SECONDS, train_together
from palaestra.agents.training.tree import first_difference
from tests.agents.training.test_kill import outcome
from tests.agents.training.test_many_seeds import assert_equal_up_to_rounding

COMMON: dict[str, Any] = {"log_freq": 40, "eval_freq": 60, "eval_episodes": 2, "tensorboard": False, "preset": False}
CONFIGS = {
    "sac": RunConfig(
        "sac",
        "palaestra/MultiGoal2D-v0",
        120,
        config={"hidden": [16, 16], "learning_starts": 40, "batch_size": 16, "buffer_size": 90, "num_envs": 2},
        **COMMON,
    ),
    "td3": RunConfig(
        "td3",
        "Pendulum-v1",
        110,
        config={"hidden": [16, 16], "learning_starts": 50, "batch_size": 16, "train_freq": 7, "gradient_steps": 3},
        **COMMON,
    ),
    "ppo": RunConfig(
        "ppo",
        "CartPole-v1",
        192,
        config={"hidden": [16, 16], "n_steps": 32, "num_envs": 2, "batch_size": 16, "n_epochs": 2},
        **COMMON,
    ),
}
SEEDS = (3, 0, 1)


def create(case: str, folder: Path, **changes: Any) -> list[Run]:
    runs = [Run.create(folder / str(seed), replace(CONFIGS[case], seed=seed, **changes)) for seed in SEEDS]
    return [by_autograd(run) for run in runs]


def by_autograd(run: Run) -> Run:
    agent: Any = run.agent
    if hasattr(agent, "backpropagate"):
        agent.gradient = agent.backpropagate
    return run


def assert_same_logs(ours: Path, theirs: Path) -> None:
    rows, others = read_metrics(ours), read_metrics(theirs)
    assert len(rows) > 2
    assert any("eval/mean_return" in row for row in rows)
    for row, other in zip(rows, others, strict=True):
        assert row.keys() == other.keys()
        for name in row.keys() - {name for name in row if is_time_column(name)}:
            # The share of clipped ratios jumps where a ratio lies at the bound.
            assert math.isclose(row[name], other[name], rel_tol=1e-3, abs_tol=1e-3), name


@pytest.mark.parametrize("case", CONFIGS)
def test_each_run_equals_its_single_run(case: str, tmp_path: Path) -> None:
    singles, many = create(case, tmp_path / "single"), create(case, tmp_path / "many")
    for run in singles:
        run.train()
    assert train_together(many) == [None] * 3
    for single, run in zip(singles, many, strict=True):
        assert run.agent.num_updates == single.agent.num_updates > 10
        assert run.store.steps() == single.store.steps()
        assert_equal_up_to_rounding(single.agent, run.agent)
        assert_same_logs(run.directory, single.directory)
        observation = run.agent.collector.observation
        actions = [
            agent.predict(observation, deterministic=True)[0] for agent in (palaestra.load(run.directory), run.agent)
        ]
        assert first_difference(*actions) is None


def interrupt_at(step: int) -> FunctionCallback:
    """Press Ctrl-C after a step, and wait until it has been heard; the others wait for the next update meanwhile."""

    def press(agent: Agent) -> None:
        if agent.num_timesteps == step:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5 * POLL_SECONDS)

    return FunctionCallback(press)


def test_ctrl_c_stops_all_after_the_same_step_and_they_go_on_exactly(tmp_path: Path) -> None:
    whole, stopped = create("sac", tmp_path / "whole"), create("sac", tmp_path / "stopped")
    train_together(whole)
    before = signal.getsignal(signal.SIGINT)
    assert train_together(stopped, [interrupt_at(70), FunctionCallback(lambda agent: None)]) == [None] * 3
    assert signal.getsignal(signal.SIGINT) == before
    assert [run.store.steps()[-1] for run in stopped] == [72] * 3
    resumed = [by_autograd(Run.resume(run.directory)) for run in stopped]
    assert train_together(resumed) == [None] * 3
    for run, again in zip(whole, resumed, strict=True):
        assert first_difference(outcome(run.directory), outcome(again.directory)) is None


def test_a_run_that_fails_leaves_the_others_to_go_on(tmp_path: Path) -> None:
    def fail(agent: Agent) -> None:
        if agent.num_timesteps == 80:
            raise RuntimeError("this one broke")

    singles, many = create("sac", tmp_path / "single"), create("sac", tmp_path / "many")
    nothing = FunctionCallback(lambda agent: None)
    first, failed, last = train_together(many, [nothing, FunctionCallback(fail), nothing])
    assert first is None
    assert last is None
    assert isinstance(failed, RuntimeError)
    assert str(failed) == "this one broke"
    assert [run.agent.num_timesteps for run in many] == [120, 80, 120]
    for index in (0, 2):
        singles[index].train()
        assert_equal_up_to_rounding(singles[index].agent, many[index].agent)
    # Nothing of the meeting stays with an agent.
    assert all("update" not in vars(run.agent) and "unsaved" not in vars(run.agent) for run in many)


def test_a_loss_that_is_not_finite_stops_its_own_run_alone(tmp_path: Path) -> None:
    def poison(agent: Any) -> None:
        if agent.num_timesteps == 80:
            next(agent.critics.parameters()).data.fill_(math.nan)

    many = create("sac", tmp_path)
    nothing = FunctionCallback(lambda agent: None)
    errors = train_together(many, [nothing, nothing, FunctionCallback(poison)])
    assert errors[:2] == [None, None]
    assert isinstance(errors[2], NonFiniteError)
    assert [run.agent.num_timesteps for run in many] == [120, 120, 82]


def test_an_update_that_fails_fails_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(batch: SeedBatch, *arguments: Any) -> None:
        raise ValueError("no memory")

    many = create("sac", tmp_path)
    monkeypatch.setattr(SeedBatch, "update_stacked", broken)
    errors = train_together(many)
    assert [str(error) for error in errors] == ["the update of all seeds failed: no memory"] * 3
    assert all(isinstance(error.__cause__, ValueError) for error in errors if error is not None)


def test_runs_that_cannot_be_one_batch_are_refused_before_training(tmp_path: Path) -> None:
    runs = [Run.create(tmp_path / str(seed), replace(CONFIGS["ppo"], seed=seed)) for seed in SEEDS]
    with pytest.raises(TypeError, match="works on one seed at a time"):
        train_together(runs)
    assert all(run.agent.num_timesteps == 0 for run in runs)
