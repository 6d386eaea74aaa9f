"""Any MuJoCo model as one of the suite's simulators; worlds of robots are written on it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import mujoco
import numpy as np

from palaestra.envs.arrays import clamped, table_like
from palaestra.envs.checks import check_count
from palaestra.envs.mujoco.physics import as_numpy, load_model, make_physics
from palaestra.envs.mujoco.state import INTEGRATION, MujocoState
from palaestra.envs.simulator import Simulator
from palaestra.protocols import Array, Key, Transition


class MujocoSimulator(Simulator[MujocoState]):
    """A MuJoCo model stepped in batches; subclasses say how it starts, what is seen, and what it is worth.

    A subclass defines `initial` (with `place`), `observe`, `outcome` and `observation_space`, all over the batch and
    in array code, and reads the state with `field`. One step applies a control for `frame_skip` steps of MuJoCo. The
    dynamics are deterministic: a state is `mjSTATE_INTEGRATION`, so it can be saved, branched and compared as any
    other value.

    Args:
        model: An MJCF file, an MJCF string, or a compiled model, which must not be changed afterwards.
        frame_skip: Steps of MuJoCo for each step of the world.
        horizon: Steps after which the face truncates an episode.
        threads: Threads on CPU; None for `palaestra.envs.threads.default_threads()`. Results do not depend on
            them.
        engine: "cpu", or "warp" or "warp:DEVICE" for MuJoCo Warp; see `make_physics`.

    Attributes:
        tracked: Derived fields of MjData that the state carries (see `palaestra.envs.mujoco.state.TRACKABLE`).
        model: The compiled model.
        dt: Seconds of simulated time for each step.
        action_space: `[-1, 1]` for each actuator; `control` maps it to the actuators' control ranges.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If MuJoCo cannot compile the model, an actuator has no control range, or a number is out of range.
    """

    tracked: ClassVar[tuple[str, ...]] = ()
    render_modes: ClassVar[tuple[str, ...]] = ("rgb_array",)

    def __init__(
        self,
        model: mujoco.MjModel | str | Path,
        *,
        frame_skip: int,
        horizon: int,
        threads: int | None = None,
        engine: str = "cpu",
    ) -> None:
        world = type(self).__name__
        self.model = load_model(model)
        self.frame_skip = check_count(world, "frame_skip", frame_skip)
        self.horizon = check_count(world, "horizon", horizon)
        self.physics = make_physics(self.model, self.frame_skip, self.tracked, threads, engine)
        self.dt = float(self.model.opt.timestep) * self.frame_skip
        self.action_space = self._action_space()
        self._bodies: dict[int | str, int] = {}
        self._renderer: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_renderer": None}

    def place(self, **fields: Array) -> MujocoState:
        """Return rows in the model's default state but for the given fields `[batch, ...]`, such as `qpos`, `qvel`."""
        return self.physics.place(fields)

    def field(self, state: MujocoState, name: str) -> Array:
        """Return a field of MjData of every row `[batch, ...]`: one of the state, or one that is tracked."""
        return self.physics.layout.field(state, name)

    def body_position(self, state: MujocoState, body: int | str) -> Array:
        """Return the position of a body `[batch, 3]` in metres; `xpos` must be tracked."""
        if body not in self._bodies:
            self._bodies[body] = int(self.model.body(body).id)
        return self.field(state, "xpos")[:, self._bodies[body]]

    def control(self, action: Array) -> Array:
        """Return the actuators' controls `[batch, nu]` for actions in [-1, 1]."""
        low, high = (table_like(bound, action) for bound in self.model.actuator_ctrlrange.T.copy())
        return low + (high - low) * (clamped(action, -1.0, 1.0) + 1.0) / 2.0

    def step(self, state: MujocoState, action: Array, key: Key | None = None) -> Transition[MujocoState]:
        """Return the transition of every row; no noise is drawn."""
        after = self.physics.step(state, self.control(action))
        reward, terminated, info = self.outcome(state, action, after)
        return Transition(after, reward, terminated, info)

    @abstractmethod
    def outcome(
        self, before: MujocoState, action: Array, after: MujocoState
    ) -> tuple[Array, Array, Mapping[str, Array]]:
        """Return reward `[batch]`, terminated `[batch]` and info of a step from one state to another."""

    def render(self, state: MujocoState, row: int = 0, mode: str = "rgb_array") -> np.ndarray:
        """Return a picture `[480, 480, 3]` uint8 of one row, from the model's first camera or a free one."""
        if mode not in self.render_modes:
            raise ValueError(f"render: mode={mode!r}; expected one of {self.render_modes}")
        if self._renderer is None:
            # The offscreen buffer of a model may be smaller than the picture.
            visual = self.model.vis.global_
            visual.offwidth, visual.offheight = max(visual.offwidth, 480), max(visual.offheight, 480)
            self._renderer = mujoco.Renderer(self.model, 480, 480)
        self._renderer.update_scene(self.data_of(state, row), camera=0 if self.model.ncam else -1)
        picture: np.ndarray = self._renderer.render()
        return picture

    def data_of(self, state: MujocoState, row: int = 0) -> mujoco.MjData:
        """Return an MjData in the state of one row, with everything derived from it computed."""
        data = mujoco.MjData(self.model)
        values = np.array(as_numpy(state.physics[row]), dtype=np.float64)
        mujoco.mj_setState(self.model, data, values, INTEGRATION)
        mujoco.mj_forward(self.model, data)
        return data

    def close(self) -> None:
        """Give back threads and the renderer."""
        self.physics.close()
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _action_space(self) -> gym.spaces.Box:
        unlimited = np.flatnonzero(~self.model.actuator_ctrllimited.astype(bool))
        if unlimited.size:
            raise ValueError(
                f"{type(self).__name__}: actuator {int(unlimited[0])} of the model has no ctrlrange; "
                "expected one for each"
            )
        return gym.spaces.Box(-1.0, 1.0, (self.model.nu,), np.float32)
