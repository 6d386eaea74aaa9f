"""What happens beside training: evaluation, stopping early, progress, and the user's own.

A callback is an object with any of `on_start`, `on_step` and `on_end`; `on_step` runs after every step of the vector
env and stops training by returning False. A plain function counts as an `on_step`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from palaestra.agents.agent import Agent


class Callback:
    """Base class of callbacks; its state, if any, is saved with the run."""

    def on_start(self, agent: Agent) -> None:
        """Run before the first step."""

    def on_step(self, agent: Agent) -> bool | None:
        """Run after every step of the vector env; return False to stop training."""
        return None

    def on_end(self, agent: Agent) -> None:
        """Run after the last step, also when training stopped early or failed."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""


class FunctionCallback(Callback):
    """A plain function of the agent, called after every step."""

    def __init__(self, function: Callable[[Agent], bool | None]) -> None:
        self.function = function

    def on_step(self, agent: Agent) -> bool | None:
        """Call the function."""
        return self.function(agent)


class CallbackList(Callback):
    """Several callbacks in order; training stops if any of them says so."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self.callbacks = list(callbacks)

    def on_start(self, agent: Agent) -> None:
        """Start each."""
        for callback in self.callbacks:
            callback.on_start(agent)

    def on_step(self, agent: Agent) -> bool | None:
        """Run each, also after one has asked to stop, so that a final evaluation is not lost."""
        answers = [callback.on_step(agent) for callback in self.callbacks]
        return False if any(answer is False for answer in answers) else None

    def on_end(self, agent: Agent) -> None:
        """End each."""
        for callback in self.callbacks:
            callback.on_end(agent)


CallbackLike = Callback | Callable[["Agent"], bool | None] | Sequence[Callback] | None


def as_callback(callback: CallbackLike) -> Callback:
    """Return one callback for a callback, a function, a list of callbacks or None.

    Raises:
        TypeError: If it is none of these.
    """
    if callback is None:
        return Callback()
    if isinstance(callback, Callback):
        return callback
    if isinstance(callback, Sequence):
        return CallbackList([as_callback(item) for item in callback])
    if callable(callback):
        return FunctionCallback(callback)
    raise TypeError(
        f"callback: {callback!r} is of type {type(callback).__name__}; expected a Callback, a function or a list"
    )


class EveryNSteps(Callback):
    """Calls `run(agent)` whenever another `interval` env steps have been taken.

    Args:
        interval: Env steps between two calls, at least 1.
    """

    def __init__(self, interval: int) -> None:
        if interval < 1:
            raise ValueError(f"{type(self).__name__}: interval={interval}; expected at least 1")
        self.interval = interval
        self.done = 0

    def on_start(self, agent: Agent) -> None:
        """Count from where the agent stands."""
        self.done = agent.num_timesteps // self.interval

    def on_step(self, agent: Agent) -> bool | None:
        """Call `run` when due."""
        due = agent.num_timesteps // self.interval
        if due <= self.done:
            return None
        self.done = due
        return self.run(agent)

    def run(self, agent: Agent) -> bool | None:
        """Do the work; return False to stop training."""
        raise TypeError(f"{type(self).__name__} must define run(agent)")


class StopOnThreshold(EveryNSteps):
    """Stops training once the mean return of the latest episodes reaches a threshold.

    Args:
        threshold: Mean return at which to stop.
        episodes: Episodes the mean is taken over, 1 to 100; fewer never stop.
        interval: Env steps between two looks.
    """

    def __init__(self, threshold: float, episodes: int = 100, interval: int = 1000) -> None:
        super().__init__(interval)
        self.threshold, self.episodes = threshold, episodes

    def run(self, agent: Agent) -> bool | None:
        """Compare the latest mean return with the threshold."""
        recent = list(agent.collector.recent_returns)[-self.episodes :]
        return False if len(recent) == self.episodes and sum(recent) / self.episodes >= self.threshold else None
