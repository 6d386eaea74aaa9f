"""Claims: what a demonstration asserts, committed before it runs.

A claim trains its arms, which are agents on envs, from the same seeds, and asserts something of what they measured: its
criteria. `claim_files` reads claims from `results/claims/<name>.json`, `verdicts` computes from rows alone what became
of them. A claim without criteria is a table: it asserts nothing, and is reported all the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from palaestra.agents.evaluation import provenance
from palaestra.agents.evaluation.rows import METRICS

Summary = Literal["final", "average", "until_at_least", "until_at_most"]
Axis = Literal["env_steps", "updates", "episodes", "wall_seconds"]

WORDING = frozenset({"statement", "tuning_budget", "metrics"})
"""Keys of a claim's file that decide nothing, and so may be changed."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One agent trained and evaluated on one env.

    Attributes:
        label: What the claim calls the agent.
        world: What the claim calls the env, where its arms are a grid of agents and envs; otherwise "".
        agent: Id of an agent of the suite; "sb3/" and the name of an algorithm of stable-baselines3 or sb3-contrib; or
            "policy/" and the name of a policy of the world, which is evaluated without training.
        preset: "auto" for the tuned configuration of the env, None for the agent's defaults.
        config: What replaces fields of that; for a peer its arguments, with `num_envs` and, as the standard deviation
            of Gaussian exploration noise, `action_noise`.
        config_hash: Digest of the whole configuration of an agent of the suite, without which no run may start.
        env: Env id.
        env_kwargs: Its parameters.
        training: How training differs from what is evaluated: "reward_scale" multiplies the rewards learnt from,
            "env_kwargs" replaces parameters of the env.
        measures: What is measured beside the returns: names of `measures.MEASURES` with their options.
        budget: Environment steps of a run; 0 for a policy of the world, at least 1 for all others.
        eval_every: Environment steps between two points of the learning curve.
    """

    label: str
    world: str = ""
    agent: str
    preset: Literal["auto"] | None = "auto"
    config: Mapping[str, Any] = field(default_factory=dict)
    config_hash: str | None = None
    env: str
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    measures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    budget: int
    eval_every: int

    def __post_init__(self) -> None:
        """Refuse arms that could not run; ValueError names the field."""
        self.require(self.preset in ("auto", None), "preset", "'auto' or None")
        self.require(self.eval_every >= 1, "eval_every", "at least 1 step")
        if self.kind == "policy":
            self.require(self.budget == 0, "budget", "0 steps for a policy of the world")
            self.require(not self.config and not self.training, "config", "none for a policy of the world")
        else:
            self.require(self.budget >= 1, "budget", "at least 1 step")
        known = "nothing but 'reward_scale', a number above 0, and 'env_kwargs'"
        self.require(set(self.training) <= {"reward_scale", "env_kwargs"}, "training", known)
        scale = self.training.get("reward_scale", 1.0)
        self.require(isinstance(scale, int | float) and 0 < scale < math.inf, "training", known)

    @property
    def name(self) -> str:
        """What its rows, criteria and logs name it by: the label, and in a grid the env."""
        return f"{self.label} on {self.world}" if self.world else self.label

    @property
    def kind(self) -> Literal["ours", "peer", "policy"]:
        """Whether it is an agent of the suite, one of another library, or a policy of the world.

        Raises:
            ValueError: If the agent is none of these.
        """
        library, slash, _ = self.agent.partition("/")
        self.require(
            not slash or library in ("sb3", "policy"),
            "agent",
            "an id of the suite, 'sb3/' and the name of an algorithm, or 'policy/' and the name of a policy",
        )
        return "ours" if not slash else "peer" if library == "sb3" else "policy"

    def row_config(self) -> dict[str, Any]:
        """Return what the rows of a peer or a policy hold as configuration."""
        return {"num_envs": 1, **self.config} if self.kind == "peer" else dict(self.config)

    @property
    def row_hash(self) -> str | None:
        """Digest of what its rows hold as configuration; None for an agent of the suite that is not registered."""
        if self.kind == "ours":
            return self.config_hash
        return provenance.config_hash(self.agent, self.row_config())

    def require(self, holds: bool, name: str, expected: str) -> None:
        """Raise ValueError naming a field, its value and what was expected, unless a condition holds."""
        if not holds:
            raise ValueError(f"Arm {self.name!r}: {name}={getattr(self, name)!r}; expected {expected}")


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """What decides a claim, or one part of it.

    Each run is summarised by one number. The mean of these numbers over an arm's seeds, or a sum of such means with
    coefficients (a contrast), is compared with a bound by its 95 % t-interval (Welch's for several arms, whose runs
    share no noise beyond their seeds' numbers and so are not paired). Some contrasts of arms a and b:

    - {"a": 1} at least 475: a threshold;
    - {"a": 1, "b": -1} at least 0: a is better; at least -10: a is no worse, but for 10;
    - {"a": 1, "b": -1} within 20: a and b are equal, but for 20;
    - {"a": 1, "b": -0.5} at most 0, of env steps until a return: a needs less than half of b's.

    Attributes:
        metric: One of `rows.METRICS`, or "measure/key" of one of the arms' measures.
        contrast: Coefficients of the arms' means, by arm.
        summary: What a run is summarised by: the "final" metric; its "average" along an axis (the area under the
            learning curve divided by the axis' length); or how far along an axis the first point lies whose metric is
            at least ("until_at_least") or at most ("until_at_most") the threshold. A run that never gets there counts
            with its end, and leaves the interval open on the side where the truth may lie beyond.
        axis: What averages are taken over and thresholds are reached after.
        threshold: Of the "until_..." summaries.
        over: "mean" compares the contrast of means; "each_seed" asks every single seed of one arm, with the interval
            of its own episodes.
        at_least: Lower bound, or None.
        at_most: Upper bound, or None.
        within: Bound of the absolute value, or None.
        relative_to: Arm in units of whose |mean| the bound is, None for the metric's own units.
    """

    metric: str
    contrast: Mapping[str, float]
    summary: Summary = "final"
    axis: Axis = "env_steps"
    threshold: float | None = None
    over: Literal["mean", "each_seed"] = "mean"
    at_least: float | None = None
    at_most: float | None = None
    within: float | None = None
    relative_to: str | None = None

    def __post_init__(self) -> None:
        """Refuse criteria that decide nothing; ValueError names the field."""
        self._require(bool(self.contrast), "contrast", "a coefficient for at least one arm")
        self._require(0 not in self.contrast.values(), "contrast", "coefficients other than 0")
        self._require(self.summary in get_args(Summary), "summary", f"one of {get_args(Summary)}")
        self._require(self.axis in get_args(Axis), "axis", f"one of {get_args(Axis)}")
        until = self.summary.startswith("until_")
        self._require(until == (self.threshold is not None), "threshold", "one if and only if a run is to reach it")
        self._require(self.over in ("mean", "each_seed"), "over", "'mean' or 'each_seed'")
        self._require(
            self.over == "mean" or (list(self.contrast.values()) == [1] and self.within is None),
            "over",
            "'each_seed' with one arm of coefficient 1 alone, and a bound on one side",
        )
        bounds = [bound for bound in (self.at_least, self.at_most, self.within) if bound is not None]
        self._require(len(bounds) == 1, "at_least", "exactly one of at_least, at_most and within")
        self._require(self.within is None or self.within > 0, "within", "a number above 0")
        self._require(self.relative_to is None or not until, "relative_to", "None where a run is to reach a threshold")

    @property
    def bound(self) -> float:
        """The bound, as the claim states it."""
        return next(float(b) for b in (self.at_least, self.at_most, self.within) if b is not None)

    def _require(self, holds: bool, name: str, expected: str) -> None:
        if not holds:
            raise ValueError(f"Criterion: {name}={getattr(self, name)!r}; expected {expected}")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """An assertion about arms, with everything that decides it; without criteria, a table of them.

    Attributes:
        name: Name of the claim, of its file and of its rows' file.
        system: Title of the paper whose system it is about.
        statement: The assertion in words.
        arms: What is trained and evaluated.
        criteria: All of them must hold.
        seeds: Seeds of the runs of every arm; the evaluation of a run is seeded by the run's seed.
        eval_episodes: Episodes of each evaluation.
        deterministic: Whether the agents are evaluated by the mode of their policies.
        tuning_budget: What was spent on choosing the configurations, in words.
        metrics: What the report shows beside the metrics of the criteria.
        record: The claim as its file has it, of which the digest is taken.
    """

    name: str
    system: str
    statement: str
    arms: tuple[Arm, ...]
    criteria: tuple[Criterion, ...]
    seeds: tuple[int, ...]
    eval_episodes: int
    deterministic: bool = True
    tuning_budget: str
    metrics: tuple[str, ...] = ()
    record: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Refuse claims that could not be decided; ValueError names the field."""
        names = [arm.name for arm in self.arms]
        self._require(len(set(names)) == len(names) >= 1, "arms", names, "at least one, of different names")
        self._require(len(set(self.seeds)) == len(self.seeds) >= 2, "seeds", self.seeds, "at least two different seeds")
        self._require(self.eval_episodes >= 2, "eval_episodes", self.eval_episodes, "at least 2 episodes")
        measures = sorted({measure for arm in self.arms for measure in arm.measures})
        for metric in self.reported:
            known = metric in METRICS or metric.partition("/")[0] in measures
            expected = f"one of {METRICS}, or 'measure/key' of one of the arms' measures {measures}"
            self._require(known, "metric", metric, expected)
        for criterion in self.criteria:
            compared = {*criterion.contrast, *filter(None, [criterion.relative_to])}
            self._require(compared <= set(names), "contrast", sorted(compared), f"arms among {names}")
            envs = sorted({self.arm(name).env for name in compared})
            self._require(len(envs) == 1, "contrast", envs, "arms on one env id")

    def arm(self, name: str) -> Arm:
        """Return the arm of a name; KeyError if there is none."""
        return {arm.name: arm for arm in self.arms}[name]

    @property
    def is_table(self) -> bool:
        """Whether it asserts nothing."""
        return not self.criteria

    @property
    def reported(self) -> tuple[str, ...]:
        """The metrics that the report shows: those of the criteria and `metrics`, or the mean return."""
        return tuple(dict.fromkeys([c.metric for c in self.criteria] + list(self.metrics))) or ("mean_return",)

    def digest(self) -> str:
        """Return the digest of everything that decides the claim: all but its wording."""
        return provenance.digest({name: value for name, value in self.record.items() if name not in WORDING})

    def _require(self, holds: bool, name: str, value: Any, expected: str) -> None:
        if not holds:
            raise ValueError(f"Claim: {name}={value!r}; expected {expected}")
