"""Several seeds of an off-policy agent as one agent in the eyes of `palaestra.agents.training.acceleration`.

Their batches are drawn from stacked replays and their metrics kept in stacked sums, so that a few updates of all seeds,
the sampling included, can be one launch on a GPU as those of a single agent are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from palaestra.agents.memory.fields import nest_fields
from palaestra.agents.memory.replay import DRAWS, Batch, ReplayBuffer
from palaestra.agents.training.many_seeds import SeedBatch
from palaestra.agents.training.metrics import MetricAccumulator
from palaestra.agents.training.off_policy import OffPolicyAgent


class ReplayedSeeds:
    """What `Updates` needs of an agent, for several that differ in their seed alone and are equally far.

    Args:
        agents: The agents; their tensors, replays and metrics move into common storage.

    Raises:
        ValueError: If they differ in more than their seed.
        TypeError: If the agent cannot be vectorised.
    """

    def __init__(self, agents: Sequence[OffPolicyAgent]) -> None:
        self.agents = list(agents)
        if type(agents[0]).make_update is not OffPolicyAgent.make_update:
            raise TypeError(
                f"{agents[0].agent_id}: its batches are not drawn from its replay alone; train its seeds apart"
            )
        self.batch = SeedBatch(agents, "learn_from")
        self.replays = StackedReplay([agent.replay for agent in agents])
        self.metrics = StackedMetrics([agent.metrics for agent in agents])
        self.device = agents[0].device
        self.update_cycle = agents[0].update_cycle

    def make_update(self, number: int | Tensor) -> None:
        """Make the update with the given number of every seed, each on a batch of its own replay."""
        first = self.agents[0]
        batch = self.replays.sample(first.config.batch_size, [agent.replay_generator for agent in self.agents])
        self.metrics.add(self.batch.update_stacked(Batch, batch), number)

    @property
    def num_updates(self) -> int:
        """Updates made by each seed."""
        return self.agents[0].num_updates

    @num_updates.setter
    def num_updates(self, count: int) -> None:
        for agent in self.agents:
            agent.num_updates = count

    @property
    def updates_owed(self) -> int:
        """Updates that each seed still has to make."""
        return self.agents[0].updates_owed

    @updates_owed.setter
    def updates_owed(self, count: int) -> None:
        for agent in self.agents:
            agent.updates_owed = count

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Return the optimisers of all seeds."""
        return [optimizer for agent in self.agents for optimizer in agent.optimizers()]

    def generators(self) -> list[Generator]:
        """Return the generators of all seeds on their device."""
        return [generator for agent in self.agents for generator in agent.generators()]


class StackedReplay:
    """Replays of one shape and equal lengths, from which every seed draws as it would from its own.

    Args:
        replays: The replays; their rows move into common storage when the first batch is drawn.
    """

    def __init__(self, replays: Sequence[ReplayBuffer]) -> None:
        self.replays = list(replays)
        self.fields: dict[str, Tensor] = {}
        first = replays[0]
        self.lengths = torch.stack([replay.length for replay in replays])
        for replay, length in zip(replays, self.lengths.unbind(), strict=True):
            replay.length = length
        self.starts = first.capacity * torch.arange(len(replays), device=first.device).unsqueeze(1)

    def sample(self, batch_size: int, generators: Sequence[Generator]) -> dict[str, Any]:
        """Return the fields of transitions `[seeds, batch, ...]`, each seed's drawn with its own generator."""
        if not self.fields:
            self._stack()
        draws = [
            torch.randint(DRAWS, (batch_size,), generator=generator, device=self.starts.device)
            for generator in generators
        ]
        index = (torch.stack(draws) % self.lengths.unsqueeze(1) + self.starts).flatten()
        seeds = len(self.replays)
        rows = {name: field.flatten(0, 1).index_select(0, index) for name, field in self.fields.items()}
        return nest_fields({name: field.unflatten(0, (seeds, batch_size)) for name, field in rows.items()})

    def _stack(self) -> None:
        # Field by field, so that no more than one of them is held twice.
        for name in self.replays[0].fields:
            self.fields[name] = torch.stack([replay.fields[name] for replay in self.replays])
            for replay, rows in zip(self.replays, self.fields[name].unbind(), strict=True):
                replay.fields[name] = rows


class StackedMetrics(MetricAccumulator):
    """The metrics of several agents, of which each keeps a view; added to for all at once.

    Args:
        metrics: One for each agent.
    """

    def __init__(self, metrics: Sequence[MetricAccumulator]) -> None:
        self.parts = list(metrics)
        self.names = list(metrics[0].names)
        sums = [part.sums for part in metrics if part.sums is not None]
        first_bad = [part.first_bad for part in metrics if part.first_bad is not None]
        self.sums = torch.stack(sums, 1) if sums else None
        self.first_bad = torch.stack(first_bad, 1) if first_bad else None
        self._share()

    @property
    def count(self) -> int:
        """Updates since the metrics were last collected."""
        return self.parts[0].count

    @count.setter
    def count(self, count: int) -> None:
        for part in self.parts:
            part.count = count

    def add(self, metrics: Any, update: int | Tensor) -> None:
        """Merge the metrics, each `[seeds]`, of the update with the given number."""
        fresh = self.sums is None
        super().add(metrics, update)
        if fresh:
            self._share()

    def _share(self) -> None:
        if self.sums is None or self.first_bad is None:
            return
        for index, part in enumerate(self.parts):
            part.names, part.sums, part.first_bad = list(self.names), self.sums[:, index], self.first_bad[:, index]
