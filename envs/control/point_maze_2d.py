"""A point in a maze with several routes to its goal, and an expert that shows them all, none of them well."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import gymnasium as gym
import numpy as np

from palaestra.envs import rendering
from palaestra.envs.arrays import at_least, clamped, namespace_of, table_like
from palaestra.envs.checks import check_amount, check_count
from palaestra.envs.control.boxes import DEPTH, FAR, PathsTo, crosses, largest_boxes, slide, touching_at_a_corner
from palaestra.envs.simulator import RandomActor, Simulator
from palaestra.protocols import Actor, Array, Estimand, Key, Oracle, Transition

LAYOUTS: Mapping[str, str] = {
    "two-routes": "#########/#...0...#/#.#####.#/#S#####G#/#.#####.#/#...1...#/#########",
    "three-routes": "###########/#....0....#/#.#######.#/#S...1...G#/#.#######.#/#....2....#/###########",
}
"""Mazes by name: rows of unit cells from the top, between slashes; see `PointMaze2D`."""


@dataclass(frozen=True)
class PointMazeState:
    """Where the point is, and what it has passed.

    Attributes:
        position: float64 `[batch, 2]`, in lengths from the lower left corner of the maze.
        gate: Number of the last gate passed, -1 for none; int64 `[batch]`.
        reached: Whether it is in the goal, bools `[batch]`.
        distance: Length of the shortest path to the goal's rim, float64 `[batch]`; 0 where nothing is shaped by it.
        intended: Route that the scripted expert takes in this episode, int64 `[batch]`; nobody else may read it.
    """

    position: Array
    gate: Array
    reached: Array
    distance: Array
    intended: Array


@dataclass(frozen=True)
class PushedPoint:
    """Post-decision state: the move before noise and walls.

    Attributes:
        before: The state.
        move: float64 `[batch, 2]`, in lengths.
        reward: 0, float64 `[batch]`.
    """

    before: PointMazeState
    move: Array
    reward: Array


@dataclass(frozen=True, eq=False)
class RouteWalker:
    """Walks a route by its shortest path and stops at the goal's centre.

    Args:
        ways: Paths to the goal for each route, the gates of all others closed.
        anyway: Paths with all gates open, for whoever is behind a closed one.
        speed: Longest move, in lengths.
        route: The route, or None for the one that the state intends.
        share: Length of its actions, of 1 that is possible.
        noise: Standard deviation of the normal noise on each coordinate of its actions, which stay in the box.
    """

    ways: Sequence[PathsTo]
    anyway: PathsTo
    speed: float
    route: int | None = None
    share: float = 1.0
    noise: float = 0.0

    def __call__(self, state: PointMazeState, observation: Array, key: Key) -> Array:
        """Return actions `[batch, 2]`."""
        xp = namespace_of(state.position)
        place, length = self._way(state)
        astray = (length >= FAR)[:, None]
        # Whoever was pushed behind another route's gate first comes out again.
        if bool(xp.any(astray)):
            place = xp.where(astray, self.anyway(state.position)[0], place)
        action = _shortened((place - state.position) / self.speed, self.share)
        if self.noise > 0.0:
            action = action + self.noise * key.normal("policy", (2,))
        return clamped(action, -1.0, 1.0)

    def _way(self, state: PointMazeState) -> tuple[Array, Array]:
        if self.route is not None:
            return self.ways[self.route](state.position)
        xp = namespace_of(state.position)
        place, length = self.ways[0](state.position)
        for route, way in enumerate(self.ways[1:], start=1):
            chosen = state.intended == route
            other_place, other_length = way(state.position)
            place = xp.where(chosen[:, None], other_place, place)
            length = xp.where(chosen, other_length, length)
        return place, length


class PointMaze2D(Simulator[PointMazeState]):
    """A point mass in a maze whose goal several routes lead to, with an expert that takes any of them.

    The rewards are sparse, so that whoever learns without demonstrations hardly ever sees one; the demonstrations take
    every route, so that whoever imitates their mean walks into a wall; and they are slow and noisy, so that whoever
    imitates them well still comes late. `info["route"]` says by which route an episode came to the goal: the entropy
    of that over episodes (the measure "goal-visits" with `info="route"`) says how many routes a policy holds.

    **State**: position, float64 `[2]`, the last gate passed, and a route drawn at the start that nobody but the
    scripted expert reads. **Observation**: float32 `[2]`, the position over the maze in [-1, 1]. **Action**: float32
    `[2]` in [-1, 1]; one longer than 1 is shortened to length 1, so that no direction is faster.

    **Maze**: `layout` is a name ("two-routes", two equally long ones around a block; "three-routes", with a shorter one
    straight through it) or rows of unit cells from the top, between slashes: `#` a wall, `.` free, `S` the start, `G`
    the goal, digits the gates of the routes 0, 1, ..., each one free cell or several. The rim is wall; whoever comes to
    the goal has passed a gate; each gate alone leaves a way open. A route is named after the last gate passed.

    **Dynamics**: the move `speed * action + noise_std * normal` goes straight until it meets a wall; what is left of it
    along that wall the point still slides, until it meets another one, where it stops (at an exact corner of a wall the
    face across x counts). Collisions are exact, at any length of a move: nothing tunnels. A gate is passed by any part
    of a move inside it or along its rim; of several in one move the one with the highest number counts.

    **Reward**: 1 on coming within `goal_radius` of the goal's centre, at the end of a move, plus `shaping` times the
    decrease of the shortest path to the goal's rim. Those terms of an episode add up to `shaping` times (path at the
    start - path at the end).

    **Start**: the centre of the cell `S` plus uniform noise within `start_width` along each axis. **End**: terminated
    in the goal, else truncated after `horizon` steps. **Masks**: none.

    **Info**: `route` (int64: the route by which the goal was reached, -1 before), `gate` (int64: last gate passed, -1
    for none), `success` (bool: in the goal).

    **Noise**: draws "start", uniform `[2]`; "route", uniform; "motion", normal `[2]`.

    **Oracle**: a bound on the mean return, `1 + shaping * (path + start_width * sqrt(2 / 3))`, `path` the shortest one
    from the centre of `S` to the goal's rim. Proof: the goal is entered once at most; the shaping terms add up to at
    most `shaping` times the path at the start; that is at most `path` plus the distance to the centre of `S`, straight
    through its cell, whose mean is at most the root of its mean square. `route_lengths` are exact, by the visibility
    graph of the walls' corners, each with the gates of all other routes closed.

    **Experts**: "route-0", "route-1", ... walk their route by its shortest path, as fast as they can; "shortest" any.
    **Reference policies**: "random", "shortest", and "multimodal": at the start of an episode it draws a route by
    `route_probabilities`, and walks it with actions of length `expert_speed`, plus normal noise of `expert_noise` on
    each coordinate.

    **Version history**: v0, first release.

    Args:
        layout: Name of a maze, or its rows.
        speed: Longest move, in lengths (one length is the side of a cell).
        goal_radius: Radius of the goal, at most 0.5: within its cell.
        horizon: Steps to truncation.
        noise_std: Standard deviation of the noise of each coordinate in a step, in lengths.
        start_width: Largest distance of the start from the centre of its cell along each axis, at most 0.5.
        shaping: Reward for each length that the path to the goal becomes shorter.
        route_probabilities: How often the scripted expert takes each route, adding up to 1; None for all alike.
        expert_speed: Length of the scripted expert's actions, in (0, 1].
        expert_noise: Standard deviation of the noise on each coordinate of them.

    Raises:
        ValueError: If an argument is outside its range or the layout is no maze as described.

    Source: the point mazes of Fu et al., "D4RL: datasets for deep data-driven reinforcement learning", arXiv
    2004.07219, with exact collisions, numbered routes and a policy of several modes in place of a physics engine.
    """

    render_modes: ClassVar[tuple[str, ...]] = ("rgb_array",)
    draws: ClassVar[tuple[str, ...]] = ("start", "route", "motion")

    def __init__(
        self,
        layout: str = "two-routes",
        speed: float = 0.5,
        goal_radius: float = 0.3,
        horizon: int = 36,
        noise_std: float = 0.02,
        start_width: float = 0.2,
        shaping: float = 0.0,
        route_probabilities: Sequence[float] | None = None,
        expert_speed: float = 0.5,
        expert_noise: float = 0.3,
    ) -> None:
        world = "PointMaze2D"
        self.speed = check_amount(world, "speed", speed, positive=True)
        self.goal_radius = check_amount(world, "goal_radius", goal_radius, positive=True)
        self.horizon = check_count(world, "horizon", horizon)
        self.noise_std = check_amount(world, "noise_std", noise_std)
        self.start_width = check_amount(world, "start_width", start_width)
        self.shaping = check_amount(world, "shaping", shaping)
        self.expert_speed = check_amount(world, "expert_speed", expert_speed, positive=True)
        self.expert_noise = check_amount(world, "expert_noise", expert_noise)
        for name, most in (("goal_radius", 0.5), ("start_width", 0.5), ("expert_speed", 1.0)):
            if getattr(self, name) > most:
                raise ValueError(f"{world}: {name}={getattr(self, name)}; expected at most {most}")
        cells = _parsed(layout)
        self.walls = cells == "#"
        self.size = np.array(cells.shape, np.float64)
        self.start, self.goal = (np.argwhere(cells == letter)[0] + 0.5 for letter in "SG")
        self.num_routes = sum(digit in cells for digit in "0123456789")
        self.gates = [cells == str(route) for route in range(self.num_routes)]
        self.boxes = largest_boxes(self.walls)
        self.anyway = PathsTo(self.walls, self.goal)
        self.ways = [self._way_through(route) for route in range(self.num_routes)]
        # Shortest paths touch gates at their rim, which belongs to them.
        outwards = DEPTH * np.array([-1.0, -1.0, 1.0, 1.0])
        self.gate_boxes = np.concatenate([largest_boxes(gate) for gate in self.gates]) + outwards
        self.gate_numbers = np.repeat(np.arange(self.num_routes), [len(largest_boxes(gate)) for gate in self.gates])
        self.route_probabilities = _shares(route_probabilities, self.num_routes)
        self.observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def route_lengths(self) -> np.ndarray:
        """Return the shortest path from the centre of the start to the goal's rim by each route `[num_routes]`."""
        return np.array([way(self.start[None])[1][0] for way in self.ways]) - self.goal_radius

    def initial(self, key: Key) -> PointMazeState:
        """Return the start, with noise, and the route that the scripted expert will take."""
        offset = self.start_width * (2.0 * key.uniform("start", (2,)) - 1.0)
        position = table_like(self.start, offset) + offset
        xp = namespace_of(position)
        limits = table_like(np.cumsum(self.route_probabilities)[:-1], position)
        intended = xp.sum(key.uniform("route")[:, None] >= limits, axis=-1)
        return self._state_at(position, xp.full_like(intended, -1), intended)

    def decide(self, state: PointMazeState, action: Array) -> PushedPoint:
        """Return the move before noise."""
        return PushedPoint(state, self.speed * _shortened(action, 1.0), 0.0 * state.distance)

    def realise(self, post: PushedPoint, key: Key) -> Transition[PointMazeState]:
        """Return where the move ends with its noise, along walls where it meets them, and the reward."""
        before = post.before
        end, touch = slide(self.boxes, before.position, post.move + self.noise_std * key.normal("motion", (2,)))
        state = self._state_at(end, self._gate(before, touch, end), before.intended)
        reward = self.shaping * (before.distance - state.distance) + 1.0 * state.reached
        return Transition(state, reward, state.reached)

    def observe(self, state: PointMazeState) -> Array:
        """Return the position over the maze, `[batch, 2]` in [-1, 1]."""
        return 2.0 * state.position / table_like(self.size, state.position) - 1.0

    def information(self, state: PointMazeState) -> Mapping[str, Array]:
        """Return `route`, `gate` and `success`, `[batch]` each."""
        xp = namespace_of(state.position)
        route = xp.where(state.reached, state.gate, xp.full_like(state.gate, -1))
        return {"route": route, "gate": state.gate, "success": state.reached}

    def oracle(self) -> Oracle:
        """Return the bound on the mean return that the class docstring proves."""
        path = float(self.route_lengths().min()) + self.start_width * math.sqrt(2.0 / 3.0)
        return Oracle(
            value=1.0 + self.shaping * path,
            estimand=Estimand("episode_return"),
            kind="bound",
            source="one goal reward, shaping from the start to the rim; proof in the class docstring",
        )

    def experts(self) -> Mapping[str, Actor]:
        """Return the walkers of each route, and of the shortest one."""
        routes = {f"route-{route}": self._walker(route) for route in range(self.num_routes)}
        return {**routes, "shortest": RouteWalker([self.anyway], self.anyway, self.speed, 0)}

    def reference_policies(self) -> Mapping[str, Actor]:
        """Return "random", "shortest" and the scripted expert of several modes."""
        multimodal = self._walker(None, self.expert_speed, self.expert_noise)
        return {
            "random": RandomActor(self.action_space),
            "shortest": self.experts()["shortest"],
            "multimodal": multimodal,
        }

    def render(self, state: PointMazeState, row: int = 0, mode: str = "rgb_array") -> np.ndarray:
        """Return a picture, 32 pixels a cell: walls, gates (numbered), start, goal and the point."""
        if mode not in self.render_modes:
            raise ValueError(f"render: mode={mode!r}; expected one of {self.render_modes}")
        width, height = (32 * int(side) for side in self.size)
        canvas = rendering.Canvas(width, height)

        def fill(box: np.ndarray, color: rendering.Color) -> None:
            canvas.rectangle(32 * box[0], height - 32 * box[1], 32 * box[2], height - 32 * box[3], color)

        for box, number in zip(self.gate_boxes, self.gate_numbers, strict=True):
            fill(box, rendering.PALE)
            canvas.text(16 * (box[0] + box[2]) - 2, height - 16 * (box[1] + box[3]) - 5, str(number))
        for box in self.boxes:
            fill(box, rendering.INK)
        canvas.disc(32 * self.goal[0], height - 32 * self.goal[1], 32 * self.goal_radius, rendering.GREEN)
        canvas.ring(32 * self.start[0], height - 32 * self.start[1], 10, rendering.BLUE)
        x, y = state.position[row]
        canvas.disc(32 * x, height - 32 * y, 5, rendering.ORANGE)
        return canvas.pixels

    def _way_through(self, route: int) -> PathsTo:
        """Return the paths to the goal with the gates of all other routes closed."""
        others = [gate for other, gate in enumerate(self.gates) if other != route]
        return PathsTo(self.walls | np.any(others, axis=0) if others else self.walls, self.goal)

    def _walker(self, route: int | None, share: float = 1.0, noise: float = 0.0) -> RouteWalker:
        return RouteWalker(self.ways, self.anyway, self.speed, route, share, noise)

    def _state_at(self, position: Array, gate: Array, intended: Array) -> PointMazeState:
        goal = table_like(self.goal, position)
        squared = (position[:, 0] - goal[0]) ** 2 + (position[:, 1] - goal[1]) ** 2
        # Paths cost several times what a move does: they are measured where they are paid for alone.
        distance = at_least(self.anyway(position)[1] - self.goal_radius, 0.0) if self.shaping > 0.0 else 0.0 * squared
        return PointMazeState(position, gate, squared <= self.goal_radius**2, distance, intended)

    def _gate(self, before: PointMazeState, touch: Array, end: Array) -> Array:
        """Return the last gate passed, after a move from one place to another by way of a third."""
        xp = namespace_of(end)
        boxes, numbers = table_like(self.gate_boxes, end), table_like(self.gate_numbers, end)
        passed = crosses(boxes, before.position, touch - before.position) | crosses(boxes, touch, end - touch)
        latest = xp.max(xp.where(passed, numbers, xp.full_like(numbers, -1)), axis=-1)
        return xp.where(latest >= 0, latest, before.gate)


def _shortened(move: Array, longest: float) -> Array:
    """Return moves `[batch, 2]` of a length of at most `longest`."""
    squared = (move[:, 0] ** 2 + move[:, 1] ** 2) / longest**2
    return move / namespace_of(move).sqrt(at_least(squared, 1.0))[:, None]


def _parsed(layout: str) -> np.ndarray:
    """Return the letters of a maze `[columns, rows]`, the lowest row first."""

    def refuse(expected: str) -> ValueError:
        return ValueError(f"PointMaze2D: layout={layout!r}; expected {expected}")

    if "/" not in str(layout) and layout not in LAYOUTS:
        raise refuse(f"one of {sorted(LAYOUTS)}, or rows of cells between slashes")
    rows = LAYOUTS.get(layout, str(layout)).split("/")
    if len({len(row) for row in rows}) > 1 or set("".join(rows)) - set("#.SG0123456789"):
        raise refuse("rows of equal length of the letters # . S G and digits")
    cells = np.array([list(row) for row in reversed(rows)]).T
    walls = cells == "#"
    if not (walls[0].all() and walls[-1].all() and walls[:, 0].all() and walls[:, -1].all()):
        raise refuse("walls all around")
    if (cells == "S").sum() != 1 or (cells == "G").sum() != 1:
        raise refuse("one start S and one goal G")
    digits = sorted(set(cells.ravel().tolist()) & set("0123456789"))
    if not digits or digits != [str(route) for route in range(len(digits))]:
        raise refuse("gates 0, 1, ... with none left out")
    gates = [cells == digit for digit in digits]
    start, goal = (np.argwhere(cells == letter)[0] + 0.5 for letter in "SG")
    every = np.any(gates, axis=0)
    for closed in (walls, walls | every, *(walls | every & ~gate for gate in gates)):
        if touching_at_a_corner(closed):
            raise refuse("walls and gates that do not touch at a corner alone")
    if PathsTo(walls | every, goal)(start[None])[1][0] < FAR:
        raise refuse("gates on every way from S to G")
    if any(PathsTo(walls | every & ~gate, goal)(start[None])[1][0] >= FAR for gate in gates):
        raise refuse("a way from S to G through each gate alone")
    return cells


def _shares(given: Sequence[float] | None, count: int) -> np.ndarray:
    """Return the probability of each route, float64 `[count]`."""
    shares = np.full(count, 1.0 / count) if given is None else np.asarray(given, np.float64)
    if shares.shape != (count,) or not (shares >= 0.0).all() or abs(shares.sum() - 1.0) > 1e-6:
        raise ValueError(
            f"PointMaze2D: route_probabilities={given!r}; expected {count} numbers of at least 0 that add up to 1"
        )
    return shares
