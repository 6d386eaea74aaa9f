"""MuJoCo on CPU threads. Both adapters load a row's integration state into an MjData, step it and save it back.

That is exact: results equal those of one MjData for each row, bit for bit, because the warm start of the solver is
part of `mjSTATE_INTEGRATION`. One MjData for each thread stays in the cache, which one for each row would not.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import mujoco
import numpy as np

from palaestra.envs.mujoco.physics import Physics, as_given, as_numpy
from palaestra.envs.mujoco.state import INTEGRATION, MujocoState
from palaestra.protocols import Array


class _CpuPhysics(Physics):
    """What the CPU adapters share: rows in, rows out, as contiguous float64."""

    def place(self, fields: Mapping[str, Array]) -> MujocoState:
        template = next(iter(fields.values()))
        batch = template.shape[0]
        physics = np.tile(self.layout.default_row, (batch, 1))
        for name, values in fields.items():
            physics[:, self.layout.place_of(name)] = as_numpy(values).reshape(batch, -1)
        return self._wrapped(self._forward(physics), template)

    def step(self, state: MujocoState, control: Array) -> MujocoState:
        physics = np.array(as_numpy(state.physics), dtype=np.float64)
        physics[:, self.layout.place_of("ctrl")] = as_numpy(control)
        return self._wrapped(self._step(physics), state.physics)

    def _wrapped(self, state: MujocoState, template: Array) -> MujocoState:
        return MujocoState(as_given(state.physics, template), as_given(state.derived, template))

    @abstractmethod
    def _forward(self, physics: np.ndarray) -> MujocoState:
        """Return the rows with `mj_forward` run on them; `physics` may be kept or overwritten."""

    @abstractmethod
    def _step(self, physics: np.ndarray) -> MujocoState:
        """Return the rows, whose controls are set, after a step; `physics` may be kept or overwritten."""


class BatchPhysics(_CpuPhysics):
    """MuJoCo's own batch of simulations: rows are stepped by threads of its library, with no Python in between."""

    def __init__(
        self, model: mujoco.MjModel, frame_skip: int, tracked: Sequence[str], threads: int, device: str = ""
    ) -> None:
        super().__init__(model, frame_skip, tracked, threads, device)
        if self.layout.needs_contact_forces:
            raise ValueError(f"BatchPhysics: tracked={list(tracked)}; expected no field of mj_rnePostConstraint")
        self._batch: Any = None
        self._derived: list[np.ndarray] = []

    def close(self) -> None:
        self._batch, self._derived = None, []

    def _forward(self, physics: np.ndarray) -> MujocoState:
        batch, rows = self._loaded(physics)
        batch.forward(rows)
        return self._saved(len(physics))

    def _step(self, physics: np.ndarray) -> MujocoState:
        batch, rows = self._loaded(physics)
        batch.step(rows, nstep=self.frame_skip)
        return self._saved(len(physics))

    def _loaded(self, physics: np.ndarray) -> tuple[Any, np.ndarray | None]:
        """Return a batch with room for the rows, which are loaded, and their numbers (None for all)."""
        count = len(physics)
        if self._batch is None or self._batch.nsim < count:
            from mujoco.batch import Batch

            self._batch = Batch(self.model, count, min(self.threads, count))
            self._derived = [self._batch.bind(name) for name in self.layout.tracked]
        self._batch.state[:count] = physics
        return self._batch, None if count == self._batch.nsim else np.arange(count)

    def _saved(self, count: int) -> MujocoState:
        derived = np.empty((count, self.layout.derived_size))
        for name, values in zip(self.layout.tracked, self._derived, strict=True):
            derived[:, self.layout.place_of(name)] = values[:count].reshape(count, -1)
        return MujocoState(self._batch.state[:count].copy(), derived)


class ThreadPhysics(_CpuPhysics):
    """Python threads, which MuJoCo's calls release to run at once; for contact forces, and for MuJoCo before 4."""

    def __init__(
        self, model: mujoco.MjModel, frame_skip: int, tracked: Sequence[str], threads: int, device: str = ""
    ) -> None:
        super().__init__(model, frame_skip, tracked, threads, device)
        self._workers: list[_Worker] = []
        self._pool: ThreadPoolExecutor | None = None

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
        self._workers, self._pool = [], None

    def _forward(self, physics: np.ndarray) -> MujocoState:
        return self._run(_Worker.forward, physics)

    def _step(self, physics: np.ndarray) -> MujocoState:
        return self._run(_Worker.step, physics)

    def _run(self, task: Callable[..., None], physics: np.ndarray) -> MujocoState:
        derived = np.empty((len(physics), self.layout.derived_size))
        if not self._workers:
            self._workers = [_Worker(self) for _ in range(self.threads)]
            self._pool = ThreadPoolExecutor(self.threads - 1) if self.threads > 1 else None
        # Threads take the next row from one shared iterator, so that a slow row holds up no other.
        rows = iter(range(len(physics)))
        others = self._workers[1 : len(physics)]
        waiting = [self._pool.submit(task, worker, rows, physics, derived) for worker in others if self._pool]
        try:
            task(self._workers[0], rows, physics, derived)
        finally:
            wait(waiting)
        for future in waiting:
            future.result()
        return MujocoState(physics, derived)


class _Worker:
    """One thread's MjData, with views of the fields that are copied out."""

    def __init__(self, owner: ThreadPhysics) -> None:
        self.model, self.frame_skip = owner.model, owner.frame_skip
        self.data = mujoco.MjData(owner.model)
        self.contact_forces = owner.layout.needs_contact_forces
        self.views = [(owner.layout.place_of(name), getattr(self.data, name)) for name in owner.layout.tracked]

    def forward(self, rows: Any, physics: np.ndarray, derived: np.ndarray) -> None:
        for row in rows:
            # Contact forces are 0 unless a sensor needs them, as in an MjData that was just reset.
            mujoco.mj_resetData(self.model, self.data)
            mujoco.mj_setState(self.model, self.data, physics[row], INTEGRATION)
            mujoco.mj_forward(self.model, self.data)
            self._save(physics[row], derived[row])

    def step(self, rows: Any, physics: np.ndarray, derived: np.ndarray) -> None:
        for row in rows:
            mujoco.mj_setState(self.model, self.data, physics[row], INTEGRATION)
            mujoco.mj_step(self.model, self.data, self.frame_skip)
            if self.contact_forces:
                mujoco.mj_rnePostConstraint(self.model, self.data)
            self._save(physics[row], derived[row])

    def _save(self, physics: np.ndarray, derived: np.ndarray) -> None:
        mujoco.mj_getState(self.model, self.data, physics, INTEGRATION)
        for columns, view in self.views:
            derived[columns] = view.ravel()
