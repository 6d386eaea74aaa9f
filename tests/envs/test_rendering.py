from __future__ import annotations

import numpy as np
import pytest

from palaestra.envs import rendering


def test_shapes_fill_what_they_should_and_stay_inside():
    canvas = rendering.Canvas(20, 10)
    canvas.rectangle(15, 8, 40, -5, rendering.RED)
    assert (canvas.pixels == rendering.RED).all(axis=-1).sum() == 5 * 8
    canvas = rendering.Canvas(21, 21)
    canvas.disc(10, 10, 5, rendering.BLUE)
    assert (canvas.pixels == rendering.BLUE).all(axis=-1).sum() == 81  # lattice points within radius 5
    canvas.ring(10, 10, 8, rendering.INK, thickness=1)
    ink = np.argwhere((canvas.pixels == rendering.INK).all(axis=-1)) - 10
    assert len(ink) > 30
    assert (np.abs(np.hypot(ink[:, 0], ink[:, 1]) - 8) <= 0.5).all()


def test_lines_and_arrows_run_between_their_points():
    canvas = rendering.Canvas(40, 40)
    canvas.line(5, 5, 25, 20, rendering.BLUE, thickness=4)
    found = np.argwhere((canvas.pixels == rendering.BLUE).all(axis=-1))[:, ::-1] - 5.0
    # Distances from the infinite line, and shares of the way along it.
    assert (np.abs(found @ np.array([-0.6, 0.8])) <= 2.0 + 1e-9).all()
    along = found @ np.array([0.8, 0.6])
    assert along.min() == pytest.approx(-2.0, abs=1.0)
    assert along.max() == pytest.approx(27.0, abs=1.0)
    assert len(found) == pytest.approx(25 * 4 + np.pi * 4, rel=0.1)
    canvas = rendering.Canvas(40, 40)
    canvas.arrow(10, 20, 10, 20, rendering.RED)
    assert not (canvas.pixels == rendering.RED).all(axis=-1).any()
    canvas.arrow(5, 20, 30, 20, rendering.RED)
    red = (canvas.pixels == rendering.RED).all(axis=-1)
    # The head is at the end: wider than the shaft, and symmetric about it.
    assert red[:, 26].sum() > 2 * red[:, 12].sum()
    np.testing.assert_array_equal(red[10:20], red[21:31][::-1])


def test_text_is_drawn_in_its_place():
    canvas = rendering.Canvas(30, 12)
    canvas.text(2, 1, "1 z?", scale=1)
    ink = (canvas.pixels == rendering.INK).all(axis=-1)
    # A one: its foot is three pixels wide, its head one; then a blank, a Z, and nothing for an unknown glyph.
    assert ink[1, 2:5].tolist() == [False, True, False]
    assert ink[5, 2:5].tolist() == [True, True, True]
    assert not ink[:, 6:9].any()
    assert ink[1, 10:13].all()
    assert not ink[:, 14:].any()
