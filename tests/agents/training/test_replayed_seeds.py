"""Stacked replays and metrics, and the updates of several seeds as one launch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Generator
from torch.utils._pytree import tree_leaves

import palaestra
from palaestra.agents.memory.replay import ReplayBuffer
from palaestra.agents.training.acceleration import WARM_UP, Updates
from palaestra.agents.training.metrics import MetricAccumulator
from palaestra.agents.training.replayed_seeds import ReplayedSeeds, StackedMetrics, StackedReplay
from palaestra.agents.training.tree import first_difference
from tests.agents.training.test_acceleration import Recording

CPU = torch.device("cpu")


def filled(seed: int, rows: int, capacity: int = 12) -> ReplayBuffer:
    replay = ReplayBuffer(capacity, CPU)
    generator = Generator().manual_seed(seed)
    replay.add(
        {
            "observation": {name: torch.randn(rows, 2, generator=generator) for name in ("place", "goal")},
            "action": torch.randn(rows, 1, generator=generator),
            "reward": torch.randn(rows, generator=generator),
            "next_observation": {name: torch.randn(rows, 2, generator=generator) for name in ("place", "goal")},
            "terminated": torch.zeros(rows, dtype=torch.bool),
            "truncated": torch.zeros(rows, dtype=torch.bool),
        }
    )
    return replay


@pytest.mark.parametrize("rows", [5, 12, 30])
def test_every_seed_draws_what_it_would_draw_from_its_own_replay(rows: int) -> None:
    own, shared = [filled(seed, rows) for seed in range(3)], [filled(seed, rows) for seed in range(3)]
    stacked = StackedReplay(shared)
    for _ in range(2):
        batch = stacked.sample(8, [Generator().manual_seed(40 + index) for index in range(3)])
        for index, replay in enumerate(own):
            single = vars(replay.sample(8, Generator().manual_seed(40 + index)))
            mine = {name: value for name, value in single.items() if value is not None}
            assert mine.keys() == batch.keys()
            for name, value in mine.items():
                ours = batch[name]
                row = {key: leaf[index] for key, leaf in ours.items()} if isinstance(ours, dict) else ours[index]
                assert first_difference(value, row) is None, name
        # What is added to a replay is found in the stack, and the rows kept grow with it.
        for replays in (own, shared):
            for seed, replay in enumerate(replays):
                replay.add({name: value for name, value in filled_rows(seed).items()})
        assert stacked.lengths.tolist() == [min(rows + 3, 12)] * 3
        rows += 3


def filled_rows(seed: int) -> dict[str, Any]:
    source = filled(seed + 90, 3, capacity=3)
    return {
        name: value for name, value in vars(source.sample(3, Generator().manual_seed(1))).items() if value is not None
    }


def test_stacked_metrics_are_those_of_each() -> None:
    own, shared = [MetricAccumulator() for _ in range(3)], [MetricAccumulator() for _ in range(3)]
    for metrics in (own, shared):
        for part in metrics:
            part.add({"loss": torch.tensor(2.0), "norm": torch.tensor(0.5)}, 1)
    stacked = StackedMetrics(shared)
    for update in (2, 3, 4):
        losses = torch.tensor([1.0, 2.0, torch.nan if update > 2 else 3.0]) * update
        norms = torch.tensor([0.1, torch.inf if update == 4 else 0.2, 0.3])
        stacked.add({"loss": losses, "norm": norms}, update)
        for index, part in enumerate(own):
            part.add({"loss": losses[index], "norm": norms[index]}, update)
    assert [part.count for part in shared] == [4, 4, 4]
    for index, (one, part) in enumerate(zip(own, shared, strict=True)):
        assert first_difference(one.first_bad, part.first_bad) is None, index
        assert first_difference(one.sums, part.sums) is None, index
        assert repr(one.collect()) == repr(part.collect())
    assert own[2].first_bad.tolist() == [3.0, -1.0]
    assert own[1].first_bad.tolist() == [-1.0, 4.0]


class Recorder:
    """Captures on a CPU the updates of several agents. A capture runs nothing: what recording changed is put back."""

    def __init__(self, seeds: ReplayedSeeds) -> None:
        self.seeds, self.launches = seeds, 0

    def warm_up(self, update: Callable[[], None]) -> None:
        update()

    def capture(self, updates: Callable[[], None], generators: Sequence[Generator]) -> Callable[[], None]:
        tensors = [leaf for leaf in tree_leaves([agent.state_dict() for agent in self.seeds.agents])]
        tensors = [leaf for leaf in tensors if isinstance(leaf, torch.Tensor)]
        kept, states = [leaf.clone() for leaf in tensors], [generator.get_state() for generator in generators]
        with Recording() as recording:
            updates()
        with torch.no_grad():
            for tensor, value in zip(tensors, kept, strict=True):
                if tensor.dtype != torch.uint8:  # a generator's state
                    tensor.copy_(value)
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)

        @torch.no_grad()
        def launch() -> None:
            self.launches += 1
            recording.repeat()

        return launch


@pytest.mark.parametrize("agent_id", ["sac", "td3"])
def test_recorded_updates_of_all_seeds_repeated_blindly_equal_plain_ones(agent_id: str) -> None:
    """Bit for bit: all that a captured update works on stays where it is, and nothing in it looks at data."""
    config = {"hidden": (8, 8), "batch_size": 8, "buffer_size": 60, "learning_starts": 30}
    config |= {"normalize_observation": agent_id == "sac"}
    plain, recorded = (
        ReplayedSeeds(
            [
                palaestra.make_agent(agent_id, "Pendulum-v1", seed=seed, preset_name=None, device="cpu", **config)
                for seed in (0, 1)
            ]
        )
        for _ in range(2)
    )
    recorder = Recorder(recorded)
    for seeds, capture in ((plain, None), (recorded, recorder)):
        updates = Updates(seeds, capture)
        for agent in seeds.agents:
            agent.learn(30)
        for owed in (WARM_UP, 1, 3, 4):
            seeds.updates_owed = owed
            updates.make()
            for agent in seeds.agents:
                agent.replay.add(filled_by(agent))
    assert recorder.launches == 4
    assert plain.num_updates == recorded.num_updates == WARM_UP + 8
    for ours, theirs in zip(recorded.agents, plain.agents, strict=True):
        assert first_difference(ours.state_dict(), theirs.state_dict()) is None


def filled_by(agent: Any) -> dict[str, Any]:
    """More rows of an agent's own experience, so that its replay grows between launches."""
    batch = agent.replay.sample(2, Generator().manual_seed(agent.num_updates))
    return {name: value for name, value in vars(batch).items() if value is not None}
