"""From an env id or an env to the vector env that agents train in."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import Any, Literal, get_args

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from palaestra.envs.backends import make_own, why_not_own
from palaestra.envs.mujoco.pool import PoolVectorEnv, why_not_pool
from palaestra.envs.registration import unknown_id_message
from palaestra.wrappers.frame_stack import VectorFrameStack
from palaestra.wrappers.replay_recorder import ReplayRecorder

_REGISTERED_BY = {"MiniGrid-": "minigrid", "BabyAI-": "minigrid", "palaestra/": "palaestra"}
"""Packages that register ids when they are imported, by the beginning of their ids."""

Backend = Literal["auto", "own", "mujoco-pool", "gymnasium-vector", "sync", "envpool"]
BACKENDS: tuple[str, ...] = get_args(Backend)
"""What may step the rows of an id; see `make_vec`."""

GIVEN = "given"
"""The back end of an env that was handed over as an object."""


def make_vec(
    env_id: str,
    num_envs: int,
    *,
    env_kwargs: Mapping[str, Any] | None = None,
    frame_stack: int = 1,
    render_mode: str | None = None,
    backend: str = "auto",
) -> VectorEnv[Any, Any, Any]:
    """Return a resumable vector env that resets rows in the step in which they end.

    What steps the rows is the back end, of which `backend_of` tells the name:

    - "own": a simulator of the suite steps all rows at once. All worlds of the suite run so, and foreign ids for which
      the suite has a simulator of the same world; its starts are drawn from the suite's noise.
    - "mujoco-pool": Gymnasium's MuJoCo worlds of version 5, stepped by threads; rows equal those of "sync".
    - "sync": the id's own envs one after the other, in a SyncVectorEnv whose envs record what a checkpoint needs
      (`ReplayRecorder`) and show texts as tokens (`EncodeText`).
    - "gymnasium-vector": the id's vector class of Gymnasium; not resumable.
    - "envpool": EnvPool (the extra `fast`); not resumable, with noise of its own, and it resets rows in the next step.
    - "auto": the first of "own", "mujoco-pool" and "sync" that can step the id with these arguments; for a single row
      of a foreign id "sync", which is the fastest there.

    Observations are new arrays at every step, so they may be kept.

    Args:
        env_id: A registered id with its version; "package.module:Id-v0" imports the package first.
        num_envs: Number of rows, at least 1.
        env_kwargs: Arguments of the env.
        frame_stack: How many observations are stacked (see `VectorFrameStack`); 1 for none.
        render_mode: As for `gym.make`.
        backend: One of `BACKENDS`.

    Raises:
        ValueError: If the id is unknown (the message names near ones), `num_envs` or `frame_stack` is below 1, or the
            back end is unknown or cannot step the id with these arguments (the message says why).
        ModuleNotFoundError: If the package before the colon, or EnvPool where it is asked for, cannot be imported.
    """
    if num_envs < 1:
        raise ValueError(f"make_vec: num_envs={num_envs}; expected an integer of at least 1")
    if frame_stack < 1:
        raise ValueError(f"make_vec: frame_stack={frame_stack}; expected an integer of at least 1")
    if backend not in BACKENDS:
        raise ValueError(f"make_vec: backend={backend!r}; expected one of {BACKENDS}")
    spec = find_spec(env_id)
    arguments = dict(env_kwargs or {}) | ({} if render_mode is None else {"render_mode": render_mode})
    chosen = _choose(spec, num_envs, arguments) if backend == "auto" else backend
    reason = _why_not(spec, chosen, arguments)
    if reason is not None:
        raise ValueError(f"make_vec: backend={backend!r}: {reason}")
    env = _MAKERS[chosen](spec, num_envs, arguments)
    env.spec = copy.deepcopy(spec)
    env.spec.kwargs.update(arguments)
    env.metadata = {**env.metadata, "backend": chosen}
    return env if frame_stack == 1 else VectorFrameStack(env, frame_stack)


def backend_of(env: VectorEnv[Any, Any, Any]) -> str:
    """Return the name of the back end of a vector env from `make_vec`, wrapped or not; "given" for any other."""
    return str(env.metadata.get("backend", GIVEN))


def native_backend(env_id: str) -> str:
    """Return the back end that is an id's own env, and so the ground truth of evaluation: "own" or "sync"."""
    return "own" if _is_own(find_spec(env_id)) else "sync"


def make_single(
    env_id: str, *, env_kwargs: Mapping[str, Any] | None = None, render_mode: str | None = None
) -> gym.Env[Any, Any]:
    """Return one env whose observations are those of `make_vec`'s rows, for watching and recording; errors alike."""
    arguments = dict(env_kwargs or {}) | ({} if render_mode is None else {"render_mode": render_mode})
    return _recorded(partial(_make, find_spec(env_id), arguments))


def as_vector_env(env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any]) -> VectorEnv[Any, Any, Any]:
    """Return a vector env as it is, and a single env as a vector env of one row that records and encodes as above.

    Raises:
        TypeError: If `env` is neither.
    """
    if isinstance(env, VectorEnv):
        return env
    if not isinstance(env, gym.Env):
        raise TypeError(f"as_vector_env: env={env!r} of type {type(env).__name__}; expected a gym.Env or VectorEnv")
    vector_env = RecordedVectorEnv([partial(_recorded, lambda: env)])
    vector_env.spec = env.spec
    return vector_env


def find_spec(env_id: str) -> EnvSpec:
    """Return the spec of a registered id, after importing the package that registers it.

    Raises:
        ValueError: If the id is unknown; the message names near ones.
        ModuleNotFoundError: If the package before the colon cannot be imported.
    """
    module, _, name = env_id.rpartition(":")
    if module:
        import_module(module)
    for beginning, package in _REGISTERED_BY.items():
        if name.startswith(beginning):
            import_module(package)
    if name not in gym.registry:
        for package in set(_REGISTERED_BY.values()):
            import_module(package)
        raise ValueError(f"make_vec: {unknown_id_message(name, list(gym.registry))}")
    return gym.registry[name]


def _is_own(spec: EnvSpec) -> bool:
    return str(spec.vector_entry_point).startswith("palaestra.")


def _choose(spec: EnvSpec, num_envs: int, arguments: Mapping[str, Any]) -> str:
    if _is_own(spec):
        return "own"
    fast = ("own", "mujoco-pool") if num_envs > 1 else ()
    return next((backend for backend in fast if _why_not(spec, backend, arguments) is None), "sync")


def _why_not(spec: EnvSpec, backend: str, arguments: Mapping[str, Any]) -> str | None:
    """Return why a back end cannot step an id with these arguments, or None where it can."""
    if backend == "own":
        return None if _is_own(spec) else why_not_own(spec, arguments)
    if backend == "mujoco-pool":
        return why_not_pool(spec, arguments)
    if backend == "gymnasium-vector":
        return None if spec.vector_entry_point is not None else f"{spec.id} has no vector class"
    return None


def _make_own(spec: EnvSpec, num_envs: int, arguments: dict[str, Any]) -> VectorEnv[Any, Any, Any]:
    return _make_vector_class(spec, num_envs, arguments) if _is_own(spec) else make_own(spec, num_envs, arguments)


def _make_pool(spec: EnvSpec, num_envs: int, arguments: dict[str, Any]) -> VectorEnv[Any, Any, Any]:
    return PoolVectorEnv(spec, num_envs, **arguments)


def _make_vector_class(spec: EnvSpec, num_envs: int, arguments: dict[str, Any]) -> VectorEnv[Any, Any, Any]:
    return gym.make_vec(spec.id, num_envs, vectorization_mode="vector_entry_point", **arguments)


def _make_sync(spec: EnvSpec, num_envs: int, arguments: dict[str, Any]) -> VectorEnv[Any, Any, Any]:
    return RecordedVectorEnv([partial(_recorded, partial(_make, spec, arguments))] * num_envs)


def _make(spec: EnvSpec, arguments: dict[str, Any]) -> gym.Env[Any, Any]:
    if not str(spec.entry_point).startswith("gymnasium.envs.mujoco"):
        return gym.make(spec.id, **arguments)
    from palaestra.envs.mujoco.loading import python_warnings

    with python_warnings():
        return gym.make(spec.id, **arguments)


def _make_envpool(spec: EnvSpec, num_envs: int, arguments: dict[str, Any]) -> VectorEnv[Any, Any, Any]:
    from palaestra.wrappers.envpool import EnvPoolVectorEnv

    return EnvPoolVectorEnv(spec.id, num_envs, **arguments)


_MAKERS: dict[str, Callable[[EnvSpec, int, dict[str, Any]], VectorEnv[Any, Any, Any]]] = {
    "own": _make_own,
    "mujoco-pool": _make_pool,
    "gymnasium-vector": _make_vector_class,
    "sync": _make_sync,
    "envpool": _make_envpool,
}


class RecordedVectorEnv(SyncVectorEnv[Any, Any]):
    """A SyncVectorEnv of envs with recorders: where one env raises, the records of all go back to before the step.

    A snapshot taken after that is of the moment before, in all rows, though some envs have gone on already; without
    that, a run resumed from it would take the step twice in those.
    """

    def __init__(self, env_fns: list[Any]) -> None:
        super().__init__(env_fns, autoreset_mode=AutoresetMode.SAME_STEP)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        recorders: list[ReplayRecorder] = self.envs  # type: ignore[assignment]
        marks = [recorder.mark() for recorder in recorders]
        try:
            return super().step(actions)
        except BaseException:
            for recorder, mark in zip(recorders, marks, strict=True):
                recorder.rewind(mark)
            raise


def _recorded(make: Any) -> ReplayRecorder:
    env = make()
    if isinstance(env, ReplayRecorder):
        return env
    from palaestra.wrappers.encode_text import EncodeText, has_text

    return ReplayRecorder(EncodeText(env) if has_text(env.observation_space) else env)
