"""A run: a directory in which training can be watched, interrupted, killed and resumed bit for bit."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

from palaestra.agents.agent import Agent
from palaestra.agents.evaluation.evaluate import evaluate
from palaestra.agents.evaluation.playing import record_video
from palaestra.agents.loading import from_checkpoint
from palaestra.agents.registry import agent_class, import_agent, make_agent
from palaestra.agents.training.callbacks import Callback, EveryNSteps
from palaestra.agents.training.checkpoint import CheckpointStore
from palaestra.agents.training.logging import RunLogger
from palaestra.wrappers.env_state import why_not_resumable


@dataclass(frozen=True)
class RunConfig:
    """What a run directory is made from; stored in its `run.json`.

    `config` holds fields of the agent's configuration; those not given come from the preset of the env id, if `preset`
    holds and there is one, and else from the class. `eval_freq=0` makes twenty evaluations, at least 10,000 steps
    apart. `threads` records the thread count of the run, which a resumed run must share to be equal bit for bit.
    """

    agent: str
    env: str
    total_timesteps: int
    seed: int = 0
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    backend: str = "auto"
    config: Mapping[str, Any] = field(default_factory=dict)
    preset: bool = True
    device: str = "auto"
    threads: int = 0
    log_freq: int = 1_000
    eval_freq: int = 0
    eval_episodes: int = 20
    checkpoint_freq: int = 10_000
    keep_checkpoints: int = 2
    tensorboard: bool = True
    video: bool = False


class Run:
    """Training in a directory: logs, periodic evaluation on separate seeds, best and latest checkpoints.

    Use `Run.create` for a new run and `Run.resume` for one that was interrupted or killed.
    """

    def __init__(
        self,
        directory: Path,
        config: RunConfig,
        agent: Agent,
        store: CheckpointStore,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.directory, self.config, self.agent, self.store = directory, config, agent, store
        self.logger = RunLogger(directory, tensorboard=config.tensorboard)
        self.log = LogMetrics(config.log_freq, self.logger)
        self.evaluation = PeriodicEvaluation(config, self.logger, directory)
        self.interrupt = InterruptStop()
        self.callbacks: list[Callback] = [
            self.log,
            self.evaluation,
            *callbacks,
            PeriodicCheckpoint(config.checkpoint_freq, self),
        ]

    @classmethod
    def create(cls, directory: str | Path, config: RunConfig, callbacks: Sequence[Callback] = ()) -> Run:
        """Make the directory, the agent and the checkpoint of step 0.

        Raises:
            FileExistsError: If the directory exists and is not empty.
        """
        directory = Path(directory)
        if directory.exists() and any(directory.iterdir()):
            raise FileExistsError(
                f"run directory {directory} exists; expected a new one: give another --name, or continue it with "
                f"`palaestra resume {directory}`"
            )
        agent = new_agent(config)
        text = json.dumps(asdict(config), indent=2)
        directory.mkdir(parents=True, exist_ok=True)
        partial = directory / "run.json.partial"
        partial.write_text(text + "\n")
        os.replace(partial, directory / "run.json")
        run = cls(directory, config, agent, _store(directory, config), callbacks)
        run.save()
        return run

    @classmethod
    def resume(
        cls,
        directory: str | Path,
        callbacks: Sequence[Callback] = (),
        total_timesteps: int | None = None,
        step: int | None = None,
    ) -> Run:
        """Return the run as its newest checkpoint left it; logs are cut back to that point.

        Args:
            directory: The run's directory.
            callbacks: The user's own callbacks, in the order they had.
            total_timesteps: A new target, to train longer; annealed schedules follow it.
            step: The checkpoint to go on from; the newest by default.

        Raises:
            FileNotFoundError: If the directory holds no run.
            CheckpointError: If its newest checkpoint is damaged; the message names an older one that loads.
        """
        directory = Path(directory)
        if not (directory / "run.json").is_file():
            raise FileNotFoundError(f"{directory} holds no run.json; expected a directory made by `palaestra train`")
        config = RunConfig(**json.loads((directory / "run.json").read_text()))
        import_agent(config.agent)
        store = _store(directory, config)
        if not store.steps():  # killed before its first checkpoint: nothing has happened yet
            return cls(directory, config, new_agent(config), store, callbacks)
        checkpoint = store.load(step)
        agent = from_checkpoint(checkpoint, config.env, device=config.device)
        if total_timesteps is not None:
            agent.target_timesteps = total_timesteps
        # JSON knows no tuples; the checkpoint kept the arguments as they were.
        run = cls(directory, replace(config, env_kwargs=agent.env_kwargs), agent, store, callbacks)
        for callback, state in zip(run.callbacks, checkpoint.state["callbacks"], strict=True):
            callback.load_state_dict(state)
        run.logger.load_state_dict(checkpoint.state["logger"])
        return run

    def save(self) -> None:
        """Write a checkpoint of everything."""
        state = {
            "agent": self.agent.state_dict(),
            "callbacks": [callback.state_dict() for callback in self.callbacks],
            "logger": self.logger.state_dict(),
        }
        self.store.save(self.agent.num_timesteps, state, header=self.agent.header(), streams=self.agent.streams())

    def train(self, progress_bar: bool = False, watchers: Sequence[Callback] = ()) -> Agent:
        """Train to the target, or to Ctrl-C; the latest state is saved either way.

        If the env raises in the middle of an episode, the state before that step is saved and the env's own error
        goes on. If a loss is not finite, nothing is saved: the last checkpoint is the last good one.

        Args:
            progress_bar: Show steps, speed and remaining time.
            watchers: Callbacks that are no part of the run: they come last, and nothing of them is saved.
        """
        why = why_not_resumable(self.agent.collector.env)
        if why:
            print(f"This run cannot be resumed exactly: {why}")
        with self.interrupt.listening():
            try:
                self.agent.learn(None, [*self.callbacks, self.interrupt, *watchers], progress_bar)
            except BaseException:
                # A pending decision means that the env raised: everything else stands as before that step.
                if self.agent.pending is not None:
                    self.save()
                raise
            finally:
                self.logger.close()
        if self.store.steps()[-1:] != [self.agent.num_timesteps]:
            self.save()
        return self.agent

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended the training."""
        return self.interrupt.requested


class InterruptStop(Callback):
    """Turns the first Ctrl-C into a stop after the current step; a second one ends the process at once."""

    def __init__(self) -> None:
        self.requested = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Catch SIGINT and SIGTERM inside the block, where this thread may."""
        previous: dict[signal.Signals, Any] = {}

        def request(number: int, frame: FrameType | None) -> None:
            self.requested = True
            for caught, handler in previous.items():
                signal.signal(caught, handler)

        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                previous[number] = signal.signal(number, request)
            except ValueError:  # not the main thread: the caller's own handling stays
                break
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def on_step(self, agent: Agent) -> bool | None:
        """Stop when asked to."""
        return False if self.requested else None


class LogMetrics(EveryNSteps):
    """Writes episode statistics and the means of the update metrics."""

    def __init__(self, interval: int, logger: RunLogger) -> None:
        super().__init__(interval)
        self.logger = logger
        self.begun = time.monotonic()

    def on_start(self, agent: Agent) -> None:
        """Start the clock of this process."""
        super().on_start(agent)
        self.begun, self.first = time.monotonic(), agent.num_timesteps

    def run(self, agent: Agent) -> bool | None:
        """Write one line."""
        speed = (agent.num_timesteps - self.first) / max(time.monotonic() - self.begun, 1e-9)
        values = {**agent.collector.statistics(), **agent.metrics.collect()}
        counts = {"rollout/episodes": agent.collector.episodes, "train/updates": agent.num_updates, "time/fps": speed}
        self.logger.log(agent.num_timesteps, {**values, **counts})
        return None


class PeriodicEvaluation(EveryNSteps):
    """Evaluates on seeds of its own, logs the result, and keeps the best agent in `best`."""

    def __init__(self, config: RunConfig, logger: RunLogger, directory: Path) -> None:
        super().__init__(config.eval_freq or max(10_000, config.total_timesteps // 20))
        self.config, self.logger, self.directory = config, logger, directory
        self.best: float | None = None
        self.latest: float | None = None
        """What the latest evaluation of this process measured."""

    def run(self, agent: Agent) -> bool | None:
        """Evaluate once."""
        config = self.config
        result = evaluate(
            agent, config.env, env_kwargs=config.env_kwargs, episodes=config.eval_episodes, seed=config.seed
        )
        self.logger.log(agent.num_timesteps, {f"eval/{name}": value for name, value in result.metrics().items()})
        if result.gap is not None:
            share, known = 100.0 * result.gap.estimate, result.oracle_kind
            print(f"step {agent.num_timesteps:,}: {result.estimand} {result.value:.4f}, {share:.2f} % from the {known}")
        self.latest = result.value
        if self.best is None or result.value > self.best:
            self.best = result.value
            agent.save(self.directory / "best", replay=False)
        if config.video:
            record_video(agent, config.env, config.env_kwargs, self.directory / "videos", f"step-{agent.num_timesteps}")
        return None

    def state_dict(self) -> dict[str, Any]:
        """Return the best value so far."""
        return {"best": self.best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back the best value so far."""
        self.best = state["best"]


class PeriodicCheckpoint(EveryNSteps):
    """Saves the run; comes last, so that what the others did in the same step is in the checkpoint."""

    def __init__(self, interval: int, run: Run) -> None:
        super().__init__(interval)
        self.owner = run

    def run(self, agent: Agent) -> bool | None:
        """Save once."""
        self.owner.save()
        return None


def new_agent(config: RunConfig) -> Agent:
    """Return the agent that a run begins with."""
    agent = make_agent(
        config.agent,
        config.env,
        seed=config.seed,
        device=config.device,
        preset_name="auto" if config.preset else None,
        env_kwargs=config.env_kwargs,
        backend=config.backend,
        **config.config,
    )
    agent.target_timesteps = config.total_timesteps
    return agent


def _store(directory: Path, config: RunConfig) -> CheckpointStore:
    return CheckpointStore(directory / "checkpoints", keep=config.keep_checkpoints)


def default_directory(config: RunConfig, root: Path = Path("runs"), seeds: str | None = None) -> Path:
    """Return a free directory name made of agent, env, seed and a counter where needed.

    Args:
        config: The run.
        root: The folder of runs.
        seeds: What to write in place of the run's own seed, for a folder of several runs.
    """
    ending = f"seed{config.seed}" if seeds is None else f"seeds{seeds}"
    stem = f"{agent_class(import_agent(config.agent)).agent_id}-{config.env}-{ending}".replace("/", "_").replace(
        ":", "_"
    )
    candidates: Iterator[Path] = (root / (stem if n == 1 else f"{stem}-{n}") for n in range(1, 10_000))
    return next(path for path in candidates if not path.exists())
