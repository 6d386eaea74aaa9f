"""The price of generative policies is timed on both sides with the same rows, and updates of full memories."""

from __future__ import annotations

from functools import partial

import pytest

from palaestra.scripts import speed_generative
from palaestra.scripts.timing import OURS


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed_generative, "interleaved", partial(speed_generative.interleaved, turn_seconds=0.0))


@pytest.mark.parametrize("part", ["flow", "flow_single", "diffusion", "diffusion_single"])
def test_acting_is_timed_against_a_gaussian_actor(part: str) -> None:
    timing = getattr(speed_generative, part)(3, threads=1, rows=4, width=8)
    assert list(timing.sides) == [OURS, "Gaussian actor"]
    assert timing.unit == "actions/s"
    assert all(rate > 0.0 for rates in timing.sides.values() for rate in rates)
    evaluations = 10 if part.startswith("flow") else 20
    assert timing.details == {"rows": 4, "width": 8, "network evaluations for an action": evaluations}


@pytest.mark.parametrize("agent_id", ["qsm", "dacer", "dipo", "qvpo"])
def test_updates_are_timed_against_sacs(agent_id: str) -> None:
    timing = speed_generative._update(agent_id, 3, threads=1, width=8, batch=4, levels=2)
    assert list(timing.sides) == [OURS, "SAC"]
    assert timing.unit == "updates/s"
    assert len(timing.sides[OURS]) == 3
