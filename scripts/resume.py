"""`palaestra resume`: go on with a run that was interrupted or killed."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from palaestra.agents.training.checkpoint import CheckpointError
from palaestra.agents.training.run import Run
from palaestra.scripts.train import set_threads, train


@dataclass(frozen=True)
class ResumeOptions:
    """Continue a run from its newest checkpoint.

    On the same machine with the same versions and thread count, it ends with the same parameters, replay and logs as
    if it had never been stopped.
    """

    directory: Annotated[Path, tyro.conf.Positional]
    """The run's directory."""
    total_timesteps: int | None = None
    """A new target in env steps, to train for longer."""
    step: int | None = None
    """Go on from the checkpoint of this step instead of the newest."""
    threads: int = 0
    """Threads of torch; 0 for as many as the run began with, which equality bit for bit needs."""
    progress: bool = True
    """Show a progress bar."""
    profile: bool = False
    """Print the time spent in each phase at the end."""


def main(arguments: list[str]) -> int:
    """Parse the command line, resume, and return the exit status."""
    options = tyro.cli(ResumeOptions, prog="palaestra resume", args=arguments)
    try:
        run = Run.resume(options.directory, total_timesteps=options.total_timesteps, step=options.step)
    except (CheckpointError, OSError, ValueError) as error:
        print(f"palaestra resume: {error}", file=sys.stderr)
        return 2
    set_threads(options.threads or run.config.threads, run.agent.config)
    if run.agent.num_timesteps >= run.agent.target_timesteps:
        print(f"{options.directory} is done: {run.agent.num_timesteps} steps. Train longer with --total-timesteps N")
        return 0
    return train(run, progress=options.progress, profile=options.profile)
