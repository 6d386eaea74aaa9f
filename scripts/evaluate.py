"""`palaestra evaluate`: measure a trained agent or a reference policy."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.table import Table

from palaestra.scripts.options import console, parse_assignments


@dataclass(frozen=True)
class EvaluateOptions:
    """Measure an agent on seeds that training never sees, with raw rewards and frozen statistics.

    Where a world has an oracle, its estimand is measured on the same noise for the agent and for the optimal policy,
    and the gap is printed with a 95 % interval.
    """

    policy: Annotated[str, tyro.conf.Positional]
    """A run directory, a directory written by save, or (with --env) the name of a reference policy such as random."""
    env: str | None = None
    """Env id; by default the one the agent was trained on."""
    env_kwargs: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE ...")] = ()
    """Arguments of the env; by default those of the training."""
    episodes: int = 100
    """Episodes, split evenly over parallel rows."""
    seed: int = 0
    """Seed of the evaluation."""
    best: bool = False
    """Take the best checkpoint of the run instead of the latest."""
    decision_frequencies: bool = False
    """Measure how an agent fares that may look at every 1st, 2nd, 4th, ... 30th observation only, 10 episodes each."""
    json: bool = False
    """Print JSON instead of a table."""


def main(arguments: list[str]) -> int:
    """Measure both modes of acting and print them."""
    options = tyro.cli(EvaluateOptions, prog="palaestra evaluate", args=arguments)
    try:
        policy, env_id, env_kwargs = load_policy(options.policy, options.env, options.env_kwargs, options.best)
        if options.decision_frequencies:
            return measure_decision_frequencies(options, policy, env_id, env_kwargs)
        from palaestra.agents.evaluation.evaluate import evaluate_modes

        modes = evaluate_modes(policy, env_id, env_kwargs=env_kwargs, episodes=options.episodes, seed=options.seed)
    except (ValueError, TypeError, OSError, KeyError) as error:
        print(f"palaestra evaluate: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps({mode: result.metrics() for mode, result in modes.items()}, indent=2))
        return 0
    table = Table("mode", "measure", "value", title=f"{options.policy} on {env_id} {env_kwargs or ''}", box=None)
    for mode, result in modes.items():
        for name, value in result.metrics().items():
            table.add_row(mode, name.replace("_", " "), f"{value:,.4g}")
    console().print(table)
    return 0


def measure_decision_frequencies(options: EvaluateOptions, policy: Any, env_id: str, env_kwargs: dict[str, Any]) -> int:
    """Print the mean return at every decision frequency, and the frequency-averaged score where the env has one."""
    from palaestra.agents.evaluation.decision_frequency import decision_frequencies

    result = decision_frequencies(policy, env_id, env_kwargs=env_kwargs, seed=options.seed)
    if options.json:
        print(json.dumps(result.metrics(), indent=2))
        return 0
    table = Table("steps a decision", "mean return", title=f"{options.policy} on {env_id} {env_kwargs or ''}", box=None)
    for length, value in zip(result.lengths, result.mean_returns, strict=True):
        table.add_row(str(length), f"{value:,.4g}")
    console().print(table)
    score = result.score
    console().print("no scale of returns is known for this env" if score is None else f"score {score:.4f}")
    return 0


def load_policy(
    policy: str, env: str | None, assignments: tuple[str, ...], best: bool = False
) -> tuple[Any, str, dict[str, Any]]:
    """Return a policy given on a command line, and the env id and arguments to act on.

    Raises:
        ValueError: If a reference policy is named without an env id, or an agent without any.
    """
    directory = Path(policy)
    if not directory.exists():
        if env is None:
            raise ValueError(f"{policy!r} is no directory; expected a run, or a reference policy's name with --env")
        return policy, env, parse_assignments(assignments)
    from palaestra.agents.loading import load

    agent = load(directory / "best" if best else directory)
    env_id = env or agent.env_id
    if env_id is None:
        raise ValueError(f"{policy}: the agent was not trained on a registered env; expected --env ID")
    trained = dict(agent.env_kwargs) if env_id == agent.env_id else {}
    return agent, env_id, {**trained, **parse_assignments(assignments)}
