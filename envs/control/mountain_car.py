"""The mountain car, with three pushes or with a continuous force: too weak for the hill, it must swing up."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import gymnasium as gym
import numpy as np

from palaestra.envs import rendering
from palaestra.envs.arrays import clamped, in_single_precision, namespace_of, stacked
from palaestra.envs.checks import check_amount, check_count
from palaestra.envs.simulator import RandomActor, Simulator
from palaestra.protocols import Actor, Array, Estimand, Key, Oracle, Transition

TRACK = (-1.2, 0.6)
"""The wall at the left, at which the car stops, and the end of the track behind the goal."""

START = (-0.6, -0.4)
"""Where the car starts."""


@dataclass(frozen=True)
class CarState:
    """Where the car is and how it was last pushed; float64 `[batch]` each.

    Attributes:
        position: Along the horizontal axis, -1.2 to 0.6; the valley's bottom lies at -pi / 6.
        velocity: Per step.
        thrust: The last acceleration by the motor, per step (0 at the start); shown in pictures, without effect.
    """

    position: Array
    velocity: Array
    thrust: Array


class _Hill(Simulator[CarState]):
    """What the two worlds share: the valley, the start, the reference policies and the picture."""

    render_modes: ClassVar[tuple[str, ...]] = ("rgb_array",)
    render_fps: ClassVar[int] = 30
    draws: ClassVar[tuple[str, ...]] = ("start",)
    elementwise: ClassVar[bool] = True

    force: float
    gravity: float
    max_speed: float
    goal_position: float
    goal_velocity: float

    def _set_up(
        self,
        force: float,
        gravity: float,
        max_speed: float,
        goal_position: float,
        goal_velocity: float,
        horizon: int,
        single_precision: bool = False,
    ) -> None:
        world = type(self).__name__
        self.force = check_amount(world, "force", force, positive=True)
        self.gravity = check_amount(world, "gravity", gravity)
        self.max_speed = check_amount(world, "max_speed", max_speed, positive=True)
        if not START[1] < goal_position <= TRACK[1]:
            raise ValueError(
                f"{world}: goal_position={goal_position!r}; expected a number above {START[1]}, at most {TRACK[1]}"
            )
        self.goal_position = float(goal_position)
        if not math.isfinite(goal_velocity):
            raise ValueError(f"{world}: goal_velocity={goal_velocity!r}; expected a finite number")
        self.goal_velocity = float(goal_velocity)
        self.horizon = check_count(world, "horizon", horizon)
        self.single_precision = bool(single_precision)
        limits = (*TRACK, self.max_speed, self.goal_position)
        self._limits = tuple(np.float32(limit).item() for limit in limits) if single_precision else limits
        low, high = (
            np.array([end, speed], np.float32) for end, speed in zip(TRACK, (-max_speed, max_speed), strict=True)
        )
        self.observation_space = gym.spaces.Box(low, high, dtype=np.float32)

    def initial(self, key: Key) -> CarState:
        """Return the car at rest near the bottom of the valley."""
        position = START[0] + (START[1] - START[0]) * key.uniform("start")
        return CarState(position, 0.0 * position, 0.0 * position)

    @abstractmethod
    def action_of(self, direction: Array) -> Array:
        """Return the actions of pushing with all force in directions `[batch]`: -1.0, 0.0 or 1.0."""

    def _drive(self, state: CarState, thrust: Array) -> tuple[CarState, Array]:
        """Return where the car is one step later, and whether it has arrived."""
        least, most, fastest, goal = self._limits
        rounded = in_single_precision if self.single_precision else _unrounded
        phase = 3.0 * state.position
        if self.single_precision:
            # The start alone is not in float32, and its phase is then not rounded either.
            phase = phase + (state.position == rounded(state.position)) * (rounded(phase) - phase)
        pull = rounded(self.gravity * namespace_of(phase).cos(phase))
        velocity = clamped(rounded(state.velocity + rounded(thrust - pull)), -fastest, fastest)
        position = clamped(rounded(state.position + velocity), least, most)
        velocity = velocity * ~((position <= least) & (velocity < 0.0))
        return CarState(position, velocity, thrust), (position >= goal) & (velocity >= self.goal_velocity)

    def observe(self, state: CarState) -> Array:
        """Return position and velocity, `[batch, 2]`."""
        return stacked((state.position, state.velocity))

    def reference_policies(self) -> Mapping[str, Actor]:
        """Return "random", "coast" (no push at all) and "energy": push the way the car moves."""
        return {"random": RandomActor(self.action_space), "coast": Coast(self), "energy": PushAlong(self)}

    def render(self, state: CarState, row: int = 0, mode: str = "rgb_array") -> np.ndarray:
        """Return a picture `[200, 320, 3]`: valley, goal, car, and an arrow for the last push."""
        if mode not in self.render_modes:
            return np.asarray(super().render(state, row, mode))
        width, height = 320, 200
        scale = width / (TRACK[1] - TRACK[0])

        def place(position: float) -> tuple[float, float]:
            return (position - TRACK[0]) * scale, height - 40.0 - 120.0 * (0.5 + 0.5 * math.sin(3.0 * position))

        canvas = rendering.Canvas(width, height)
        for column in range(width):
            canvas.rectangle(column, place(TRACK[0] + column / scale)[1], column + 1, height, rendering.PALE)
        x, y = place(self.goal_position)
        canvas.line(x, y, x, y - 30, rendering.INK)
        canvas.rectangle(x, y - 30, x - 16, y - 20, rendering.GREEN)
        position, thrust = float(state.position[row]), float(state.thrust[row])
        x, y = place(position)
        slope = 180.0 * math.cos(3.0 * position) / scale
        length = math.hypot(1.0, slope)
        along_x, along_y = 1.0 / length, -slope / length
        middle_x, middle_y = x + 8.0 * along_y, y - 8.0 * along_x
        canvas.line(
            middle_x - 9 * along_x, middle_y - 9 * along_y, middle_x + 9 * along_x, middle_y + 9 * along_y,
            rendering.BLUE, 12.0,
        )  # fmt: skip
        for side in (-7.0, 7.0):
            canvas.disc(x + side * along_x + 3 * along_y, y + side * along_y - 3 * along_x, 4, rendering.INK)
        push = 28.0 * thrust / self.force
        canvas.arrow(
            middle_x, middle_y - 16, middle_x + push * along_x, middle_y - 16 + push * along_y, rendering.ORANGE
        )
        return canvas.pixels


@dataclass(frozen=True)
class PushAlong:
    """Pushes with all force the way the car moves, which puts in as much energy as can be; to the right at rest."""

    world: _Hill

    def __call__(self, state: CarState, observation: Array, key: Key) -> Array:
        """Return actions."""
        xp = namespace_of(state.velocity)
        return self.world.action_of(1.0 - 2.0 * xp.astype(state.velocity < 0.0, xp.float64))


@dataclass(frozen=True)
class Coast:
    """Never pushes."""

    world: _Hill

    def __call__(self, state: CarState, observation: Array, key: Key) -> Array:
        """Return actions."""
        return self.world.action_of(0.0 * state.velocity)


class MountainCar(_Hill):
    """A car in a valley, pushed left or right or not at all, that must reach the hill at the right.

    The world of Gymnasium's `MountainCar-v0`, equal to it from the same state to 1e-12.

    **State**: position and velocity, float64 (and the last push, for pictures). **Observation**: float32 `[2]`, these
    two. **Action**: 0 (push left), 1 (do not push) or 2 (push right). **Masks**: none.

    **Dynamics**: `velocity' = velocity + (action - 1) force - gravity cos(3 position)`, kept within `max_speed`;
    `position' = position + velocity'`, kept from -1.2 to 0.6. At the left wall the car stops.

    **Reward**: -1 for each step. **Start**: at rest, position uniform on [-0.6, -0.4]. **End**: terminated at
    `goal_position` or beyond, with `goal_velocity` at least; truncated after `horizon` steps. **Info**: none.
    **Noise**: draw "start" (uniform).

    **Oracle**: none: the least number of steps is not known in closed form. **Reference policies**: "random", "coast"
    and "energy", which pushes the way the car moves.

    **Version history**: v0, first release.

    Args:
        force: Acceleration of a push, per step, above 0.
        gravity: Largest acceleration by the slope, per step, at least 0.
        max_speed: Per step, above 0.
        goal_position: Above -0.4, at most 0.6.
        goal_velocity: Least velocity at the goal, per step.
        horizon: Steps to truncation.

    Raises:
        ValueError: If an argument is outside its range.

    Source: Moore, "Efficient memory-based learning for robot control", 1990; Sutton and Barto, "Reinforcement
    learning: an introduction", example 10.1.
    """

    def __init__(
        self,
        force: float = 0.001,
        gravity: float = 0.0025,
        max_speed: float = 0.07,
        goal_position: float = 0.5,
        goal_velocity: float = 0.0,
        horizon: int = 200,
    ) -> None:
        self._set_up(force, gravity, max_speed, goal_position, goal_velocity, horizon)
        self.action_space = gym.spaces.Discrete(3)

    def action_of(self, direction: Array) -> Array:
        """Return actions `[batch]` of directions."""
        xp = namespace_of(direction)
        return xp.astype(direction, xp.int64) + 1

    def step(self, state: CarState, action: Array, key: Key) -> Transition[CarState]:
        """Return where the car is one step later."""
        following, arrived = self._drive(state, (action - 1) * self.force)
        return Transition(following, 0.0 * following.position - 1.0, arrived)


class MountainCarContinuous(_Hill):
    """A car in a valley with a continuous force, that must reach the hill at the right with little effort.

    The world of Gymnasium's `MountainCarContinuous-v0`, equal to it from the same state to 1e-12 with
    `single_precision`.

    **State**: position and velocity, float64 (and the last push, for pictures). **Observation**: float32 `[2]`, these
    two. **Action**: float32 `[1]` in [-1, 1], the push over `force`. **Masks**: none.

    **Dynamics**: `velocity' = velocity + action force - gravity cos(3 position)`, kept within `max_speed`;
    `position' = position + velocity'`, kept from -1.2 to 0.6. At the left wall the car stops. Differentiable in state
    and action away from the limits.

    **Reward**: 100 on arrival, minus .1 action**2 in each step. **Start**: at rest, position uniform on [-0.6, -0.4].
    **End**: terminated at `goal_position` or beyond, with `goal_velocity` at least; truncated after `horizon` steps.
    **Info**: none. **Noise**: draw "start" (uniform).

    **Oracle**: a bound of 100: the goal is reached once at most, and no action pays. **Reference policies**: "random",
    "coast" and "energy", which pushes the way the car moves.

    **Version history**: v0, first release.

    Args:
        force: Acceleration of a full push, per step, above 0.
        gravity: Largest acceleration by the slope, per step, at least 0.
        max_speed: Per step, above 0.
        goal_position: Above -0.4, at most 0.6.
        goal_velocity: Least velocity at the goal, per step.
        single_precision: Whether to round to float32 where Gymnasium's env does, which keeps its state in float32 and
            computes in it when its actions are of the dtype of its space.
        horizon: Steps to truncation.

    Raises:
        ValueError: If an argument is outside its range.

    Source: Moore, "Efficient memory-based learning for robot control", 1990, with a continuous force.
    """

    def __init__(
        self,
        force: float = 0.0015,
        gravity: float = 0.0025,
        max_speed: float = 0.07,
        goal_position: float = 0.45,
        goal_velocity: float = 0.0,
        single_precision: bool = False,
        horizon: int = 999,
    ) -> None:
        self._set_up(force, gravity, max_speed, goal_position, goal_velocity, horizon, single_precision)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def action_of(self, direction: Array) -> Array:
        """Return actions `[batch, 1]` of directions."""
        return direction[:, None]

    def step(self, state: CarState, action: Array, key: Key) -> Transition[CarState]:
        """Return where the car is one step later."""
        push, force = clamped(action[..., 0], -1.0, 1.0), self.force
        thrust = force * push
        if self.single_precision:
            push = in_single_precision(push)
            thrust = in_single_precision(np.float32(force).item() * push)
        following, arrived = self._drive(state, thrust)
        return Transition(following, 100.0 * arrived - 0.1 * (push * push), arrived)

    def oracle(self) -> Oracle:
        """Return the bound of 100."""
        return Oracle(100.0, Estimand("episode_return"), "bound", "one arrival, no effort")


def _unrounded(array: Array) -> Array:
    return array
