"""Gymnasium's pendulums on a cart and arms: InvertedPendulum, InvertedDoublePendulum, Reacher and Pusher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from palaestra.envs.arrays import clamped, namespace_of
from palaestra.envs.mujoco.gymnasium_world import GymnasiumWorld, Info, total_squares
from palaestra.envs.mujoco.starts import Starts
from palaestra.envs.mujoco.state import MujocoState
from palaestra.protocols import Array

FALLEN_ANGLE = 0.2
"""Angle of the InvertedPendulum in radians beyond which it has fallen."""
FALLEN_HEIGHT = 1.0
"""Height of the tip of the InvertedDoublePendulum in metres at and below which it has fallen."""
SHOWN_LIMIT = 10.0
"""Bound of the velocities and forces that the InvertedDoublePendulum shows."""
ARM_NOISE = 0.1
"""Half-width of the start of Reacher's joints in radians."""
VELOCITY_NOISE = 0.005
"""Half-width of the start of the arms' velocities in radians a second."""
REACH = 0.2
"""Radius in metres of the disc in which Reacher's target lies."""
CLEARANCE = 0.17
"""Distance in metres from Pusher's goal beyond which its object starts."""
ARM_JOINTS = 7
"""Joints of Pusher's arm."""


class InvertedPendulum(GymnasiumWorld):
    """A pole to be kept up on a cart (`gymnasium.envs.mujoco.inverted_pendulum_v5`)."""

    defaults: ClassVar[Mapping[str, Any]] = {
        "xml_file": "inverted_pendulum.xml",
        "frame_skip": 2,
        "reset_noise_scale": 0.01,
    }

    def start(self, starts: Starts) -> tuple[Array, Array]:
        return self.noisy_rest(starts, self.options.reset_noise_scale)

    def observe(self, state: MujocoState) -> Array:
        qpos, qvel = self.field(state, "qpos"), self.field(state, "qvel")
        return namespace_of(qpos).concat([qpos, qvel], axis=1)

    def outcome(self, before: MujocoState, action: Array, after: MujocoState) -> tuple[Array, Array, Info]:
        observation = self.observe(after)
        xp = namespace_of(observation)
        fallen = ~xp.all(xp.isfinite(observation), axis=1) | (xp.abs(observation[:, 1]) > FALLEN_ANGLE)
        survive = xp.astype(~fallen, observation.dtype)
        return survive, fallen, {"reward_survive": survive}


class InvertedDoublePendulum(GymnasiumWorld):
    """Two poles, one on the other, to be kept up on a cart (`gymnasium.envs.mujoco.inverted_double_pendulum_v5`)."""

    tracked = ("site_xpos", "qfrc_constraint")
    defaults: ClassVar[Mapping[str, Any]] = {
        "xml_file": "inverted_double_pendulum.xml",
        "frame_skip": 5,
        "healthy_reward": 10.0,
        "reset_noise_scale": 0.1,
    }

    def start(self, starts: Starts) -> tuple[Array, Array]:
        return self.noisy_rest(starts, self.options.reset_noise_scale, normal_velocity=True)

    def observe(self, state: MujocoState) -> Array:
        qpos, qvel, force = (self.field(state, name) for name in ("qpos", "qvel", "qfrc_constraint"))
        xp = namespace_of(qpos)
        parts = [
            qpos[:, :1],
            xp.sin(qpos[:, 1:]),
            xp.cos(qpos[:, 1:]),
            clamped(qvel, -SHOWN_LIMIT, SHOWN_LIMIT),
            clamped(force, -SHOWN_LIMIT, SHOWN_LIMIT)[:, :1],
        ]
        return xp.concat(parts, axis=1)

    def outcome(self, before: MujocoState, action: Array, after: MujocoState) -> tuple[Array, Array, Info]:
        tip, qvel = self.field(after, "site_xpos")[:, 0], self.field(after, "qvel")
        x, height = tip[:, 0], tip[:, 2]
        fallen = height <= FALLEN_HEIGHT
        survive = self.options.healthy_reward * ~fallen
        distance = 0.01 * x**2 + (height - 2) ** 2
        speed = 1e-3 * qvel[:, 1] ** 2 + 5e-3 * qvel[:, 2] ** 2
        info = {"reward_survive": survive, "distance_penalty": -distance, "velocity_penalty": -speed}
        return survive - distance - speed, fallen, info


class _Arm(GymnasiumWorld):
    """What the arms share: they never end, and nothing but rewards is told of them."""

    tracked = ("xpos",)
    draws = ("qpos", "qvel", "goal")

    def apart(self, state: MujocoState, body: str, other: str) -> Array:
        """Return the vector `[batch, 3]` from one body to the other."""
        return self.body_position(state, body) - self.body_position(state, other)


class Reacher(_Arm):
    """An arm of two links whose tip is to reach a target (`gymnasium.envs.mujoco.reacher_v5`)."""

    time_limit = 50
    defaults: ClassVar[Mapping[str, Any]] = {
        "xml_file": "reacher.xml",
        "frame_skip": 2,
        "reward_dist_weight": 1.0,
        "reward_control_weight": 1.0,
    }

    def start(self, starts: Starts) -> tuple[Array, Array]:
        noise = starts.uniform("qpos", -ARM_NOISE, ARM_NOISE, self.model.nq)
        goal = starts.accepted("goal", [-REACH] * 2, [REACH] * 2, lambda point: _length(point) < REACH)
        qvel = starts.uniform("qvel", -VELOCITY_NOISE, VELOCITY_NOISE, self.model.nv)
        xp = namespace_of(noise)
        qpos = xp.concat([(noise + self.rest(noise))[:, :-2], goal], axis=1)
        return qpos, xp.concat([qvel[:, :-2], xp.zeros_like(goal)], axis=1)

    def observe(self, state: MujocoState) -> Array:
        qpos, qvel = self.field(state, "qpos"), self.field(state, "qvel")
        xp = namespace_of(qpos)
        angles = qpos[:, :2]
        apart = self.apart(state, "fingertip", "target")[:, :2]
        return xp.concat([xp.cos(angles), xp.sin(angles), qpos[:, 2:], qvel[:, :2], apart], axis=1)

    def outcome(self, before: MujocoState, action: Array, after: MujocoState) -> tuple[Array, Array, Info]:
        distance = -_length(self.apart(after, "fingertip", "target")) * self.options.reward_dist_weight
        control = -total_squares(action) * self.options.reward_control_weight
        never = namespace_of(distance).zeros_like(distance, dtype=bool)
        return distance + control, never, {"reward_dist": distance, "reward_ctrl": control}


class Pusher(_Arm):
    """An arm of seven joints that is to push an object to a goal (`gymnasium.envs.mujoco.pusher_v5`)."""

    time_limit = 100
    defaults: ClassVar[Mapping[str, Any]] = {
        "xml_file": "pusher_v5.xml",
        "frame_skip": 5,
        "reward_near_weight": 0.5,
        "reward_dist_weight": 1.0,
        "reward_control_weight": 0.1,
    }

    def start(self, starts: Starts) -> tuple[Array, Array]:
        place = starts.accepted("goal", [-0.3, -0.2], [0.0, 0.2], lambda point: _length(point) > CLEARANCE)
        noise = starts.uniform("qvel", -VELOCITY_NOISE, VELOCITY_NOISE, self.model.nv)
        xp = namespace_of(place)
        zeros = xp.zeros_like(place)
        arm = zeros[:, :1] + self.rest(place)[:-4]
        return xp.concat([arm, place, zeros], axis=1), xp.concat([noise[:, :-4], zeros, zeros], axis=1)

    def observe(self, state: MujocoState) -> Array:
        qpos, qvel = self.field(state, "qpos"), self.field(state, "qvel")
        bodies = [self.body_position(state, body) for body in ("tips_arm", "object", "goal")]
        return namespace_of(qpos).concat([qpos[:, :ARM_JOINTS], qvel[:, :ARM_JOINTS], *bodies], axis=1)

    def outcome(self, before: MujocoState, action: Array, after: MujocoState) -> tuple[Array, Array, Info]:
        options = self.options
        near = -_length(self.apart(after, "object", "tips_arm")) * options.reward_near_weight
        distance = -_length(self.apart(after, "object", "goal")) * options.reward_dist_weight
        control = -total_squares(action) * options.reward_control_weight
        never = namespace_of(distance).zeros_like(distance, dtype=bool)
        info = {"reward_dist": distance, "reward_ctrl": control, "reward_near": near}
        return distance + control + near, never, info


def _length(vector: Array) -> Array:
    """Return Euclidean lengths over the last axis."""
    xp = namespace_of(vector)
    return xp.sqrt(xp.sum(vector * vector, axis=-1))
