"""Steps our classic worlds beside Gymnasium's single ones, from states put into both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from palaestra.envs.noise import CounterKey
from palaestra.envs.simulator import Simulator


def peer_of(env_id: str, **attributes: Any) -> Any:
    """Return Gymnasium's world without its wrappers, with attributes set."""
    env = gym.make(env_id).unwrapped
    for name, value in attributes.items():
        assert hasattr(env, name), name
        setattr(env, name, value)
    env.reset(seed=0)
    return env


def assert_follows(
    world: Simulator[Any],
    peer: Any,
    fields: Sequence[str],
    choose: Callable[[Any, np.random.Generator], Any],
    *,
    episodes: int,
    steps: int,
    tolerance: float = 1e-12,
    reward_tolerance: float = 1e-12,
    put_back: bool = False,
) -> tuple[int, int]:
    """Run both from our starts under the same actions and compare states, observations, rewards and ends.

    Args:
        world: Ours.
        peer: Theirs.
        fields: Names of our state in the order of theirs.
        choose: Returns an action from our state (a batch of one).
        episodes: Number of episodes, each of another seed.
        steps: Steps after which an episode is cut.
        tolerance: Largest absolute difference of states.
        reward_tolerance: Largest absolute difference of rewards.
        put_back: Whether our state is put into theirs before each step, so that differences do not grow.

    Returns:
        Numbers of steps compared and of episodes that terminated.
    """
    rng, compared, ended = np.random.default_rng(0), 0, 0
    for episode in range(episodes):
        state = world.initial(CounterKey([episode]))
        put(peer, state, fields)
        ours, theirs = [], []
        for step in range(steps):
            action = choose(state, rng)
            if put_back and step > 0:
                put(peer, state, fields)
            transition = world.step(state, np.asarray(action)[None], CounterKey([episode], step=step + 1))
            observation, reward, terminated, _, _ = peer.step(action)
            state = transition.state
            found = [float(getattr(state, name)[0]) for name in fields]
            ours.append((found, world.observe(state)[0].astype(np.float32), transition.reward[0]))
            theirs.append((np.array(peer.state, np.float64), observation, reward))
            compared += 1
            assert bool(transition.terminated[0]) == terminated
            if terminated:
                ended += 1
                break
        # Observations are float32: a difference of the last bit of float64 may round to one of theirs.
        for part, largest in enumerate((tolerance, max(tolerance, 2e-7), reward_tolerance)):
            one, other = ([values[part] for values in run] for run in (ours, theirs))
            np.testing.assert_allclose(one, other, rtol=0.0, atol=largest)
    return compared, ended


def put(peer: Any, state: Any, fields: Sequence[str]) -> None:
    """Make a batch of one the state of Gymnasium's world."""
    peer.state = np.array([getattr(state, name)[0] for name in fields])
    if hasattr(peer, "steps_beyond_terminated"):
        peer.steps_beyond_terminated = None
