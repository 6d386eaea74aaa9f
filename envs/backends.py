"""The table of own simulators that stand in for worlds of other packages, as faster back ends of their ids.

A back end keeps the spaces (texts as tokens, as `palaestra.make_vec` shows them), dynamics, reward, termination and
time limit of the id; where its noise differs from that of the id's own env (starts drawn from our keys instead of
`np_random`), the distribution is the same. Adding one is its file and one row below.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym

from palaestra.envs.faces import SimulatorVectorEnv
from palaestra.envs.grid.worlds import MINIGRID_IDS
from palaestra.envs.registration import load_simulator


@dataclass(frozen=True)
class OwnBackend:
    """An own simulator that steps all rows of a foreign id at once.

    Attributes:
        simulator: Where the simulator's class stands, "package.module:Class".
        kwargs: Arguments that this id gives the class.
        arguments: Names of the env's own arguments that the class takes under the same name with the same meaning;
            with any other argument the id runs on its own env.
        takes_time_limit: Whether the id's TimeLimit (or `max_episode_steps`) is handed to the class as `horizon`; False
            where the world keeps a step limit of its own.
    """

    simulator: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    arguments: frozenset[str] = frozenset()
    takes_time_limit: bool = True


OWN_BACKENDS: dict[str, OwnBackend] = {
    "Acrobot-v1": OwnBackend("palaestra.envs.control.acrobot:Acrobot"),
    "CartPole-v1": OwnBackend(
        "palaestra.envs.control.cart_pole:CartPole", arguments=frozenset({"sutton_barto_reward"})
    ),
    "MountainCar-v0": OwnBackend(
        "palaestra.envs.control.mountain_car:MountainCar", arguments=frozenset({"goal_velocity"})
    ),
    "MountainCarContinuous-v0": OwnBackend(
        "palaestra.envs.control.mountain_car:MountainCarContinuous",
        {"single_precision": True},
        frozenset({"goal_velocity"}),
    ),
    "Pendulum-v1": OwnBackend(
        "palaestra.envs.control.pendulum:Pendulum", {"action_mode": "torque", "single_precision": True}
    ),
    **{
        env_id: OwnBackend(row.simulator, row.kwargs, row.arguments, takes_time_limit=False)
        for env_id, row in MINIGRID_IDS.items()
    },
}
"""Own simulators by the foreign id that they stand in for."""


def why_not_own(spec: gym.envs.registration.EnvSpec, arguments: Mapping[str, Any]) -> str | None:
    """Return why an id with these arguments has no own back end, or None where it has one."""
    row = OWN_BACKENDS.get(spec.id)
    if row is None:
        return f"{spec.id} has no own simulator"
    known = row.arguments | {"render_mode"} | ({"max_episode_steps"} if row.takes_time_limit else set())
    unknown = sorted(set(arguments) - known)
    if unknown:
        return f"the own simulator of {spec.id} does not take {', '.join(unknown)}; expected some of {sorted(known)}"
    mode, modes = arguments.get("render_mode"), load_simulator(row.simulator).render_modes
    if mode is not None and mode not in modes:
        return f"the own simulator of {spec.id} does not draw render_mode={mode!r}; expected None or one of {modes}"
    return None


def make_own(spec: gym.envs.registration.EnvSpec, num_envs: int, arguments: Mapping[str, Any]) -> SimulatorVectorEnv:
    """Return the vector face of the own simulator of a foreign id.

    Args:
        spec: Spec of the id.
        num_envs: Number of rows.
        arguments: Arguments of the env.

    Raises:
        ValueError: If there is no own back end for the id with these arguments.
    """
    reason = why_not_own(spec, arguments)
    if reason is not None:
        raise ValueError(f"make_own: {reason}")
    row = OWN_BACKENDS[spec.id]
    kwargs = {**row.kwargs, **arguments}
    if row.takes_time_limit:
        kwargs["horizon"] = kwargs.pop("max_episode_steps", spec.max_episode_steps)
    return SimulatorVectorEnv(row.simulator, num_envs, **kwargs)
