"""Several runs of one command that differ in nothing but the seed: how they are named, and what their folder holds.

A folder holds `seeds.json` (the seeds and what their runs share), an ordinary run directory `seed-N` for every seed,
and, where seeds are trained in processes, `seed-N.log` with what that seed's process printed.
"""

from __future__ import annotations

import ast
import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from palaestra.agents.training.checkpoint import CheckpointStore
from palaestra.agents.training.logging import read_metrics
from palaestra.agents.training.run import Run, RunConfig, new_agent

SEEDS_FILE = "seeds.json"


def parse_seeds(text: str) -> tuple[int, ...]:
    """Return the seeds that a text such as "0..7", "0,3,5" or "0..3,7" names; ranges hold both of their ends.

    Raises:
        ValueError: If it is anything else, a range runs backwards, or a seed is named twice.
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:\.\.(\d+))?\s*", part)
        if match is None:
            raise ValueError(f"seeds: {part!r} in {text!r}; expected numbers and ranges, e.g. 0..7 or 0..3,7")
        first = int(match[1])
        last = first if match[2] is None else int(match[2])
        if last < first:
            raise ValueError(f"seeds: {part!r} runs backwards; expected {last}..{first}")
        seeds += range(first, last + 1)
    twice = sorted(seed for seed, count in Counter(seeds).items() if count > 1)
    if twice:
        raise ValueError(f"seeds: {text!r} names {', '.join(map(str, twice))} twice; expected every seed once")
    return tuple(seeds)


@dataclass(frozen=True)
class SeedResult:
    """Where the run of one seed stands.

    Attributes:
        seed: Its seed.
        step: Env steps of its newest checkpoint; None where it was never started.
        evaluated_at: Env step of its latest evaluation, if there was one.
        measures: What that evaluation measured, by name: "evaluation", and "gap" where the world knows its optimum.
    """

    seed: int
    step: int | None
    evaluated_at: int | None
    measures: dict[str, float]


@dataclass(frozen=True)
class SeedGroup:
    """The runs of several seeds in one folder.

    Attributes:
        directory: The folder.
        seeds: Their seeds.
        config: What the runs share; its own seed stands for none of them.
    """

    directory: Path
    seeds: tuple[int, ...]
    config: RunConfig

    @classmethod
    def create(cls, directory: Path, seeds: Sequence[int], config: RunConfig) -> SeedGroup:
        """Make the folder; what is wrong with the agent or the env is found before.

        Raises:
            FileExistsError: If the folder exists and is not empty.
        """
        if directory.exists() and any(directory.iterdir()):
            raise FileExistsError(
                f"folder {directory} exists; expected a new one: give another --name, or continue it with "
                f"`palaestra resume {directory}`"
            )
        new_agent(config).collector.env.close()
        group = cls(directory, tuple(seeds), config)
        directory.mkdir(parents=True, exist_ok=True)
        group.save()
        return group

    @classmethod
    def load(cls, directory: Path) -> SeedGroup:
        """Return the runs of a folder that `create` made."""
        record = json.loads((directory / SEEDS_FILE).read_text(encoding="utf-8"))
        config = RunConfig(**record["run"])
        kwargs = {name: ast.literal_eval(value) for name, value in config.env_kwargs.items()}
        return cls(directory, tuple(record["seeds"]), replace(config, env_kwargs=kwargs))

    def save(self) -> None:
        """Write `seeds.json`."""
        # As Python literals: JSON knows no tuples.
        kwargs = {name: repr(value) for name, value in self.config.env_kwargs.items()}
        record = {"seeds": self.seeds, "run": asdict(replace(self.config, env_kwargs=kwargs))}
        partial = self.directory / f"{SEEDS_FILE}.partial"
        partial.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        os.replace(partial, self.directory / SEEDS_FILE)

    def directory_of(self, seed: int) -> Path:
        """Return the run directory of a seed."""
        return self.directory / f"seed-{seed}"

    def log_of(self, seed: int) -> Path:
        """Return the file with what a seed's process printed."""
        return self.directory / f"seed-{seed}.log"

    def open(self, seed: int) -> Run:
        """Return the run of a seed, new or as its newest checkpoint left it."""
        directory = self.directory_of(seed)
        if (directory / "run.json").is_file():
            return Run.resume(directory, total_timesteps=self.config.total_timesteps)
        return Run.create(directory, replace(self.config, seed=seed))

    def unfinished(self) -> list[int]:
        """Return the seeds whose newest checkpoint is short of the target."""
        steps = {seed: self.result(seed).step for seed in self.seeds}
        return [seed for seed, step in steps.items() if step is None or step < self.config.total_timesteps]

    def result(self, seed: int) -> SeedResult:
        """Return where a seed's run stands, by its checkpoints and its log."""
        directory = self.directory_of(seed)
        steps = CheckpointStore(directory / "checkpoints").steps()
        try:
            rows = read_metrics(directory)
        except FileNotFoundError:
            rows = []
        evaluations = [row for row in rows if "eval/mean_return" in row]
        measures: dict[str, float] = {}
        if evaluations:
            latest = evaluations[-1]
            measures["evaluation"] = latest.get("eval/long_run_reward", latest["eval/mean_return"])
            if "eval/gap" in latest:
                measures["gap"] = latest["eval/gap"]
        return SeedResult(
            seed, steps[-1] if steps else None, evaluations[-1]["step"] if evaluations else None, measures
        )
