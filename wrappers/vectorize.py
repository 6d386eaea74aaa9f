"""From an env id or an env to the vector env that agents train in."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from typing import Any

import gymnasium as gym
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from palaestra.envs.registration import unknown_id_message
from palaestra.wrappers.frame_stack import VectorFrameStack
from palaestra.wrappers.replay_recorder import ReplayRecorder

_REGISTERED_BY = {"MiniGrid-": "minigrid", "BabyAI-": "minigrid", "palaestra/": "palaestra"}
"""Packages that register ids when they are imported, by the beginning of their ids."""


def make_vec(
    env_id: str,
    num_envs: int,
    *,
    env_kwargs: Mapping[str, Any] | None = None,
    frame_stack: int = 1,
    render_mode: str | None = None,
) -> VectorEnv[Any, Any, Any]:
    """Return a resumable vector env that resets rows in the step in which they end.

    Own worlds step all rows at once; any other id of Gymnasium becomes a SyncVectorEnv whose envs record what a
    checkpoint needs (`ReplayRecorder`) and show texts as tokens (`EncodeText`). Observations are new arrays at
    every step, so they may be kept.

    Args:
        env_id: A registered id with its version; "package.module:Id-v0" imports the package first.
        num_envs: Number of rows, at least 1.
        env_kwargs: Arguments of the env.
        frame_stack: How many observations are stacked (see `VectorFrameStack`); 1 for none.
        render_mode: As for `gym.make`.

    Raises:
        ValueError: If the id is unknown (the message names near ones), or `num_envs` or `frame_stack` is below 1.
        ModuleNotFoundError: If the package before the colon cannot be imported.
    """
    if num_envs < 1:
        raise ValueError(f"make_vec: num_envs={num_envs}; expected an integer of at least 1")
    if frame_stack < 1:
        raise ValueError(f"make_vec: frame_stack={frame_stack}; expected an integer of at least 1")
    spec = find_spec(env_id)
    arguments = dict(env_kwargs or {}) | ({} if render_mode is None else {"render_mode": render_mode})
    env: VectorEnv[Any, Any, Any]
    if str(spec.vector_entry_point).startswith("palaestra."):
        env = gym.make_vec(spec.id, num_envs, vectorization_mode="vector_entry_point", **arguments)
    else:
        env = RecordedVectorEnv([partial(_recorded, partial(gym.make, spec.id, **arguments))] * num_envs)
        env.spec = copy.deepcopy(spec)
        env.spec.kwargs.update(arguments)
    return env if frame_stack == 1 else VectorFrameStack(env, frame_stack)


def make_single(
    env_id: str, *, env_kwargs: Mapping[str, Any] | None = None, render_mode: str | None = None
) -> gym.Env[Any, Any]:
    """Return one env whose observations are those of `make_vec`'s rows, for watching and recording; errors alike."""
    arguments = dict(env_kwargs or {}) | ({} if render_mode is None else {"render_mode": render_mode})
    return _recorded(partial(gym.make, find_spec(env_id).id, **arguments))


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


def find_spec(env_id: str) -> gym.envs.registration.EnvSpec:
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
