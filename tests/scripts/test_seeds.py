"""`--seeds`: every seed equals its single run, failures stay alone, and all of them stop and go on together."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from palaestra import cli
from palaestra.agents.evaluation.statistics import mean_interval
from palaestra.agents.training.checkpoint import CheckpointStore
from palaestra.agents.training.logging import read_metrics
from palaestra.agents.training.run import RunConfig
from palaestra.agents.training.tree import first_difference
from palaestra.scripts import seed_board, seed_run, seed_training
from palaestra.scripts.seed_board import Telling
from palaestra.scripts.seeds import SeedGroup, parse_seeds
from palaestra.seeding import row_seeds
from tests.agents.training.test_kill import outcome

PPO = ["--n-steps", "32", "--batch-size", "32", "--n-epochs", "2", "--num-envs", "2"]
SAC = ["--batch-size", "16", "--learning-starts", "20", "--buffer-size", "300", "--hidden", "130", "130"]
QUIET = ["--no-progress", "--no-tensorboard", "--eval-episodes", "2", "--log-freq", "32"]
CASES = {
    "ppo": ["--agent", "ppo", "--env", "palaestra/Kuhn-v0", "--env-kwargs", "seat=0", *PPO],
    "sac": ["--agent", "sac", "--env", "palaestra/MultiGoal2D-v0", *SAC],
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("3", (3,)), ("0..3", (0, 1, 2, 3)), ("0,3,5", (0, 3, 5)), ("4, 0..2", (4, 0, 1, 2)), ("7..7", (7,))],
)
def test_seeds_are_read(text: str, expected: tuple[int, ...]) -> None:
    assert parse_seeds(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' in ''; expected numbers and ranges"),
        ("1,,2", "'' in '1,,2'"),
        ("a..b", "'a..b' in"),
        ("0...3", "expected numbers"),
        ("0-3", "expected numbers"),
        ("-1", "expected numbers"),
        ("1.5", "expected numbers"),
        ("5..2", "'5..2' runs backwards; expected 2..5"),
        ("0..3,2,0", "names 0, 2 twice"),
    ],
)
def test_what_names_no_seeds_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_seeds(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "0..1", "--seed", "1"], "--seed 1 and --seeds 0..1; expected one of them"),
        (["--seeds", "0,0"], "names 0 twice"),
        (["--seeds", "0..1", "--jobs", "-1"], "jobs=-1"),
        (["--jobs", "2"], "jobs=2; expected none without --seeds"),
        (["--seeds", "0..1", "--env-kwargs", "seat=7"], "seat=7"),
    ],
)
def test_mistakes_are_explained_before_anything_is_made(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        status = cli.main(["train", "--agent", "ppo", "--env", "palaestra/Kuhn-v0", *arguments])
    except SystemExit as end:
        status = int(end.code or 0)
    assert status == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("case", ["ppo", pytest.param("sac", marks=pytest.mark.slow)])
def test_every_seed_equals_its_single_run(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Parameters, optimisers, counters, generators, env, replay and metrics, bit for bit."""
    train = ["train", *CASES[case], *QUIET, "--total-timesteps", "256", "--eval-freq", "128"]
    assert cli.main([*train, "--seeds", "0,3", "--jobs", "2", "--name", str(tmp_path / "many")]) == 0
    output = capsys.readouterr().out
    final = {}
    for seed in (0, 3):
        single = tmp_path / f"single-{seed}"
        assert cli.main([*train, "--seed", str(seed), "--threads", "1", "--name", str(single)]) == 0
        assert first_difference(outcome(single), outcome(tmp_path / f"many/seed-{seed}")) is None
        configs = [json.loads((folder / "run.json").read_text()) for folder in (single, tmp_path / f"many/seed-{seed}")]
        assert configs[0] == configs[1]
        final[seed] = [row["eval/mean_return"] for row in read_metrics(single) if "eval/mean_return" in row][-1]
    assert first_difference(outcome(tmp_path / "many/seed-0"), outcome(tmp_path / "many/seed-3")) is not None
    mean = mean_interval(list(final.values()))
    assert f"evaluation mean {mean.estimate:,.4g} [{mean.low:,.4g}, {mean.high:,.4g}], IQM" in output
    assert "2 of 2 seeds" in output

    # Done as far as asked for; a new target trains both longer.
    assert cli.main(["resume", str(tmp_path / "many")]) == 0
    assert "is done: 2 seeds" in capsys.readouterr().out
    assert cli.main(["resume", str(tmp_path / "many"), "--no-progress", "--total-timesteps", "320"]) == 0
    assert {read_metrics(tmp_path / f"many/seed-{seed}")[-1]["step"] for seed in (0, 3)} == {320}
    assert SeedGroup.load(tmp_path / "many").unfinished() == []
    assert cli.main(["resume", str(tmp_path / "many"), "--step", "64"]) == 2
    assert "step=64; expected none for several seeds" in capsys.readouterr().err
    assert cli.main([*train, "--seeds", "0,3", "--name", str(tmp_path / "many")]) == 2
    assert "expected a new one" in capsys.readouterr().err


def test_seeds_may_be_one_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = ["train", *CASES["sac"], *QUIET, "--total-timesteps", "60", "--eval-freq", "30", "--threads", "1"]
    assert cli.main([*train, "--seeds", "4,1", "--vectorise-seeds", "yes", "--name", str(tmp_path / "many")]) == 0
    output = capsys.readouterr().out
    assert "seed 4: done" in output
    assert "2 of 2 seeds" in output
    assert cli.main([*train, "--seed", "1", "--name", str(tmp_path / "single")]) == 0
    ours, theirs = (
        [row["eval/mean_return"] for row in read_metrics(tmp_path / name) if "eval/mean_return" in row]
        for name in ("many/seed-1", "single")
    )
    assert len(ours) == 2
    assert ours == pytest.approx(theirs, abs=1e-4)


def test_agents_that_cannot_be_one_batch_are_trained_in_processes_where_it_is_left_open(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train = ["train", *CASES["ppo"], *QUIET, "--total-timesteps", "64", "--seeds", "0,1"]
    assert cli.main([*train, "--vectorise-seeds", "yes", "--name", str(tmp_path / "yes")]) == 2
    assert "works on one seed at a time" in capsys.readouterr().err
    monkeypatch.setattr(seed_training, "on_gpu", lambda device: True)
    monkeypatch.setattr(seed_training, "_in_processes", lambda group, *rest: set(group.seeds))
    assert cli.main([*train, "--name", str(tmp_path / "auto")]) == 1
    assert "In processes: SeedBatch: attribute 'gradient' of ppo" in capsys.readouterr().out


FAILING_WORLD = """
import gymnasium as gym

class Picky(gym.Env):
    observation_space = gym.spaces.Box(0.0, 1.0, (2,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self, refused):
        self.refused, self.steps = refused, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.bad = self.np_random_seed == self.refused
        return self.np_random.random(2, "float32"), {}

    def step(self, action):
        self.steps += 1
        if self.bad and self.steps > 40:
            raise RuntimeError("the joint of this one broke")
        return self.np_random.random(2, "float32"), 1.0, False, self.steps % 10 == 0, {}

gym.register("Picky-v0", Picky)
"""


def test_a_seed_that_fails_stays_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "picky_world.py").write_text(FAILING_WORLD)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]))
    refused = row_seeds(1, "train", 1)[0]
    train = ["train", "--agent", "ppo", "--env", "picky_world:Picky-v0", "--env-kwargs", f"refused={refused}"]
    train += ["--n-steps", "16", "--batch-size", "16", "--total-timesteps", "96", *QUIET]
    folder = tmp_path / "many"
    assert cli.main([*train, "--seeds", "1,2", "--jobs", "1", "--name", str(folder)]) == 1
    output = capsys.readouterr().out
    assert "seed 1 failed:" in output
    assert "Traceback" in output
    assert "RuntimeError: the joint of this one broke" in output
    assert "RuntimeError" in (folder / "seed-1.log").read_text()
    assert re.findall(r"^ (\d) +(\w+)", output, re.MULTILINE) == [("1", "failed"), ("2", "done")]
    assert "No evaluation was due" in output
    assert f"palaestra resume {folder}" in output
    # Its newest checkpoint is the one written when it failed, and it is the one to go on with.
    assert CheckpointStore(folder / "seed-1/checkpoints").steps()[-1] == 40
    assert SeedGroup.load(folder).unfinished() == [1]


def start(arguments: list[str], folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "palaestra.cli", *arguments]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_rows(group: Path, numbers: tuple[int, ...], rows: int) -> None:
    deadline = time.monotonic() + 120
    logs = [group / f"seed-{number}" for number in numbers]
    while not all((log / "metrics.jsonl").exists() and len(read_metrics(log)) >= rows for log in logs):
        assert time.monotonic() < deadline
        time.sleep(0.05)


TRAIN = ["train", *CASES["sac"], *QUIET, "--eval-freq", "1000", "--checkpoint-freq", "10000"]


@pytest.mark.slow
def test_ctrl_c_saves_every_seed_and_resume_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    process = start([*TRAIN, "--total-timesteps", "1500", "--seeds", "0..1", "--jobs", "2", "--name", "many"], tmp_path)
    group = tmp_path / "many"
    wait_for_rows(group, (0, 1), 5)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "palaestra resume many" in output
    steps = {seed: CheckpointStore(group / f"seed-{seed}/checkpoints").steps() for seed in range(2)}
    # Saved where they stood: no checkpoint but the first was due.
    assert all(len(found) == 2 and 150 <= found[-1] < 1500 for found in steps.values()), steps
    assert SeedGroup.load(group).unfinished() == [0, 1]

    resumed = start(["resume", "many", "--no-progress", "--jobs", "2"], tmp_path)
    output, errors = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, errors
    assert output.count("started") == output.count(": done") == 2
    single = start([*TRAIN, "--total-timesteps", "1500", "--seed", "1", "--threads", "1", "--name", "single"], tmp_path)
    assert single.wait(timeout=120) == 0
    assert first_difference(outcome(tmp_path / "single"), outcome(group / "seed-1")) is None


def test_a_seed_stops_when_nobody_listens_any_more() -> None:
    class Somewhere:
        class agent:
            num_timesteps = 7

        class evaluation:
            latest = None

    told: list[tuple[int, float | None]] = []
    listened = [True, False]
    telling = Telling(Somewhere(), lambda *where: told.append(where) or listened[len(told) - 1])
    telling.on_start(Somewhere.agent)
    # Too soon to tell again.
    assert telling.on_step(Somewhere.agent) is None
    assert told == [(7, None)]
    telling.told = -np.inf
    assert telling.on_step(Somewhere.agent) is False
    assert told == [(7, None)] * 2


def test_a_report_that_nobody_reads_is_noticed() -> None:
    class Broken(StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    heard = StringIO()
    assert seed_run.report(heard, 3, 0.5)
    assert json.loads(heard.getvalue()) == {"step": 3, "evaluation": 0.5}
    assert not seed_run.report(Broken(), 3, 0.5)


def test_arguments_of_the_env_come_back_as_they_were(tmp_path: Path) -> None:
    kwargs: dict[str, Any] = {"pair": (1, 2), "name": "text", "nothing": None, "share": 0.1}
    group = SeedGroup(tmp_path, (2, 0), RunConfig("ppo", "X-v0", 100, env_kwargs=kwargs))
    group.save()
    assert SeedGroup.load(tmp_path) == group


def test_the_summary_takes_the_latest_evaluation_of_those_that_are_done(tmp_path: Path) -> None:
    values = {0: [1.0, 5.0], 1: [9.0], 2: [2.0, 4.0], 3: []}
    group = SeedGroup(tmp_path, (0, 1, 2, 3), RunConfig("ppo", "X-v0", 20))
    for seed, evaluations in values.items():
        folder = group.directory_of(seed)
        (folder / "checkpoints" / f"step-{20 if seed != 1 else 10:012d}").mkdir(parents=True)
        rows = [{"step": 10 * (i + 1), "time": 0.0, "eval/mean_return": v} for i, v in enumerate(evaluations)]
        rows = [*rows, {"step": 20, "time": 0.0, "train/loss": 1.0}]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert group.unfinished() == [1]
    out = Console(file=StringIO(), width=120)
    seed_board.print_summary(group, {1}, {1}, out)
    text = out.file.getvalue()
    assert re.search(r"0 +done +20 +5 +20", text)
    assert re.search(r"1 +failed +10 +9 +10", text)
    assert re.search(r"3 +done +20 +- +-", text)
    mean = mean_interval([5.0, 4.0])
    assert f"evaluation mean 4.5 [{mean.low:,.4g}, {mean.high:,.4g}], IQM 4.5 [4, 5], 3 of 4 seeds" in text
    assert seed_board.describe([]) == seed_board.describe([1.0, np.inf]) == "has no finite mean"
    assert seed_board.describe([2.0]) == "mean 2"
    assert dataclasses.replace(group, seeds=(3,)).result(3).measures == {}
