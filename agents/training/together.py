"""Several runs trained by one process: each in a thread of its own, as if it were alone, their updates made as one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from palaestra.agents.agent import Agent
from palaestra.agents.training.acceleration import Updates, accelerate
from palaestra.agents.training.callbacks import Callback
from palaestra.agents.training.many_seeds import SeedBatch
from palaestra.agents.training.off_policy import OffPolicyAgent
from palaestra.agents.training.replayed_seeds import ReplayedSeeds
from palaestra.agents.training.run import InterruptStop, Run

POLL_SECONDS = 0.1


def train_together(runs: Sequence[Run], watchers: Sequence[Callback] = ()) -> list[Exception | None]:
    """Train runs to their ends as one batch; return what ended each early, or None.

    Every run acts, logs, evaluates and saves by itself; only its updates wait for those of the others. One that fails
    leaves the others to go on without it. Ctrl-C stops all of them, saved, after the same step.

    Args:
        runs: Runs of one agent and env that differ in their seed alone and stand at the same step.
        watchers: One callback for each run that is no part of it, or none.

    Raises:
        ValueError: If they differ in more than their seed.
        TypeError: If the agent cannot be trained so; the message says why.
    """
    meeting = Meeting([run.agent for run in runs])
    errors: list[Exception | None] = [None] * len(runs)

    def train(index: int) -> None:
        try:
            with meeting.attended_by(index):
                runs[index].train(watchers=[*watchers[index : index + 1], meeting.stop_of(index)])
        except Exception as error:
            errors[index] = error

    threads = [threading.Thread(target=train, args=(index,), daemon=True) for index in range(len(runs))]
    interrupt = InterruptStop()
    with interrupt.listening():
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            next(thread for thread in threads if thread.is_alive()).join(POLL_SECONDS)
            if interrupt.requested:
                meeting.end_soon()
    return errors


class Meeting:
    """Where the threads of several agents wait for one another with every update; the last to come makes it for all.

    Args:
        agents: Agents that differ in their seed alone.

    Raises:
        ValueError: If they differ in more than their seed.
        TypeError: If the agent cannot be trained so.
    """

    def __init__(self, agents: Sequence[Agent]) -> None:
        self.agents = list(agents)
        self.changed = threading.Condition()
        self.party = set(range(len(agents)))
        self.brought: dict[int, Any] = {}
        self.taken_home: dict[int, Any] = {}
        self.steps = [agent.num_timesteps for agent in agents]
        self.end: int | None = None
        self.members: list[int] = []
        self._form()

    @contextmanager
    def attended_by(self, index: int) -> Iterator[None]:
        """Make an agent's updates here while the block runs; the others wait for it no longer when it ends."""
        agent = self.agents[index]
        own = dict(vars(agent))
        if isinstance(agent, OffPolicyAgent):
            replaced: dict[str, Any] = {"updates": _Seat(self, index)}
        else:
            replaced = {"update": partial(self.meet, index), "unsaved": agent.unsaved | {"update", "unsaved"}}
        vars(agent).update(replaced)
        try:
            yield
        finally:
            for name in replaced:
                delattr(agent, name)
                if name in own:
                    setattr(agent, name, own[name])
            with self.changed:
                self.party.discard(index)
                self._work_if_complete()

    def meet(self, index: int, brought: Any) -> Any:
        """Wait until every agent that still trains is here and the work is done; return the agent's part of it."""
        with self.changed:
            self.brought[index] = brought
            self._work_if_complete()
            self.changed.wait_for(lambda: index in self.taken_home)
            result = self.taken_home.pop(index)
        if isinstance(result, Exception):
            raise RuntimeError(f"the update of all seeds failed: {result}") from result
        return result

    def end_soon(self) -> None:
        """Let every agent stop after the same step: the next one of whoever has come furthest."""
        with self.changed:
            if self.end is None:
                self.end = max(self.steps) + self.agents[0].num_envs

    def stop_of(self, index: int) -> Callback:
        """Return the callback that stops an agent then."""
        return _Stop(self, index)

    def _form(self) -> None:
        """Put those who still train into common storage."""
        self.members = sorted(self.party)
        agents = [self.agents[index] for index in self.members]
        self.work: Callable[[list[Any]], list[Any]]
        if all(isinstance(agent, OffPolicyAgent) for agent in agents):
            seeds: Any = ReplayedSeeds([agent for agent in agents if isinstance(agent, OffPolicyAgent)])
            updates = Updates(seeds, accelerate(seeds.agents[0]).capture)

            def make_all(items: list[Any]) -> list[Any]:
                updates.make()
                return items

            self.work = make_all
        else:
            self.work = SeedBatch(agents).update

    def _work_if_complete(self) -> None:
        """Do the work if everyone who still trains is here."""
        if not self.brought or self.brought.keys() != self.party:
            return
        members = sorted(self.party)
        try:
            if members != self.members:
                self._form()
            self.taken_home |= zip(members, self.work([self.brought[index] for index in members]), strict=True)
        except Exception as error:
            self.taken_home |= dict.fromkeys(members, error)
        self.brought.clear()
        self.changed.notify_all()


class _Seat:
    """Stands for an off-policy agent's `Updates` at a meeting."""

    def __init__(self, meeting: Meeting, index: int) -> None:
        self.meeting, self.index = meeting, index

    def make(self) -> None:
        """Make the updates that are owed, with everyone else's."""
        if self.meeting.agents[self.index].updates_owed > 0:  # type: ignore[attr-defined]
            self.meeting.meet(self.index, None)

    def forget(self) -> None:
        """Forget nothing: what is captured is of all seeds."""


class _Stop(Callback):
    def __init__(self, meeting: Meeting, index: int) -> None:
        self.meeting, self.index = meeting, index

    def on_step(self, agent: Agent) -> bool | None:
        """Note how far the agent is; stop it where all do."""
        with self.meeting.changed:
            self.meeting.steps[self.index] = agent.num_timesteps
            return False if self.meeting.end is not None and agent.num_timesteps >= self.meeting.end else None
