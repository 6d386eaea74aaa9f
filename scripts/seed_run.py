"""The run of one seed among several, as `palaestra train --seeds` starts it; it reports to whoever started it."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import torch
import tyro

from palaestra.agents.training.callbacks import FunctionCallback
from palaestra.scripts.seed_board import Telling
from palaestra.scripts.seeds import SeedGroup


def main(directory: Path, seed: int, profile: bool = False) -> int:
    """Train one seed to its target; return 0, 1 if it failed, 130 if it was interrupted and saved.

    Args:
        directory: Folder of the seeds.
        seed: Which of them.
        profile: Print the time spent in each phase at the end.
    """
    asked_to_stop: list[int] = []
    # Until the run itself listens: a directory made halfway could not be gone on with.
    signal.signal(signal.SIGTERM, lambda number, frame: asked_to_stop.append(number))
    channel = take_standard_output()
    try:
        group = SeedGroup.load(directory)
        torch.set_num_threads(group.config.threads)
        run = group.open(seed)
        stop_if_asked = FunctionCallback(lambda agent: False if asked_to_stop else None)
        agent = run.train(watchers=[Telling(run, partial(report, channel)), stop_if_asked])
        if profile:
            print(*agent.profiler.lines(), sep="\n")
        return 0 if agent.num_timesteps >= agent.target_timesteps else 130
    except Exception:
        traceback.print_exc()
        send(channel, {"failed": traceback.format_exc()})
        return 1


def report(channel: TextIO, step: int, evaluation: float | None) -> bool:
    """Report where training stands; return whether someone listens."""
    return send(channel, {"step": step, "evaluation": evaluation})


def send(channel: TextIO, content: dict[str, Any]) -> bool:
    """Write a line of JSON; return False where nobody reads any more."""
    try:
        print(json.dumps(content), file=channel, flush=True)
    except OSError:
        return False
    return True


def take_standard_output() -> TextIO:
    """Return the standard output for reports alone; whatever else is printed, by libraries too, joins the errors."""
    sys.stdout.flush()
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return channel


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
