"""What Gymnasium's own MuJoCo worlds share as simulators; the worlds themselves stand in the files beside this one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from palaestra.envs.arrays import namespace_of
from palaestra.envs.mujoco.model import MujocoSimulator
from palaestra.envs.mujoco.starts import KeyStarts, Starts
from palaestra.envs.mujoco.state import MujocoState
from palaestra.protocols import Array, Key

Info = Mapping[str, Array]


class GymnasiumWorld(MujocoSimulator):
    """One of Gymnasium's MuJoCo worlds of version 5, over a batch.

    Dynamics, observation, reward, termination and starts are those of the class of the same name in
    `gymnasium.envs.mujoco`, whose docstring is the specification. Controls out of the actuators' range are clamped by
    MuJoCo; their cost is that of the action as given. `PoolVectorEnv` runs these worlds on Gymnasium's own noise and
    equals `gym.make`; as simulators they draw the same starts from keys.

    Args:
        horizon: Steps after which an episode is truncated; that of the id by default.
        threads: As for `MujocoSimulator`.
        engine: As for `MujocoSimulator`.
        **options: Arguments of the env of the same names, those of `defaults`.

    Attributes:
        defaults: Names and defaults of the env's arguments, drawing aside.
        time_limit: Steps after which the id truncates.
        options: All of them, as attributes.

    Raises:
        TypeError: If there is no such option.
    """

    draws: ClassVar[tuple[str, ...]] = ("qpos", "qvel")
    defaults: ClassVar[Mapping[str, Any]] = {}
    time_limit: ClassVar[int] = 1000

    def __init__(
        self, *, horizon: int | None = None, threads: int | None = None, engine: str = "cpu", **options: Any
    ) -> None:
        from gymnasium.envs.mujoco.mujoco_env import expand_model_path

        unknown = sorted(set(options) - set(self.defaults))
        if unknown:
            raise TypeError(
                f"{type(self).__name__}: unknown argument {unknown[0]}={options[unknown[0]]!r}; expected some of "
                f"{sorted(self.defaults)}"
            )
        self.options = SimpleNamespace(**{**self.defaults, **options})
        super().__init__(
            expand_model_path(self.options.xml_file),
            frame_skip=self.options.frame_skip,
            horizon=self.time_limit if horizon is None else horizon,
            threads=threads,
            engine=engine,
        )
        layout = self.physics.layout
        size = self.observe(MujocoState(np.zeros((1, layout.size)), np.zeros((1, layout.derived_size)))).shape[1]
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (size,), np.float64)

    @abstractmethod
    def start(self, starts: Starts) -> tuple[Array, Array]:
        """Return positions `[batch, nq]` and velocities `[batch, nv]` at the start of an episode."""

    @abstractmethod
    def observe(self, state: MujocoState) -> Array:
        """Return the observation `[batch, size]` of every row."""

    def initial(self, key: Key) -> MujocoState:
        """Return the start of an episode on the suite's own noise."""
        return self.begin(KeyStarts(key))

    def begin(self, starts: Starts) -> MujocoState:
        """Return the start of an episode on the given noise."""
        qpos, qvel = self.start(starts)
        return self.place(qpos=qpos, qvel=qvel)

    def control(self, action: Array) -> Array:
        """Return the action as it is: it is the torque, force or position that the env's own class hands on."""
        return action

    def noisy_rest(self, starts: Starts, scale: float, *, normal_velocity: bool = False) -> tuple[Array, Array]:
        """Return the model's own pose with noise of a scale: uniform, or normal for the velocities."""
        qpos = starts.uniform("qpos", -scale, scale, self.model.nq)
        if normal_velocity:
            qvel = scale * starts.normal("qvel", self.model.nv)
        else:
            qvel = starts.uniform("qvel", -scale, scale, self.model.nv)
        return self.rest(qpos) + qpos, qvel

    def rest(self, like: Array) -> Array:
        """Return the model's own pose `[nq]` in the library and on the device of another array."""
        return namespace_of(like).asarray(self.model.qpos0, dtype=like.dtype, device=like.device)

    def _action_space(self) -> gym.spaces.Box:
        low, high = self.model.actuator_ctrlrange.astype(np.float32).T
        return gym.spaces.Box(low, high, dtype=np.float32)


def total_squares(action: Array) -> Array:
    """Return the sum of squares `[batch]` of each row, in the row's own precision."""
    return namespace_of(action).sum(action * action, axis=1)


def planar_distance(position: Array) -> Array:
    """Return the distance `[batch]` of points `[batch, 2 or more]` from the origin in the plane of the first two."""
    return namespace_of(position).sqrt(position[:, 0] ** 2 + position[:, 1] ** 2)


def copied(array: Array) -> Array:
    """Return a copy: what an info holds must not keep a whole state alive, nor change with it."""
    return namespace_of(array).asarray(array, copy=True)
