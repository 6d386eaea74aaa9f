"""Moves, sight and shortest paths among boxes, by hand and by invariants that hold whatever the map."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from palaestra.envs.control.boxes import (
    FAR,
    PathsTo,
    crosses,
    largest_boxes,
    outer_corners,
    slide,
    touching_at_a_corner,
)

BLOCK = np.zeros((9, 7), bool)
BLOCK[0] = BLOCK[-1] = BLOCK[:, 0] = BLOCK[:, -1] = True
BLOCK[2:7, 2:5] = True


def random_map(rng: np.random.Generator, width: int = 9, height: int = 8) -> np.ndarray:
    """A walled map of random blocks that do not touch at a corner alone."""
    while True:
        filled = rng.random((width, height)) < 0.3
        filled[0] = filled[-1] = filled[:, 0] = filled[:, -1] = True
        if not touching_at_a_corner(filled) and (~filled).any():
            return filled


def free_points(filled: np.ndarray, rng: np.random.Generator, count: int) -> np.ndarray:
    cells = np.argwhere(~filled)
    return cells[rng.integers(len(cells), size=count)] + rng.random((count, 2))


def inside(filled: np.ndarray, points: np.ndarray, margin: float) -> np.ndarray:
    """Whether points lie deeper than a margin in the union of filled cells (all cells around them are filled)."""
    corners = [np.floor(points + margin * np.array(sign)).astype(int) for sign in ((1, 1), (1, -1), (-1, 1), (-1, -1))]
    return np.all([filled[tuple(corner.T)] for corner in corners], axis=0)


@pytest.mark.parametrize(
    ("start", "move", "touch", "end"),
    [
        ((1.5, 3.5), (0.3, 0.2), (1.8, 3.7), (1.8, 3.7)),  # No wall in the way.
        ((1.5, 3.5), (1.0, 0.5), (2.0, 3.75), (2.0, 4.0)),  # Against a face across x: half of y is left.
        ((4.5, 5.5), (1.0, -2.0), (4.75, 5.0), (5.5, 5.0)),  # Against one across y.
        ((1.5, 1.5), (-1.0, -0.25), (1.0, 1.375), (1.0, 1.25)),
        ((1.25, 1.5), (-1.0, -4.0), (1.125, 1.0), (1.0, 1.0)),  # Along the floor into the next wall: it stops.
        ((2.0, 3.0), (0.5, 0.4), (2.0, 3.0), (2.0, 3.4)),  # On a face, and into it.
        ((2.0, 3.0), (-0.5, 0.4), (1.5, 3.4), (1.5, 3.4)),  # On a face, and off it.
        ((2.0, 3.0), (0.0, 0.4), (2.0, 3.4), (2.0, 3.4)),  # Along it.
        ((1.5, 1.5), (1.0, 1.0), (2.0, 2.0), (2.0, 2.5)),  # At the very corner of the block: the face across x counts.
        ((2.25, 5.0), (3.0, -0.1), (2.25, 5.0), (5.25, 5.0)),  # On the face above, and into it.
        ((1.5, 3.5), (50.0, 0.0), (2.0, 3.5), (2.0, 3.5)),  # However fast, nothing tunnels.
        ((1.5, 3.5), (0.0, 0.0), (1.5, 3.5), (1.5, 3.5)),
    ],
)
def test_moves_by_hand(start, move, touch, end):
    found_end, found_touch = slide(largest_boxes(BLOCK), np.array([start]), np.array([move]))
    np.testing.assert_allclose(found_touch[0], touch, atol=1e-12)
    np.testing.assert_allclose(found_end[0], end, atol=1e-12)


def test_no_move_ends_in_a_wall_or_passes_through_one():
    rng = np.random.default_rng(0)
    for _ in range(10):
        filled = random_map(rng)
        boxes = largest_boxes(filled)
        position = free_points(filled, rng, 300)
        for _ in range(20):
            move = rng.normal(size=(300, 2)) * rng.choice([0.01, 0.5, 5.0], size=(300, 1))
            move[rng.random((300, 2)) < 0.2] = 0.0
            end, touch = slide(boxes, position, move)
            for share in np.linspace(0.0, 1.0, 41):
                for first, second in ((position, touch), (touch, end)):
                    assert not inside(filled, first + share * (second - first), 1e-8).any()
            assert (np.abs(end - position) <= np.abs(move) + 1e-9).all()
            position = end


def test_touched_faces_are_met_exactly():
    """A stopped coordinate is a whole number, not one nearby, so that rounding never leads into a wall."""
    rng = np.random.default_rng(1)
    filled = random_map(rng)
    position = free_points(filled, rng, 500)
    move = rng.normal(size=(500, 2))
    end, touch = slide(largest_boxes(filled), position, move)
    stopped = (touch != position + move).any(-1)
    assert stopped.sum() > 50
    on_face = (touch == np.round(touch)).any(-1)
    np.testing.assert_array_equal(on_face[stopped], True)
    assert ((end == np.round(end)).any(-1))[stopped].all()


def test_largest_boxes_cover_the_inside_of_the_filled_cells_and_no_more():
    rng = np.random.default_rng(2)
    for _ in range(20):
        filled = random_map(rng)
        boxes = largest_boxes(filled)
        grid = np.stack(np.meshgrid(np.arange(1, 32) / 4, np.arange(1, 28) / 4, indexing="ij"), -1).reshape(-1, 2)
        grid = grid[(grid > 0).all(-1) & (grid < np.array(filled.shape)).all(-1)]
        x, y = grid[:, :1], grid[:, 1:]
        covered = ((boxes[:, 0] < x) & (x < boxes[:, 2]) & (boxes[:, 1] < y) & (y < boxes[:, 3])).any(-1)
        np.testing.assert_array_equal(covered, inside(filled, grid, 1e-6))


def test_corners_that_paths_bend_at():
    np.testing.assert_array_equal(outer_corners(BLOCK), [[2, 2], [2, 5], [7, 2], [7, 5]])
    assert not touching_at_a_corner(BLOCK)
    pinched = BLOCK.copy()
    pinched[1, 1] = True
    assert touching_at_a_corner(pinched)


def test_sight_along_a_face_is_free_and_across_a_corner_is_not():
    boxes = largest_boxes(BLOCK)
    starts = np.array([(2.0, 5.0), (1.0, 5.0), (1.5, 3.0), (1.0, 1.0)])
    ends = np.array([(7.0, 5.0), (8.0, 5.0), (2.5, 5.5), (1.0, 6.0)])
    np.testing.assert_array_equal(crosses(boxes, starts, ends - starts).any(-1), [False, False, True, False])


def test_path_lengths_by_hand():
    paths = PathsTo(BLOCK, np.array([7.5, 3.5]))
    side = math.hypot(0.5, 1.5)
    starts = np.array([(1.5, 3.5), (4.0, 5.5), (2.0, 5.0), (7.0, 5.0), (8.0, 4.0), (7.5, 3.5)])
    expected = [2 * side + 5, math.hypot(3.0, 0.5) + side, 5 + side, side, math.hypot(0.5, 0.5), 0.0]
    place, length = paths(starts)
    np.testing.assert_allclose(length, expected, atol=1e-8)
    np.testing.assert_array_equal(place[1:], [(7, 5), (7, 5), (7.5, 3.5), (7.5, 3.5), (7.5, 3.5)])


def test_path_lengths_obey_the_triangle_inequality_and_equal_the_way_walked():
    """On random maps: |d(p) - d(q)| <= |p - q| where q is seen from p, and following the places walks d(p)."""
    rng = np.random.default_rng(3)
    for _ in range(8):
        filled = random_map(rng)
        target = free_points(filled, rng, 1)[0]
        paths = PathsTo(filled, target)
        points = free_points(filled, rng, 200)
        points = points[paths(points)[1] < FAR]
        seen = ~crosses(paths.boxes, points, points[::-1] - points).any(-1)
        apart = np.linalg.norm(points[::-1] - points, axis=-1)
        length = paths(points)[1]
        assert (np.abs(length - length[::-1])[seen] <= apart[seen] + 1e-7).all()
        position, walked = points, np.zeros(len(points))
        for _ in range(len(paths.nodes) + 1):
            place, _ = paths(position)
            assert not crosses(paths.boxes, position, place - position).any()
            walked += np.linalg.norm(place - position, axis=-1)
            position = place
        np.testing.assert_allclose(walked, length, atol=1e-7)
        np.testing.assert_array_equal(position, np.tile(target, (len(points), 1)))


def test_places_without_a_path_are_far():
    divided = BLOCK.copy()
    divided[4] = True
    assert PathsTo(divided, np.array([7.5, 3.5]))(np.array([[1.5, 3.5]]))[1][0] >= FAR


def test_torch_agrees():
    rng = np.random.default_rng(4)
    boxes = largest_boxes(BLOCK)
    start, move = free_points(BLOCK, rng, 200), 3.0 * rng.normal(size=(200, 2))
    ours = slide(boxes, start, move)
    theirs = slide(boxes, torch.as_tensor(start), torch.as_tensor(move))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(other.numpy(), one, atol=1e-12)
    paths = PathsTo(BLOCK, np.array([7.5, 3.5]))
    for one, other in zip(paths(start), paths(torch.as_tensor(start)), strict=True):
        np.testing.assert_allclose(other.numpy(), one, atol=1e-12)
