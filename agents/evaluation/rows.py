"""A result is a row: everything needed to read, repeat and compare one measurement, as one line of JSON.

Rows are appended to `results/<name>.jsonl` and never edited; tables, plots and verdicts are made from them.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from palaestra.agents.evaluation import provenance
from palaestra.agents.evaluation.statistics import Interval, mean_interval

if TYPE_CHECKING:
    from palaestra.agents.evaluation.evaluate import Evaluation

FORMAT = 1
METRICS = ("mean_return", "value", "gap", "exact_value", "exact_gap", "success", "wall_seconds")

SAME_WORLD = ("env_id", "env_kwargs", "env_packages", "backend", "estimand")
"""Fields that must agree before rows may be compared."""

SAME_MEASUREMENT = (
    *SAME_WORLD,
    "deterministic",
    "agent_id",
    "config_hash",
    "budget",
    "kind",
    "train_backend",
    "training",
)
"""Fields that must agree before rows may be pooled, unless the rows are grouped by them."""

_ABSOLUTE_PATH = re.compile(r"(^|[\s='\",:])(/[\w.+-]+/[\w.+-]|~/|[A-Za-z]:\\)")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement of one policy.

    Attributes:
        kind: "final" at the end of the budget, "curve" on the way there.
        claim: Name of the claim it was run for, or None.
        claim_hash: Digest of that claim as it stood when the run began.
        env_id: Id of the env.
        env_kwargs: Its parameters.
        env_packages: Versions of the packages a foreign env's dynamics come from.
        backend: What was evaluated on: "palaestra" or "gymnasium", the id's own env in both cases.
        agent_id: Id of the agent ("sac"; "sb3/sac" for a peer; "policy/random" for a policy of the world).
        agent_config: Its whole configuration.
        config_hash: Digest of agent id and configuration.
        seed: Seed of the run.
        budget: Environment steps asked for (0 for a policy that was not trained).
        env_steps: Environment steps taken.
        updates: Gradient steps taken, as the library counts them (stable-baselines3 counts epochs of PPO).
        wall_seconds: Seconds of training, evaluation excluded.
        eval_seed: Seed of the evaluation.
        deterministic: Whether the policy acted by its mode.
        returns: Undiscounted return of every episode.
        lengths: Steps of every episode.
        success: Fraction of successful episodes, or None.
        estimand: What `value` estimates.
        value: The estimate with its interval over episodes.
        oracle_value: The world's oracle, or None.
        expert_value: What the world's optimal policy attained on the same noise, or None.
        gap: Relative gap to it with its paired interval, or None.
        exact_value: Expected return by enumeration, or None.
        exact_gap: Relative gap of that to the optimum, or None.
        versions: Versions of Python and packages.
        revision: Git revision of the code, or None for an installed package.
        modified: Whether the code differed from that revision.
        hardware: CPU model, cores, GPU.
        threads: Threads torch computed with.
        idle_cpu: Idle share of the machine's CPU time during the run, or None.
        command: The command that made the row.
        timestamp: UTC time of the measurement, ISO 8601 to the second.
        format: Version of this record.
        train_backend: What the agent was trained on, as `palaestra.wrappers.vectorize.backend_of` names it; None for a
            peer of another library and for a policy that was not trained.
        arm: Name of the claim's arm it was run for, or None.
        training: How training differed from what was evaluated, as `claims.Arm.training` has it.
        episodes: Episodes finished in training, or None where nobody counted.
        measures: What was measured beside the returns, "measure/key" to number.
    """

    kind: Literal["final", "curve"]
    claim: str | None
    claim_hash: str | None
    env_id: str
    env_kwargs: Mapping[str, Any]
    env_packages: Mapping[str, str]
    backend: str
    agent_id: str
    agent_config: Mapping[str, Any]
    config_hash: str
    seed: int
    budget: int
    env_steps: int
    updates: int
    wall_seconds: float
    eval_seed: int
    deterministic: bool
    returns: tuple[float, ...]
    lengths: tuple[int, ...]
    success: float | None
    estimand: str
    value: Interval
    oracle_value: float | None
    expert_value: float | None
    gap: Interval | None
    exact_value: float | None
    exact_gap: float | None
    versions: Mapping[str, str]
    revision: str | None
    modified: bool
    hardware: Mapping[str, Any]
    threads: int
    idle_cpu: float | None
    command: str
    timestamp: str
    format: int = FORMAT
    train_backend: str | None = None
    arm: str | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    episodes: int | None = None
    measures: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what would make the row wrong or unreadable; ValueError names the field."""
        if self.format != FORMAT:
            raise ValueError(f"Row: format={self.format}; expected {FORMAT}")
        if self.kind not in ("final", "curve"):
            raise ValueError(f"Row: kind={self.kind!r}; expected 'final' or 'curve'")
        if len(self.returns) < 2 or len(self.returns) != len(self.lengths):
            raise ValueError(
                f"Row: {len(self.returns)} returns, {len(self.lengths)} lengths; expected as many, at least 2"
            )
        for name in ("seed", "budget", "env_steps", "updates", "wall_seconds", "eval_seed", "threads"):
            if getattr(self, name) < 0:
                raise ValueError(f"Row: {name}={getattr(self, name)}; expected at least 0")
        if self.config_hash != provenance.config_hash(self.agent_id, self.agent_config):
            raise ValueError(f"Row: config_hash={self.config_hash!r} is not the digest of agent_id and agent_config")
        _check_plain("", dataclasses.asdict(self))

    def metric(self, name: str) -> Interval | None:
        """Return a metric with its interval (of zero width where the metric is exact or a bare number); None without.

        Args:
            name: One of `METRICS`, or "measure/key".

        Raises:
            ValueError: If the name is neither.
        """
        if name not in METRICS and "/" not in name:
            raise ValueError(f"Row.metric: name={name!r}; expected one of {METRICS} or 'measure/key'")
        if name == "mean_return":
            return mean_interval(self.returns)
        found = self.measures.get(name) if "/" in name else getattr(self, name)
        return found if found is None or isinstance(found, Interval) else Interval(found, found, found)

    def to_json(self) -> str:
        """Return the row as one line of JSON, without its newline."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> Row:
        """Return the row of a line.

        Raises:
            ValueError: If the line is no JSON object, or has unknown or missing keys, or is no valid row.
        """
        record = json.loads(line)
        if not isinstance(record, dict):
            raise ValueError(f"Row: {line[:40]!r}; expected a JSON object")
        for name, value in _of_older_rows(record).items():
            record.setdefault(name, value)
        names = {part.name for part in dataclasses.fields(cls)}
        if set(record) != names:
            unknown, missing = sorted(set(record) - names), sorted(names - set(record))
            raise ValueError(f"Row: unknown keys {unknown}, missing keys {missing}; expected exactly the fields of Row")
        for name in ("value", "gap"):
            if record[name] is not None:
                record[name] = Interval(**record[name])
        for name in ("returns", "lengths"):
            record[name] = tuple(record[name])
        return cls(**record)


def make_row(
    evaluation: Evaluation,
    *,
    kind: Literal["final", "curve"],
    agent_id: str,
    agent_config: Any,
    seed: int,
    budget: int,
    env_steps: int,
    updates: int,
    wall_seconds: float,
    idle_cpu: float | None,
    command: str,
    claim: str | None = None,
    claim_hash: str | None = None,
    train_backend: str | None = None,
    arm: str | None = None,
    training: Mapping[str, Any] | None = None,
    episodes: int | None = None,
    measures: Mapping[str, float] | None = None,
) -> Row:
    """Return the row of an evaluation; versions, revision, hardware, threads and time are filled in here.

    Args:
        evaluation: What was measured.
        kind: "final" or "curve".
        agent_id: Id of the agent.
        agent_config: Its configuration, a dataclass or a mapping.
        seed: Seed of the run.
        budget: Environment steps asked for.
        env_steps: Environment steps taken.
        updates: Gradient steps taken, as the library counts them (stable-baselines3 counts epochs of PPO).
        wall_seconds: Seconds of training, evaluation excluded.
        idle_cpu: From a `provenance.CpuMeter` of the run.
        command: From `provenance.command_line`.
        claim: Name of the claim it was run for.
        claim_hash: Digest of that claim.
        train_backend: What the agent was trained on.
        arm: Name of the claim's arm.
        training: How training differed from what was evaluated.
        episodes: Episodes finished in training.
        measures: What was measured beside the returns.

    Raises:
        ValueError: If a single episode was measured, which has no interval, or for the reasons of `Row`.
    """
    if evaluation.interval is None:
        raise ValueError("make_row: evaluation has one episode; expected at least 2, so that its value has an interval")
    config = provenance.plain(agent_config)
    revision, modified = provenance.git_state()
    return Row(
        kind=kind,
        claim=claim,
        claim_hash=claim_hash,
        env_id=evaluation.env_id,
        env_kwargs=provenance.plain(evaluation.env_kwargs),
        env_packages=provenance.env_packages(evaluation.env_id),
        backend=evaluation.backend,
        agent_id=agent_id,
        agent_config=config,
        config_hash=provenance.config_hash(agent_id, config),
        seed=seed,
        budget=budget,
        env_steps=env_steps,
        updates=updates,
        wall_seconds=round(wall_seconds, 3),
        eval_seed=evaluation.seed,
        deterministic=evaluation.deterministic,
        returns=tuple(float(value) for value in evaluation.returns),
        lengths=tuple(int(value) for value in evaluation.lengths),
        success=evaluation.success_rate,
        estimand=evaluation.estimand,
        value=evaluation.interval,
        oracle_value=evaluation.oracle_value,
        expert_value=evaluation.expert_value,
        gap=evaluation.gap,
        exact_value=evaluation.exact_value,
        exact_gap=evaluation.exact_gap,
        versions=provenance.package_versions(),
        revision=revision,
        modified=modified,
        hardware=provenance.hardware(),
        threads=provenance.threads(),
        idle_cpu=idle_cpu,
        command=command,
        timestamp=datetime.now(UTC).isoformat(timespec="seconds"),
        train_backend=train_backend,
        arm=arm,
        training=provenance.plain(training or {}),
        episodes=episodes,
        measures={name: float(value) for name, value in (measures or {}).items()},
    )


def append_rows(path: Path, rows: Iterable[Row]) -> None:
    """Append rows to a file so that either all of them are there afterwards, or none.

    They go in one write to a descriptor opened for appending, and are on disk when the call returns, so that
    processes may append to the same file at the same time.

    Args:
        path: File of rows; it and its folder are created where they are missing.
        rows: The rows.

    Raises:
        OSError: If the disk is full or not writable; the file is then as before.
    """
    data = "".join(f"{row.to_json()}\n" for row in rows).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        written = os.write(descriptor, data)
        if written < len(data):
            os.ftruncate(descriptor, os.lseek(descriptor, 0, os.SEEK_CUR) - written)
            raise OSError(
                f"append_rows: {written} of {len(data)} bytes fitted into {path.name}; expected all of them to"
            )
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a file in their order; a file that does not exist has none.

    Raises:
        ValueError: If a line is no valid row; the message names file and line.
    """
    if not path.exists():
        return []
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            rows.append(Row.from_json(line))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path.name}, line {number}: {error}") from error
    return rows


def pool(rows: Iterable[Row], by: Sequence[str] = ()) -> dict[tuple[Any, ...], list[Row]]:
    """Return rows grouped by fields, and refuse groups whose rows measured different things.

    Args:
        rows: The rows.
        by: Names of the fields to group by.

    Returns:
        Rows by the values of these fields (a mapping field as its canonical JSON).

    Raises:
        ValueError: If rows of one group differ in a field of `SAME_MEASUREMENT`; the message names it.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(_comparable(getattr(row, name)) for name in by), []).append(row)
    for group in groups.values():
        require_same(group, SAME_MEASUREMENT)
    return groups


def require_same(rows: Iterable[Row], names: Sequence[str]) -> None:
    """Refuse rows that differ in a field.

    Args:
        rows: The rows.
        names: Names of the fields that must agree.

    Raises:
        ValueError: If one differs; the message names the field and its values.
    """
    compared = list(rows)
    for name in names:
        values = sorted({str(_comparable(getattr(row, name))) for row in compared})
        if len(values) > 1:
            raise ValueError(f"rows differ in {name}: {' and '.join(values)}; expected rows of one measurement")


def _of_older_rows(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what rows that are older than some fields would hold there.

    There was no choice of back end then, and a claim's only arms were its agent and its comparator.
    """
    own = "own" if record.get("backend") == "palaestra" else "sync"
    return {
        "train_backend": None if "/" in str(record.get("agent_id")) else own,
        "arm": record.get("agent_id") if record.get("claim") is not None else None,
        "training": {},
        "episodes": None,
        "measures": {},
    }


def _comparable(value: Any) -> Any:
    return json.dumps(value, sort_keys=True) if isinstance(value, Mapping) else value


def _check_plain(where: str, value: Any) -> None:
    if isinstance(value, Mapping):
        for name, part in value.items():
            _check_plain(f"{where}.{name}" if where else str(name), part)
    elif isinstance(value, list | tuple):
        for part in value:
            _check_plain(where, part)
    elif isinstance(value, str):
        if _ABSOLUTE_PATH.search(value):
            raise ValueError(f"Row: {where}={value!r} holds a path of this machine; expected none in a row")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"Row: {where}={value}; expected a finite number")
    elif value is not None and not isinstance(value, bool | int):
        raise ValueError(f"Row: {where}={value!r}; expected JSON values only")
