"""The one interface behind which MuJoCo is stepped, on CPU threads or on a GPU, and the choice between its adapters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from palaestra.envs.mujoco.loading import python_warnings
from palaestra.envs.mujoco.state import MujocoState, StateLayout
from palaestra.envs.threads import default_threads
from palaestra.protocols import Array

_ADAPTERS = {
    "batch": "palaestra.envs.mujoco.cpu:BatchPhysics",
    "threads": "palaestra.envs.mujoco.cpu:ThreadPhysics",
    "warp": "palaestra.envs.mujoco.warp:WarpPhysics",
}


class Physics(ABC):
    """Steps rows of one model. States are values: a call returns new arrays and changes none that it was given.

    Arrays come back in the library, and on the device, of those that went in (NumPy or torch). A row's result does
    not depend on the other rows, and on CPU not on the number of threads.

    Args:
        model: The model; it must not be changed afterwards.
        frame_skip: Calls of `mj_step` for each step.
        tracked: Names of the derived fields that states carry.
        threads: Threads that step rows on CPU.
        device: Device of the GPU adapters.

    Raises:
        ValueError: If the model lets bodies sleep, which is state that lies outside `mjSTATE_INTEGRATION`, or a
            tracked name is unknown.
    """

    def __init__(
        self, model: mujoco.MjModel, frame_skip: int, tracked: Sequence[str], threads: int, device: str = ""
    ) -> None:
        sleep = getattr(mujoco.mjtEnableBit, "mjENBL_SLEEP", None)
        if sleep is not None and model.opt.enableflags & int(sleep):
            raise ValueError("Physics: model enables sleep; expected one without, whose whole state can be saved")
        self.model, self.frame_skip, self.threads, self.device = model, frame_skip, threads, device
        self.layout = StateLayout(model, tracked)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.model, self.frame_skip, self.layout.tracked, self.threads, self.device)

    @abstractmethod
    def place(self, fields: Mapping[str, Array]) -> MujocoState:
        """Return rows at rest in the model's default state but for the given fields, with derived fields computed.

        Args:
            fields: Arrays `[batch, ...]` of state fields such as `qpos` and `qvel`; at least one.
        """

    @abstractmethod
    def step(self, state: MujocoState, control: Array) -> MujocoState:
        """Return the state of every row after `frame_skip` calls of `mj_step` under one control `[batch, nu]`."""

    def close(self) -> None:  # noqa: B027
        """Give back threads and memory; the next call takes them anew."""


def make_physics(
    model: mujoco.MjModel, frame_skip: int, tracked: Sequence[str], threads: int | None = None, engine: str = "cpu"
) -> Physics:
    """Return the adapter that steps a model.

    Args:
        model: The model.
        frame_skip: Calls of `mj_step` for each step.
        tracked: Names of derived fields that states carry.
        threads: Threads on CPU, at least 1; None for `default_threads()`.
        engine: "cpu" for the faster of the two CPU adapters that can do what is asked, which agree bit for bit:
            "batch" (MuJoCo's own batch, from MuJoCo 4) and "threads" (any MuJoCo). "warp" or "warp:DEVICE" for MuJoCo
            Warp (single precision) on a GPU, or on the "cpu" for tests.

    Raises:
        ValueError: If an argument is out of range, or the model cannot be stepped so.
        ModuleNotFoundError: If MuJoCo Warp is asked for and not installed.
    """
    count = default_threads() if threads is None else threads
    if count < 1:
        raise ValueError(f"make_physics: threads={threads}; expected at least 1")
    if frame_skip < 1:
        raise ValueError(f"make_physics: frame_skip={frame_skip}; expected at least 1")
    name, _, device = engine.partition(":")
    if engine == "cpu":
        needs_threads = StateLayout(model, tracked).needs_contact_forces or not has_batch()
        name = "threads" if needs_threads else "batch"
    if name not in _ADAPTERS or (device and name != "warp"):
        raise ValueError(f"make_physics: engine={engine!r}; expected cpu, batch, threads, warp or warp:DEVICE")
    module, _, adapter = _ADAPTERS[name].partition(":")
    made: Physics = getattr(import_module(module), adapter)(model, frame_skip, tracked, count, device)
    return made


def has_batch() -> bool:
    """Return whether the installed MuJoCo steps batches on threads of its own (`mujoco.batch`, from version 4)."""
    return int(mujoco.__version__.partition(".")[0]) >= 4


def load_model(model: mujoco.MjModel | str | Path) -> mujoco.MjModel:
    """Return a model: one that is compiled already, or from an MJCF file or string.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If MuJoCo cannot compile it.
    """
    if isinstance(model, mujoco.MjModel):
        return model
    text = isinstance(model, str) and model.lstrip().startswith("<")
    if not text and not Path(model).is_file():
        raise FileNotFoundError(f"load_model: model={str(model)!r}; expected an MJCF file or string")
    with python_warnings():
        return mujoco.MjModel.from_xml_string(model) if text else mujoco.MjModel.from_xml_path(str(model))


def as_numpy(array: Array) -> np.ndarray:
    """Return an array as NumPy's, in host memory."""
    return array if isinstance(array, np.ndarray) else array.detach().cpu().numpy()


def as_given(array: np.ndarray, template: Array) -> Array:
    """Return a NumPy array in the library and on the device of another array."""
    if isinstance(template, np.ndarray):
        return array
    import torch

    return torch.from_numpy(array).to(template.device)
