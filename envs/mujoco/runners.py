"""Gymnasium's runners in a plane: HalfCheetah, Hopper, Walker2d and Swimmer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from palaestra.envs.arrays import clamped, namespace_of
from palaestra.envs.mujoco.gymnasium_world import GymnasiumWorld, Info, copied, planar_distance, total_squares
from palaestra.envs.mujoco.starts import Starts
from palaestra.envs.mujoco.state import MujocoState
from palaestra.protocols import Array

VELOCITY_LIMIT = 10.0
"""Bound of the velocities that Hopper and Walker2d show, in metres or radians a second."""


class _Runner(GymnasiumWorld):
    """What they share: a reward for speed along x, and a price of controls."""

    hidden: ClassVar[int] = 1
    """How many of the first positions an observation leaves out by default: those that dynamics do not depend on."""

    def start(self, starts: Starts) -> tuple[Array, Array]:
        return self.noisy_rest(starts, self.options.reset_noise_scale)

    def observe(self, state: MujocoState) -> Array:
        qpos, qvel = self.field(state, "qpos"), self.shown_velocity(state)
        skipped = self.hidden if self.options.exclude_current_positions_from_observation else 0
        return namespace_of(qpos).concat([qpos[:, skipped:], qvel], axis=1)

    def shown_velocity(self, state: MujocoState) -> Array:
        """Return the velocities `[batch, nv]` as an observation shows them."""
        return self.field(state, "qvel")

    def velocity(self, before: MujocoState, after: MujocoState, axis: int) -> Array:
        """Return the mean velocity `[batch]` of the torso over a step, along x (0) or y (1)."""
        return (self.field(after, "qpos")[:, axis] - self.field(before, "qpos")[:, axis]) / self.dt

    def outcome(self, before: MujocoState, action: Array, after: MujocoState) -> tuple[Array, Array, Info]:
        velocity = self.velocity(before, after, axis=0)
        forward = self.options.forward_reward_weight * velocity
        cost = self.options.ctrl_cost_weight * total_squares(action)
        info = {"x_velocity": velocity, "reward_forward": forward, "reward_ctrl": -cost}
        return forward - cost, namespace_of(velocity).zeros_like(velocity, dtype=bool), info


class HalfCheetah(_Runner):
    """A cheetah in a plane that runs as fast as it can; it never falls (`gymnasium.envs.mujoco.half_cheetah_v5`)."""

    defaults: ClassVar[Mapping[str, Any]] = {
        "xml_file": "half_cheetah.xml",
        "frame_skip": 5,
        "forward_reward_weight": 1.0,
        "ctrl_cost_weight": 0.1,
        "reset_noise_scale": 0.1,
        "exclude_current_positions_from_observation": True,
    }

    def start(self, starts: Starts) -> tuple[Array, Array]:
        return self.noisy_rest(starts, self.options.reset_noise_scale, normal_velocity=True)

    def information(self, state: MujocoState) -> Info:
        return {"x_position": copied(self.field(state, "qpos")[:, 0])}


class Swimmer(_Runner):
    """A chain of three links that swims in a plane (`gymnasium.envs.mujoco.swimmer_v5`)."""

    hidden = 2
    defaults: ClassVar[Mapping[str, Any]] = {
        "xml_file": "swimmer.xml",
        "frame_skip": 4,
        "forward_reward_weight": 1.0,
        "ctrl_cost_weight": 1e-4,
        "reset_noise_scale": 0.1,
        "exclude_current_positions_from_observation": True,
    }

    def outcome(self, before: MujocoState, action: Array, after: MujocoState) -> tuple[Array, Array, Info]:
        reward, terminated, info = super().outcome(before, action, after)
        return reward, terminated, {**info, "y_velocity": self.velocity(before, after, axis=1)}

    def information(self, state: MujocoState) -> Info:
        qpos = self.field(state, "qpos")
        return {
            "x_position": copied(qpos[:, 0]),
            "y_position": copied(qpos[:, 1]),
            "distance_from_origin": planar_distance(qpos),
        }


class _Upright(_Runner):
    """What Hopper and Walker2d share: a reward for staying up, and an end where they fall."""

    def shown_velocity(self, state: MujocoState) -> Array:
        return clamped(self.field(state, "qvel"), -VELOCITY_LIMIT, VELOCITY_LIMIT)

    def healthy(self, state: MujocoState) -> Array:
        """Return whether height and angle of the torso are in their ranges `[batch]`."""
        qpos = self.field(state, "qpos")
        return _between(qpos[:, 1], self.options.healthy_z_range) & _between(
            qpos[:, 2], self.options.healthy_angle_range
        )

    def outcome(self, before: MujocoState, action: Array, after: MujocoState) -> tuple[Array, Array, Info]:
        healthy = self.healthy(after)
        velocity = self.velocity(before, after, axis=0)
        forward, survive = self.options.forward_reward_weight * velocity, healthy * self.options.healthy_reward
        cost = self.options.ctrl_cost_weight * total_squares(action)
        info = {"x_velocity": velocity, "reward_forward": forward, "reward_ctrl": -cost, "reward_survive": survive}
        return forward + survive - cost, ~healthy & self.options.terminate_when_unhealthy, info

    def information(self, state: MujocoState) -> Info:
        qpos = self.field(state, "qpos")
        return {
            "x_position": copied(qpos[:, 0]),
            "z_distance_from_origin": qpos[:, 1] - float(self.model.qpos0[1]),
        }


class Hopper(_Upright):
    """One leg that hops forward without falling (`gymnasium.envs.mujoco.hopper_v5`)."""

    defaults: ClassVar[Mapping[str, Any]] = {
        "xml_file": "hopper.xml",
        "frame_skip": 4,
        "forward_reward_weight": 1.0,
        "ctrl_cost_weight": 1e-3,
        "healthy_reward": 1.0,
        "terminate_when_unhealthy": True,
        "healthy_state_range": (-100.0, 100.0),
        "healthy_z_range": (0.7, float("inf")),
        "healthy_angle_range": (-0.2, 0.2),
        "reset_noise_scale": 5e-3,
        "exclude_current_positions_from_observation": True,
    }

    def healthy(self, state: MujocoState) -> Array:
        qpos, qvel = self.field(state, "qpos"), self.field(state, "qvel")
        xp = namespace_of(qpos)
        inside = _between(xp.concat([qpos[:, 2:], qvel], axis=1), self.options.healthy_state_range)
        return super().healthy(state) & xp.all(inside, axis=1)


class Walker2d(_Upright):
    """Two legs that walk forward without falling (`gymnasium.envs.mujoco.walker2d_v5`)."""

    defaults: ClassVar[Mapping[str, Any]] = {
        "xml_file": "walker2d_v5.xml",
        "frame_skip": 4,
        "forward_reward_weight": 1.0,
        "ctrl_cost_weight": 1e-3,
        "healthy_reward": 1.0,
        "terminate_when_unhealthy": True,
        "healthy_z_range": (0.8, 2.0),
        "healthy_angle_range": (-1.0, 1.0),
        "reset_noise_scale": 5e-3,
        "exclude_current_positions_from_observation": True,
    }


def _between(values: Array, bounds: tuple[float, float]) -> Array:
    return (bounds[0] < values) & (values < bounds[1])
