"""What people see of several seeds: a line for each while they train, and a table of all at the end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from palaestra.agents.evaluation.statistics import interquartile_mean, mean_interval, stratified_bootstrap
from palaestra.agents.training.callbacks import Callback
from palaestra.scripts.options import console
from palaestra.scripts.seeds import SeedGroup

if TYPE_CHECKING:
    from palaestra.agents.agent import Agent
    from palaestra.agents.training.run import Run

TELL_SECONDS = 0.5


class Telling(Callback):
    """Tells where a run stands, at most twice a second; stops it, saved, once nobody listens any more.

    Args:
        run: The run.
        tell: Takes its env steps and what its latest evaluation in this process measured; returns whether someone
            listened.
    """

    def __init__(self, run: Run, tell: Callable[[int, float | None], bool]) -> None:
        self.run, self.tell = run, tell
        self.told = -math.inf
        self.heard = True

    def on_start(self, agent: Agent) -> None:
        """Tell where training begins."""
        self._tell_now()

    def on_step(self, agent: Agent) -> bool | None:
        """Tell when due."""
        if time.monotonic() - self.told >= TELL_SECONDS:
            self._tell_now()
        return None if self.heard else False

    def on_end(self, agent: Agent) -> None:
        """Tell where training ended."""
        self._tell_now()

    def _tell_now(self) -> None:
        self.told = time.monotonic()
        self.heard = self.tell(self.run.agent.num_timesteps, self.run.evaluation.latest)


class Board:
    """Shows every seed's steps, speed, remaining time and latest evaluation; on a terminal while they change.

    Args:
        group: The runs.
        progress: Whether to show lines that change; otherwise beginnings and ends alone are printed.
    """

    def __init__(self, group: SeedGroup, *, progress: bool) -> None:
        self.console = console()
        self.live = progress and self.console.is_terminal
        self.progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(10),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[evaluation]}"),
            console=self.console,
        )
        self.first: dict[int, tuple[int, float]] = {}
        self.tasks: dict[int, TaskID] = {}
        self.whole = self._line("all seeds", len(group.seeds) * group.config.total_timesteps, 0, start=True)
        for seed in group.seeds:
            result = group.result(seed)
            self.tasks[seed] = self._line(f"seed {seed}", group.config.total_timesteps, result.step or 0, start=False)
            self._show_evaluation(seed, result.measures.get("evaluation"))
        self._show_whole()

    def __enter__(self) -> Board:
        if self.live:
            self.progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.live:
            self.progress.stop()

    def start(self, seed: int) -> None:
        """Show that a seed is being trained."""
        self.progress.start_task(self.tasks[seed])
        self._print_if_still(f"seed {seed}: started")

    def move(self, seed: int, step: int, evaluation: float | None) -> None:
        """Show where a seed stands."""
        first, begun = self.first.setdefault(seed, (step, time.monotonic()))
        seconds = time.monotonic() - begun
        speed = f"{(step - first) / seconds:,.0f} steps/s" if step > first else ""
        self.progress.update(self.tasks[seed], completed=step, speed=speed)
        self._show_evaluation(seed, evaluation)
        self._show_whole()

    def end(self, seed: int, state: Literal["done", "interrupted", "failed"], why: str = "") -> None:
        """Show how a seed's training ended, and print why it failed."""
        self.progress.stop_task(self.tasks[seed])
        self._print_if_still(f"seed {seed}: {state}")
        if why:
            self.console.print(f"[bold red]seed {seed} failed:[/]")
            self.console.print(why, markup=False, highlight=False)

    def _line(self, name: str, total: int, completed: int, start: bool) -> TaskID:
        return self.progress.add_task(name, total=total, completed=completed, start=start, speed="", evaluation="")

    def _print_if_still(self, line: str) -> None:
        if not self.live:
            self.console.print(line, highlight=False)

    def _show_evaluation(self, seed: int, evaluation: float | None) -> None:
        if evaluation is not None:
            self.progress.update(self.tasks[seed], evaluation=f"evaluation {evaluation:,.4g}")

    def _show_whole(self) -> None:
        lines = [task for task in self.progress.tasks if task.id != self.whole]
        self.progress.update(self.whole, completed=sum(task.completed for task in lines))


def print_summary(group: SeedGroup, failed: set[int], unfinished: set[int], out: Console) -> None:
    """Print a line for every seed, and over those that are done the mean and the interquartile mean.

    The interval of the mean is Student's, that of the interquartile mean a bootstrap over seeds; both of 95 %.
    """
    results = [group.result(seed) for seed in group.seeds]
    measured = [name for name in ("evaluation", "gap") if any(name in result.measures for result in results)]
    table = Table("seed", "state", "steps", *measured, "at step", box=None)
    for result in results:
        state = "failed" if result.seed in failed else "unfinished" if result.seed in unfinished else "done"
        texts = [f"{result.measures[name]:,.4g}" if name in result.measures else "-" for name in measured]
        steps = ["-" if count is None else f"{count:,}" for count in (result.step, result.evaluated_at)]
        table.add_row(str(result.seed), state, steps[0], *texts, steps[1])
    out.print(table)
    done = [result for result in results if result.seed not in unfinished]
    if not measured:
        out.print("No evaluation was due; --eval-freq makes them more frequent.")
    for name in measured if done else ():
        values = [result.measures[name] for result in done if name in result.measures]
        out.print(f"{name} {describe(values)}, {len(done)} of {len(results)} seeds", highlight=False)


def describe(values: Sequence[float]) -> str:
    """Return the mean and the interquartile mean of values with their 95 % intervals, as far as there are any."""
    if not values or not all(map(math.isfinite, values)):
        return "has no finite mean"
    if len(values) == 1:
        return f"mean {values[0]:,.4g}"
    intervals = {
        "mean": mean_interval(values),
        "IQM": stratified_bootstrap(interquartile_mean, {"": list(values)}),
    }
    return ", ".join(f"{name} {i.estimate:,.4g} [{i.low:,.4g}, {i.high:,.4g}]" for name, i in intervals.items())
