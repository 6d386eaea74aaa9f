"""The acrobot: a double pendulum driven at its elbow, to be swung up above a line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import gymnasium as gym
import numpy as np

from palaestra.envs import rendering
from palaestra.envs.arrays import clamped, in_single_precision, namespace_of, stacked
from palaestra.envs.checks import check_amount, check_count
from palaestra.envs.simulator import RandomActor, Simulator
from palaestra.protocols import Actor, Array, Key, Transition

_GRAVITY = 9.8
Motion = tuple[Array, Array, Array, Array]


@dataclass(frozen=True)
class AcrobotState:
    """The two joints and the last torque; float64 `[batch]` each.

    Attributes:
        first_angle: Of the first link, in rad from -pi to pi, 0 hanging down.
        second_angle: Of the second link relative to the first, in rad from -pi to pi, 0 straight.
        first_velocity: In rad/s.
        second_velocity: In rad/s.
        torque: The last torque at the elbow, in N m (0 at the start); shown in pictures, without effect.
    """

    first_angle: Array
    second_angle: Array
    first_velocity: Array
    second_velocity: Array
    torque: Array


@dataclass(frozen=True)
class PumpEnergy:
    """Drives the elbow the way it turns, which puts in as much energy as can be; to one side at rest."""

    world: Acrobot

    def __call__(self, state: AcrobotState, observation: Array, key: Key) -> Array:
        """Return actions `[batch]`."""
        xp = namespace_of(state.second_velocity)
        return 2 * xp.astype(state.second_velocity >= 0.0, xp.int64)


class Acrobot(Simulator[AcrobotState]):
    """Two links hanging from a bar, with a motor between them, that must swing the free end above a line.

    The world of Gymnasium's `Acrobot-v1`, equal to it from the same state to 1e-12.

    **State**: two angles and their velocities, float64 (and the last torque, for pictures). **Observation**: float32
    `[6]`: cosine and sine of the first angle and of the second, then the velocities in rad/s. **Action**: 0, 1 or 2,
    for a torque of -1, 0 or 1 times `max_torque` at the elbow. **Masks**: none.

    **Dynamics**: with `theta` the angles, m the masses, l the length of the first link, c the distances of the
    centres of mass from their joints, I the moments of inertia, g = 9.8 m/s**2, u the torque:

        d1 = m1 c1**2 + m2 (l**2 + c2**2 + 2 l c2 cos(theta2)) + I1 + I2
        d2 = m2 (c2**2 + l c2 cos(theta2)) + I2
        phi2 = m2 c2 g cos(theta1 + theta2 - pi/2)
        phi1 = -m2 l c2 theta2'**2 sin(theta2) - 2 m2 l c2 theta2' theta1' sin(theta2)
               + (m1 c1 + m2 l) g cos(theta1 - pi/2) + phi2
        theta2'' = (u + d2/d1 phi1 - m2 l c2 theta1'**2 sin(theta2) - phi2) / (m2 c2**2 + I2 - d2**2 / d1)
        theta1'' = -(d2 theta2'' + phi1) / d1

    by one Runge-Kutta step of fourth order of `time_step`; then the angles are wrapped and the velocities kept within
    4 pi and 9 pi rad/s. With `dynamics="nips"`, the term in theta1'**2 is left out.

    **Reward**: -1 for each step, 0 for the one that arrives. **Start**: all four uniform on [-.1, .1], rounded to
    float32. **End**: terminated when the free end is higher than one link above the bar,
    `-cos(theta1) - cos(theta1 + theta2) > 1`; truncated after `horizon` steps. **Info**: none. **Noise**: draw
    "start" (uniform `[4]`).

    **Oracle**: none: the least number of steps is not known in closed form. **Reference policies**: "random" and
    "energy", which drives the elbow the way it turns.

    **Version history**: v0, first release.

    Args:
        first_mass: In kg, above 0.
        second_mass: In kg, above 0.
        first_length: In m, above 0.
        first_center: Distance of the first centre of mass from the bar, in m, above 0.
        second_center: Distance of the second centre of mass from the elbow, in m, above 0.
        inertia: Moment of inertia of either link about its centre of mass, in kg m**2, above 0.
        max_torque: In N m, above 0.
        time_step: In s, above 0.
        dynamics: "book" (Sutton and Barto's) or "nips" (Sutton, 1996).
        horizon: Steps to truncation.

    Raises:
        ValueError: If an argument is outside its range.

    Source: Sutton, "Generalization in reinforcement learning: successful examples using sparse coarse coding", 1996;
    Sutton and Barto, "Reinforcement learning: an introduction".
    """

    render_modes: ClassVar[tuple[str, ...]] = ("rgb_array",)
    render_fps: ClassVar[int] = 15
    draws: ClassVar[tuple[str, ...]] = ("start",)
    elementwise: ClassVar[bool] = True
    max_velocities: ClassVar[tuple[float, float]] = (4 * math.pi, 9 * math.pi)

    def __init__(
        self,
        first_mass: float = 1.0,
        second_mass: float = 1.0,
        first_length: float = 1.0,
        first_center: float = 0.5,
        second_center: float = 0.5,
        inertia: float = 1.0,
        max_torque: float = 1.0,
        time_step: float = 0.2,
        dynamics: Literal["book", "nips"] = "book",
        horizon: int = 500,
    ) -> None:
        world = "Acrobot"
        self.first_mass = check_amount(world, "first_mass", first_mass, positive=True)
        self.second_mass = check_amount(world, "second_mass", second_mass, positive=True)
        self.first_length = check_amount(world, "first_length", first_length, positive=True)
        self.first_center = check_amount(world, "first_center", first_center, positive=True)
        self.second_center = check_amount(world, "second_center", second_center, positive=True)
        self.inertia = check_amount(world, "inertia", inertia, positive=True)
        self.max_torque = check_amount(world, "max_torque", max_torque, positive=True)
        self.time_step = check_amount(world, "time_step", time_step, positive=True)
        self.horizon = check_count(world, "horizon", horizon)
        if dynamics not in ("book", "nips"):
            raise ValueError(f"{world}: dynamics={dynamics!r}; expected 'book' or 'nips'")
        self.dynamics = dynamics
        self._coupling = self.second_mass * self.first_length * self.second_center
        self._inertia2 = self.second_mass * self.second_center**2 + self.inertia
        self._inertia1 = (
            self.first_mass * self.first_center**2
            + self.second_mass * self.first_length**2
            + self._inertia2
            + self.inertia
        )
        self._weight1 = (self.first_mass * self.first_center + self.second_mass * self.first_length) * _GRAVITY
        self._weight2 = self.second_mass * self.second_center * _GRAVITY
        bounds = np.array([1.0, 1.0, 1.0, 1.0, *self.max_velocities], np.float32)
        self.observation_space = gym.spaces.Box(-bounds, bounds, dtype=np.float32)
        self.action_space = gym.spaces.Discrete(3)

    def initial(self, key: Key) -> AcrobotState:
        """Return both links hanging down, nearly at rest."""
        start = in_single_precision(0.1 * (2.0 * key.uniform("start", (4,)) - 1.0))
        return AcrobotState(start[:, 0], start[:, 1], start[:, 2], start[:, 3], 0.0 * start[:, 0])

    def step(self, state: AcrobotState, action: Array, key: Key) -> Transition[AcrobotState]:
        """Return where the links are one `time_step` later."""
        torque = self.max_torque * (action - 1.0)
        motion = (state.first_angle, state.second_angle, state.first_velocity, state.second_velocity)
        first, second, first_velocity, second_velocity = self._integrated(motion, torque)
        first, second = _wrapped(first), _wrapped(second)
        limit = self.max_velocities
        first_velocity = clamped(first_velocity, -limit[0], limit[0])
        second_velocity = clamped(second_velocity, -limit[1], limit[1])
        xp = namespace_of(first)
        arrived = -xp.cos(first) - xp.cos(second + first) > 1.0
        following = AcrobotState(first, second, first_velocity, second_velocity, torque)
        return Transition(following, 0.0 * first - 1.0 + 1.0 * arrived, arrived)

    def _integrated(self, motion: Motion, torque: Array) -> Motion:
        """Return the motion one step on, by the classical Runge-Kutta method."""

        def moved(slope: Motion, time: float) -> Motion:
            a, b, c, d = (value + time * rate for value, rate in zip(motion, slope, strict=True))
            return a, b, c, d

        half = self.time_step / 2.0
        k1 = self._slope(motion, torque)
        k2 = self._slope(moved(k1, half), torque)
        k3 = self._slope(moved(k2, half), torque)
        k4 = self._slope(moved(k3, self.time_step), torque)
        a, b, c, d = (p + 2 * q + 2 * r + s for p, q, r, s in zip(k1, k2, k3, k4, strict=True))
        return moved((a, b, c, d), self.time_step / 6.0)

    def _slope(self, motion: Motion, torque: Array) -> Motion:
        """Return velocities and accelerations."""
        first, second, spin1, spin2 = motion
        xp = namespace_of(first)
        swing = self._coupling * xp.cos(second)
        centrifugal = self._coupling * xp.sin(second)
        d1 = self._inertia1 + 2.0 * swing
        d2 = self._inertia2 + swing
        ratio = d2 / d1
        # The cosines of angles less a right angle are sines.
        phi2 = self._weight2 * xp.sin(first + second)
        phi1 = self._weight1 * xp.sin(first) + phi2 - centrifugal * (spin2 * (spin2 + 2.0 * spin1))
        drive = torque + ratio * phi1 - phi2
        if self.dynamics == "book":
            drive = drive - centrifugal * (spin1 * spin1)
        second_acceleration = drive / (self._inertia2 - ratio * d2)
        return spin1, spin2, -(d2 * second_acceleration + phi1) / d1, second_acceleration

    def observe(self, state: AcrobotState) -> Array:
        """Return cosine and sine of both angles and the velocities, `[batch, 6]`."""
        xp, first, second = namespace_of(state.first_angle), state.first_angle, state.second_angle
        cosines_and_sines = (xp.cos(first), xp.sin(first), xp.cos(second), xp.sin(second))
        return stacked((*cosines_and_sines, state.first_velocity, state.second_velocity))

    def reference_policies(self) -> Mapping[str, Actor]:
        """Return "random" and "energy"."""
        return {"random": RandomActor(self.action_space), "energy": PumpEnergy(self)}

    def render(self, state: AcrobotState, row: int = 0, mode: str = "rgb_array") -> np.ndarray:
        """Return a picture `[240, 240, 3]`: the line to reach, both links, and the sign of the torque at the elbow."""
        if mode not in self.render_modes:
            return np.asarray(super().render(state, row, mode))
        size, scale = 240, 52.0
        middle = size / 2
        first, second = float(state.first_angle[row]), float(state.second_angle[row])
        elbow = (middle + scale * math.sin(first), middle + scale * math.cos(first))
        end = (elbow[0] + scale * math.sin(first + second), elbow[1] + scale * math.cos(first + second))
        canvas = rendering.Canvas(size, size)
        arrived = -math.cos(first) - math.cos(first + second) > 1.0
        canvas.line(8, middle - scale, size - 8, middle - scale, rendering.GREEN if arrived else rendering.INK, 2.0)
        canvas.line(middle, middle, *elbow, rendering.BLUE, 9.0)
        canvas.line(*elbow, *end, rendering.BLUE, 9.0)
        torque = float(state.torque[row])
        canvas.disc(middle, middle, 5, rendering.INK)
        canvas.disc(*elbow, 7, rendering.ORANGE if torque > 0.0 else rendering.RED if torque < 0.0 else rendering.PALE)
        if torque != 0.0:
            canvas.text(8, 8, f"TORQUE {torque:+.1f}")
        return canvas.pixels


def _wrapped(angle: Array) -> Array:
    """Return angles taken from -pi to pi; those inside are left bit for bit."""
    turn = 2.0 * math.pi
    return angle - turn * namespace_of(angle).ceil((angle - math.pi) / turn)
