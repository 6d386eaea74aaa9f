"""Claims: what a demonstration asserts, committed before it runs; code computes the verdict from rows alone.

A claim is a file `results/claims/<name>.json`. Rows count towards its verdict only if they were made by a run that
began from this very claim (its digest stands in the row), on its env, with its agent, configuration, budget and
evaluation, and to the end of its budget. Of two final rows of one seed the first counts, so that repeating a seed
until it succeeds proves nothing.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from palaestra.agents.evaluation import provenance
from palaestra.agents.evaluation.rows import METRICS, SAME_WORLD, Row, require_same
from palaestra.agents.evaluation.statistics import Interval, difference_interval, mean_interval

Status = Literal["shown", "refuted", "inconclusive", "none yet"]
Criterion = Literal["mean_at_least", "each_seed_at_least", "each_seed_at_most", "within_of_comparator"]

OVERSHOOT = 0.01
"""Share of the budget that a run may overshoot, because agents stop at the end of a rollout."""


@dataclass(frozen=True)
class Comparator:
    """The agent a claim compares with.

    Attributes:
        agent: Its id, such as "sb3/sac".
        config: Its arguments.
        num_envs: Parallel envs it trains on.
    """

    agent: str
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    num_envs: int = 1

    @property
    def config_hash(self) -> str:
        """Digest of what its rows hold as configuration."""
        return provenance.config_hash(self.agent, self.row_config())

    def row_config(self) -> dict[str, Any]:
        """Return what its rows hold as configuration."""
        return {**self.config, "num_envs": self.num_envs}


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One assertion about an agent on an env, with everything that decides it.

    Attributes:
        name: Name of the claim, of its file and of its rows' file.
        system: Title of the paper whose system it is about.
        statement: The assertion in words.
        agent: Agent id.
        preset: "auto" for the tuned configuration of the env, None for the agent's defaults.
        config_hash: Digest of the configuration, without which no run may start.
        env: Env id.
        env_kwargs: Its parameters.
        metric: One of `rows.METRICS`.
        criterion: How it is decided, see `CRITERIA`.
        margin: The threshold of "..._at_least" and "..._at_most", in units of the metric; for
            "within_of_comparator", the share of the comparator's mean by which ours may be worse.
        comparator: The agent to compare with, for "within_of_comparator".
        budget: Environment steps of a run.
        seeds: Seeds of the runs; the evaluation of a run is seeded by the run's seed.
        eval_every: Environment steps between two points of the learning curve.
        eval_episodes: Episodes of each evaluation.
        deterministic: Whether the agent is evaluated by the mode of its policy.
        tuning_budget: What was spent on choosing the configuration, for ours and for the comparator, in words.
    """

    name: str
    system: str
    statement: str
    agent: str
    preset: Literal["auto"] | None = "auto"
    config_hash: str | None = None
    env: str
    env_kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    metric: str
    criterion: Criterion
    margin: float
    comparator: Comparator | None = None
    budget: int
    seeds: tuple[int, ...]
    eval_every: int
    eval_episodes: int
    deterministic: bool = True
    tuning_budget: str

    def __post_init__(self) -> None:
        """Refuse claims that could not be decided; ValueError names the field."""
        _require(self.preset in ("auto", None), "preset", self.preset, "'auto' or None")
        _require(self.metric in METRICS, "metric", self.metric, f"one of {METRICS}")
        _require(self.criterion in CRITERIA, "criterion", self.criterion, f"one of {sorted(CRITERIA)}")
        _require(len(set(self.seeds)) == len(self.seeds) >= 2, "seeds", self.seeds, "at least two different seeds")
        _require(self.budget >= 1, "budget", self.budget, "at least 1 step")
        _require(self.eval_every >= 1, "eval_every", self.eval_every, "at least 1 step")
        _require(self.eval_episodes >= 2, "eval_episodes", self.eval_episodes, "at least 2 episodes")
        compares = self.criterion == "within_of_comparator"
        expected = "a comparator if and only if the criterion is within_of_comparator"
        _require(compares == (self.comparator is not None), "comparator", self.comparator, expected)

    def digest(self) -> str:
        """Return the digest of everything that decides the claim: all but its wording."""
        record = dataclasses.asdict(self)
        del record["statement"], record["tuning_budget"]
        return provenance.digest(record)

    @classmethod
    def from_json(cls, text: str) -> Claim:
        """Return the claim of a JSON text.

        Raises:
            ValueError: If it is no JSON object, has unknown or missing keys, or is no valid claim.
        """
        record = json.loads(text)
        fields = {field.name: field for field in dataclasses.fields(cls)}
        needed = {
            name
            for name, field in fields.items()
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        }
        if not isinstance(record, dict) or not needed <= set(record) <= set(fields):
            given = sorted(record) if isinstance(record, dict) else type(record).__name__
            raise ValueError(
                f"Claim: keys {given}; expected all of {sorted(needed)} and no others than {sorted(fields)}"
            )
        if record.get("comparator") is not None:
            record["comparator"] = Comparator(**record["comparator"])
        return cls(**{**record, "seeds": tuple(record["seeds"])})


@dataclass(frozen=True)
class Verdict:
    """What the rows say about a claim.

    Attributes:
        status: "shown", "refuted", "inconclusive", or "none yet" while runs are missing.
        seeds_done: Seeds with a final row (of both agents, where two are compared).
        seeds_required: Seeds the claim asks for.
        ours: The metric of each seed done, with its interval within the run.
        theirs: The same of the comparator, where there is one.
        result: What the status was decided on: the mean over seeds, the worst seed, or the difference of means.
        bound: What `result` is compared with.
    """

    status: Status
    seeds_done: int
    seeds_required: int
    ours: Mapping[int, Interval] = dataclasses.field(default_factory=dict)
    theirs: Mapping[int, Interval] = dataclasses.field(default_factory=dict)
    result: Interval | None = None
    bound: float | None = None


def read_claims(folder: Path) -> list[Claim]:
    """Return the claims of a folder by name.

    Raises:
        ValueError: If a file is no valid claim or is not named after its claim; the message names the file.
    """
    claims = []
    for path in sorted(folder.glob("*.json")):
        try:
            claim = Claim.from_json(path.read_text(encoding="utf-8"))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path.name}: {error}") from error
        if claim.name != path.stem:
            raise ValueError(f"{path.name}: name={claim.name!r}; expected the name of the file")
        claims.append(claim)
    return claims


def final_rows(claim: Claim, rows: Sequence[Row], agent: str, config_hash: str | None) -> dict[int, Row]:
    """Return the rows that count towards a claim's verdict, by seed; the first one of each seed."""
    found: dict[int, Row] = {}
    for row in rows:
        complete = row.kind == "final" and claim.budget <= row.env_steps <= claim.budget * (1 + OVERSHOOT)
        if complete and row.seed not in found and belongs(claim, row, agent, config_hash):
            found[row.seed] = row
    return found


def belongs(claim: Claim, row: Row, agent: str, config_hash: str | None) -> bool:
    """Return whether a row was made for this very claim by the given agent and configuration."""
    return (
        row.claim_hash == claim.digest()
        and (row.agent_id, row.config_hash) == (agent, config_hash)
        and (row.env_id, dict(row.env_kwargs)) == (claim.env, dict(claim.env_kwargs))
        and (row.budget, row.deterministic) == (claim.budget, claim.deterministic)
        and (row.eval_seed, len(row.returns)) == (row.seed, claim.eval_episodes)
        and row.seed in claim.seeds
    )


def verdict(claim: Claim, rows: Sequence[Row]) -> Verdict:
    """Return what the rows say about a claim.

    Raises:
        ValueError: If rows that count were measured on different versions of the env, or lack the claim's metric.
    """
    counted = [final_rows(claim, rows, claim.agent, claim.config_hash)]
    if claim.comparator is not None:
        counted.append(final_rows(claim, rows, claim.comparator.agent, claim.comparator.config_hash))
    require_same((row for found in counted for row in found.values()), SAME_WORLD)
    ours, *others = (_metrics(claim, found) for found in counted)
    theirs = others[0] if others else {}
    done = set(ours).intersection(*others)
    pending = Verdict("none yet", len(done), len(claim.seeds), ours, theirs)
    return CRITERIA[claim.criterion](claim, pending) if done == set(claim.seeds) else pending


def overall(statuses: Sequence[Status]) -> Status:
    """Return the verdict on several claims together: the first of refuted, none yet, inconclusive and shown found."""
    order: tuple[Status, ...] = ("refuted", "none yet", "inconclusive", "shown")
    return next((status for status in order if status in statuses), "none yet")


def _metrics(claim: Claim, rows: Mapping[int, Row]) -> dict[int, Interval]:
    metrics = {}
    for seed in sorted(rows):
        interval = rows[seed].metric(claim.metric)
        if interval is None:
            raise ValueError(f"{claim.name}: the row of seed {seed} has no {claim.metric}; expected the metric claimed")
        metrics[seed] = interval
    return metrics


def _mean_at_least(claim: Claim, pending: Verdict) -> Verdict:
    """The t-interval of the mean over seeds lies at or above the margin (shown) or below it (refuted)."""
    result = mean_interval(_estimates(pending.ours))
    status = _position(result.low >= claim.margin, result.high < claim.margin)
    return dataclasses.replace(pending, status=status, result=result, bound=claim.margin)


def _each_seed(sign: int, claim: Claim, pending: Verdict) -> Verdict:
    """Every seed's interval lies on the margin's right side (shown), or any seed's on its wrong side (refuted).

    The right side is above for `sign=1` and below for `sign=-1`.
    """
    signed = [interval.scaled(sign) for interval in pending.ours.values()]
    status = _position(
        all(interval.low >= sign * claim.margin for interval in signed),
        any(interval.high < sign * claim.margin for interval in signed),
    )
    worst = min(signed, key=lambda interval: interval.low).scaled(sign)
    return dataclasses.replace(pending, status=status, result=worst, bound=claim.margin)


def _within_of_comparator(claim: Claim, pending: Verdict) -> Verdict:
    """Welch's t-interval of (ours - theirs) lies above -margin * |mean of theirs| (shown) or below it (refuted).

    The runs of two agents share no noise beyond their seeds' numbers, so that they are not paired.
    """
    theirs = _estimates(pending.theirs)
    result = difference_interval(_estimates(pending.ours), theirs)
    bound = -claim.margin * abs(sum(theirs) / len(theirs))
    status = _position(result.low > bound, result.high < bound)
    return dataclasses.replace(pending, status=status, result=result, bound=bound)


def _estimates(intervals: Mapping[int, Interval]) -> list[float]:
    return [interval.estimate for interval in intervals.values()]


def _position(shown: bool, refuted: bool) -> Status:
    return "shown" if shown else "refuted" if refuted else "inconclusive"


def _require(holds: bool, name: str, value: Any, expected: str) -> None:
    if not holds:
        raise ValueError(f"Claim: {name}={value!r}; expected {expected}")


CRITERIA: dict[str, Callable[[Claim, Verdict], Verdict]] = {
    "mean_at_least": _mean_at_least,
    "each_seed_at_least": partial(_each_seed, 1),
    "each_seed_at_most": partial(_each_seed, -1),
    "within_of_comparator": _within_of_comparator,
}
