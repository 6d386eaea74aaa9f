"""Python programs run side by side, each in a process of few threads: started, watched and stopped together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PALAESTRA_PHYSICS_THREADS")
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Job:
    """A program to run.

    Attributes:
        name: What people know it by.
        arguments: What follows the interpreter on its command line.
        log: File of its output; an older one is replaced.
        reports: Whether its standard output is meant for the watcher, line by line; if not, it goes to the log too.
    """

    name: str
    arguments: tuple[str, ...]
    log: Path
    reports: bool = False


class Watcher:
    """Is told what becomes of the jobs; this one takes no notice."""

    def started(self, job: Job) -> None:
        """Hear that a job has started."""

    def reported(self, job: Job, line: str) -> None:
        """Hear a line of a job that reports."""

    def ended(self, job: Job, status: int) -> None:
        """Hear that a job has ended: its exit status, or minus the number of the signal that killed it."""


@dataclass(frozen=True)
class Outcome:
    """How jobs ended.

    Attributes:
        statuses: Exit status of every job that was started, by name; minus the number of the signal that killed it.
        interrupted: Whether a signal stopped them; jobs without a status were then never started.
    """

    statuses: dict[str, int]
    interrupted: bool


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_jobs(queue: Sequence[Job], jobs: int, threads: int = 1, watcher: Watcher | None = None) -> Outcome:
    """Run jobs, so many at a time, and return how they ended.

    Ctrl-C, a request to terminate and a closed terminal are passed on to the running jobs as SIGTERM; no more are
    started then, and those that save before they go are waited for. A job hears of Ctrl-C from here alone, never from
    the terminal, so that one keystroke counts once.

    Args:
        queue: What to run, in this order; names differ.
        jobs: Processes at the same time, at least 1.
        threads: Threads that numerical libraries take in each process, at least 1.
        watcher: Whom to tell.

    Raises:
        ValueError: If `jobs` or `threads` is below 1, or two jobs share a name.
    """
    if jobs < 1 or threads < 1:
        raise ValueError(f"run_jobs: jobs={jobs}, threads={threads}; expected at least 1 of each")
    if len({job.name for job in queue}) < len(queue):
        raise ValueError(f"run_jobs: names {[job.name for job in queue]}; expected them to differ")
    return _Pool(jobs, threads, watcher or Watcher()).run(queue)


@dataclass
class _Pool:
    jobs: int
    threads: int
    watcher: Watcher
    running: dict[Job, _Running] = field(default_factory=dict)
    lines: SimpleQueue[tuple[Job, str]] = field(default_factory=SimpleQueue)

    def run(self, queue: Sequence[Job]) -> Outcome:
        waiting, statuses, forwarded = deque(queue), dict[str, int](), 0
        with _interruptions() as received:
            try:
                while self.running or (waiting and not received):
                    while waiting and len(self.running) < self.jobs and not received:
                        self._start(waiting.popleft())
                    self._deliver(POLL_SECONDS)
                    if forwarded < len(received):
                        forwarded = len(received)
                        for running in self.running.values():
                            # Not SIGINT, which the children of a shell script's background jobs ignore.
                            running.process.terminate()
                    for job, running in list(self.running.items()):
                        status = running.process.poll()
                        if status is not None:
                            self._finish(job)
                            statuses[job.name] = status
                            self.watcher.ended(job, status)
            finally:
                for running in self.running.values():
                    running.process.kill()
                    running.process.wait()
        return Outcome(statuses, bool(received))

    def _start(self, job: Job) -> None:
        environment = {**os.environ, **{name: str(self.threads) for name in THREAD_VARIABLES}}
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, *job.arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if job.reports else log,
                stderr=subprocess.STDOUT if not job.reports else log,
                env=environment,
                start_new_session=True,
            )
        reader = None
        if job.reports:
            reader = threading.Thread(target=self._read, args=(job, process), daemon=True)
            reader.start()
        self.running[job] = _Running(process, reader)
        self.watcher.started(job)

    def _read(self, job: Job, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                self.lines.put((job, line.decode(errors="replace").rstrip("\n")))

    def _deliver(self, seconds: float) -> None:
        """Pass on the lines that are there, after waiting for the first so long."""
        try:
            self.watcher.reported(*self.lines.get(timeout=seconds))
            while True:
                self.watcher.reported(*self.lines.get_nowait())
        except Empty:
            return

    def _finish(self, job: Job) -> None:
        reader = self.running.pop(job).reader
        if reader is not None:
            # Not for ever: a process that the job left behind may hold its output open.
            reader.join(timeout=1.0)
            self._deliver(0.0)


@dataclass(frozen=True)
class _Running:
    process: subprocess.Popen[bytes]
    reader: threading.Thread | None


@contextmanager
def _interruptions() -> Iterator[list[int]]:
    """Collect the signals that ask this process to stop, where this is its main thread."""
    received: list[int] = []
    previous: dict[signal.Signals, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)

    if threading.current_thread() is threading.main_thread():
        wanted = [signal.SIGINT, signal.SIGTERM]
        # What was started to outlive its terminal (nohup) goes on doing so.
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            wanted.append(signal.SIGHUP)
        previous = {number: signal.signal(number, note) for number in wanted}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
