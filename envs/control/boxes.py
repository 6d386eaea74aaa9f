"""Exact geometry of a plane with axis-aligned boxes in it: moves that slide along them, sight, and shortest paths.

Boxes are open sets: a point may lie on a face and move along it. Faces of a map's boxes are integers, which floating
point holds exactly, so that a point that was stopped by a face lies on it and not near it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from palaestra.envs.arrays import namespace_of, table_like
from palaestra.protocols import Array

FAR = 1e30
"""Stands for infinity, times a length of which infinity would be no number."""
DEPTH = 1e-9
"""How far inside a box a point may be by rounding and still be stopped by its face, in lengths."""


def largest_boxes(filled: np.ndarray) -> np.ndarray:
    """Return all boxes of filled cells that are contained in no other `[boxes, 4]`: left, bottom, right, top.

    Their open interiors cover the interior of all filled cells together, edges between cells included.

    Args:
        filled: Bools `[columns, rows]`; cell (i, j) is the unit square from (i, j) to (i + 1, j + 1).
    """
    width, height = filled.shape
    found: list[tuple[int, int, int, int]] = []
    for left in range(width):
        for bottom in range(height):
            top_limit = height
            for right in range(left, width):
                top = bottom
                while top < top_limit and filled[right, top]:
                    top += 1
                top_limit = top
                if top == bottom:
                    break
                found.append((left, bottom, right + 1, top))
    return np.array(
        [box for box in found if not any(_holds(other, box) for other in found if other != box)], np.float64
    ).reshape(-1, 4)


def _holds(outer: tuple[int, int, int, int], inner: tuple[int, int, int, int]) -> bool:
    return outer[0] <= inner[0] and outer[1] <= inner[1] and outer[2] >= inner[2] and outer[3] >= inner[3]


def outer_corners(filled: np.ndarray) -> np.ndarray:
    """Return where shortest paths around filled cells can bend: corners with one filled cell of four `[corners, 2]`."""
    around = filled[:-1, :-1].astype(int) + filled[1:, :-1] + filled[:-1, 1:] + filled[1:, 1:]
    return np.argwhere(around == 1).astype(np.float64) + 1.0


def touching_at_a_corner(filled: np.ndarray) -> bool:
    """Return whether two filled cells touch at a corner alone, which leaves a gap of no width."""
    falling = filled[:-1, 1:] & filled[1:, :-1] & ~filled[:-1, :-1] & ~filled[1:, 1:]
    rising = filled[:-1, :-1] & filled[1:, 1:] & ~filled[:-1, 1:] & ~filled[1:, :-1]
    return bool(falling.any() or rising.any())


@dataclass(frozen=True)
class Entry:
    """When straight moves, of duration 1, are inside boxes.

    Attributes:
        time: Of the entry through each box's faces, `[rows, boxes]`.
        leave: Of the exit.
        across: Whether the face of entry is one across x, else across y; bools `[rows, boxes]`.
        depth: How far before that face the move starts, below 0 inside; `[rows, boxes]`.
    """

    time: Array
    leave: Array
    across: Array
    depth: Array


def entry(boxes: Array, start: Array, move: Array) -> Entry:
    """Return when moves enter the interiors of boxes and leave them; where they never do, `time` >= `leave`.

    Args:
        boxes: `[boxes, 4]`: left, bottom, right, top.
        start: `[rows, 2]`.
        move: `[rows, 2]`.
    """
    xp = namespace_of(start)
    x_in, x_out = _between(boxes[:, 0], boxes[:, 2], start[:, :1], move[:, :1])
    y_in, y_out = _between(boxes[:, 1], boxes[:, 3], start[:, 1:], move[:, 1:])
    across = x_in >= y_in
    time = xp.where(across, x_in, y_in)
    speed = xp.where(across, xp.abs(move[:, :1]), xp.abs(move[:, 1:]))
    return Entry(time, xp.where(x_out <= y_out, x_out, y_out), across, time * speed)


def _between(low: Array, high: Array, start: Array, move: Array) -> tuple[Array, Array]:
    """Return when moves along one axis come between two bounds and leave again."""
    xp = namespace_of(start)
    still = move == 0.0
    pace = xp.where(still, xp.ones_like(move), move)
    to_low, to_high = (low - start) / pace, (high - start) / pace
    within = (low < start) & (start < high)
    never, ever = xp.full_like(to_low, FAR), xp.full_like(to_low, -FAR)
    arrive = xp.where(still, xp.where(within, ever, never), xp.where(to_low <= to_high, to_low, to_high))
    leave = xp.where(still, xp.where(within, never, ever), xp.where(to_low <= to_high, to_high, to_low))
    return arrive, leave


def crosses(boxes: Array, start: Array, move: Array) -> Array:
    """Return whether straight moves `[rows, 2]` pass through the interiors of boxes, bools `[rows, boxes]`."""
    met = entry(boxes, start, move)
    return (met.time < met.leave) & (met.time < 1.0) & (met.leave > 0.0)


def slide(boxes: np.ndarray, start: Array, move: Array) -> tuple[Array, Array]:
    """Return where moves end that boxes stop `[rows, 2]`, and where they first touched one (else the end as well).

    A point goes straight until it meets a face; what is left of its move along that face it still makes, until it meets
    another one; there it stops. At an exact corner the face across x counts.

    Args:
        boxes: `[boxes, 4]`, a NumPy table.
        start: Points outside all boxes `[rows, 2]`.
        move: `[rows, 2]`.
    """
    walls = table_like(boxes, start)
    touch, rest = _until_a_face(walls, start, move)
    end, _ = _until_a_face(walls, touch, rest)
    return end, touch


def _until_a_face(boxes: Array, start: Array, move: Array) -> tuple[Array, Array]:
    """Return where moves end or first meet a face, and what is then left of them along it."""
    xp = namespace_of(start)
    met = entry(boxes, start, move)
    stops = (met.time < met.leave) & (met.time < 1.0) & (met.depth > -DEPTH)
    times = xp.where(stops, met.time, xp.full_like(met.time, FAR))
    first = xp.argmin(times, axis=-1)
    rows = xp.arange(first.shape[0], device=first.device)
    stopped, across = times[rows, first] < FAR, met.across[rows, first]
    # A start that lies inside by rounding is put back onto the face, and makes its whole move along it.
    share = xp.where(stopped, xp.clip(times[rows, first], 0.0, 1.0), xp.ones_like(move[:, 0]))
    box = boxes[first]
    end = start + share[:, None] * move
    face_x = xp.where(move[:, 0] > 0.0, box[:, 0], box[:, 2])
    face_y = xp.where(move[:, 1] > 0.0, box[:, 1], box[:, 3])
    x = xp.where(stopped & across, face_x, end[:, 0])
    y = xp.where(stopped & ~across, face_y, end[:, 1])
    left = xp.where(stopped, 1.0 - share, xp.zeros_like(share))
    nothing = xp.zeros_like(left)
    rest = xp.stack([xp.where(across, nothing, left * move[:, 0]), xp.where(across, left * move[:, 1], nothing)], -1)
    return xp.stack([x, y], -1), rest


class PathsTo:
    """Shortest paths around boxes to a point, from anywhere: by the visibility graph of the boxes' corners.

    Args:
        filled: Bools `[columns, rows]`, cells as in `largest_boxes`.
        target: Where paths lead to, outside filled cells `[2]`.

    Attributes:
        boxes: What stands in the way `[boxes, 4]`.
        nodes: Corners that the target can be reached from, and last the target itself `[nodes, 2]`.
        remaining: Lengths of the shortest paths from them `[nodes]`.
    """

    def __init__(self, filled: np.ndarray, target: np.ndarray) -> None:
        self.boxes = largest_boxes(filled)
        nodes = np.concatenate([outer_corners(filled), np.asarray(target, np.float64)[None]])
        count = len(nodes)
        start, end = np.repeat(nodes, count, 0), np.tile(nodes, (count, 1))
        blocked = crosses(self.boxes, start, end - start).any(-1).reshape(count, count)
        lengths = np.where(blocked, np.inf, np.linalg.norm(end - start, axis=-1).reshape(count, count))
        remaining = np.full(count, np.inf)
        remaining[-1] = 0.0
        for _ in range(count):
            remaining = (lengths + remaining).min(axis=1)
        reachable = np.isfinite(remaining)
        self.nodes, self.remaining = nodes[reachable], remaining[reachable]

    def __call__(self, position: Array) -> tuple[Array, Array]:
        """Return the next place to go straight to `[rows, 2]`, and the path's length `[rows]`.

        Where no path leads to the target, the length is at least `FAR` and the place arbitrary.
        """
        xp = namespace_of(position)
        nodes, remaining = table_like(self.nodes, position), table_like(self.remaining, position)
        boxes = table_like(self.boxes, position)
        rows, count = position.shape[0], nodes.shape[0]
        move = nodes[None] - position[:, None]
        start = xp.broadcast_to(position[:, None], move.shape)
        blocked = xp.any(crosses(boxes, xp.reshape(start, (-1, 2)), xp.reshape(move, (-1, 2))), axis=-1)
        distance = xp.sqrt(move[..., 0] ** 2 + move[..., 1] ** 2)
        hidden = xp.reshape(xp.where(blocked, FAR, 0.0), (rows, count))
        # Of equally short ways the one that goes straight on for longest: at a corner that is not to stay there.
        best = xp.argmin((1.0 - 1e-9) * distance + remaining + hidden, axis=-1)
        index = xp.arange(rows, device=best.device)
        return nodes[best], (distance + remaining + hidden)[index, best]
