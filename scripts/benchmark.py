"""`palaestra benchmark`: run a claim, one process for every seed of its arms, to its verdict.

The claim must be committed, with the digests of the configurations it is about (`--register` fills them in). Runs that
already have their final row are skipped. Logs go to `runs/benchmark/<claim>/`, rows to `results/<claim>.jsonl`.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Annotated

import tyro
from rich.table import Table

from palaestra.agents.evaluation import provenance
from palaestra.agents.evaluation.claim_files import parse_claim, read_claims, with_registered
from palaestra.agents.evaluation.claims import Claim
from palaestra.agents.evaluation.rows import Row, read_rows
from palaestra.agents.evaluation.verdicts import Finding, Verdict, runs_of, verdict
from palaestra.scripts import parallel
from palaestra.scripts.claim_run import configuration, configuration_hashes, pilot_claim
from palaestra.scripts.options import console


@dataclass(frozen=True)
class Job:
    """One run still to be made."""

    arm: str
    seed: int

    @property
    def name(self) -> str:
        """What people know it by."""
        return f"{self.arm}, seed {self.seed}"


@dataclass(frozen=True)
class BenchmarkOptions:
    """Run the missing seeds of a committed claim and print its verdict; without a claim, list all."""

    claim: Annotated[str | None, tyro.conf.Positional] = None
    """Name of the claim, a file of results/claims/."""
    list: bool = False
    """Print how far every claim is, what its missing runs will take, and its verdict, and stop."""
    jobs: int = 2
    """Runs at the same time."""
    threads: int = 1
    """Threads of each run."""
    pilot: bool = False
    """Try the configurations on other seeds; rows stay in runs/ and prove nothing."""
    show_config: bool = False
    """Print the configurations that the claim's agents have and their digests, and stop."""
    register: bool = False
    """Write the digests of those configurations into the claim's file, and stop."""
    results: Path = Path("results")
    """Folder of claims and rows."""
    runs: Path = Path("runs/benchmark")
    """Folder of logs."""


def main(arguments: list[str]) -> int:
    """Run a claim, or list all."""
    options = tyro.cli(BenchmarkOptions, prog="palaestra benchmark", args=arguments)
    try:
        if options.list or options.claim is None:
            return list_claims(options.results, options.jobs)
        return run_claim(options.claim, options)
    except (ValueError, OSError) as error:
        print(f"palaestra benchmark: {error}", file=sys.stderr)
        return 2


def list_claims(results: Path, jobs: int) -> int:
    """Print how far every claim is, the time its missing runs will take, and its verdict; return 0."""
    table = Table("claim", "runs", f"time left, {jobs} at a time", "verdict", box=None)
    for claim in read_claims(results / "claims"):
        rows = read_rows(results / f"{claim.name}.jsonl")
        missing = missing_jobs(claim, rows)
        needed = len(claim.arms) * len(claim.seeds)
        left = _duration(seconds_left(claim, rows, missing, jobs)) if missing else ""
        table.add_row(claim.name, f"{needed - len(missing)} of {needed}", left, verdict(claim, rows).status)
    console().print(table)
    return 0


def run_claim(name: str, options: BenchmarkOptions) -> int:
    """Run a claim's missing runs and print its verdict; return 0, or 1 if a run is not finished.

    Raises:
        ValueError: If the claim is unknown, unregistered or not committed.
    """
    claim_file = options.results / "claims" / f"{name}.json"
    if not claim_file.exists():
        known = sorted(path.stem for path in claim_file.parent.glob("*.json"))
        raise ValueError(f"claim {name!r} is unknown; expected one of {', '.join(known)}")
    claim = parse_claim(claim_file.read_text(encoding="utf-8"))
    if options.show_config or options.register:
        return _show_configurations(claim, claim_file if options.register else None)
    rows_folder, logs, command = options.results, options.runs, f"palaestra benchmark {claim.name}"
    if options.pilot:
        claim = pilot_claim(claim)
        rows_folder, logs, command = options.runs / "pilot", options.runs / "pilot", f"{command} --pilot"
    else:
        _require_registered(claim, claim_file)
    rows_file, logs = rows_folder / f"{claim.name}.jsonl", logs / claim.name
    arguments = ["--claim-file", str(claim_file), "--rows-file", str(rows_file), "--threads", str(options.threads)]
    arguments += ["--command", command, *(["--pilot"] if options.pilot else [])]
    queue = missing_jobs(claim, read_rows(rows_file))
    watcher = Announcer(len(queue), options.jobs)
    failed = run_jobs(queue, arguments, logs, options.jobs, options.threads, watcher)
    for job in failed:
        print(f"not finished: {job.name}; see {log_file(logs, job)}")
    found = verdict(claim, read_rows(rows_file))
    print(f"{claim.name}: {describe(found)}")
    return 1 if failed else 0


def missing_jobs(claim: Claim, rows: Sequence[Row]) -> list[Job]:
    """Return the runs whose final row is missing, all arms of a seed side by side."""
    done = {arm.name: runs_of(claim, arm, rows) for arm in claim.arms}
    return [Job(arm, seed) for seed in claim.seeds for arm in done if seed not in done[arm]]


def seconds_left(claim: Claim, rows: Sequence[Row], missing: Sequence[Job], jobs: int) -> float | None:
    """Return about how long missing runs will take, so many at a time; None while no run is there to judge by.

    A run is taken to need what the other runs of its arm took to train, or those of the claim where there are none;
    time that evaluation takes is not in it.
    """
    taken = {arm.name: [run[-1].wall_seconds for run in runs_of(claim, arm, rows).values()] for arm in claim.arms}
    known = [seconds for found in taken.values() for seconds in found]
    if not known:
        return None
    return sum(mean(taken[job.arm] or known) for job in missing) / jobs


def run_jobs(
    queue: Sequence[Job],
    arguments: Sequence[str],
    folder: Path,
    jobs: int,
    threads: int,
    watcher: parallel.Watcher | None = None,
) -> list[Job]:
    """Run jobs, so many at a time, each in a process of its own with its own log; return those that did not finish.

    Args:
        queue: What to run.
        arguments: Arguments that all runs share.
        folder: Folder of the logs.
        jobs: Processes at the same time, at least 1.
        threads: Threads of each process.
        watcher: Whom to tell.
    """
    command = ("-m", "palaestra.scripts.claim_run")
    programs = [
        parallel.Job(
            job.name,
            (*command, "--arm", job.arm, "--seed", str(job.seed), *arguments),
            log_file(folder, job),
        )
        for job in queue
    ]
    statuses = parallel.run_jobs(programs, jobs, threads, watcher).statuses
    return [job for job in queue if statuses.get(job.name) != 0]


class Announcer(parallel.Watcher):
    """Prints when a run starts and ends, how many have ended, and about how long the others will take."""

    def __init__(self, total: int, jobs: int) -> None:
        """Announce runs.

        Args:
            total: Number of runs.
            jobs: Runs at the same time.
        """
        self.total, self.jobs = total, jobs
        self.began: dict[str, float] = {}
        self.took: list[float] = []

    def started(self, job: parallel.Job) -> None:
        """Print that a run has started."""
        self.began[job.name] = time.monotonic()
        print(f"started: {job.name}", flush=True)

    def ended(self, job: parallel.Job, status: int) -> None:
        """Print that a run has ended, and what is left to do."""
        self.took.append(time.monotonic() - self.began[job.name])
        waiting = self.total - len(self.took)
        left = f"; about {_duration(mean(self.took) * waiting / self.jobs)} left" if waiting else ""
        outcome = f"{'failed' if status else 'done'}: {job.name} ({_duration(self.took[-1])})"
        print(f"{outcome}, {len(self.took)} of {self.total}{left}", flush=True)


def log_file(folder: Path, job: Job) -> Path:
    """Return where a run's output goes."""
    return folder / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', job.arm)}-{job.seed}.log"


def describe(found: Verdict) -> str:
    """Return a verdict in one line."""
    parts = [f"{found.status}, {found.seeds_done} of {found.seeds_required} seeds", *map(_finding, found.findings)]
    return "; ".join(parts)


def _finding(finding: Finding) -> str:
    result = finding.result
    return (
        f"{finding.criterion.metric} {result.estimate:.6g} [{result.low:.6g}, {result.high:.6g}], bound "
        f"{finding.bound:.6g}: {finding.status}"
    )


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min {rest:02} s"


def _require_registered(claim: Claim, claim_file: Path) -> None:
    missing = [arm.name for arm in claim.arms if arm.row_hash is None]
    if missing:
        raise ValueError(
            f"{claim.name} has no config_hash of {', '.join(missing)}; expected one, which --register writes"
        )
    if provenance.committed_revision(claim_file) is None:
        raise ValueError(f"{claim_file} differs from its last commit; expected it committed before it runs")


def _show_configurations(claim: Claim, claim_file: Path | None) -> int:
    for arm in claim.arms:
        config, found = configuration(arm) if arm.kind == "ours" else (arm.row_config(), str(arm.row_hash))
        print(f"{arm.name}: {json.dumps(config, indent=1)}\nconfig_hash: {found}")
    if claim_file is not None:
        given = json.loads(claim_file.read_text(encoding="utf-8"))
        record = with_registered(given, configuration_hashes(claim))
        claim_file.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
