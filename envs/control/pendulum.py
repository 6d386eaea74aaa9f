"""The torque-limited pendulum: swing it up and hold it, though the motor cannot lift it straight."""

from __future__ import annotations

import itertools
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


@dataclass(frozen=True)
class PendulumState:
    """Where the pendulum is and how it was last driven; float64 `[batch]` each.

    Attributes:
        angle: In rad, 0 upright, positive counter-clockwise, not wrapped.
        angular_velocity: In rad/s.
        torque: The last torque, in N m (0 at the start); shown in pictures, without effect.
    """

    angle: Array
    angular_velocity: Array
    torque: Array


@dataclass(frozen=True)
class SwingUp:
    """Pumps energy until the pendulum can coast to the top, and holds it there by a proportional-derivative law.

    Source: Astrom and Furuta, "Swinging up a pendulum by energy control", 2000.
    """

    world: Pendulum

    def __call__(self, state: PendulumState, observation: Array, key: Key) -> Array:
        """Return actions `[batch, 1]`."""
        world, spin = self.world, state.angular_velocity
        xp = namespace_of(spin)
        angle = wrapped(state.angle)
        inertia, weight = world.mass * world.length**2 / 3.0, 0.5 * world.mass * world.gravity * world.length
        missing = weight * (1.0 - xp.cos(angle)) - 0.5 * inertia * spin**2
        # At rest a push in either direction begins the swing.
        pump = world.max_torque * xp.sign(missing) * xp.where(spin < 0.0, -xp.ones_like(spin), xp.ones_like(spin))
        # Stiff enough to beat gravity, and damped to come to rest without swinging over.
        stiffness = 2.0 * weight
        hold = -stiffness * angle - 2.0 * math.sqrt(inertia * (stiffness - weight)) * spin
        # Held from where the motor is strong enough to stop it.
        near = abs(hold) <= 2.0 * world.max_torque
        catching = near & (xp.cos(angle) > 0.8)
        return world.action_of(xp.where(catching, hold, pump))


class Pendulum(Simulator[PendulumState]):
    """A pendulum with a weak motor, to be swung up and held upright at least cost.

    The world of Gymnasium's `Pendulum-v1`, equal to it from the same state to 1e-12 under float64 actions, and with
    `single_precision` under float32 actions too (their rewards to 1e-9).

    **State**: angle and angular velocity, float64 (and the last torque, for pictures). **Observation**: float32 `[3]`:
    cosine and sine of the angle, angular velocity in rad/s. **Action**: float32 `[1]`; with `action_mode="normalised"`
    in [-1, 1], the torque over `max_torque`; with "torque" the torque itself, in [-max_torque, max_torque].
    **Masks**: none.

    **Dynamics**: a rod of mass m and length l, with g the gravity and u the torque:

        omega' = omega + (3 g / (2 l) sin(angle) + 3 / (m l**2) u) time_step, kept within max_speed
        angle' = angle + omega' time_step

    differentiable in state and action. **Reward**: minus (angle**2 + .1 omega**2 + .001 u**2) before the step, with
    the angle taken from -pi to pi. **Start**: angle uniform on [-pi, pi], omega on [-1, 1]. **End**: never terminated;
    truncated after `horizon` steps. **Info**: none. **Noise**: draw "start" (uniform `[2]`).

    **Oracle**: none: the optimum is not known in closed form. **Reference policies**: "random", "zero" (the motor is
    off) and "swing-up" (energy pumping, then a proportional-derivative law).

    **Version history**: v0, first release.

    Args:
        gravity: In m/s**2, at least 0.
        mass: In kg, above 0.
        length: In m, above 0.
        max_torque: In N m, above 0; `step` itself clips torques to it.
        max_speed: In rad/s, above 0.
        time_step: In s, above 0.
        action_mode: "normalised" or "torque".
        single_precision: Whether the acceleration by the torque is rounded to float32, as in Gymnasium's env when its
            actions are of the dtype of its space.
        horizon: Steps to truncation.

    Raises:
        ValueError: If an argument is outside its range.
    """

    render_modes: ClassVar[tuple[str, ...]] = ("rgb_array",)
    render_fps: ClassVar[int] = 30
    draws: ClassVar[tuple[str, ...]] = ("start",)
    elementwise: ClassVar[bool] = True

    def __init__(
        self,
        gravity: float = 10.0,
        mass: float = 1.0,
        length: float = 1.0,
        max_torque: float = 2.0,
        max_speed: float = 8.0,
        time_step: float = 0.05,
        action_mode: Literal["normalised", "torque"] = "normalised",
        single_precision: bool = False,
        horizon: int = 200,
    ) -> None:
        world = "Pendulum"
        self.gravity = check_amount(world, "gravity", gravity)
        self.mass = check_amount(world, "mass", mass, positive=True)
        self.length = check_amount(world, "length", length, positive=True)
        self.max_torque = check_amount(world, "max_torque", max_torque, positive=True)
        self.max_speed = check_amount(world, "max_speed", max_speed, positive=True)
        self.time_step = check_amount(world, "time_step", time_step, positive=True)
        self.horizon = check_count(world, "horizon", horizon)
        if action_mode not in ("normalised", "torque"):
            raise ValueError(f"{world}: action_mode={action_mode!r}; expected 'normalised' or 'torque'")
        self.action_mode, self.single_precision = action_mode, bool(single_precision)
        self._torque_unit = 1.0 if action_mode == "torque" else self.max_torque
        self._by_gravity = 3.0 * self.gravity / (2.0 * self.length)
        self._by_torque = 3.0 / (self.mass * self.length**2)
        bounds = np.array([1.0, 1.0, self.max_speed], np.float32)
        self.observation_space = gym.spaces.Box(-bounds, bounds, dtype=np.float32)
        largest = self.max_torque / self._torque_unit
        self.action_space = gym.spaces.Box(-largest, largest, (1,), np.float32)

    def initial(self, key: Key) -> PendulumState:
        """Return the pendulum anywhere, nearly at rest."""
        start = 2.0 * key.uniform("start", (2,)) - 1.0
        return PendulumState(math.pi * start[:, 0], start[:, 1], 0.0 * start[:, 0])

    def action_of(self, torque: Array) -> Array:
        """Return the actions `[batch, 1]` of torques `[batch]` in N m, clipped to what the motor can do."""
        return (clamped(torque, -self.max_torque, self.max_torque) / self._torque_unit)[:, None]

    def step(self, state: PendulumState, action: Array, key: Key) -> Transition[PendulumState]:
        """Return where the pendulum is one `time_step` later, and minus the cost of before."""
        angle, spin = state.angle, state.angular_velocity
        torque = clamped(self._torque_unit * action[..., 0], -self.max_torque, self.max_torque)
        if self.single_precision:
            torque = in_single_precision(torque)
            drive = in_single_precision(np.float32(self._by_torque).item() * torque)
        else:
            drive = self._by_torque * torque
        tilt = wrapped(angle)
        cost = tilt * tilt + 0.1 * (spin * spin) + 0.001 * (torque * torque)
        spin = spin + (self._by_gravity * namespace_of(angle).sin(angle) + drive) * self.time_step
        spin = clamped(spin, -self.max_speed, self.max_speed)
        never = abs(spin) > self.max_speed
        return Transition(PendulumState(angle + spin * self.time_step, spin, torque), -cost, never)

    def observe(self, state: PendulumState) -> Array:
        """Return cosine and sine of the angle and the angular velocity, `[batch, 3]`."""
        xp = namespace_of(state.angle)
        return stacked((xp.cos(state.angle), xp.sin(state.angle), state.angular_velocity))

    def reference_policies(self) -> Mapping[str, Actor]:
        """Return "random", "zero" and "swing-up"."""
        return {"random": RandomActor(self.action_space), "zero": MotorOff(self), "swing-up": SwingUp(self)}

    def render(self, state: PendulumState, row: int = 0, mode: str = "rgb_array") -> np.ndarray:
        """Return a picture `[240, 240, 3]`: the rod, its goal at the top, and a bent arrow for the torque."""
        if mode not in self.render_modes:
            return np.asarray(super().render(state, row, mode))
        size, radius = 240, 80.0
        middle = size / 2
        angle, torque = float(state.angle[row]), float(state.torque[row])
        canvas = rendering.Canvas(size, size)
        canvas.ring(middle, middle, radius, rendering.PALE)
        canvas.ring(middle, middle - radius, 12, rendering.GREEN, 2.0)
        # A positive angle leans to the left, as seen from the front: counter-clockwise.
        tip = (middle - radius * math.sin(angle), middle - radius * math.cos(angle))
        canvas.line(middle, middle, *tip, rendering.RED, 14.0)
        canvas.disc(middle, middle, 5, rendering.INK)
        if torque != 0.0:
            turn = 1.2 * torque / self.max_torque
            points = [angle + turn * part / 6.0 for part in range(7)]
            arc = [(middle - 100.0 * math.sin(point), middle - 100.0 * math.cos(point)) for point in points]
            for (x0, y0), (x1, y1) in itertools.pairwise(arc[:-1]):
                canvas.line(x0, y0, x1, y1, rendering.BLUE, 3.0)
            canvas.arrow(*arc[-2], *arc[-1], rendering.BLUE, 3.0)
        return canvas.pixels


@dataclass(frozen=True)
class MotorOff:
    """Never drives the pendulum."""

    world: Pendulum

    def __call__(self, state: PendulumState, observation: Array, key: Key) -> Array:
        """Return actions `[batch, 1]`, all 0."""
        return self.world.action_of(0.0 * state.angle)


def wrapped(angle: Array) -> Array:
    """Return angles taken from -pi to pi."""
    return (angle + math.pi) % (2.0 * math.pi) - math.pi
