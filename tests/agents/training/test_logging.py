"""The log survives kills and full disks in whole lines, and a resumed run's log equals that of a run never killed."""

from __future__ import annotations

import csv
import errno
import itertools
import json
import math
import os
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.summary.writer import event_file_writer

from palaestra.agents.training.logging import RunLogger, is_time_column, read_metrics


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 12.5)
    # Files of events begun in one second are read in the order of a count, as text: 10 would come before 9.
    count = itertools.count(1000)
    monkeypatch.setattr(event_file_writer._global_uid, "get", lambda: next(count))


def rows_of_a_run() -> Iterator[tuple[int, dict[str, Any]]]:
    """Columns come, go and come back; values need all their digits."""
    for i in range(12):
        metrics: dict[str, Any] = {"train/loss": math.sin(i) / 3, "time/steps_per_second": 100.0}
        if i % 3 == 1:
            metrics["eval/mean_return"] = -(0.1**i)
        if i >= 8:
            metrics["a/late"] = i
        yield 10 * i, metrics


def table(directory: Path) -> list[dict[str, str]]:
    with open(directory / "progress.csv", newline="") as file:
        return list(csv.DictReader(file))


def scalars(directory: Path, tag: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_rows_come_back_from_all_three_files(tmp_path: Path) -> None:
    with RunLogger(tmp_path / "run") as log:
        for step, metrics in rows_of_a_run():
            log.log(step, metrics)
    expected = [{"step": step, "time": 12.5, **metrics} for step, metrics in rows_of_a_run()]
    assert read_metrics(tmp_path / "run") == expected
    assert [list(row) for row in read_metrics(tmp_path / "run")] == [
        ["step", "time", *sorted(metrics)] for _, metrics in rows_of_a_run()
    ]
    columns = ["step", "time", "time/steps_per_second", "train/loss", "eval/mean_return", "a/late"]
    assert [list(row) for row in table(tmp_path / "run")] == [columns] * 12
    assert [{name: float(cell) for name, cell in row.items() if cell} for row in table(tmp_path / "run")] == expected
    assert scalars(tmp_path / "run", "a/late") == [(80, 8.0), (90, 9.0), (100, 10.0), (110, 11.0)]


def test_numbers_of_every_kind_are_taken_and_others_refused(tmp_path: Path) -> None:
    log = RunLogger(tmp_path, tensorboard=False)
    log.log(np.int64(3), {"a": np.float32(0.5), "b": np.int64(7), "c": torch.tensor(2.5), "d": True, "e": 10**20})
    assert read_metrics(tmp_path) == [{"step": 3, "time": 12.5, "a": 0.5, "b": 7, "c": 2.5, "d": 1, "e": 10**20}]
    for value in (None, "high", [1.0, 2.0], torch.zeros(2)):
        with pytest.raises(TypeError, match=r"log: metric 'x' is .*; expected a number"):
            log.log(4, {"x": value})
    for name in ("step", "time"):
        with pytest.raises(ValueError, match=f"metric '{name}' has a reserved name"):
            log.log(4, {name: 1.0})
    assert len(read_metrics(tmp_path)) == 1


def test_values_that_json_lacks_are_strings_in_valid_json(tmp_path: Path) -> None:
    with RunLogger(tmp_path) as log:
        log.log(0, {"nan": math.nan, "up": math.inf, "down": -math.inf})

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    line = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=refuse)
    assert {name: line[name] for name in ("nan", "up", "down")} == {"nan": "nan", "up": "inf", "down": "-inf"}
    row = read_metrics(tmp_path)[0]
    assert math.isnan(row["nan"])
    assert (row["up"], row["down"]) == (math.inf, -math.inf)
    assert float(table(tmp_path)[0]["down"]) == -math.inf


@pytest.mark.parametrize("saved_at", [0, 1, 5, 8, 12])
@pytest.mark.parametrize("lost", [0, 3, 12])
def test_a_resumed_log_equals_one_that_was_never_cut(tmp_path: Path, saved_at: int, lost: int) -> None:
    rows = list(rows_of_a_run())
    with RunLogger(tmp_path / "whole") as log:
        for step, metrics in rows:
            log.log(step, metrics)
    killed = RunLogger(tmp_path / "cut")
    for step, metrics in rows[:saved_at]:
        killed.log(step, metrics)
    state = json.loads(json.dumps(killed.state_dict()))
    for step, metrics in rows[saved_at : saved_at + lost]:
        killed.log(step, {**metrics, "only/before": -1.0})
    with open(tmp_path / "cut" / "metrics.jsonl", "ab") if saved_at + lost else open(os.devnull, "ab") as file:
        file.write(b'{"step": 99, "ti')
    killed.close()
    with RunLogger(tmp_path / "cut") as resumed:
        resumed.load_state_dict(state)
        for step, metrics in rows[saved_at:]:
            resumed.log(step, metrics)
    for name in ("metrics.jsonl", "progress.csv"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    for tag in ("train/loss", "eval/mean_return", "a/late"):
        assert scalars(tmp_path / "cut", tag) == scalars(tmp_path / "whole", tag)


def test_a_log_is_continued_without_its_torn_last_line(tmp_path: Path) -> None:
    with RunLogger(tmp_path, tensorboard=False) as log:
        log.log(1, {"a": 1.0})
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(b'{"step": 2, "time": 3.0, "a"')
    assert [row["step"] for row in read_metrics(tmp_path)] == [1]
    with RunLogger(tmp_path, tensorboard=False) as log:
        log.log(3, {"a": 2.0})
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 3]
    assert [row["step"] for row in table(tmp_path)] == ["1", "3"]


def test_a_log_shorter_than_at_the_checkpoint_goes_on_with_a_warning(tmp_path: Path) -> None:
    log = RunLogger(tmp_path, tensorboard=False)
    log.log(1, {"a": 1.0})
    log.log(2, {"a": 1.0})
    state = log.state_dict()
    log.close()
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "time": 1.0}\n{"step"')
    with pytest.warns(
        UserWarning, match=rf"metrics.jsonl holds 25 bytes of whole lines; expected the {state['bytes']}"
    ):
        log.load_state_dict(state)
    log.log(3, {"a": 1.0})
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 3]


def test_nothing_is_created_before_the_first_row(tmp_path: Path) -> None:
    log = RunLogger(tmp_path / "run")
    state = log.state_dict()
    log.load_state_dict(state)
    log.close()
    assert not (tmp_path / "run").exists()
    with pytest.raises(FileNotFoundError, match=r"metrics\.jsonl"):
        read_metrics(tmp_path / "run")


def test_a_killed_process_loses_no_row_it_had_logged(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        log = RunLogger(tmp_path, tensorboard=False)
        for step in range(200):
            log.log(step, {"a": 0.1 * step, **({"b": 1.0} if step == 100 else {})})
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert [row["step"] for row in read_metrics(tmp_path)] == list(range(200))
    assert [row["a"] for row in table(tmp_path)] == [repr(0.1 * step) for step in range(200)]


def check_usable(log: RunLogger, directory: Path, before: bytes) -> None:
    assert (directory / "metrics.jsonl").read_bytes() == before
    log.log(21, {"a": 2.0})
    assert [row["step"] for row in read_metrics(directory)] == [*range(20), 21]
    assert [list(row) for row in table(directory)] == [["step", "time", "a"]] * 21
    assert [row["step"] for row in table(directory)] == [str(step) for step in [*range(20), 21]]


@pytest.fixture
def log_of_20(tmp_path: Path) -> RunLogger:
    log = RunLogger(tmp_path, tensorboard=False)
    for step in range(20):
        log.log(step, {"a": 1.0})
    return log


def test_a_disk_full_in_the_middle_of_a_line_leaves_whole_rows(tmp_path: Path, log_of_20: RunLogger) -> None:
    before = (tmp_path / "metrics.jsonl").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The kernel lets files grow by these few bytes alone, as on a disk that is filling up.
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
    try:
        with pytest.raises(OSError, match=rf"File too large: '{tmp_path}/metrics\.jsonl'"):
            log_of_20.log(20, {"a": 1.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    check_usable(log_of_20, tmp_path, before)


def test_a_disk_full_while_the_table_grows_a_column_leaves_whole_rows(
    tmp_path: Path, log_of_20: RunLogger, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (tmp_path / "metrics.jsonl").read_bytes()

    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OSError, match=rf"No space left on device: '{tmp_path}/progress\.csv'"):
            log_of_20.log(20, {"a": 1.0, "b": 1.0})
    check_usable(log_of_20, tmp_path, before)


def test_damage_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\nnonsense\n{"step": 2}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl: line 2 is not JSON"):
        read_metrics(tmp_path)
    path.write_text('{"step": 1}\n[1]\n')
    with pytest.raises(ValueError, match=r"line 2 is .*; expected an object with a 'step'"):
        read_metrics(tmp_path)


def test_time_columns_are_those_of_the_clock() -> None:
    names = ["step", "time", "time/fps", "timely", "train/time"]
    assert [name for name in names if is_time_column(name)] == ["time", "time/fps"]
