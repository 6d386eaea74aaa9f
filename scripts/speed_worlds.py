"""`palaestra speed worlds`: env steps a second of the back ends of `make_vec`, against every other way to step a world.

All sides get the same actions, drawn beforehand and cycled. Steps are counted as `num_envs` for each call of `step`;
of sides that spend a call on resetting a row (Gymnasium's default, and EnvPool) that call counts too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from palaestra.envs.threads import default_threads
from palaestra.scripts.timing import OURS, Timing, Work, interleaved, missing
from palaestra.wrappers.vectorize import find_spec, make_vec

CYCLE = 16
SYNC, ASYNC, ENVPOOL, SINGLE = "SyncVectorEnv", "AsyncVectorEnv", "envpool", "gym.make"
INSTALL = {ENVPOOL: "pip install 'palaestra[fast]'"}


def half_cheetah(repeats: int) -> Timing:
    """Time HalfCheetah-v5 with 64 rows."""
    env_id, num_envs, calls = "HalfCheetah-v5", 64, 20
    return _compare(env_id, num_envs, calls, repeats, "mujoco-pool", {SYNC: _sync, ASYNC: _async})


def cart_pole(repeats: int) -> Timing:
    """Time CartPole-v1 with 1,024 rows."""
    peers = {SYNC: _sync, "CartPoleVectorEnv": _own_vector_class}
    return _compare("CartPole-v1", 1024, 100, repeats, "own", peers)


def pendulum(repeats: int) -> Timing:
    """Time Pendulum-v1 with 1,024 rows."""
    return _compare("Pendulum-v1", 1024, 50, repeats, "own", {SYNC: _sync})


def door_key(repeats: int) -> Timing:
    """Time MiniGrid-DoorKey-8x8 with 1,024 rows against the single env and EnvPool, over whole episodes.

    Random play nearly always ends at the limit of 640 steps: a turn takes whole multiples of them, so that every
    row of every side has its share of new levels in it.
    """
    env_id, horizon = "MiniGrid-DoorKey-8x8-v0", 640
    return _compare(env_id, 1024, horizon, repeats, "own", {SINGLE: _single})


def single_cart_pole(repeats: int) -> Timing:
    """Time the single face of CartPole's simulator against `gym.make("CartPole-v1")`, resets included."""
    ours_id, their_id, calls = "palaestra/CartPole-v0", "CartPole-v1", 5000
    with ExitStack() as stack:
        sides = {OURS: _single(ours_id, 1, calls, stack), SINGLE: _single(their_id, 1, calls, stack)}
        details = {"ours": ours_id, "peer": their_id, "actions": "random, drawn beforehand"}
        return interleaved("single-cart-pole", "steps/s", sides, repeats, 1, details)


MakeSide = Callable[[str, int, int, ExitStack], Work]


def _compare(
    env_id: str, num_envs: int, calls: int, repeats: int, backend: str, peers: Mapping[str, MakeSide]
) -> Timing:
    """Return the steps/s of one of our back ends, of the peers and, where it is installed, of EnvPool.

    Args:
        env_id: Id of the env.
        num_envs: Rows.
        calls: Calls of `step` between two looks at the clock.
        repeats: Turns of each side.
        backend: Our back end.
        peers: What makes the other sides.
    """
    skipped = missing(INSTALL)
    with ExitStack() as stack:
        ours = make_vec(env_id, num_envs, backend=backend)
        sides = {OURS: _stepper(ours, num_envs, calls, stack)}
        sides |= {name: make(env_id, num_envs, calls, stack) for name, make in peers.items()}
        if not skipped:
            sides[ENVPOOL] = _envpool(env_id, num_envs, calls, stack)
        details = {"env": env_id, "num_envs": num_envs, "backend": backend, "actions": "random, drawn beforehand"}
        return interleaved(env_id, "steps/s", sides, repeats, default_threads(), details, skipped=skipped)


def _sync(env_id: str, num_envs: int, calls: int, stack: ExitStack) -> Work:
    return _stepper(SyncVectorEnv([lambda: gym.make(find_spec(env_id).id)] * num_envs), num_envs, calls, stack)


def _async(env_id: str, num_envs: int, calls: int, stack: ExitStack) -> Work:
    return _stepper(AsyncVectorEnv([lambda: gym.make(find_spec(env_id).id)] * num_envs), num_envs, calls, stack)


def _own_vector_class(env_id: str, num_envs: int, calls: int, stack: ExitStack) -> Work:
    env = gym.make_vec(env_id, num_envs, vectorization_mode="vector_entry_point")
    return _stepper(env, num_envs, calls, stack)


def _envpool(env_id: str, num_envs: int, calls: int, stack: ExitStack) -> Work:
    import envpool

    env = envpool.make(env_id, env_type="gymnasium", num_envs=num_envs, num_threads=default_threads(), seed=0)
    actions = drawn_actions(env.action_space, num_envs)
    env.reset()
    stack.callback(env.close)
    return batch_stepping(env.step, actions, num_envs, calls)


def _single(env_id: str, num_envs: int, calls: int, stack: ExitStack) -> Work:
    env = gym.make(find_spec(env_id).id)
    stack.callback(env.close)
    return single_stepping(env, calls)


def _stepper(env: gym.vector.VectorEnv[Any, Any, Any], num_envs: int, calls: int, stack: ExitStack) -> Work:
    stack.callback(env.close)
    env.reset(seed=0)
    return batch_stepping(env.step, drawn_actions(env.single_action_space, num_envs), num_envs, calls)


def batch_stepping(step: Callable[[Any], Any], actions: np.ndarray, num_envs: int, calls: int) -> Work:
    """Return work that steps all rows of a vector env so many times, with actions `[CYCLE, num_envs, ...]` in turn."""
    cycle = [np.ascontiguousarray(batch) for batch in actions]

    def work() -> float:
        for call in range(calls):
            step(cycle[call % CYCLE])
        return calls * num_envs

    return work


def single_stepping(env: gym.Env[Any, Any], calls: int) -> Work:
    """Return work that steps one env, and resets it where an episode ends, with actions as for a row of the others.

    Args:
        env: The env.
        calls: Steps each time.
    """
    cycle = drawn_actions(env.action_space, 1)[:, 0]
    actions = cycle.tolist() if isinstance(env.action_space, gym.spaces.Discrete) else list(cycle)
    env.reset(seed=0)

    def work() -> float:
        for call in range(calls):
            _, _, terminated, truncated, _ = env.step(actions[call % CYCLE])
            if terminated or truncated:
                env.reset()
        return calls

    return work


def drawn_actions(space: gym.Space[Any], num_envs: int) -> np.ndarray:
    """Return uniform random actions `[CYCLE, num_envs, ...]`, the same for the same space but for its dtype.

    Args:
        space: Space of one action: Discrete, or a bounded Box.
        num_envs: Rows.
    """
    generator = np.random.default_rng(0)
    if isinstance(space, gym.spaces.Discrete):
        return generator.integers(int(space.n), size=(CYCLE, num_envs)).astype(space.dtype)
    assert isinstance(space, gym.spaces.Box)
    return generator.uniform(space.low, space.high, (CYCLE, num_envs, *space.shape)).astype(space.dtype)
