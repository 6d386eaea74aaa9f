"""A progress bar for training: steps, speed, remaining time and the latest returns."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from palaestra.agents.training.callbacks import Callback

if TYPE_CHECKING:
    from palaestra.agents.agent import Agent


class ProgressBar(Callback):
    """Shows a bar on the terminal, refreshed at most ten times a second."""

    def __init__(self) -> None:
        self.progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[returns]}"),
        )
        self.refreshed = 0.0

    def on_start(self, agent: Agent) -> None:
        """Draw the empty bar."""
        self.first, self.begun = agent.num_timesteps, time.monotonic()
        self.task = self.progress.add_task(
            agent.agent_id, total=agent.target_timesteps, completed=agent.num_timesteps, speed="", returns=""
        )
        self.progress.start()

    def on_step(self, agent: Agent) -> bool | None:
        """Move the bar."""
        now = time.monotonic()
        if now - self.refreshed >= 0.1:
            self.refreshed = now
            self._show(agent, now)
        return None

    def on_end(self, agent: Agent) -> None:
        """Show where training ended."""
        self._show(agent, time.monotonic())
        self.progress.stop()

    def _show(self, agent: Agent, now: float) -> None:
        speed = (agent.num_timesteps - self.first) / max(now - self.begun, 1e-9)
        mean = agent.collector.statistics().get("rollout/ep_rew_mean")
        self.progress.update(
            self.task,
            completed=agent.num_timesteps,
            speed=f"{speed:,.0f} steps/s",
            returns="" if mean is None else f"return {mean:,.1f}",
        )
