"""The state of a vector env as a tree, and back: what a checkpoint holds of the world."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import concatenate
from gymnasium.wrappers import vector as vector_wrappers

from palaestra.wrappers.replay_recorder import ReplayRecorder

_STATELESS = (
    vector_wrappers.ClipAction,
    vector_wrappers.ClipReward,
    vector_wrappers.DictInfoToList,
    vector_wrappers.HumanRendering,
    vector_wrappers.RescaleAction,
    vector_wrappers.TransformAction,
    vector_wrappers.TransformObservation,
    vector_wrappers.TransformReward,
    vector_wrappers.VectorizeTransformAction,
    vector_wrappers.VectorizeTransformObservation,
    vector_wrappers.VectorizeTransformReward,
    gym.wrappers.OrderEnforcing,
    gym.wrappers.PassiveEnvChecker,
)
"""Wrappers that need no saving; users' own say so by the class attribute `stateless = True`."""
_OUTLIVES_RESET = {
    gym.wrappers.NormalizeObservation: "statistics over all episodes; normalise in the agent (normalize_observation)",
    gym.wrappers.NormalizeReward: "statistics over all episodes; normalise in the agent (normalize_reward)",
    gym.wrappers.RecordVideo: "a count of episodes, and would write videos anew; record videos of an evaluation env",
}
_FOREIGN_NOISE = ("ale_py.",)
"""Modules whose envs draw noise from a generator of their own that Gymnasium cannot see."""
_EPISODE_STATISTICS = ("episode_returns", "episode_lengths", "prev_dones")
_EPISODE_QUEUES = ("time_queue", "return_queue", "length_queue")


def why_not_resumable(vector_env: VectorEnv[Any, Any, Any]) -> str | None:
    """Return why a run on this env cannot be resumed bit for bit, or None where it can.

    Resumable are envs with `snapshot()` and `restore()` of their own (own worlds, and Gymnasium's MuJoCo worlds in the
    pool), and SyncVectorEnv over envs whose outermost wrapper is a ReplayRecorder; also inside vector wrappers that
    have `snapshot()` and `restore()`, or no state (`stateless = True`). That an env draws all its noise from
    `np_random` and keeps nothing else between episodes cannot be seen from outside: it is verified when a snapshot is
    restored.
    """
    if isinstance(vector_env, gym.vector.VectorWrapper):
        if not (_has_snapshot(vector_env) or _is_stateless(vector_env) or _counts_episodes(vector_env)):
            return (
                f"{_name(vector_env)} may keep state; expected snapshot() and restore() methods, or the class "
                "attribute stateless = True if it has none"
            )
        return why_not_resumable(vector_env.env)
    if _has_snapshot(vector_env):
        return None
    if isinstance(vector_env, SyncVectorEnv):
        reasons = (_why_not_replayable(env, row) for row, env in enumerate(vector_env.envs))
        return next((reason for reason in reasons if reason is not None), None)
    if isinstance(vector_env, AsyncVectorEnv):
        return f"{_name(vector_env)} keeps its envs in other processes; expected SyncVectorEnv, as make_vec gives"
    return (
        f"{_name(vector_env)} has no snapshot() and restore(); expected an env from palaestra.make_vec with one of the "
        "back ends own, mujoco-pool and sync"
    )


def snapshot_env(vector_env: VectorEnv[Any, Any, Any]) -> dict[str, Any]:
    """Return the state of a vector env, as a tree of plain values and arrays.

    For an env that cannot be resumed it holds the reason alone, so that everything else of a run can still be saved.
    """
    reason = why_not_resumable(vector_env)
    return {"kind": "not_resumable", "reason": reason} if reason is not None else _snapshot(vector_env)


def restore_env(vector_env: VectorEnv[Any, Any, Any], tree: Mapping[str, Any], branch: int = 0) -> None:
    """Bring a vector env to where the one was from which `snapshot_env` took the tree.

    Args:
        vector_env: An env made with the same arguments; it need not have been reset.
        tree: What `snapshot_env` returned.
        branch: 0 replays the same noise; other branches draw fresh noise, where the world offers that.

    Raises:
        ValueError: If the env is of another make than the saved one, cannot be resumed, or ends up elsewhere.
    """
    kind = tree.get("kind")
    if kind == "not_resumable":
        raise ValueError(f"restore_env: this env was not saved, because {tree['reason']}")
    reason = why_not_resumable(vector_env)
    if reason is not None:
        raise ValueError(f"restore_env: {reason}")
    if kind != _kind(vector_env):
        raise ValueError(
            f"restore_env: the saved env is of kind {kind!r}; expected {_kind(vector_env)!r}, as {vector_env} is"
        )
    if kind == "snapshot":
        vector_env.restore(tree["state"], branch)  # type: ignore[attr-defined]
    elif kind == "rows":
        _restore_rows(vector_env, tree, branch)  # type: ignore[arg-type]
    else:
        restore_env(vector_env.env, tree["env"], branch)  # type: ignore[attr-defined]
        if kind == "episode_statistics":
            _restore_statistics(vector_env, tree)


def _snapshot(vector_env: Any) -> dict[str, Any]:
    kind = _kind(vector_env)
    if kind == "snapshot":
        return {"kind": kind, "state": vector_env.snapshot()}
    if kind == "rows":
        return {
            "kind": kind,
            "autoreset_mode": vector_env.autoreset_mode.value,
            "rows": [env.snapshot() for env in vector_env.envs],
            "rewards": vector_env._rewards.copy(),
            "terminations": vector_env._terminations.copy(),
            "truncations": vector_env._truncations.copy(),
            "autoreset_envs": vector_env._autoreset_envs.copy(),
        }
    tree: dict[str, Any] = {"kind": kind, "env": _snapshot(vector_env.env)}
    if kind == "episode_statistics":
        tree["episode_count"] = int(vector_env.episode_count)
        tree |= {name: getattr(vector_env, name).copy() for name in _EPISODE_STATISTICS}
        tree |= {name: np.array(getattr(vector_env, name)) for name in _EPISODE_QUEUES}
    return tree


def _restore_rows(vector_env: SyncVectorEnv[Any, Any], tree: Mapping[str, Any], branch: int) -> None:
    mode, rows = vector_env.autoreset_mode.value, tree["rows"]
    if len(rows) != vector_env.num_envs or tree["autoreset_mode"] != mode:
        raise ValueError(
            f"restore_env: the saved env has num_envs={len(rows)} and autoreset_mode={tree['autoreset_mode']!r}; "
            f"expected num_envs={vector_env.num_envs} and autoreset_mode={mode!r}"
        )
    for env, row in zip(vector_env.envs, rows, strict=True):
        assert isinstance(env, ReplayRecorder)
        env.restore(row, branch)
    # These attributes are private to Gymnasium, but they are all the state that its class has.
    vector_env._rewards = tree["rewards"].copy()
    vector_env._terminations = tree["terminations"].copy()
    vector_env._truncations = tree["truncations"].copy()
    vector_env._autoreset_envs = tree["autoreset_envs"].copy()
    observations = [env.observation for env in vector_env.envs]  # type: ignore[attr-defined]
    if all(observation is not None for observation in observations):
        vector_env._env_obs = observations
        space = vector_env.single_observation_space
        vector_env._observations = concatenate(space, observations, vector_env._observations)


def _restore_statistics(vector_env: Any, tree: Mapping[str, Any]) -> None:
    vector_env.episode_count = tree["episode_count"]
    for name in _EPISODE_STATISTICS:
        setattr(vector_env, name, tree[name].copy())
    for name in _EPISODE_QUEUES:
        setattr(vector_env, name, deque(tree[name], maxlen=getattr(vector_env, name).maxlen))


def _kind(vector_env: Any) -> str:
    if _has_snapshot(vector_env):
        return "snapshot"
    if _counts_episodes(vector_env):
        return "episode_statistics"
    return "stateless" if isinstance(vector_env, gym.vector.VectorWrapper) else "rows"


def _why_not_replayable(env: gym.Env[Any, Any], row: int) -> str | None:
    if not isinstance(env, ReplayRecorder):
        return (
            f"env {row} is {env}; expected ReplayRecorder as the outermost wrapper, as make_vec and as_vector_env give"
        )
    layer: Any = env.env
    while isinstance(layer, gym.Wrapper):
        for kind, state in _OUTLIVES_RESET.items():
            if isinstance(layer, kind):
                return f"{_name(layer)} of env {row} keeps {state}"
        layer = layer.env
    module = type(layer).__module__
    if module.startswith(_FOREIGN_NOISE):
        return f"{_name(layer)} of {module} draws noise from a generator that cannot be saved; expected np_random"
    return None


def _has_snapshot(layer: Any) -> bool:
    return hasattr(type(layer), "snapshot") and hasattr(type(layer), "restore")


def _is_stateless(layer: Any) -> bool:
    return isinstance(layer, _STATELESS) or getattr(type(layer), "stateless", False) is True


def _counts_episodes(layer: Any) -> bool:
    return isinstance(layer, vector_wrappers.RecordEpisodeStatistics)


def _name(layer: Any) -> str:
    return type(layer).__name__
