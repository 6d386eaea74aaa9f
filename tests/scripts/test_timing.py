"""Timing: turns, ratios, idle shares, and the rows that keep them."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from palaestra.agents.evaluation import provenance
from palaestra.scripts import timing
from palaestra.scripts.timing import OURS, Load, SpeedRow, Timing, append_row, interleaved, missing, read_rows

RATES = Timing("steps", "steps/s", {OURS: [10.0, 30.0, 20.0], "a": [5.0, 10.0, 40.0]}, 1)
SECONDS = Timing("solve", "s", {OURS: [2.0, 4.0, 3.0], "a": [6.0, 6.0, 9.0]}, 1, ratio_of="medians")


def test_rates_are_better_when_higher_and_seconds_when_lower() -> None:
    assert RATES.ratios("a") == [2.0, 3.0, 0.5]
    assert SECONDS.ratios("a") == [3.0, 1.5, 3.0]
    assert RATES.ratio("a") == 2.0
    assert SECONDS.ratio("a") == 6.0 / 3.0
    assert dataclasses.replace(SECONDS, ratio_of="turns").ratio("a") == 3.0
    assert RATES.peers == ["a"]
    nothing = Timing("growth", "bytes", {OURS: [0.0], "a": [8.0]}, 1)
    assert nothing.ratio("a") == math.inf


@pytest.mark.parametrize("sides", [{"a": [1.0], OURS: [1.0]}, {OURS: [1.0], "a": []}, {OURS: []}, {}])
def test_sides_must_begin_with_ours_and_have_the_same_turns(sides: dict[str, list[float]]) -> None:
    with pytest.raises(ValueError, match="Timing x: "):
        Timing("x", "s", sides, 1)


def test_sides_take_turns_in_alternating_order() -> None:
    calls: list[str] = []

    def side(name: str) -> timing.Work:
        def work() -> float:
            calls.append(name)
            return 3.0

        return work

    sides = {name: side(name) for name in (OURS, "a", "b")}
    found = interleaved("x", "steps/s", sides, 3, 1, {"n": 1}, skipped={"c": "pip"}, turn_seconds=0.0)
    there, back = [OURS, "a", "b"], ["b", "a", OURS]
    assert calls == [*there, *there, *back, *there]  # the first round warms up
    assert [len(rates) for rates in found.sides.values()] == [3, 3, 3]
    assert (found.peers, found.skipped, found.details) == (["a", "b"], {"c": "pip"}, {"n": 1})


def test_a_turn_repeats_its_work_until_it_has_taken_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def work() -> float:
        nonlocal now
        now += 0.4
        return 10.0

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now)
    found = interleaved("x", "steps/s", {OURS: work}, 3, 1, {}, turn_seconds=1.0)
    assert found.sides[OURS] == pytest.approx([30.0 / 1.2] * 3)


def test_missing_packages_are_named_with_how_to_install_them() -> None:
    wanted = {"json": "comes with Python", "no_such_peer": "pip install no-such-peer"}
    assert missing(wanted) == {"no_such_peer": "pip install no-such-peer"}


@pytest.mark.parametrize(
    ("load", "enough"),
    [
        (Load(0.95, 0.4, 0.02), True),
        (Load(0.5, 0.4, 0.02), False),
        (Load(0.95, 0.4, 0.3), False),
        (Load(None, None, None), True),
    ],
)
def test_a_machine_is_idle_enough_before_and_without_others(load: Load, enough: bool) -> None:
    assert load.idle_enough is enough


def test_own_work_is_no_work_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks, own = (
        iter([(1000, 2000), (1400, 3000), (1400, 3000)]),
        iter([1.0, 1.0 + 500 / provenance.os.sysconf("SC_CLK_TCK")]),
    )
    monkeypatch.setattr(provenance, "_cpu_times", lambda: next(ticks))
    monkeypatch.setattr(provenance.os, "times", lambda: (next(own), 0.0, 0.0, 0.0, 0.0))
    meter = provenance.CpuMeter()
    # Of 1,000 ticks 400 were idle and 500 ours.
    assert meter.idle_share() == 0.4
    assert meter.others_share() == pytest.approx(0.1)


def test_the_load_is_measured_before_and_during() -> None:
    found, load = timing.under_load(lambda: RATES, settle=0.05)
    assert found is RATES
    assert all(share is None or 0.0 <= share <= 1.0 for share in dataclasses.astuple(load))


def test_rows_are_read_as_they_were_written(tmp_path) -> None:
    noted = dataclasses.replace(SECONDS, details={"solved": {OURS: [True]}}, skipped={"b": "pip install b"})
    row = SpeedRow.now("solve", noted, {"a": 1.5}, Load(0.9, 0.5, 0.0))
    path = append_row(tmp_path, row)
    append_row(tmp_path, SpeedRow.now("solve", RATES, {}, Load()))
    assert path == tmp_path / "speed/solve.jsonl"
    first, second = read_rows(path)
    assert first == row
    assert second.timing == RATES
    written = json.loads(path.read_text().splitlines()[0])
    assert written["ratio"] == {"a": 2.0}
    assert written["command"] == "palaestra speed solve --only solve --repeats 3 --results results"
    assert written["idle_before"] == 0.9
    assert read_rows(tmp_path / "speed/none.jsonl") == []


@pytest.mark.parametrize(
    ("found", "targets", "reached"),
    [
        (RATES, {"a": 2.0, OURS: 20.0}, True),
        (RATES, {"a": 2.1, OURS: 21.0}, False),
        (SECONDS, {"a": 2.0, OURS: 3.0}, True),
        (SECONDS, {"a": 2.1, OURS: 2.9}, False),
    ],
)
def test_targets_are_ratios_of_peers_or_numbers_of_ours(
    found: Timing, targets: dict[str, float], reached: bool
) -> None:
    row = SpeedRow("x", found, targets, Load())
    assert [row.reached(side) for side in targets] == [reached, reached]


def test_rows_of_two_sides_from_before_are_read_too() -> None:
    details = {"peer": "sb3.PPO", "solved": {"ours": [True, False, True], "theirs": [True, True, True]}, "gap": 0.01}
    row = {"part": "ppo-solve", "unit": "s", "ours": [2.0, 4.0, 3.0], "theirs": [6.0, 6.0, 9.0], "ratio_of": "medians"}
    row |= {"ratios": [3.0, 1.5, 3.0], "ratio": 2.0, "threads": 1, "idle_cpu": 0.5, "details": details}
    found = SpeedRow.from_json(json.dumps(row))
    assert found.timing.sides == {OURS: [2.0, 4.0, 3.0], "sb3.PPO": [6.0, 6.0, 9.0]}
    assert found.timing.ratio("sb3.PPO") == 2.0
    assert found.timing.details["solved"] == {OURS: [True, False, True], "sb3.PPO": [True, True, True]}
    assert (found.suite, found.targets, found.load) == ("core", {}, Load(None, 0.5, None))
