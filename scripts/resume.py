"""`palaestra resume`: go on with a run that was interrupted or killed."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from palaestra.agents.training.checkpoint import CheckpointError
from palaestra.agents.training.run import Run
from palaestra.scripts.seed_training import Vectorise, train_seeds
from palaestra.scripts.seeds import SEEDS_FILE, SeedGroup
from palaestra.scripts.train import processes, set_threads, train


@dataclass(frozen=True)
class ResumeOptions:
    """Continue a run from its newest checkpoint.

    On the same machine with the same versions and thread count, it ends with the same parameters, replay and logs as
    if it had never been stopped.
    """

    directory: Annotated[Path, tyro.conf.Positional]
    """The run's directory; of several seeds, all unfinished ones go on."""
    total_timesteps: int | None = None
    """A new target in env steps, to train for longer."""
    step: int | None = None
    """Go on from the checkpoint of this step instead of the newest."""
    threads: int = 0
    """Threads of torch; 0 for as many as the run began with, which equality bit for bit needs."""
    jobs: int = 0
    """Of several seeds: processes at the same time; 0 takes one per core."""
    vectorise_seeds: Vectorise = "auto"
    """Of several seeds: make their updates at once, in one process; auto does so on a GPU."""
    progress: bool = True
    """Show a progress bar."""
    profile: bool = False
    """Print the time spent in each phase at the end."""


def main(arguments: list[str]) -> int:
    """Parse the command line, resume, and return the exit status."""
    options = tyro.cli(ResumeOptions, prog="palaestra resume", args=arguments)
    try:
        if (options.directory / SEEDS_FILE).is_file():
            return resume_seeds(options)
        run = Run.resume(options.directory, total_timesteps=options.total_timesteps, step=options.step)
    except (CheckpointError, OSError, TypeError, ValueError) as error:
        print(f"palaestra resume: {error}", file=sys.stderr)
        return 2
    set_threads(options.threads or run.config.threads, run.agent.config)
    if run.agent.num_timesteps >= run.agent.target_timesteps:
        print(f"{options.directory} is done: {run.agent.num_timesteps} steps. Train longer with --total-timesteps N")
        return 0
    return train(run, progress=options.progress, profile=options.profile)


def resume_seeds(options: ResumeOptions) -> int:
    """Go on with all unfinished seeds of a folder; return the exit status.

    Raises:
        ValueError: If a step is asked for, which only a single run has.
    """
    if options.step is not None:
        raise ValueError(
            f"step={options.step}; expected none for several seeds: resume one, {options.directory}/seed-N"
        )
    group = SeedGroup.load(options.directory)
    target = options.total_timesteps or group.config.total_timesteps
    threads = options.threads or group.config.threads
    group = replace(group, config=replace(group.config, total_timesteps=target, threads=threads))
    if not group.unfinished():
        print(f"{options.directory} is done: {len(group.seeds)} seeds. Train longer with --total-timesteps N")
        return 0
    group.save()
    jobs = processes(options.jobs)
    return train_seeds(group, options.vectorise_seeds, jobs, progress=options.progress, profile=options.profile)
