"""What `palaestra speed` times of many seeds."""

from __future__ import annotations

import pytest

from palaestra.agents.training.off_policy import OffPolicyAgent
from palaestra.agents.training.replayed_seeds import ReplayedSeeds
from palaestra.scripts import speed_seeds
from palaestra.scripts.timing import OURS


def test_both_sides_make_the_updates_that_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mujoco")
    made = {"together": 0, "alone": 0}
    together, alone = ReplayedSeeds.make_update, OffPolicyAgent.make_update

    def count_together(seeds: ReplayedSeeds, number: int) -> None:
        made["together"] += 1
        together(seeds, number)

    def count_alone(agent: OffPolicyAgent, number: int) -> None:
        made["alone"] += 1
        alone(agent, number)

    monkeypatch.setattr(ReplayedSeeds, "make_update", count_together)
    monkeypatch.setattr(OffPolicyAgent, "make_update", count_alone)
    timing = speed_seeds.sac(1, seeds=2, updates=2, width=8, batch=8, turn_seconds=0.0)
    # Once to warm up, once to be timed.
    assert made == {"together": 4, "alone": 4}
    assert list(timing.sides) == [OURS, speed_seeds.ONE]
    assert all(rates[0] > 0 for rates in timing.sides.values())
    assert timing.details["seeds"] == 2
