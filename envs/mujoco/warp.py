"""MuJoCo Warp: all rows stepped by kernels of a GPU, in single precision; on a CPU device for tests alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mujoco
import numpy as np

from palaestra.envs.mujoco.physics import Physics
from palaestra.envs.mujoco.state import INTEGRATION, MujocoState
from palaestra.protocols import Array


class WarpPhysics(Physics):
    """Rows in the memory of a device, loaded, stepped and read there; on a GPU one step is one CUDA graph.

    States are float32. They agree with those of the CPU adapters to single precision over a step, and drift apart over
    many. Torch tensors on the device are neither copied to the host nor waited for.

    Args:
        model: As for `Physics`.
        frame_skip: As for `Physics`.
        tracked: As for `Physics`.
        threads: Not used.
        device: "cuda", "cuda:0", ..., "cpu", or empty for the GPU where there is one.

    Raises:
        ModuleNotFoundError: If MuJoCo Warp is not installed.
        ValueError: If the model keeps state in plugins, which Warp has not.
    """

    def __init__(
        self, model: mujoco.MjModel, frame_skip: int, tracked: Sequence[str], threads: int, device: str = ""
    ) -> None:
        import mujoco_warp
        import torch
        import warp

        super().__init__(model, frame_skip, tracked, threads, device)
        if model.nplugin:
            raise ValueError(f"WarpPhysics: model has {model.nplugin} plugins; expected none")
        self._warp, self._mujoco_warp, self._torch = warp, mujoco_warp, torch
        chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._device = torch.device(chosen)
        with warp.ScopedDevice(str(chosen)):
            self._model = mujoco_warp.put_model(model)
        self._rows: _Rows | None = None

    def close(self) -> None:
        self._rows = None

    def place(self, fields: Mapping[str, Array]) -> MujocoState:
        template = next(iter(fields.values()))
        batch = template.shape[0]
        physics = self._tensor(self.layout.default_row).repeat(batch, 1)
        for name, values in fields.items():
            physics[:, self.layout.place_of(name)] = self._tensor(values).reshape(batch, -1)
        return self._run(physics, _Rows.forward, template)

    def step(self, state: MujocoState, control: Array) -> MujocoState:
        physics = self._tensor(state.physics).clone()
        physics[:, self.layout.place_of("ctrl")] = self._tensor(control)
        return self._run(physics, _Rows.step, state.physics)

    def _run(self, physics: Any, task: Any, template: Array) -> MujocoState:
        batch = physics.shape[0]
        with self._warp.ScopedDevice(str(self._device)), self._stream():
            if self._rows is None or self._rows.count < batch:
                self._rows = _Rows(self, batch)
            rows = self._rows
            rows.state[:batch] = physics
            task(rows)
            derived = [field[:batch].reshape(batch, -1) for field in rows.fields]
            outputs = MujocoState(
                rows.state[:batch].clone(),
                self._torch.cat(derived, dim=1) if derived else rows.state.new_empty((batch, 0)),
            )
        if isinstance(template, np.ndarray):
            return MujocoState(outputs.physics.cpu().numpy(), outputs.derived.cpu().numpy())
        return MujocoState(outputs.physics.to(template.device), outputs.derived.to(template.device))

    def _stream(self) -> Any:
        """Return a context in which Warp's kernels queue up behind torch's."""
        if self._device.type != "cuda":
            return self._warp.ScopedStream(None)
        return self._warp.ScopedStream(self._warp.stream_from_torch(self._torch.cuda.current_stream(self._device)))

    def _tensor(self, array: Array) -> Any:
        return self._torch.as_tensor(array, dtype=self._torch.float32, device=self._device)


class _Rows:
    """Memory of a number of rows on the device, and what is run on all of it."""

    def __init__(self, owner: WarpPhysics, count: int) -> None:
        warp, mujoco_warp = owner._warp, owner._mujoco_warp
        self.count = count
        self._warp, self._mujoco_warp, self._model = warp, mujoco_warp, owner._model
        self._frame_skip, self._contact_forces = owner.frame_skip, owner.layout.needs_contact_forces
        self._data = mujoco_warp.make_data(owner.model, nworld=count)
        self._buffer = warp.zeros((count, owner.layout.size), dtype=float)
        self.state = warp.to_torch(self._buffer)
        self.state[:] = owner._tensor(owner.layout.default_row)
        self.fields = [warp.to_torch(getattr(self._data, name)) for name in owner.layout.tracked]
        self._graph: Any = None

    def forward(self) -> None:
        """Compute what derives from the state at rest; contact forces are 0 unless a sensor needs them."""
        self._mujoco_warp.reset_data(self._model, self._data)
        for name in ("cacc", "cfrc_ext", "cfrc_int"):
            getattr(self._data, name).zero_()
        self._mujoco_warp.set_state(self._model, self._data, self._buffer, INTEGRATION)
        self._mujoco_warp.forward(self._model, self._data)
        self._mujoco_warp.get_state(self._model, self._data, self._buffer, INTEGRATION)

    def step(self) -> None:
        """Step all rows: the first time on a GPU kernel by kernel, which loads them, then as a graph."""
        if not self._buffer.device.is_cuda:
            self._step()
        elif self._graph is not None:
            self._warp.capture_launch(self._graph)
        else:
            before = self.state.clone()
            self._step()
            with self._warp.ScopedCapture() as capture:
                self._step()
            self._graph = capture.graph
            self.state.copy_(before)
            self._warp.capture_launch(self._graph)

    def _step(self) -> None:
        self._mujoco_warp.set_state(self._model, self._data, self._buffer, INTEGRATION)
        for _ in range(self._frame_skip):
            self._mujoco_warp.step(self._model, self._data)
        if self._contact_forces:
            self._mujoco_warp.rne_postconstraint(self._model, self._data)
        self._mujoco_warp.get_state(self._model, self._data, self._buffer, INTEGRATION)
