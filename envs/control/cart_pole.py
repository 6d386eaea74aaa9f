"""The cart-pole of Barto, Sutton and Anderson: a pole hinged on a cart is kept upright by pushing the cart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import gymnasium as gym
import numpy as np
from scipy.linalg import solve_discrete_are

from palaestra.envs import rendering
from palaestra.envs.arrays import clamped, namespace_of, stacked
from palaestra.envs.checks import check_amount, check_count
from palaestra.envs.simulator import RandomActor, Simulator
from palaestra.protocols import Actor, Array, Estimand, Key, Oracle, Transition

_PHYSICS = {
    "gravity": 9.8,
    "cart_mass": 1.0,
    "pole_mass": 0.1,
    "half_length": 0.5,
    "max_force": 10.0,
    "time_step": 0.02,
    "angle_limit": 12 * 2 * math.pi / 360,
    "position_limit": 2.4,
    "start_range": 0.05,
}
"""The defaults, for which the regulator is known to hold every start."""


@dataclass(frozen=True)
class CartPoleState:
    """Cart, pole and the last push; float64 `[batch]` each.

    Attributes:
        position: Of the cart, in m, 0 in the middle of the track.
        velocity: Of the cart, in m/s.
        angle: Of the pole, in rad, 0 upright and positive to the right.
        angular_velocity: Of the pole, in rad/s.
        force: The last push on the cart, in N (0 at the start); shown in pictures, without effect.
    """

    position: Array
    velocity: Array
    angle: Array
    angular_velocity: Array
    force: Array


@dataclass(frozen=True)
class Regulator:
    """Pushes against `gain` times the state (position, velocity, angle, angular velocity), as far as forces go."""

    world: CartPole
    gain: tuple[float, ...]

    def __call__(self, state: CartPoleState, observation: Array, key: Key) -> Array:
        """Return actions, `[batch]` or, of continuous forces, `[batch, 1]`."""
        parts = (state.position, state.velocity, state.angle, state.angular_velocity)
        force = -sum(gain * part for gain, part in zip(self.gain, parts, strict=True))
        if self.world.action_mode == "discrete":
            xp = namespace_of(state.angle)
            return xp.astype(force > 0.0, xp.int64)
        return clamped(force / self.world.max_force, -1.0, 1.0)[:, None]


class CartPole(Simulator[CartPoleState]):
    """A pole on a cart, kept upright by pushes to the left and to the right.

    The world of Gymnasium's `CartPole-v1`, equal to it from the same state, bit for bit in float64 on NumPy.

    **State**: position and velocity of the cart, angle and angular velocity of the pole, float64 (and the last push,
    for pictures). **Observation**: float32 `[4]`, these four in m, m/s, rad, rad/s; bounds twice the limits for
    position and angle, none for the velocities. **Action**: with `action_mode="discrete"` 0 (push left) or 1 (push
    right) by `max_force`; with "continuous" float32 `[1]` in [-1, 1], the push over `max_force`. **Masks**: none.

    **Dynamics**: with F the force, M the mass of both, m and l mass and half length of the pole, frictionless

        a = (F + m l omega**2 sin(angle)) / M
        angular acceleration = (g sin(angle) - cos(angle) a) / (l (4/3 - m cos(angle)**2 / M))
        acceleration = a - m l cos(angle) (angular acceleration) / M

    by one Euler step of `time_step`: explicit ("euler"), or with the new velocities ("semi-implicit"). It is
    differentiable in state and continuous force.

    **Reward**: 1 for each step, the last included; with `sutton_barto_reward` 0, and -1 when the pole falls.
    **Start**: all four uniform on `[-start_range, start_range]`. **End**: terminated when the angle exceeds
    `angle_limit` or the position `position_limit` in either direction; truncated after `horizon` steps.
    **Info**: none. **Noise**: draw "start" (uniform `[4]`).

    **Oracle**: `horizon` (0 with `sutton_barto_reward`): no episode pays more. An optimum with the default physics,
    where "optimal" attains it; a bound with any other. **Experts**: "optimal", where the oracle is an optimum.
    **Reference policies**: "random" and "lqr": the linear-quadratic regulator of the linearised world, whose force is
    applied as far as it goes (continuous) or by its sign (discrete).

    **Version history**: v0, first release.

    Args:
        gravity: In m/s**2, at least 0.
        cart_mass: In kg, above 0.
        pole_mass: In kg, above 0.
        half_length: Half the length of the pole, in m, above 0.
        max_force: Largest push, in N, above 0.
        time_step: In s, above 0.
        integrator: "euler" or "semi-implicit".
        angle_limit: In rad, above 0.
        position_limit: In m, above 0.
        start_range: Largest size of each part of the first state, at least 0.
        action_mode: "discrete" or "continuous".
        sutton_barto_reward: Whether only the fall is paid for.
        horizon: Steps to truncation.

    Raises:
        ValueError: If an argument is outside its range.

    Source: Barto, Sutton and Anderson, "Neuronlike adaptive elements that can solve difficult learning control
    problems", 1983; equations of Florian, "Correct equations for the dynamics of the cart-pole system", 2007.
    """

    render_modes: ClassVar[tuple[str, ...]] = ("rgb_array",)
    render_fps: ClassVar[int] = 50
    draws: ClassVar[tuple[str, ...]] = ("start",)
    elementwise: ClassVar[bool] = True

    def __init__(
        self,
        gravity: float = _PHYSICS["gravity"],
        cart_mass: float = _PHYSICS["cart_mass"],
        pole_mass: float = _PHYSICS["pole_mass"],
        half_length: float = _PHYSICS["half_length"],
        max_force: float = _PHYSICS["max_force"],
        time_step: float = _PHYSICS["time_step"],
        integrator: Literal["euler", "semi-implicit"] = "euler",
        angle_limit: float = _PHYSICS["angle_limit"],
        position_limit: float = _PHYSICS["position_limit"],
        start_range: float = _PHYSICS["start_range"],
        action_mode: Literal["discrete", "continuous"] = "discrete",
        sutton_barto_reward: bool = False,
        horizon: int = 500,
    ) -> None:
        world = "CartPole"
        self.gravity = check_amount(world, "gravity", gravity)
        self.cart_mass = check_amount(world, "cart_mass", cart_mass, positive=True)
        self.pole_mass = check_amount(world, "pole_mass", pole_mass, positive=True)
        self.half_length = check_amount(world, "half_length", half_length, positive=True)
        self.max_force = check_amount(world, "max_force", max_force, positive=True)
        self.time_step = check_amount(world, "time_step", time_step, positive=True)
        self.angle_limit = check_amount(world, "angle_limit", angle_limit, positive=True)
        self.position_limit = check_amount(world, "position_limit", position_limit, positive=True)
        self.start_range = check_amount(world, "start_range", start_range)
        self.horizon = check_count(world, "horizon", horizon)
        if integrator not in ("euler", "semi-implicit"):
            raise ValueError(f"{world}: integrator={integrator!r}; expected 'euler' or 'semi-implicit'")
        if action_mode not in ("discrete", "continuous"):
            raise ValueError(f"{world}: action_mode={action_mode!r}; expected 'discrete' or 'continuous'")
        self.integrator, self.action_mode = integrator, action_mode
        self.sutton_barto_reward = bool(sutton_barto_reward)
        self._mass = self.pole_mass + self.cart_mass
        self._moment = self.pole_mass * self.half_length
        bounds = np.array([2.0 * self.position_limit, np.inf, 2.0 * self.angle_limit, np.inf], np.float32)
        self.observation_space = gym.spaces.Box(-bounds, bounds, dtype=np.float32)
        self.action_space: gym.Space[Any] = (
            gym.spaces.Discrete(2) if action_mode == "discrete" else gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
        )

    def initial(self, key: Key) -> CartPoleState:
        """Return the pole nearly upright, the cart near the middle, both nearly at rest."""
        start = self.start_range * (2.0 * key.uniform("start", (4,)) - 1.0)
        return CartPoleState(start[:, 0], start[:, 1], start[:, 2], start[:, 3], 0.0 * start[:, 0])

    def step(self, state: CartPoleState, action: Array, key: Key) -> Transition[CartPoleState]:
        """Return where cart and pole are one `time_step` later."""
        force = self.max_force * (2.0 * action - 1.0 if self.action_mode == "discrete" else action[..., 0])
        acceleration, angular_acceleration = self._accelerations(state, force)
        time_step, velocity, angular_velocity = self.time_step, state.velocity, state.angular_velocity
        new_velocity = velocity + time_step * acceleration
        new_angular_velocity = angular_velocity + time_step * angular_acceleration
        if self.integrator == "semi-implicit":
            velocity, angular_velocity = new_velocity, new_angular_velocity
        position = state.position + time_step * velocity
        angle = state.angle + time_step * angular_velocity
        fallen = (abs(position) > self.position_limit) | (abs(angle) > self.angle_limit)
        reward = 0.0 * position - 1.0 * fallen if self.sutton_barto_reward else 0.0 * position + 1.0
        return Transition(CartPoleState(position, new_velocity, angle, new_angular_velocity, force), reward, fallen)

    def _accelerations(self, state: CartPoleState, force: Array) -> tuple[Array, Array]:
        """Return the accelerations of cart and pole, in the order of operations of Gymnasium's world."""
        xp, spin = namespace_of(state.angle), state.angular_velocity
        cos, sin = xp.cos(state.angle), xp.sin(state.angle)
        push = (force + self._moment * (spin * spin) * sin) / self._mass
        inertia = self.half_length * (4.0 / 3.0 - self.pole_mass * (cos * cos) / self._mass)
        angular = (self.gravity * sin - cos * push) / inertia
        return push - self._moment * angular * cos / self._mass, angular

    def observe(self, state: CartPoleState) -> Array:
        """Return position, velocity, angle and angular velocity, `[batch, 4]`."""
        return stacked((state.position, state.velocity, state.angle, state.angular_velocity))

    def oracle(self) -> Oracle:
        """Return the return of an episode without a fall."""
        known = all(getattr(self, name) == value for name, value in _PHYSICS.items()) and self.integrator == "euler"
        return Oracle(
            value=0.0 if self.sutton_barto_reward else float(self.horizon),
            estimand=Estimand("episode_return"),
            kind="optimum" if known else "bound",
            source="an episode in which the pole does not fall",
        )

    def experts(self) -> Mapping[str, Actor]:
        """Return "optimal", where the oracle is an optimum."""
        return {"optimal": Regulator(self, self.regulator_gain())} if self.oracle().kind == "optimum" else {}

    def reference_policies(self) -> Mapping[str, Actor]:
        """Return "random" and the linear-quadratic regulator, "lqr"."""
        return {"random": RandomActor(self.action_space), "lqr": Regulator(self, self.regulator_gain())}

    def linearised(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the derivatives of an explicit step at the upright rest, by state `[4, 4]` and by force `[4, 1]`."""
        inertia = self.half_length * (4.0 / 3.0 - self.pole_mass / self._mass)
        by_angle, by_force = self.gravity / inertia, -1.0 / (self._mass * inertia)
        coupling = self._moment / self._mass
        flow = np.zeros((4, 5))
        flow[0, 1] = flow[2, 3] = 1.0
        flow[1, 2], flow[1, 4] = -coupling * by_angle, 1.0 / self._mass - coupling * by_force
        flow[3, 2], flow[3, 4] = by_angle, by_force
        return np.eye(4) + self.time_step * flow[:, :4], self.time_step * flow[:, 4:]

    def regulator_gain(self) -> tuple[float, ...]:
        """Return the gain `[4]` of the linear-quadratic regulator of the linearised world, in N for each unit."""
        a, b = self.linearised()
        cost, price = np.diag([1.0, 1.0, 10.0, 1.0]), np.array([[1.0 / self.max_force**2]])
        value = solve_discrete_are(a, b, cost, price)
        gain = np.linalg.solve(price + b.T @ value @ b, b.T @ value @ a)[0]
        return tuple(gain.tolist())

    def render(self, state: CartPoleState, row: int = 0, mode: str = "rgb_array") -> np.ndarray:
        """Return a picture `[200, 320, 3]`: track with its limits, cart, pole and an arrow for the last push."""
        if mode not in self.render_modes:
            return np.asarray(super().render(state, row, mode))
        width, height, ground = 320, 200, 160
        scale = (width - 40) / (2.0 * self.position_limit)
        canvas = rendering.Canvas(width, height)
        x, angle = width / 2 + scale * float(state.position[row]), float(state.angle[row])
        fallen = abs(float(state.position[row])) > self.position_limit or abs(angle) > self.angle_limit
        canvas.line(0, ground, width, ground, rendering.INK)
        for side in (-1.0, 1.0):
            limit = width / 2 + side * scale * self.position_limit
            canvas.line(limit, ground - 12, limit, ground + 12, rendering.PALE, 3.0)
        pole = min(2.0 * self.half_length * scale, 120.0)
        for side in (-1.0, 1.0):
            tilt = side * self.angle_limit
            canvas.line(
                x, ground - 16, x + pole * math.sin(tilt), ground - 16 - pole * math.cos(tilt), rendering.PALE, 1.0
            )
        canvas.rectangle(x - 22, ground - 16, x + 22, ground - 2, rendering.BLUE)
        tip = (x + pole * math.sin(angle), ground - 16 - pole * math.cos(angle))
        canvas.line(x, ground - 16, *tip, rendering.RED if fallen else rendering.ORANGE, 6.0)
        canvas.disc(x, ground - 16, 3, rendering.INK)
        push = 30.0 * float(state.force[row]) / self.max_force
        canvas.arrow(x, ground + 20, x + push, ground + 20, rendering.GREEN, 3.0)
        return canvas.pixels
