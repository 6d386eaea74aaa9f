"""A point in the plane with several equally good goals: the plainest test of a policy with more than one mode."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import gymnasium as gym
import numpy as np

from palaestra.envs import rendering
from palaestra.envs.arrays import at_least, clamped, namespace_of, table_like
from palaestra.envs.checks import check_amount, check_count
from palaestra.envs.simulator import RandomActor, Simulator
from palaestra.protocols import Actor, Array, Estimand, Key, Oracle, Transition

WALL_MARGIN = 2.0
"""Distance from the circle of goals to the walls, in lengths."""


@dataclass(frozen=True)
class MultiGoalState:
    """Where the point is, and what follows from that for the goals.

    Attributes:
        position: float64 `[batch, 2]`, in lengths.
        goal: The goal the point is in, -1 for none; int64 `[batch]`.
        distance: Distance to the rim of the nearest goal, 0 within it; float64 `[batch]`.
    """

    position: Array
    goal: Array
    distance: Array


@dataclass(frozen=True)
class MovedPoint:
    """Post-decision state: where the point is headed and what is known of the reward by then.

    Attributes:
        target: Position after the move, before noise and walls, float64 `[batch, 2]`.
        distance: Distance to the rim of the nearest goal before the move, float64 `[batch]`.
        reward: Minus the cost of the action, float64 `[batch]`.
    """

    target: Array
    distance: Array
    reward: Array


@dataclass(frozen=True)
class StraightLine:
    """Walks straight to one goal, or to the nearest where `goal` is None, and stops at its centre."""

    goals: np.ndarray
    goal: int | None = None

    def __call__(self, state: MultiGoalState, observation: Array, key: Key) -> Array:
        """Return actions `[batch, 2]`."""
        goals = table_like(self.goals, state.position)
        if self.goal is not None:
            return _shortened(goals[self.goal] - state.position)
        nearest = namespace_of(goals).argmin(_squared_distances(state.position, goals), axis=0)
        return _shortened(goals[nearest] - state.position)


class MultiGoal2D(Simulator[MultiGoalState]):
    """A point mass in the plane among equally rewarded goals on a circle.

    Every direction to a goal is as good as any other, so the set of optimal policies has `num_goals` modes at the
    start: a Gaussian policy must choose one, and an average of two good actions is a bad one (between opposite goals
    it is to stand still). A policy that holds all modes visits all goals; `goal_visit_entropy` of the goals it
    reached, `log(num_goals)` nats at most, says how many it holds, and the return whether each of them is any good.

    **State**: position, float64 `[2]`, and what follows from it. **Observation**: float32 `[2]`, the position divided
    by `radius + 2`, in [-1, 1]. **Action**: float32 `[2]` in [-1, 1], the displacement in lengths; one longer than 1
    is shortened to length 1, so that no direction is faster.

    **Dynamics**: `position + displacement + noise_std * normal`, then kept inside the walls `|x|, |y| <= radius + 2`.
    Goal k lies at angle `2 pi k / num_goals` on the circle of `radius` around the origin.

    **Reward**: 10 on coming within `goal_radius` of a goal, minus `action_cost` times the squared length of the
    displacement, plus `shaping` times the decrease of the distance to the rim of the nearest goal. The shaping terms
    of an episode add up to `shaping` times (distance at the start - distance at the end): they guide, but change no
    preference between goals.

    **Start**: origin plus `start_std` times standard normal noise, kept inside the walls. **End**: terminated within
    a goal, else truncated after `horizon` steps. **Masks**: none.

    **Info**: `goal` (int64: the goal the point is in, -1 for none), `success` (bool: in a goal), `distance`
    (float64: to the rim of the nearest goal).

    **Noise**: draws "start" and "motion", normal `[2]` each.

    **Oracle**: a bound on the mean return, `10 + shaping * (sqrt(radius**2 + 2 start_std**2) - goal_radius)`. Proof:
    the goal is entered once at most; action costs are not negative; and the shaping terms add up to at most `shaping`
    times the distance D at the start to the rim of the nearest goal. That is at most the distance to goal 0 less
    `goal_radius`, or 0, and by Jensen's inequality the mean distance from the start (keeping it inside the walls brings
    it no farther off) to goal 0 is at most the root of its mean square, `radius**2 + 2 start_std**2`. The straight
    line to the nearest goal falls short of it by its action costs alone, about
    `action_cost * radius`.

    **Experts**: "goal-0", "goal-1", ... walk straight to their goal, "nearest" to the nearest one. **Reference
    policies**: "random" and "nearest".

    **Version history**: v0, first release.

    Args:
        num_goals: Number of goals, at least 1.
        radius: Distance of the goals from the origin, in lengths (one length is the longest move of a step).
        goal_radius: Radius of a goal; the goals must neither overlap nor hold the origin.
        horizon: Steps to truncation.
        noise_std: Standard deviation of the noise of each coordinate in a step, in lengths.
        start_std: Standard deviation of each coordinate of the start, in lengths.
        action_cost: Cost of a displacement of length 1.
        shaping: Reward for each length that the point comes nearer to a goal.

    Raises:
        ValueError: If an argument is outside its range.

    Source: the multi-goal test of Haarnoja, Tang, Abbeel and Levine, "Reinforcement learning with deep energy-based
    policies", ICML 2017, with other rewards and a bound.
    """

    render_modes: ClassVar[tuple[str, ...]] = ("rgb_array",)
    draws: ClassVar[tuple[str, ...]] = ("start", "motion")
    goal_reward: ClassVar[float] = 10.0

    def __init__(
        self,
        num_goals: int = 4,
        radius: float = 5.0,
        goal_radius: float = 0.5,
        horizon: int = 30,
        noise_std: float = 0.05,
        start_std: float = 0.1,
        action_cost: float = 0.02,
        shaping: float = 0.1,
    ) -> None:
        world = "MultiGoal2D"
        self.num_goals = check_count(world, "num_goals", num_goals)
        self.horizon = check_count(world, "horizon", horizon)
        self.radius = check_amount(world, "radius", radius, positive=True)
        self.goal_radius = check_amount(world, "goal_radius", goal_radius, positive=True)
        self.noise_std = check_amount(world, "noise_std", noise_std)
        self.start_std = check_amount(world, "start_std", start_std)
        self.action_cost = check_amount(world, "action_cost", action_cost)
        self.shaping = check_amount(world, "shaping", shaping)
        room = radius * math.sin(math.pi / num_goals) if num_goals > 1 else radius
        if goal_radius >= min(room, WALL_MARGIN):
            raise ValueError(
                f"{world}: goal_radius={goal_radius}; expected less than {min(room, WALL_MARGIN):.4g}, so that "
                f"{num_goals} goals at radius {radius} neither overlap nor hold the origin nor reach the walls"
            )
        self.wall = radius + WALL_MARGIN
        angles = 2.0 * math.pi * np.arange(num_goals) / num_goals
        self.goals = radius * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
        self.observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def initial(self, key: Key) -> MultiGoalState:
        """Return the start: the origin, with noise."""
        return self._state_at(self.start_std * key.normal("start", (2,)))

    def decide(self, state: MultiGoalState, action: Array) -> MovedPoint:
        """Return where the action leads, and minus its cost."""
        move = _shortened(action)
        cost = self.action_cost * (move[:, 0] ** 2 + move[:, 1] ** 2)
        return MovedPoint(target=state.position + move, distance=state.distance, reward=-cost)

    def realise(self, post: MovedPoint, key: Key) -> Transition[MultiGoalState]:
        """Return where the noise leads, with the shaping and the goal's reward."""
        state = self._state_at(post.target + self.noise_std * key.normal("motion", (2,)))
        reached = state.goal >= 0
        return Transition(state, self.shaping * (post.distance - state.distance) + self.goal_reward * reached, reached)

    def observe(self, state: MultiGoalState) -> Array:
        """Return the position over the half-width of the arena, `[batch, 2]`."""
        return state.position / self.wall

    def information(self, state: MultiGoalState) -> Mapping[str, Array]:
        """Return `goal`, `success` and `distance`, `[batch]` each."""
        return {"goal": state.goal, "success": state.goal >= 0, "distance": state.distance}

    def oracle(self) -> Oracle:
        """Return the bound on the mean return that the class docstring proves."""
        start = math.sqrt(self.radius**2 + 2.0 * self.start_std**2) - self.goal_radius
        return Oracle(
            value=self.goal_reward + self.shaping * start,
            estimand=Estimand("episode_return"),
            kind="bound",
            source="one goal reward, no action cost, shaping from the start to a rim; proof in the class docstring",
        )

    def experts(self) -> Mapping[str, Actor]:
        """Return the straight lines to each goal and to the nearest."""
        lines = {f"goal-{goal}": StraightLine(self.goals, goal) for goal in range(self.num_goals)}
        return {**lines, "nearest": StraightLine(self.goals)}

    def reference_policies(self) -> Mapping[str, Actor]:
        """Return "random" and the straight line to the nearest goal."""
        return {"random": RandomActor(self.action_space), "nearest": StraightLine(self.goals)}

    def render(self, state: MultiGoalState, row: int = 0, mode: str = "rgb_array") -> np.ndarray:
        """Return a picture `[256, 256, 3]`: walls, goals (numbered), the circle and the point."""
        if mode not in self.render_modes:
            raise ValueError(f"render: mode={mode!r}; expected one of {self.render_modes}")
        size = 256
        scale = (size / 2 - 4) / self.wall
        canvas = rendering.Canvas(size, size, rendering.INK)
        canvas.rectangle(4, 4, size - 4, size - 4, rendering.WHITE)
        canvas.ring(size / 2, size / 2, self.radius * scale, rendering.PALE)
        for goal, (x, y) in enumerate(self.goals):
            column, line = size / 2 + scale * x, size / 2 - scale * y
            canvas.disc(column, line, max(self.goal_radius * scale, 3), rendering.GREEN)
            canvas.text(column - 2, line - 5, str(goal), rendering.WHITE)
        x, y = state.position[row]
        canvas.disc(size / 2 + scale * x, size / 2 - scale * y, 4, rendering.ORANGE)
        return canvas.pixels

    def _state_at(self, position: Array) -> MultiGoalState:
        """Return the state of a point, kept inside the walls."""
        xp = namespace_of(position)
        position = clamped(position, -self.wall, self.wall)
        goals = table_like(self.goals, position)
        squared = _squared_distances(position, goals)
        number = xp.arange(1, self.num_goals + 1, device=goals.device)[:, None]
        # Goals do not overlap, so the sum over goals has one term at most.
        goal = xp.sum(number * (squared <= self.goal_radius**2), axis=0) - 1
        # Inside a goal the root is never taken of less than its radius: its gradient stays finite at the centre.
        nearest_squared = at_least(xp.min(squared, axis=0), self.goal_radius**2)
        return MultiGoalState(position, goal, xp.sqrt(nearest_squared) - self.goal_radius)


def goal_visit_entropy(goals: np.ndarray, num_goals: int) -> float:
    """Return the entropy in nats of the goals that episodes ended in, 0 to log(num_goals).

    Args:
        goals: `info["goal"]` at the end of each episode `[episodes]`; -1 (no goal) is not counted.
        num_goals: Number of goals of the world.

    Returns:
        The entropy of the visited share of each goal; 0 where no goal was reached.

    Raises:
        ValueError: If a goal is not from -1 to `num_goals - 1`.
    """
    goals = np.asarray(goals)
    if goals.size and not (int(goals.min()) >= -1 and int(goals.max()) < num_goals):
        raise ValueError(f"goal_visit_entropy: goals={goals!r}; expected integers from -1 to {num_goals - 1}")
    visits = np.bincount(goals[goals >= 0].astype(np.int64).ravel(), minlength=num_goals)
    shares = visits[visits > 0] / max(int(visits.sum()), 1)
    return float(-(shares * np.log(shares)).sum()) + 0.0


def _shortened(move: Array) -> Array:
    """Return moves `[batch, 2]` of length 1 at most; the squared length keeps the gradient finite at no move."""
    squared = move[:, 0] ** 2 + move[:, 1] ** 2
    return move / namespace_of(move).sqrt(at_least(squared, 1.0))[:, None]


def _squared_distances(position: Array, goals: Array) -> Array:
    """Return squared distances `[num_goals, batch]`; with the goals in front NumPy reduces over them fast."""
    return (position[:, 0] - goals[:, :1]) ** 2 + (position[:, 1] - goals[:, 1:]) ** 2
