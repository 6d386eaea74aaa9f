"""Gymnasium's walkers in space: Ant and Humanoid."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from palaestra.envs.arrays import clamped, namespace_of, table_like
from palaestra.envs.mujoco.gymnasium_world import GymnasiumWorld, Info, copied, planar_distance, total_squares
from palaestra.envs.mujoco.starts import Starts
from palaestra.envs.mujoco.state import MujocoState
from palaestra.protocols import Array

FREE_JOINT = 6
"""Degrees of freedom of the torso, which no actuator moves."""


class _Walker(GymnasiumWorld):
    """What they share: a reward for speed along x and for staying up, and prices of controls and of contacts."""

    @abstractmethod
    def whereabouts(self, state: MujocoState) -> Array:
        """Return the point `[batch, 2]` whose movement is rewarded."""

    @abstractmethod
    def healthy(self, state: MujocoState) -> Array:
        """Return whether the walker is up `[batch]`."""

    @abstractmethod
    def control_squares(self, action: Array, after: MujocoState) -> Array:
        """Return the squares of the controls, summed `[batch]`."""

    @abstractmethod
    def contact_cost(self, state: MujocoState) -> Array:
        """Return the price of the contact forces `[batch]`."""

    @abstractmethod
    def body_parts(self, state: MujocoState) -> list[Array]:
        """Return what is observed beside positions and velocities, flat `[batch, ...]` each."""

    def observe(self, state: MujocoState) -> Array:
        qpos, qvel = self.field(state, "qpos"), self.field(state, "qvel")
        skipped = 2 if self.options.exclude_current_positions_from_observation else 0
        return namespace_of(qpos).concat([qpos[:, skipped:], qvel, *self.body_parts(state)], axis=1)

    def start(self, starts: Starts) -> tuple[Array, Array]:
        return self.noisy_rest(starts, self.options.reset_noise_scale)

    def outcome(self, before: MujocoState, action: Array, after: MujocoState) -> tuple[Array, Array, Info]:
        velocity = (self.whereabouts(after) - self.whereabouts(before)) / self.dt
        healthy = self.healthy(after)
        forward, survive = self.options.forward_reward_weight * velocity[:, 0], healthy * self.options.healthy_reward
        control = self.options.ctrl_cost_weight * self.control_squares(action, after)
        contact = self.contact_cost(after)
        info = {
            "x_velocity": copied(velocity[:, 0]),
            "y_velocity": copied(velocity[:, 1]),
            "reward_forward": forward,
            "reward_ctrl": -control,
            "reward_contact": -contact,
            "reward_survive": survive,
        }
        reward = (forward + survive) - (control + contact)
        return reward, ~healthy & self.options.terminate_when_unhealthy, info

    def information(self, state: MujocoState) -> Info:
        qpos = self.field(state, "qpos")
        return {
            "x_position": copied(qpos[:, 0]),
            "y_position": copied(qpos[:, 1]),
            "distance_from_origin": planar_distance(qpos),
        }

    def flat(self, state: MujocoState, name: str, skipped: int = 1) -> Array:
        """Return a field by bodies as `[batch, ...]`, without the first of them: the world."""
        values = self.field(state, name)[:, skipped:]
        return values.reshape((values.shape[0], -1))


class Ant(_Walker):
    """A torso on four legs (`gymnasium.envs.mujoco.ant_v5`)."""

    tracked = ("xpos", "cfrc_ext")
    defaults: ClassVar[Mapping[str, Any]] = {
        "xml_file": "ant.xml",
        "frame_skip": 5,
        "forward_reward_weight": 1.0,
        "ctrl_cost_weight": 0.5,
        "contact_cost_weight": 5e-4,
        "healthy_reward": 1.0,
        "main_body": 1,
        "terminate_when_unhealthy": True,
        "healthy_z_range": (0.2, 1.0),
        "contact_force_range": (-1.0, 1.0),
        "reset_noise_scale": 0.1,
        "exclude_current_positions_from_observation": True,
        "include_cfrc_ext_in_observation": True,
    }

    def start(self, starts: Starts) -> tuple[Array, Array]:
        return self.noisy_rest(starts, self.options.reset_noise_scale, normal_velocity=True)

    def whereabouts(self, state: MujocoState) -> Array:
        return self.body_position(state, self.options.main_body)[:, :2]

    def healthy(self, state: MujocoState) -> Array:
        qpos, qvel = self.field(state, "qpos"), self.field(state, "qvel")
        xp = namespace_of(qpos)
        low, high = self.options.healthy_z_range
        finite = xp.all(xp.isfinite(qpos), axis=1) & xp.all(xp.isfinite(qvel), axis=1)
        return finite & (low <= qpos[:, 2]) & (qpos[:, 2] <= high)

    def control_squares(self, action: Array, after: MujocoState) -> Array:
        return total_squares(action)

    def contact_cost(self, state: MujocoState) -> Array:
        forces = clamped(self.flat(state, "cfrc_ext", skipped=0), *self.options.contact_force_range)
        return self.options.contact_cost_weight * total_squares(forces)

    def body_parts(self, state: MujocoState) -> list[Array]:
        if not self.options.include_cfrc_ext_in_observation:
            return []
        return [clamped(self.flat(state, "cfrc_ext"), *self.options.contact_force_range)]


class Humanoid(_Walker):
    """A torso with arms and legs (`gymnasium.envs.mujoco.humanoid_v5`)."""

    tracked = ("xipos", "cinert", "cvel", "qfrc_actuator", "cfrc_ext", "ten_length", "ten_velocity")
    defaults: ClassVar[Mapping[str, Any]] = {
        "xml_file": "humanoid.xml",
        "frame_skip": 5,
        "forward_reward_weight": 1.25,
        "ctrl_cost_weight": 0.1,
        "contact_cost_weight": 5e-7,
        "contact_cost_range": (float("-inf"), 10.0),
        "healthy_reward": 5.0,
        "terminate_when_unhealthy": True,
        "healthy_z_range": (1.0, 2.0),
        "reset_noise_scale": 1e-2,
        "exclude_current_positions_from_observation": True,
        "include_cinert_in_observation": True,
        "include_cvel_in_observation": True,
        "include_qfrc_actuator_in_observation": True,
        "include_cfrc_ext_in_observation": True,
    }

    def whereabouts(self, state: MujocoState) -> Array:
        positions = self.field(state, "xipos")
        mass = table_like(self.model.body_mass, positions)[:, None]
        return (namespace_of(positions).sum(mass * positions, axis=1) / mass.sum())[:, :2]

    def healthy(self, state: MujocoState) -> Array:
        height = self.field(state, "qpos")[:, 2]
        low, high = self.options.healthy_z_range
        return (low < height) & (height < high)

    def control_squares(self, action: Array, after: MujocoState) -> Array:
        return total_squares(self.field(after, "ctrl"))

    def contact_cost(self, state: MujocoState) -> Array:
        cost = self.options.contact_cost_weight * total_squares(self.flat(state, "cfrc_ext", skipped=0))
        return clamped(cost, *self.options.contact_cost_range)

    def body_parts(self, state: MujocoState) -> list[Array]:
        options = self.options
        parts = {
            "cinert": (options.include_cinert_in_observation, 1),
            "cvel": (options.include_cvel_in_observation, 1),
            "qfrc_actuator": (options.include_qfrc_actuator_in_observation, FREE_JOINT),
            "cfrc_ext": (options.include_cfrc_ext_in_observation, 1),
        }
        return [self.flat(state, name, skipped) for name, (included, skipped) in parts.items() if included]

    def information(self, state: MujocoState) -> Info:
        tendons = {
            "tendon_length": copied(self.field(state, "ten_length")),
            "tendon_velocity": copied(self.field(state, "ten_velocity")),
        }
        return {**super().information(state), **tendons}
