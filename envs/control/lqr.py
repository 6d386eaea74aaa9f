"""Masses on springs, to be brought to rest: a linear world with quadratic costs whose optimum is known exactly."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import scipy.linalg

from palaestra.envs import rendering
from palaestra.envs.arrays import clamped, namespace_of, table_like
from palaestra.envs.checks import check_amount, check_count
from palaestra.envs.simulator import RandomActor, Simulator
from palaestra.protocols import Actor, Array, Estimand, Key, Oracle, Transition

Matrix = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class MassesState:
    """Where the masses are, how they move, and since when.

    Attributes:
        position: Displacements from rest, in m, float64 `[batch, masses]`.
        velocity: In m/s, float64 `[batch, masses]`.
        force: The last forces, in N, 0 at the start; shown in pictures, without effect; float64 `[batch, masses]`.
        time: Steps taken, int64 `[batch]`.
    """

    position: Array
    velocity: Array
    force: Array
    time: Array


@dataclass(frozen=True)
class MovedMasses:
    """Post-decision state: positions and velocities before the kick of the noise, and minus the cost.

    Attributes:
        position: Positions before the step `[batch, masses]`.
        velocity: Velocities after it, but for the noise `[batch, masses]`.
        force: Forces `[batch, masses]`.
        time: Steps taken, this one included `[batch]`.
        reward: `[batch]`.
    """

    position: Array
    velocity: Array
    force: Array
    time: Array
    reward: Array


@dataclass(frozen=True, eq=False)
class Regulator:
    """The forces -K z of linear feedback on z = (positions, velocities), with a gain for every step or for all.

    Args:
        world: The world.
        gains: `[steps, masses, 2 masses]`; past the end the last one is used.
    """

    world: LQR
    gains: Matrix

    def __call__(self, state: MassesState, observation: Array, key: Key) -> Array:
        """Return actions `[batch, masses]`, clipped to the box."""
        xp = namespace_of(state.position)
        table = table_like(self.gains, state.position)
        gain = table[clamped(state.time, 0, len(self.gains) - 1)]
        force = -xp.sum(gain * self.world.observe(state)[:, None, :], axis=-1)
        return clamped(force / self.world.max_force, -1.0, 1.0)


class LQR(Simulator[MassesState]):
    """Masses in a row, joined to each other and to the walls by springs, to be held at rest at least cost.

    Linear dynamics, quadratic costs and noise of known variance: the linear-quadratic regulator, whose optimal forces
    are -K_t z with the gains of Riccati's equation. Noise and start are bounded, so that the forces which that policy
    could ever ask for are bounded too; `max_force` is their bound, and so the box of actions costs it nothing.

    **State**: positions p and velocities v, float64 `[masses]` each, and the steps taken (and the last forces, for
    pictures). **Observation**: float32 `[2 masses]`, p in m and then v in m/s, within what can be reached in an
    episode. **Action**: float32 `[masses]` in [-1, 1], the forces u over `max_force`. **Masks**: none.

    **Dynamics**: masses of 1 kg; with p_0 = p_{masses + 1} = 0,

        v_i' = (1 - damping time_step) v_i + time_step (stiffness (p_{i-1} - 2 p_i + p_{i+1}) + u_i) + w_i
        p_i' = p_i + time_step v_i'

    and w_i uniform with standard deviation `noise_std`. **Reward**: minus time_step times (position_cost |p|**2 +
    velocity_cost |v|**2 + force_cost |u|**2), before the step. **Start**: all p and v uniform within `start_size`.
    **End**: never terminated; truncated after `horizon` steps. **Info**: none. **Noise**: draws "start" (uniform
    `[2 masses]`) and "kick" (uniform `[masses]`).

    **Oracle**: the optimum, -E[z_0' P_0 z_0] - sum over t of E[w' P_{t+1} w], with P_t from Riccati's equation over
    the horizon and P_horizon = 0; the proof that no better policy is kept out by the box is the choice of `max_force`.
    `solution` gives the truth for a discount and for an infinite horizon, which is what an agent that bootstraps at
    truncations learns.

    **Experts**: "optimal", with a gain for every step, and "stationary", with the gain of the infinite horizon at
    discount .99 (its forces are clipped to the box). **Reference policies**: "random", "zero" (no forces) and
    "stationary".

    **Version history**: v0, first release.

    Args:
        masses: Number of masses, at least 1.
        stiffness: Of every spring, in N/m, at least 0; 0 for free masses.
        damping: In 1/s, at least 0.
        time_step: In s, above 0.
        position_cost: For each m**2 and second, above 0.
        velocity_cost: For each (m/s)**2 and second, at least 0.
        force_cost: For each N**2 and second, above 0.
        noise_std: Standard deviation of the kick that each velocity gets in a step, in m/s.
        start_size: Largest displacement (m) and speed (m/s) at the start.
        horizon: Steps to truncation.

    Raises:
        ValueError: If an argument is outside its range.

    Source: Kalman, "Contributions to the theory of optimal control", Boletin de la Sociedad Matematica Mexicana 5
    (1960).
    """

    render_modes: ClassVar[tuple[str, ...]] = ("rgb_array",)
    render_fps: ClassVar[int] = 10
    draws: ClassVar[tuple[str, ...]] = ("start", "kick")

    def __init__(
        self,
        masses: int = 1,
        stiffness: float = 1.0,
        damping: float = 0.0,
        time_step: float = 0.1,
        position_cost: float = 1.0,
        velocity_cost: float = 0.1,
        force_cost: float = 0.1,
        noise_std: float = 0.05,
        start_size: float = 1.0,
        horizon: int = 100,
    ) -> None:
        world = "LQR"
        self.masses = check_count(world, "masses", masses)
        self.stiffness = check_amount(world, "stiffness", stiffness)
        self.damping = check_amount(world, "damping", damping)
        self.time_step = check_amount(world, "time_step", time_step, positive=True)
        self.position_cost = check_amount(world, "position_cost", position_cost, positive=True)
        self.velocity_cost = check_amount(world, "velocity_cost", velocity_cost)
        self.force_cost = check_amount(world, "force_cost", force_cost, positive=True)
        self.noise_std = check_amount(world, "noise_std", noise_std)
        self.start_size = check_amount(world, "start_size", start_size, positive=True)
        self.horizon = check_count(world, "horizon", horizon)
        # Uniform noise of this half-width has the standard deviation.
        self._kick = math.sqrt(3.0) * self.noise_std
        self.dynamics, self.control = self._matrices()
        self._optimal = self.solution()
        self.max_force = self._largest_force()
        bounds = self._reach().astype(np.float32)
        self.observation_space = gym.spaces.Box(-bounds, bounds, dtype=np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (self.masses,), np.float32)

    def initial(self, key: Key) -> MassesState:
        """Return the masses anywhere near rest."""
        start = self.start_size * (2.0 * key.uniform("start", (2 * self.masses,)) - 1.0)
        position, velocity = start[:, : self.masses], start[:, self.masses :]
        xp = namespace_of(start)
        return MassesState(position, velocity, 0.0 * position, xp.astype(0.0 * position[:, 0], xp.int64))

    def decide(self, state: MassesState, action: Array) -> MovedMasses:
        """Return the velocities that forces and springs lead to, and minus the cost."""
        position, velocity = state.position, state.velocity
        xp = namespace_of(position)
        force = self.max_force * xp.astype(action, position.dtype)
        wall = 0.0 * position[:, :1]
        left = xp.concat([wall, position[:, :-1]], axis=-1)
        right = xp.concat([position[:, 1:], wall], axis=-1)
        acceleration = self.stiffness * (left - 2.0 * position + right) + force
        moved = (1.0 - self.damping * self.time_step) * velocity + self.time_step * acceleration
        cost = self.position_cost * position**2 + self.velocity_cost * velocity**2 + self.force_cost * force**2
        return MovedMasses(position, moved, force, state.time + 1, -self.time_step * xp.sum(cost, axis=-1))

    def realise(self, post: MovedMasses, key: Key) -> Transition[MassesState]:
        """Return where the masses are after the kick; it has no reward of its own."""
        velocity = post.velocity + self._kick * (2.0 * key.uniform("kick", (self.masses,)) - 1.0)
        state = MassesState(post.position + self.time_step * velocity, velocity, post.force, post.time)
        return Transition(state, 0.0 * post.reward, post.time < 0)

    def observe(self, state: MassesState) -> Array:
        """Return positions and velocities, `[batch, 2 masses]`."""
        return namespace_of(state.position).concat([state.position, state.velocity], axis=-1)

    def solution(self, gamma: float = 1.0, horizon: int | None = None, *, forever: bool = False) -> Solution:
        """Return the optimal gains and values, the box aside.

        Args:
            gamma: Discount per step, in (0, 1]; below 1 with `forever`.
            horizon: Steps, at least 1; None for those of the world.
            forever: Whether the horizon is infinite instead.

        Raises:
            ValueError: If an argument is outside its range.
        """
        if not 0.0 < gamma <= 1.0 or (forever and gamma == 1.0):
            raise ValueError(f"LQR.solution: gamma={gamma!r}; expected a number in (0, 1], below 1 with forever=True")
        steps = self.horizon if horizon is None else check_count("LQR.solution", "horizon", horizon)
        masses, step = self.masses, self.time_step
        cost = step * np.diag([self.position_cost] * masses + [self.velocity_cost] * masses)
        effort = step * self.force_cost * np.eye(masses)
        a, b = math.sqrt(gamma) * self.dynamics, math.sqrt(gamma) * self.control
        # A kick moves a velocity and, within the same step, the position, as a force does.
        spread = self.noise_std**2 * self.control @ self.control.T / step**2
        if forever:
            limit = scipy.linalg.solve_discrete_are(a, b, cost, effort)
            constant = gamma / (1.0 - gamma) * np.trace(limit @ spread)
            return Solution(_gain(a, b, effort, limit)[None], limit[None], np.array([constant]))
        values, constants, gains = [np.zeros_like(cost)], [0.0], []
        for _ in range(steps):
            following = values[-1]
            gain = _gain(a, b, effort, following)
            gains.append(gain)
            constants.append(gamma * (constants[-1] + float(np.trace(following @ spread))))
            closed = a - b @ gain
            values.append(cost + gain.T @ effort @ gain + closed.T @ following @ closed)
        return Solution(np.array(gains[::-1]), np.array(values[::-1]), np.array(constants[::-1]))

    def oracle(self) -> Oracle:
        """Return the mean return of the optimal policy."""
        start = self.start_size**2 / 3.0 * float(np.trace(self._optimal.values[0]))
        value = -start - float(self._optimal.constants[0])
        return Oracle(value, Estimand("episode_return"), "optimum", "Riccati's equation over the horizon")

    def experts(self) -> Mapping[str, Actor]:
        """Return "optimal" and "stationary"."""
        stationary = Regulator(self, self.solution(0.99, forever=True).gains)
        return {"optimal": Regulator(self, self._optimal.gains), "stationary": stationary}

    def reference_policies(self) -> Mapping[str, Actor]:
        """Return "random", "zero" and "stationary"."""
        nothing = Regulator(self, np.zeros((1, self.masses, 2 * self.masses)))
        return {"random": RandomActor(self.action_space), "zero": nothing, "stationary": self.experts()["stationary"]}

    def render(self, state: MassesState, row: int = 0, mode: str = "rgb_array") -> np.ndarray:
        """Return a picture `[90, 90 (masses + 1), 3]`: walls, springs, places of rest, masses and forces."""
        if mode not in self.render_modes:
            return np.asarray(super().render(state, row, mode))
        spacing, height = 90, 90
        canvas = rendering.Canvas(spacing * (self.masses + 1), height)
        middle, width = height / 2, canvas.pixels.shape[1]
        # One start size takes a mass a third of the way to its neighbour's place.
        unit = spacing / (3.0 * self.start_size)
        rest = spacing * np.arange(1, self.masses + 1, dtype=np.float64)
        places = np.clip(rest + unit * np.asarray(state.position[row]), 8.0, width - 8.0)
        ends = np.concatenate([[0.0], places, [width]])
        for left, right in itertools.pairwise(ends):
            canvas.line(left, middle, right, middle, rendering.PALE, 3.0)
        canvas.rectangle(0, 0, 4, height, rendering.INK)
        canvas.rectangle(width - 4, 0, width, height, rendering.INK)
        for place, origin, force in zip(places, rest, np.asarray(state.force[row]), strict=True):
            canvas.line(origin, middle - 22, origin, middle + 22, rendering.GREEN, 1.0)
            canvas.disc(place, middle, 9, rendering.ORANGE)
            canvas.arrow(place, middle + 30, place + 40.0 * float(force) / self.max_force, middle + 30, rendering.BLUE)
        return canvas.pixels

    def _matrices(self) -> tuple[Matrix, Matrix]:
        """Return A and B of z' = A z + B (u + w / time_step)."""
        one, step = np.eye(self.masses), self.time_step
        neighbours = np.eye(self.masses, k=1) + np.eye(self.masses, k=-1)
        pull = step * self.stiffness * (neighbours - 2.0 * one)
        keep = (1.0 - self.damping * step) * one
        dynamics = np.block([[one + step * pull, step * keep], [pull, keep]])
        return dynamics, np.vstack([step**2 * one, step * one])

    def _largest_force(self) -> float:
        """Return the largest force that the optimal policy asks for, over all starts and all noise.

        The state is linear in the start and the kicks, each of which lies in a box of its own: the largest value of a
        linear function of them is the sum of its coefficients' magnitudes times the half-widths.
        """
        start = self.start_size * np.eye(2 * self.masses)
        kick = self._kick * self.control / self.time_step
        causes, largest = start, 0.0
        for gain in self._optimal.gains:
            largest = max(largest, float(abs(gain @ causes).sum(-1).max()))
            causes = np.hstack([(self.dynamics - self.control @ gain) @ causes, kick])
        # The last gain is 0: nothing is gained by a force in the last step. A horizon of 1 leaves no force at all.
        return largest * (1.0 + 1e-9) if largest > 0.0 else 1.0

    def _reach(self) -> Matrix:
        """Return how far every component of the state can get in an episode, whatever is done `[2 masses]`."""
        push = abs(self.control) @ np.full(self.masses, self.max_force + self._kick / self.time_step)
        size = np.full(2 * self.masses, self.start_size)
        reach, farthest, power = size, size, np.eye(2 * self.masses)
        pushed = np.zeros(2 * self.masses)
        for _ in range(self.horizon):
            pushed = pushed + abs(power) @ push
            power = self.dynamics @ power
            reach = abs(power) @ size + pushed
            farthest = np.maximum(farthest, reach)
        return np.asarray(farthest * (1.0 + 1e-6))


@dataclass(frozen=True, eq=False)
class Solution:
    """Optimal gains and values of a linear-quadratic problem; the last axis of each is that of z = (p, v).

    The optimal forces at step t are -gains[t] z, and the optimal value -(z' values[t] z) - constants[t].

    Attributes:
        gains: float64 `[steps, masses, 2 masses]`; one step stands for all where the horizon is infinite.
        values: float64 `[steps + 1, 2 masses, 2 masses]` (`[1, ...]` where it is infinite).
        constants: Costs of the noise to come, float64 `[steps + 1]` (`[1]`).
    """

    gains: Matrix
    values: Matrix
    constants: Matrix

    def value(self, z: Matrix, time: int = 0) -> Matrix:
        """Return the optimal value `[batch]` of states z `[batch, 2 masses]` at a step."""
        return np.asarray(-((z @ self.values[time]) * z).sum(-1) - self.constants[time])


def _gain(a: Matrix, b: Matrix, effort: Matrix, following: Matrix) -> Matrix:
    """Return the K that minimises |u|_effort^2 + |a z + b u|_following^2 by u = -K z."""
    return np.asarray(np.linalg.solve(effort + b.T @ following @ b, b.T @ following @ a))
