"""The state of many rows of one MuJoCo model as two arrays, and where its parts lie in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from palaestra.protocols import Array

INTEGRATION = int(mujoco.mjtState.mjSTATE_INTEGRATION)

_COMPONENTS = {
    "time": "mjSTATE_TIME",
    "qpos": "mjSTATE_QPOS",
    "qvel": "mjSTATE_QVEL",
    "act": "mjSTATE_ACT",
    "qacc_warmstart": "mjSTATE_WARMSTART",
    "ctrl": "mjSTATE_CTRL",
    "qfrc_applied": "mjSTATE_QFRC_APPLIED",
    "xfrc_applied": "mjSTATE_XFRC_APPLIED",
    "mocap_pos": "mjSTATE_MOCAP_POS",
    "mocap_quat": "mjSTATE_MOCAP_QUAT",
    "userdata": "mjSTATE_USERDATA",
}
"""Fields of MjData that lie in the integration state, by the component of MuJoCo that holds them."""

CONTACT_FORCES = frozenset({"cacc", "cfrc_ext", "cfrc_int"})
"""Fields that only `mj_rnePostConstraint` computes, which runs after the last substep where one of them is tracked."""

TRACKABLE = (
    frozenset(
        "xpos xquat xmat xipos ximat geom_xpos geom_xmat site_xpos site_xmat subtree_com cinert cvel qacc qfrc_passive "
        "qfrc_bias qfrc_actuator qfrc_constraint actuator_length actuator_velocity actuator_force ten_length "
        "ten_velocity sensordata".split()
    )
    | CONTACT_FORCES
)
"""Fields of MjData that a step computes for every row, whatever the model."""


@dataclass(frozen=True)
class MujocoState:
    """Rows of a model.

    Attributes:
        physics: `mjSTATE_INTEGRATION` of every row `[batch, layout.size]`: time, positions, velocities, activations,
            warm start, controls and applied forces. It alone decides the future.
        derived: The tracked fields of MjData `[batch, layout.derived_size]` as the latest call computed them: after a
            step those of the last time that its dynamics were evaluated, which is before the state moved on.
    """

    physics: Array
    derived: Array


class StateLayout:
    """Where the fields of MjData lie in the arrays of a `MujocoState`.

    Args:
        model: The model.
        tracked: Names of the derived fields that states carry, of `TRACKABLE`.

    Attributes:
        size: Length of a row of `physics`.
        derived_size: Length of a row of `derived`.
        tracked: As given.

    Raises:
        ValueError: If a tracked name is not of `TRACKABLE`.
    """

    def __init__(self, model: mujoco.MjModel, tracked: Sequence[str] = ()) -> None:
        unknown = sorted(set(tracked) - TRACKABLE)
        if unknown:
            raise ValueError(f"StateLayout: tracked={list(tracked)}; expected names of {sorted(TRACKABLE)}")
        data = mujoco.MjData(model)
        self.tracked = tuple(tracked)
        self.size = mujoco.mj_stateSize(model, INTEGRATION)
        self.default_row = np.empty(self.size)
        mujoco.mj_getState(model, data, self.default_row, INTEGRATION)
        self._parts: dict[str, tuple[bool, slice, tuple[int, ...]]] = {}
        for name, component in _COMPONENTS.items():
            bit = int(getattr(mujoco.mjtState, component))
            # Components follow one another in the order of their bits.
            start = mujoco.mj_stateSize(model, INTEGRATION & (bit - 1))
            shape = np.shape(getattr(data, name))
            self._parts[name] = (True, slice(start, start + int(np.prod(shape))), shape)
        start = 0
        for name in self.tracked:
            shape = getattr(data, name).shape
            stop = start + int(np.prod(shape))
            self._parts[name] = (False, slice(start, stop), shape)
            start = stop
        self.derived_size = start

    @property
    def needs_contact_forces(self) -> bool:
        """Whether a field is tracked that `mj_rnePostConstraint` computes."""
        return not CONTACT_FORCES.isdisjoint(self.tracked)

    def place_of(self, name: str) -> slice:
        """Return the columns of a field; KeyError names the fields there are."""
        return self._part(name)[1]

    def field(self, state: MujocoState, name: str) -> Array:
        """Return a field of MjData for every row `[batch, ...]`: a view, which must not be written to."""
        in_physics, columns, shape = self._part(name)
        array = (state.physics if in_physics else state.derived)[:, columns]
        return array if len(shape) == 1 else array.reshape((array.shape[0], *shape))

    def _part(self, name: str) -> tuple[bool, slice, tuple[int, ...]]:
        if name not in self._parts:
            raise KeyError(f"StateLayout: field {name!r}; expected one of {sorted(self._parts)}, or track it")
        return self._parts[name]
