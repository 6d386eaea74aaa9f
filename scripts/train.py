"""`palaestra train`: train an agent on an env id in a new run directory."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from palaestra.agents.registry import agent_class, agent_ids, import_agent, preset
from palaestra.agents.training.config import AgentConfig
from palaestra.agents.training.run import Run, RunConfig, default_directory
from palaestra.scripts.options import parse_assignments
from palaestra.scripts.parallel import available_cores
from palaestra.scripts.seed_training import Vectorise, train_seeds
from palaestra.scripts.seeds import SeedGroup, parse_seeds
from palaestra.wrappers.vectorize import Backend


@dataclass(frozen=True)
class TrainOptions:
    """Train an agent on a registered env id.

    Logs (TensorBoard, CSV, JSON lines), periodic evaluations on separate seeds and checkpoints go to a new directory
    under runs/. Ctrl-C saves and stops; `palaestra resume DIRECTORY` goes on bit for bit.
    """

    agent: str
    """Agent id (see `palaestra agents`), or package.module:Class of your own."""
    env: str
    """Env id (see `palaestra envs`; any Gymnasium id works), or package.module:Id-v0 of your own."""
    total_timesteps: int = 100_000
    """Env steps to train for, all parallel envs together."""
    seed: int = 0
    """Seed of everything random in the run."""
    seeds: str | None = None
    """Several seeds at once, e.g. 0..7 or 0,3,5: each in a process of its own, equal to its single run."""
    jobs: int = 0
    """With --seeds: processes at the same time; 0 takes one per core."""
    vectorise_seeds: Vectorise = "auto"
    """With --seeds: make the updates of all seeds at once, in one process; auto does so on a GPU."""
    env_kwargs: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE ...")] = ()
    """Arguments of the env, e.g. lead_time=2 underage_cost=4."""
    backend: Backend = "auto"
    """What steps the rows of the env: auto takes the fastest that can be resumed. Evaluation takes the id's own env."""
    preset: bool = True
    """Start from the tuned settings for this agent and env id, where there are any."""
    name: str | None = None
    """Run directory; by default runs/AGENT-ENV-seedN. With --seeds it holds a run directory for each."""
    device: str = "auto"
    """cpu, cuda or auto."""
    threads: int = 0
    """Threads of torch; 0 takes one per physical core for wide networks and one for narrow ones and for --seeds."""
    log_freq: int = 1_000
    """Env steps between two lines of the logs."""
    eval_freq: int = 0
    """Env steps between two evaluations; 0 makes twenty of them, at least 10,000 steps apart."""
    eval_episodes: int = 20
    """Episodes per evaluation."""
    checkpoint_freq: int = 10_000
    """Env steps between two checkpoints."""
    tensorboard: bool = True
    """Write TensorBoard events beside CSV and JSON lines."""
    video: bool = False
    """Record an episode at every evaluation (needs the extra `video`)."""
    progress: bool = True
    """Show a progress bar."""
    profile: bool = False
    """Print the time spent in each phase at the end."""


def main(arguments: list[str]) -> int:
    """Parse the command line, train, and return the exit status."""
    options, config = parse(arguments)
    try:
        if options.seeds is not None:
            return start_seeds(options, config)
        if options.jobs:
            raise ValueError(f"jobs={options.jobs}; expected none without --seeds")
        set_threads(options.threads, config)
        run_config = make_run_config(options, config, torch.get_num_threads())
        directory = Path(options.name) if options.name else default_directory(run_config)
        run = Run.create(directory, run_config)
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"palaestra train: {error}", file=sys.stderr)
        return 2
    return train(run, progress=options.progress, profile=options.profile)


def make_run_config(options: TrainOptions, config: AgentConfig | None, threads: int) -> RunConfig:
    """Return what a run is made from, as the command line has it."""
    return RunConfig(
        agent=options.agent,
        env=options.env,
        total_timesteps=options.total_timesteps,
        seed=options.seed,
        env_kwargs=parse_assignments(options.env_kwargs),
        backend=options.backend,
        config={} if config is None else config.to_dict(),
        preset=config is None,
        device=options.device,
        threads=threads,
        log_freq=options.log_freq,
        eval_freq=options.eval_freq,
        eval_episodes=options.eval_episodes,
        checkpoint_freq=options.checkpoint_freq,
        tensorboard=options.tensorboard,
        video=options.video,
    )


def start_seeds(options: TrainOptions, config: AgentConfig | None) -> int:
    """Train several seeds in a new folder; return the exit status."""
    assert options.seeds is not None
    seeds, jobs = parse_seeds(options.seeds), processes(options.jobs)
    run_config = make_run_config(options, config, options.threads or 1)
    directory = Path(options.name) if options.name else default_directory(run_config, seeds=options.seeds)
    group = SeedGroup.create(directory, seeds, run_config)
    print(f"{options.agent} on {options.env}, {len(seeds)} seeds: {directory}", flush=True)
    return train_seeds(group, options.vectorise_seeds, jobs, progress=options.progress, profile=options.profile)


def processes(jobs: int) -> int:
    """Return how many processes run at the same time: as many as asked for, or one per core.

    Raises:
        ValueError: If it is a negative number.
    """
    if jobs < 0:
        raise ValueError(f"jobs={jobs}; expected at least 0")
    return jobs or available_cores()


def train(run: Run, *, progress: bool, profile: bool) -> int:
    """Train a run to its end and tell how it ended; return the exit status."""
    agent = run.agent
    print(f"{agent.agent_id} on {run.config.env}: {run.directory}")
    try:
        run.train(progress_bar=progress)
    except Exception:
        traceback.print_exc()
        print(
            f"training stopped at env step {agent.num_timesteps}; the newest checkpoint is of step "
            f"{run.store.steps()[-1]}. Continue with: palaestra resume {run.directory}",
            file=sys.stderr,
        )
        return 1
    if profile:
        print(*agent.profiler.lines(), sep="\n")
    if run.interrupted:
        print(
            f"interrupted at env step {agent.num_timesteps} and saved. Continue with: palaestra resume {run.directory}"
        )
        return 130
    print(f"done: {run.directory} (measure it: palaestra evaluate {run.directory})")
    return 0


def parse(arguments: list[str]) -> tuple[TrainOptions, AgentConfig | None]:
    """Return the run's options and the agent's whole configuration (None without `--agent`, which is an error).

    The agent's own settings become flags of the same command: with `--agent sac`, `--help` lists those of SAC too.
    """
    early = argparse.ArgumentParser(add_help=False)
    early.add_argument("--agent")
    early.add_argument("--env")
    early.add_argument("--no-preset", action="store_true")
    early.add_argument("--seed")
    early.add_argument("--seeds")
    known, _ = early.parse_known_args(arguments)
    if known.seed is not None and known.seeds is not None:
        print(f"palaestra train: --seed {known.seed} and --seeds {known.seeds}; expected one of them", file=sys.stderr)
        raise SystemExit(2)
    if known.agent is None:
        options = tyro.cli(
            TrainOptions,
            prog="palaestra train",
            args=arguments,
            description=f"{TrainOptions.__doc__}\n\nAgents: {', '.join(agent_ids())}; each shows its own settings.",
            config=(tyro.conf.AvoidSubcommands,),
        )
        return options, None
    try:
        kind = agent_class(import_agent(known.agent))
        tuned = {} if known.no_preset else preset(kind.agent_id, known.env)
        default = kind.config_class(**tuned)
    except (ValueError, TypeError) as error:
        print(f"palaestra train: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    combined = dataclasses.make_dataclass(
        "Train",
        [
            ("run", Annotated[TrainOptions, tyro.conf.arg(name="")]),
            ("config", Annotated[kind.config_class, tyro.conf.arg(name="")], field(default=default)),
        ],
        frozen=True,
    )
    try:
        parsed: Any = tyro.cli(combined, prog="palaestra train", args=arguments, description=TrainOptions.__doc__)
    except (ValueError, TypeError) as error:
        print(f"palaestra train: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    return parsed.run, parsed.config


def set_threads(threads: int, config: AgentConfig | None) -> None:
    """Set torch's threads on purpose: narrow networks are slower on several than on one."""
    if threads:
        torch.set_num_threads(threads)
    elif max(getattr(config, "hidden", (256,)) or (1,)) < 128:
        torch.set_num_threads(1)
