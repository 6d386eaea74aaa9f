"""Batched runs of scripted policies on simulators: what oracles, experts and heuristics are measured by.

The noise is that of the vector face with the same row seeds, so that two policies, or a policy here and an agent
there, can be compared pair by pair on the same noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from palaestra.envs.arrays import namespace_of
from palaestra.envs.key_stream import KeyStream
from palaestra.envs.noise import CounterKey, draw_tape
from palaestra.envs.simulator import Simulator, where_rows
from palaestra.protocols import Actor, Array, Key, Transition


class NoiseSource(Protocol):
    """The noise of one episode of a batch: `palaestra.envs.noise.NoiseTape` or `TapeBlock`."""

    def at(self, step: int) -> Key:
        """Return the key of the start (0) or of transition `step` (1, 2, ...)."""
        ...


@dataclass(frozen=True)
class Rollout:
    """One run of a batch; `steps` is the leading axis.

    Attributes:
        rewards: `[steps, batch]`, 0 in the steps after a row has terminated.
        terminated: Bools `[steps, batch]`: the row has terminated in this step or before.
        actions: `[steps, batch, ...]`.
        info: Info arrays of the transitions, `[steps, batch, ...]`.
        state: State of each row after its last step.
    """

    rewards: Array
    terminated: Array
    actions: Array
    info: Mapping[str, Array]
    state: Any


@dataclass(frozen=True)
class Episodes:
    """The first episodes of every row.

    Attributes:
        returns: Undiscounted returns, float64 `[rows, episodes]`.
        lengths: Numbers of steps, int64 `[rows, episodes]`.
        info: Info of the last step of each episode, `[rows, episodes, ...]` by name.
    """

    returns: np.ndarray
    lengths: np.ndarray
    info: Mapping[str, np.ndarray] = field(default_factory=dict)


def rollout(
    simulator: Simulator[Any],
    actor: Actor,
    seeds: Array | Sequence[int] | None = None,
    *,
    steps: int,
    noise: NoiseSource | None = None,
) -> Rollout:
    """Run an actor for a number of steps, the time limit aside; rows that terminate stay where they are.

    Args:
        simulator: The world.
        actor: Gets the state, the observation as `simulator.observe` returns it, and the key of the step.
        seeds: Row seeds `[batch]`: ints or a NumPy array, or a torch tensor, in whose library and on whose device
            the run then takes place (gradients flow from rewards to whatever the actor computes with).
        steps: Number of steps.
        noise: Noise to use in place of that of the seeds.

    Raises:
        ValueError: If neither seeds nor noise are given, or both.
    """
    _check_steps("rollout", steps)
    if (seeds is None) == (noise is None):
        raise ValueError("rollout: expected either seeds or noise")
    source = noise if noise is not None else draw_tape(seeds, steps)
    state = simulator.initial(source.at(0))
    ended: Any = None
    rewards, flags, actions, infos = [], [], [], []
    for step in range(1, steps + 1):
        transition, action = _step(simulator, actor, state, source.at(step))
        following, reward, terminated = transition.state, transition.reward, transition.terminated
        if ended is not None:
            following = where_rows(ended, state, following)
            reward, terminated = reward * ~ended, terminated | ended
        state = following
        ended = terminated if bool(terminated.any()) else None
        rewards.append(reward)
        flags.append(terminated)
        actions.append(action)
        infos.append(transition.info)
    xp = namespace_of(rewards[0])
    info = {name: xp.stack([info[name] for info in infos]) for name in infos[0]}
    return Rollout(xp.stack(rewards), xp.stack(flags), xp.stack(actions), info, state)


def long_run_reward(
    simulator: Simulator[Any], actor: Actor, seeds: Sequence[int] | np.ndarray, periods: int, ignore: int = 0
) -> np.ndarray:
    """Return the mean reward per step of one unbroken run of each row, float64 `[rows]`; there is no time limit.

    Args:
        simulator: A world that never terminates.
        actor: The policy.
        seeds: Row seeds.
        periods: Number of steps.
        ignore: Number of steps at the beginning that do not count, less than `periods`.

    Raises:
        ValueError: If `ignore` is not from 0 to `periods - 1`, or a row terminates.
    """
    _check_steps("long_run_reward", periods)
    if not 0 <= ignore < periods:
        raise ValueError(f"long_run_reward: ignore={ignore}; expected an integer from 0 to {periods - 1}")
    total = np.zeros(len(seeds))
    state, noise = _begin(simulator, seeds)
    for period in range(periods):
        transition, _ = _step(simulator, actor, state, noise.transition())
        if transition.terminated.any():
            raise ValueError(f"long_run_reward: {type(simulator).__name__} terminated; expected a world without an end")
        if period >= ignore:
            total += transition.reward
        state = transition.state
        noise.advance()
    return total / (periods - ignore)


def run_episodes(
    simulator: Simulator[Any], actor: Actor, seeds: Sequence[int] | np.ndarray, episodes: int = 1
) -> Episodes:
    """Run the episodes 0, 1, ... of every row, each to its end or to the world's horizon.

    Args:
        simulator: The world.
        actor: The policy.
        seeds: Row seeds.
        episodes: Number of episodes of each row.
    """
    _check_steps("run_episodes", episodes)
    rows = len(seeds)
    returns, lengths = np.zeros((rows, episodes)), np.zeros((rows, episodes), np.int64)
    last: dict[str, np.ndarray] = {}
    running = np.zeros(rows)
    state, noise = _begin(simulator, seeds)
    while bool((noise.episode < episodes).any()):
        transition, _ = _step(simulator, actor, state, noise.transition())
        state = transition.state
        running = running + transition.reward
        done = np.asarray(transition.terminated) | (noise.step >= simulator.horizon - 1)
        noise.advance()
        if not done.any():
            continue
        counted = np.flatnonzero(done & (noise.episode < episodes))
        place = (counted, noise.episode[counted])
        returns[place], lengths[place] = running[counted], noise.step[counted]
        for name, array in {**transition.info, **simulator.information(state)}.items():
            values = np.asarray(array)
            if name not in last:
                last[name] = np.zeros((rows, episodes, *values.shape[1:]), values.dtype)
            last[name][place] = values[counted]
        state = where_rows(done, simulator.initial(noise.start(1)), state)
        noise.restart(done)
        running = np.where(done, 0.0, running)
    return Episodes(returns, lengths, last)


def episode_returns(
    simulator: Simulator[Any], actor: Actor, seeds: Sequence[int] | np.ndarray, episodes: int = 1
) -> np.ndarray:
    """Return the undiscounted returns of the first episodes of every row, float64 `[rows, episodes]`."""
    return run_episodes(simulator, actor, seeds, episodes).returns


def _begin(simulator: Simulator[Any], seeds: Sequence[int] | np.ndarray) -> tuple[Any, KeyStream]:
    start = CounterKey(seeds)
    noise = KeyStream(start.batch)
    noise.place(start.seed)
    return simulator.initial(start), noise


def _step(simulator: Simulator[Any], actor: Actor, state: Any, key: Key) -> tuple[Transition[Any], Array]:
    action = actor(state, simulator.observe(state), key)
    return simulator.step(state, action, key), action


def _check_steps(call: str, steps: int) -> None:
    if steps < 1:
        raise ValueError(f"{call}: received {steps}; expected a number of steps or episodes of at least 1")
