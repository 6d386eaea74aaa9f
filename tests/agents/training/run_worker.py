"""Starts or resumes a run in a process of its own, to be killed by the tests."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from palaestra.agents.training.run import Run, RunConfig


def main(directory: Path, config: RunConfig) -> None:
    """Train to the end, telling when training begins."""
    torch.set_num_threads(1)
    run = Run.resume(directory) if (directory / "run.json").exists() else Run.create(directory, config)
    print("training", flush=True)
    run.train()


if __name__ == "__main__":
    main(Path(sys.argv[1]), RunConfig(**json.loads(sys.argv[2])))
