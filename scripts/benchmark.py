"""`palaestra benchmark`: run a claim, one process for every seed of its agent and its comparator, to its verdict.

The claim must be committed, with the digest of the configuration it is about (`--register` fills it in). Seeds that
already have their final row are skipped. Logs go to `runs/benchmark/<claim>/`, rows to `results/<claim>.jsonl`.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from palaestra.agents.evaluation import provenance
from palaestra.agents.evaluation.claims import Claim, Verdict, final_rows, verdict
from palaestra.agents.evaluation.rows import read_rows
from palaestra.scripts import parallel
from palaestra.scripts.claim_run import Side, configuration, pilot_claim


@dataclass(frozen=True)
class Job:
    """One run still to be made."""

    side: Side
    seed: int

    @property
    def name(self) -> str:
        """What people know it by."""
        return f"{self.side}, seed {self.seed}"


@dataclass(frozen=True)
class BenchmarkOptions:
    """Run the missing seeds of a committed claim and print its verdict."""

    claim: Annotated[str, tyro.conf.Positional]
    """Name of the claim, a file of results/claims/."""
    jobs: int = 2
    """Runs at the same time."""
    threads: int = 1
    """Threads of each run."""
    pilot: bool = False
    """Try the configuration on other seeds; rows stay in runs/ and prove nothing."""
    show_config: bool = False
    """Print the configuration that the preset gives and its digest, and stop."""
    register: bool = False
    """Write the digest of that configuration into the claim's file, and stop."""
    results: Path = Path("results")
    """Folder of claims and rows."""
    runs: Path = Path("runs/benchmark")
    """Folder of logs."""


def main(arguments: list[str]) -> int:
    """Run a claim."""
    options = tyro.cli(BenchmarkOptions, prog="palaestra benchmark", args=arguments)
    try:
        return run_claim(options)
    except (ValueError, OSError) as error:
        print(f"palaestra benchmark: {error}", file=sys.stderr)
        return 2


def run_claim(options: BenchmarkOptions) -> int:
    """Run a claim's missing seeds and print its verdict; return 0, or 1 if a run failed.

    Raises:
        ValueError: If the claim is unknown, unregistered or not committed.
    """
    claim_file = options.results / "claims" / f"{options.claim}.json"
    if not claim_file.exists():
        known = sorted(path.stem for path in claim_file.parent.glob("*.json"))
        raise ValueError(f"claim {options.claim!r} is unknown; expected one of {', '.join(known)}")
    claim = Claim.from_json(claim_file.read_text(encoding="utf-8"))
    if options.show_config or options.register:
        return _show_config(claim, claim_file if options.register else None)
    rows_folder, logs, command = options.results, options.runs, f"palaestra benchmark {claim.name}"
    if options.pilot:
        claim = pilot_claim(claim)
        rows_folder, logs, command = options.runs / "pilot", options.runs / "pilot", f"{command} --pilot"
    else:
        _require_registered(claim, claim_file)
    rows_file, logs = rows_folder / f"{claim.name}.jsonl", logs / claim.name
    arguments = ["--claim-file", str(claim_file), "--rows-file", str(rows_file), "--threads", str(options.threads)]
    arguments += ["--command", command, *(["--pilot"] if options.pilot else [])]
    failed = run_jobs(missing_jobs(claim, rows_file), arguments, logs, options.jobs, options.threads)
    for job in failed:
        print(f"not finished: {job.name}; see {log_file(logs, job)}")
    print(f"{claim.name}: {describe(claim, verdict(claim, read_rows(rows_file)))}")
    return 1 if failed else 0


def missing_jobs(claim: Claim, rows_file: Path) -> list[Job]:
    """Return the runs whose final row is missing, both agents of a seed side by side."""
    rows = read_rows(rows_file)
    done: dict[Side, set[int]] = {"ours": set(final_rows(claim, rows, claim.agent, claim.config_hash))}
    if claim.comparator is not None:
        comparator = claim.comparator
        done["comparator"] = set(final_rows(claim, rows, comparator.agent, comparator.config_hash))
    return [Job(side, seed) for seed in claim.seeds for side in done if seed not in done[side]]


def run_jobs(queue: list[Job], arguments: list[str], folder: Path, jobs: int, threads: int) -> list[Job]:
    """Run jobs, so many at a time, each in a process of its own with its own log; return those that did not finish.

    Args:
        queue: What to run.
        arguments: Arguments that all runs share.
        folder: Folder of the logs.
        jobs: Processes at the same time, at least 1.
        threads: Threads of each process.
    """
    command = ("-m", "palaestra.scripts.claim_run")
    programs = [
        parallel.Job(
            job.name,
            (*command, "--side", job.side, "--seed", str(job.seed), *arguments),
            log_file(folder, job),
        )
        for job in queue
    ]
    statuses = parallel.run_jobs(programs, jobs, threads, _Announcer()).statuses
    return [job for job in queue if statuses.get(job.name) != 0]


class _Announcer(parallel.Watcher):
    """Prints when a run starts and ends."""

    def started(self, job: parallel.Job) -> None:
        print(f"started: {job.name}", flush=True)

    def ended(self, job: parallel.Job, status: int) -> None:
        print(f"{'failed' if status else 'done'}: {job.name}", flush=True)


def log_file(folder: Path, job: Job) -> Path:
    """Return where a run's output goes."""
    return folder / f"{job.side}-{job.seed}.log"


def describe(claim: Claim, found: Verdict) -> str:
    """Return a verdict in one line."""
    text = f"{found.status}, {found.seeds_done} of {found.seeds_required} seeds"
    if found.result is None:
        return text
    result = found.result
    return (
        f"{text}; {claim.metric} {result.estimate:.6g} [{result.low:.6g}, {result.high:.6g}], bound {found.bound:.6g}"
    )


def _require_registered(claim: Claim, claim_file: Path) -> None:
    if claim.config_hash is None:
        raise ValueError(f"{claim.name} has no config_hash; expected one, which --register writes")
    if provenance.committed_revision(claim_file) is None:
        raise ValueError(f"{claim_file} differs from its last commit; expected it committed before it runs")


def _show_config(claim: Claim, claim_file: Path | None) -> int:
    config, found = configuration(claim)
    print(json.dumps(config, indent=1))
    print(f"config_hash: {found}")
    if claim_file is not None:
        record = {**json.loads(claim_file.read_text(encoding="utf-8")), "config_hash": found}
        claim_file.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
