"""Training the runs of several seeds: each in a process of its own, or all as one batch on one device."""

from __future__ import annotations

import json
import signal
import traceback
from collections.abc import Mapping
from functools import partial
from itertools import groupby
from typing import Any, Literal

import torch

from palaestra.agents.training.together import train_together
from palaestra.scripts.options import console
from palaestra.scripts.parallel import Job, Watcher, run_jobs
from palaestra.scripts.seed_board import Board, Telling, print_summary
from palaestra.scripts.seeds import SeedGroup

Vectorise = Literal["auto", "yes", "no"]
NOT_FAILED = (0, 130, -signal.SIGTERM)
"""Exit statuses of runs that are done, interrupted and saved, or were stopped before they began."""


def train_seeds(group: SeedGroup, vectorise: Vectorise, jobs: int, *, progress: bool, profile: bool) -> int:
    """Train the unfinished seeds and print how all of them stand.

    Args:
        group: The runs.
        vectorise: Whether they are one batch on one device instead of processes; auto does so on a GPU, for agents
            that can be.
        jobs: Processes at the same time, at least 1.
        progress: Show a line for every seed while it changes.
        profile: Print the time spent in each phase, for processes to their logs.

    Returns:
        The exit status: 0, 1 if a seed failed, 130 if they were interrupted.

    Raises:
        ValueError: If one batch is asked for and the seeds cannot be one.
        TypeError: If one batch is asked for and the agent cannot be vectorised; nothing is trained then.
    """
    together = vectorise == "yes" or (vectorise == "auto" and on_gpu(group.config.device))
    with Board(group, progress=progress) as board:
        try:
            failed = _as_one_batch(group, board, profile) if together else _in_processes(group, board, jobs, profile)
        except TypeError as error:
            if vectorise != "auto":
                raise
            print(f"In processes: {error}")
            failed = _in_processes(group, board, jobs, profile)
    unfinished = set(group.unfinished())
    out = console()
    print_summary(group, failed, unfinished, out)
    last = f"Continue with: palaestra resume {group.directory}" if unfinished else f"done: {group.directory}"
    out.print(last, highlight=False, soft_wrap=True)
    return 1 if failed else 130 if unfinished else 0


def on_gpu(device: str) -> bool:
    """Return whether a device as a run names it is a GPU."""
    return device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())


def _in_processes(group: SeedGroup, board: Board, jobs: int, profile: bool) -> set[int]:
    """Train every seed in a process of its own; return those that failed."""
    arguments = ["-m", "palaestra.scripts.seed_run", "--directory", str(group.directory)]
    arguments += ["--profile"] if profile else []
    seeds = {f"seed {seed}": seed for seed in group.unfinished()}
    queue = [
        Job(name, (*arguments, "--seed", str(seed)), group.log_of(seed), reports=True) for name, seed in seeds.items()
    ]
    listener = _Listener(board, seeds)
    run_jobs(queue, jobs, group.config.threads, listener)
    return listener.failed


class _Listener(Watcher):
    """Passes on to a board what the processes of seeds report."""

    def __init__(self, board: Board, seeds: Mapping[str, int]) -> None:
        self.board, self.seeds = board, seeds
        self.reasons: dict[str, str] = {}
        self.failed: set[int] = set()

    def started(self, job: Job) -> None:
        self.board.start(self.seeds[job.name])

    def reported(self, job: Job, line: str) -> None:
        report: dict[str, Any] = json.loads(line)
        if "failed" in report:
            self.reasons[job.name] = report["failed"]
        else:
            self.board.move(self.seeds[job.name], report["step"], report["evaluation"])

    def ended(self, job: Job, status: int) -> None:
        seed = self.seeds[job.name]
        if status in NOT_FAILED:
            self.board.end(seed, "interrupted" if status else "done")
            return
        self.failed.add(seed)
        end_of_log = "\n".join(job.log.read_text(errors="replace").splitlines()[-20:])
        self.board.end(seed, "failed", self.reasons.get(job.name) or f"status {status}; {job.log} ends:\n{end_of_log}")


def _as_one_batch(group: SeedGroup, board: Board, profile: bool) -> set[int]:
    """Train all seeds in this process, those that stand at the same step together; return those that failed."""
    torch.set_num_threads(group.config.threads)
    runs = {seed: group.open(seed) for seed in group.unfinished()}
    failed: set[int] = set()

    def step_of(seed: int) -> int:
        return runs[seed].agent.num_timesteps

    for _, party in groupby(sorted(runs, key=step_of), key=step_of):
        seeds, interrupted = list(party), False
        for seed in seeds:
            board.start(seed)
        watchers = [Telling(runs[seed], partial(_move, board, seed)) for seed in seeds]
        for seed, error in zip(seeds, train_together([runs[seed] for seed in seeds], watchers), strict=True):
            agent = runs[seed].agent
            if error is not None:
                failed.add(seed)
                board.end(seed, "failed", "".join(traceback.format_exception(error)))
            elif agent.num_timesteps < agent.target_timesteps:
                interrupted = True
                board.end(seed, "interrupted")
            else:
                board.end(seed, "done")
            if profile:
                print(f"seed {seed}", *agent.profiler.lines(), sep="\n")
        if interrupted:
            break
    return failed


def _move(board: Board, seed: int, step: int, evaluation: float | None) -> bool:
    board.move(seed, step, evaluation)
    return True
