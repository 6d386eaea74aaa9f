"""Programs run side by side: how many at a time, what they say, how they end, how they are stopped together."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from palaestra.scripts.parallel import Job, Watcher, run_jobs


class Diary(Watcher):
    """Writes down everything that happens; knows how many jobs ran at the same time."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.running = self.most = 0

    def started(self, job: Job) -> None:
        self.running += 1
        self.most = max(self.most, self.running)

    def reported(self, job: Job, line: str) -> None:
        self.lines.append(f"{job.name}: {line}")

    def ended(self, job: Job, status: int) -> None:
        self.running -= 1
        self.lines.append(f"{job.name} ended with {status}")


def job(folder: Path, name: str, code: str, reports: bool = True) -> Job:
    return Job(name, ("-c", code), folder / "logs" / f"{name}.log", reports)


def test_jobs_report_end_and_leave_logs(tmp_path: Path) -> None:
    diary = Diary()
    queue = [
        job(tmp_path, "well", "import sys; print('one'); print('two'); print('aside', file=sys.stderr)"),
        job(tmp_path, "ill", "raise SystemExit(3)"),
        job(tmp_path, "killed", "import os; os.kill(os.getpid(), 9)"),
        job(tmp_path, "quiet", "print('in the log')", reports=False),
    ]
    outcome = run_jobs(queue, 2, watcher=diary)
    assert outcome.statuses == {"well": 0, "ill": 3, "killed": -9, "quiet": 0}
    assert not outcome.interrupted
    # A job's end is told after its last line.
    assert [line for line in diary.lines if "well" in line] == ["well: one", "well: two", "well ended with 0"]
    assert (tmp_path / "logs/well.log").read_text() == "aside\n"
    assert (tmp_path / "logs/quiet.log").read_text() == "in the log\n"


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_no_more_than_asked_for_run_together(jobs: int, tmp_path: Path) -> None:
    diary = Diary()
    outcome = run_jobs([job(tmp_path, str(n), "") for n in range(4)], jobs, watcher=diary)
    assert len(outcome.statuses) == 4
    assert diary.most == min(jobs, 4)


def test_every_process_takes_so_many_threads(tmp_path: Path) -> None:
    diary = Diary()
    code = "import os; print(*(os.environ[f'{name}_NUM_THREADS'] for name in ('OMP', 'MKL', 'OPENBLAS')))"
    run_jobs([job(tmp_path, "a", code)], 1, threads=3, watcher=diary)
    assert diary.lines[0] == "a: 3 3 3"


def test_mistakes_are_explained(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="jobs=0"):
        run_jobs([], 0)
    with pytest.raises(ValueError, match="threads=0"):
        run_jobs([], 1, threads=0)
    with pytest.raises(ValueError, match=r"\['a', 'a'\]; expected them to differ"):
        run_jobs([job(tmp_path, "a", ""), job(tmp_path, "a", "")], 1)


class Interrupter(Diary):
    """Sends this process a signal when the first job says that it is ready."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def reported(self, job: Job, line: str) -> None:
        super().reported(job, line)
        if line == "ready":
            signal.raise_signal(self.number)


SAVES = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_reaches_every_job_once_and_starts_no_more(number: int, tmp_path: Path) -> None:
    # Started by nohup, the tests themselves would ignore a closed terminal, and so would the jobs' keeper.
    found = signal.signal(number, signal.SIG_DFL)
    try:
        diary = Interrupter(number)
        queue = [job(tmp_path, "first", SAVES), job(tmp_path, "never", SAVES)]
        outcome = run_jobs(queue, 1, watcher=diary)
        assert outcome.interrupted
        assert outcome.statuses == {"first": 130}
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, found)


def test_what_outlives_its_terminal_goes_on(tmp_path: Path) -> None:
    found = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        outcome = run_jobs([job(tmp_path, "a", "print('ready')")], 1, watcher=Interrupter(signal.SIGHUP))
    finally:
        signal.signal(signal.SIGHUP, found)
    assert not outcome.interrupted
    assert outcome.statuses == {"a": 0}


def test_a_job_does_not_hear_the_terminal(tmp_path: Path) -> None:
    """Ctrl-C goes to the whole group of a terminal's foreground process; jobs are in groups of their own."""
    diary = Diary()
    run_jobs([job(tmp_path, "a", "import os; print(os.getpgrp())")], 1, watcher=diary)
    alone = subprocess.run([sys.executable, "-c", "import os; print(os.getpgrp())"], capture_output=True, text=True)
    assert diary.lines[0] != f"a: {alone.stdout.strip()}"


def test_a_watcher_that_fails_leaves_no_job_behind(tmp_path: Path) -> None:
    class Failing(Watcher):
        def reported(self, job: Job, line: str) -> None:
            raise KeyError(line)

    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    with pytest.raises(KeyError) as caught:
        run_jobs([job(tmp_path, "a", code)], 1, watcher=Failing())
    assert not Path(f"/proc/{caught.value.args[0]}").exists()
