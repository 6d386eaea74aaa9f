"""The report's part on speed says what the rows say, of every suite that has any."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from palaestra.scripts import report
from palaestra.scripts.speed_report import RatioBar, newest_rows, ratio_bars, speed_section
from palaestra.scripts.timing import OURS, Load, SpeedRow, Timing, append_row

SOLVE = Timing(
    "cart-pole",
    "s",
    {OURS: [2.0, 4.0, 3.0], "sb3": [6.0, 6.0, 9.0]},
    1,
    {"solved": {OURS: [True, False, False], "sb3": [True, True, True]}},
    "medians",
    {"envpool": "pip install envpool"},
)
ORIGIN = {
    "revision": "0123456789abcdef",
    "modified": True,
    "hardware": {"cpu": "a CPU", "cores": 2},
}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Return a folder with an old and a new row of one part, and a part without peers."""
    (tmp_path / "claims").mkdir()
    old = dataclasses.replace(SOLVE, sides={OURS: [1.0], "sb3": [99.0]})
    append_row(tmp_path, SpeedRow("solve", old, {}, Load(), ORIGIN))
    append_row(tmp_path, SpeedRow("solve", SOLVE, {"sb3": 2.5}, Load(0.95, 0.5, 0.25), ORIGIN))
    growth = Timing("growth", "MB", {OURS: [0.5, 0.25, 0.75]}, 1)
    append_row(tmp_path, SpeedRow("memory", growth, {OURS: 1.0}, Load(0.95, 0.5, 0.0), ORIGIN))
    return tmp_path


def test_the_newest_timing_of_each_part_is_shown(results: Path) -> None:
    text = report.report_text(results)
    assert "### solve" in text
    solve = "| cart-pole | 3 | sb3 | 6 | s | 2.00 | 1.50 to 3.00 | 2.5: **missed** | 1 | 95%, 50%; 25% |"
    assert solve in text
    assert "99" not in text
    assert "| growth | 0.5 | – | – | MB | – | – | 1: reached | 1 | 95%, 50%; 0% |" in text
    assert "- The machine was less than 90% idle for: cart-pole." in text
    assert "- cart-pole: palaestra did not get there with seed 1, 2, which counts with its budget." in text
    assert "- cart-pole: without envpool, not installed." in text
    assert "- Hardware: a CPU, 2 cores; code: 0123456789ab (modified)." in text
    assert "![ratios](pictures/speed-solve.png)" in text
    assert "speed-memory.png" not in text
    assert text.index("### solve") < text.index("### memory")


def test_nothing_is_said_where_nothing_was_timed(tmp_path: Path) -> None:
    assert speed_section(tmp_path) == []
    assert newest_rows(tmp_path) == {}


def test_bars_have_the_spread_of_the_turns_and_the_target(results: Path) -> None:
    assert ratio_bars(newest_rows(results)["solve"]) == [RatioBar("cart-pole\nsb3", 2.0, 1.5, 3.0, 2.5)]


def test_pictures_are_drawn_for_suites_with_peers(results: Path) -> None:
    pytest.importorskip("matplotlib")
    pictures = report.draw_pictures(results)
    assert [path.name for path in pictures] == ["speed-solve.png"]
    first = pictures[0].read_bytes()
    assert first.startswith(b"\x89PNG")
    assert report.draw_pictures(results)[0].read_bytes() == first
