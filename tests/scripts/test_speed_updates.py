"""The timed updates: both sides do what they are said to, and the products alone are those of the update."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("stable_baselines3")
pytest.importorskip("mujoco")

from palaestra.scripts import speed_updates
from palaestra.scripts.timing import OURS, Timing, Work

LEFT_OF = {"mm": 0, "bmm": 0, "addmm": 1, "addmm_": 1, "baddbmm": 1, "baddbmm_": 1}
"""Which argument of a product is its left factor."""


class Multiplications(TorchDispatchMode):
    """Counts the multiplications of matrix products."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        place = LEFT_OF.get(func.overloadpacket.__name__)
        if place is not None:
            self.count += args[place].numel() * args[place + 1].shape[-1]
        return func(*args, **(kwargs or {}))


def sides_of(part: str, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, Work]:
    """The work of each side, which is not timed here."""
    kept: dict[str, Work] = {}

    def keep(name: str, unit: str, sides: Mapping[str, Work], *rest: Any) -> Timing:
        kept.update(sides)
        return Timing(name, unit, {side: [1.0] for side in sides}, 1)

    monkeypatch.setattr(speed_updates, "interleaved", keep)
    timing = getattr(speed_updates, part)(3, threads=1, width=16, batch=8)
    assert timing.unit == "updates/s"
    return kept


@pytest.mark.parametrize("part", ["sac", "td3", "dqn"])
def test_the_products_alone_are_those_of_the_update(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sides = sides_of(part, monkeypatch)
    assert list(sides) == [OURS, f"stable_baselines3.{part.upper()}.train", "matrix products"]
    counts = {}
    for side in (OURS, "matrix products"):
        with Multiplications() as counted:
            assert sides[side]() == speed_updates.UPDATES
        counts[side] = counted.count
    assert counts[OURS] == counts["matrix products"] > 0


@pytest.mark.parametrize("part", ["sac", "td3", "dqn"])
def test_both_sides_learn(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    make = speed_updates._fill

    def keep(ours: Any, theirs: Any) -> None:
        made.extend((ours, theirs))
        make(ours, theirs)

    monkeypatch.setattr(speed_updates, "_fill", keep)
    sides = sides_of(part, monkeypatch)
    ours, theirs = made
    assert torch.equal(ours.replay.fields["observation"], torch.as_tensor(theirs.replay_buffer.observations[:, 0]))
    before = ours.num_updates, theirs._n_updates
    for side in list(sides)[:2]:
        sides[side]()
    after = ours.num_updates, theirs._n_updates
    assert [b - a for a, b in zip(before, after, strict=True)] == [speed_updates.UPDATES] * 2
