"""`palaestra speed`: its suites, and what it prints and keeps."""

from __future__ import annotations

import json
from importlib import import_module, util
from pathlib import Path

import pytest

from palaestra import cli
from palaestra.scripts import speed
from palaestra.scripts.speed import SUITES, Part
from palaestra.scripts.timing import OURS, Load, Timing


@pytest.fixture
def fake_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the suite core by a part of known numbers, one of an absent package and one without peers."""
    numbers = {OURS: [20.0, 30.0, 40.0], "a": [10.0, 10.0, 10.0], "b": [40.0, 40.0, 40.0]}

    def measured(repeats: int) -> Timing:
        assert repeats == 3
        return Timing("other", "steps/s", numbers, 1, {"env": "X-v0"}, skipped={"c": "pip install c"})

    def alone(repeats: int) -> Timing:
        return Timing("alone", "steps/s", {OURS: [7.0] * repeats}, 1)

    module = type("module", (), {"measured": staticmethod(measured), "alone": staticmethod(alone)})
    monkeypatch.setattr(speed, "import_module", lambda name: module)
    parts = (
        Part("measured", "something", "fake:measured", {"a": 5.0}),
        Part("absent", "something else", "fake:absent", needs={"no_such_peer": "pip install no-such-peer"}),
        Part("alone", "no peer", "fake:alone", {OURS: 5.0}),
    )
    monkeypatch.setitem(SUITES, "core", parts)
    monkeypatch.setattr(speed, "under_load", lambda run: (run(), Load(0.5, 0.4, 0.2)))


@pytest.mark.usefixtures("fake_suite")
def test_parts_are_timed_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert speed.main(["core", "--repeats", "3", "--results", str(tmp_path)]) == 0
    shown = capsys.readouterr()
    assert "absent is skipped: no_such_peer is not installed (pip install no-such-peer)" in shown.out
    assert "measured, without c: it is not installed (pip install c)" in shown.out
    assert "warning: measured: the machine was 50% idle before, and other processes took 20%" in shown.err
    lines = [line.split() for line in shown.out.splitlines()]
    load = ["1", "50%,", "40%;", "20%"]
    assert ["measured", "30", "a", "10", "steps/s", "3.00", "2.00", "to", "4.00", "5:", "missed", *load] in lines
    assert ["measured", "30", "b", "40", "steps/s", "0.75", "0.50", "to", "1.00", "–", *load] in lines
    assert ["alone", "7", "–", "–", "steps/s", "–", "–", "5:", "reached", *load] in lines
    kept = [json.loads(line) for line in (tmp_path / "speed/core.jsonl").read_text().splitlines()]
    assert [(row["part"], row["targets"]) for row in kept] == [("measured", {"a": 5.0}), ("alone", {OURS: 5.0})]


@pytest.mark.usefixtures("fake_suite")
def test_one_part_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert speed.main(["core", "--repeats", "3", "--only", "alone"]) == 0
    assert "measured" not in capsys.readouterr().out
    assert speed.main(["core", "--repeats", "3", "--only", "absent"]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["core", "--repeats", "2"], "repeats=2; expected at least 3"),
        (["worlds", "--only", "cartpole"], "did you mean 'cart-pole'"),
        (["solve", "--only", "xyz"], "expected one of cart-pole, pendulum"),
    ],
)
def test_wrong_usage_is_explained(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["speed", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_list_names_every_part_and_target(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["speed", "--list"]) == 0
    shown = capsys.readouterr().out
    for suite, parts in SUITES.items():
        assert suite in shown
        assert all(part.name in shown for part in parts)
    assert "1.8 × SyncVectorEnv" in shown
    assert "60,000" in shown


def test_numpy_gets_one_thread_before_it_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[list[str], dict[str, str]]] = []

    def call(command: list[str], env: dict[str, str]) -> int:
        calls.append((command, env))
        return 7

    monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    monkeypatch.setattr(speed.subprocess, "call", call)
    assert speed.main(["worlds", "--only", "pendulum"]) == 7
    ((command, environment),) = calls
    assert command[1:] == ["-m", "palaestra.cli", "speed", "worlds", "--only", "pendulum"]
    assert environment["OPENBLAS_NUM_THREADS"] == "1"


@pytest.mark.parametrize("suite", SUITES)
def test_every_suite_can_be_asked_for(suite: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert speed.main([suite, "--only", "nothing of it"]) == 2
    assert f"is no part of {suite}" in capsys.readouterr().err
    names = [part.name for part in SUITES[suite]]
    assert len(set(names)) == len(names) > 0


def test_a_target_must_be_of_a_side_that_is_timed() -> None:
    module = type("module", (), {"f": staticmethod(lambda repeats: Timing("x", "s", {OURS: [1.0], "a": [1.0]}, 1))})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speed, "import_module", lambda name: module)
        assert Part("named", "", "fake:f", {"a": 1.0}).run(3).name == "named"
        with pytest.raises(ValueError, match="named: target of 'b'; expected one of palaestra, a"):
            Part("named", "", "fake:f", {"b": 1.0}).run(3)


@pytest.mark.parametrize("part", [part for parts in SUITES.values() for part in parts], ids=lambda part: part.function)
def test_every_part_has_its_function(part: Part) -> None:
    module, _, name = part.function.partition(":")
    if all(util.find_spec(package) for package in part.needs):
        assert callable(getattr(import_module(f"palaestra.scripts.{module}"), name))
