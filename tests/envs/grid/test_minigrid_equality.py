"""From MiniGrid's own levels, by the same actions, our worlds show, pay and end what MiniGrid's do, step by step."""

from __future__ import annotations

from collections import Counter
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from minigrid.wrappers import FullyObsWrapper

from palaestra.envs.grid.door_key import DoorKey
from palaestra.envs.grid.minigrid_levels import from_minigrid
from palaestra.envs.grid.world import GridWorld
from palaestra.envs.grid.worlds import MINIGRID_IDS
from palaestra.envs.noise import CounterKey
from palaestra.envs.registration import build_simulator
from tests.envs.grid.minigrid_peer import Walker, events_of_equal_episodes

IDS = sorted(MINIGRID_IDS)
QUICK = {
    "MiniGrid-DoorKey-5x5-v0": 24,
    "MiniGrid-DoorKey-8x8-v0": 16,
    "MiniGrid-Empty-8x8-v0": 16,
    "MiniGrid-FourRooms-v0": 16,
    "MiniGrid-LavaCrossingS9N2-v0": 32,
    "MiniGrid-SimpleCrossingS9N3-v0": 16,
    "MiniGrid-MultiRoom-N4-S5-v1": 8,
    "MiniGrid-KeyCorridorS3R2-v0": 8,
    "MiniGrid-Unlock-v0": 16,
    "MiniGrid-UnlockPickup-v0": 8,
    "MiniGrid-ObstructedMaze-1Dlh-v0": 8,
    "BabyAI-GoToLocal-v0": 32,
    "BabyAI-GoToRedBallGrey-v0": 16,
    "BabyAI-GoToObjMazeS4-v0": 8,
    "BabyAI-ActionObjDoor-v0": 16,
    "BabyAI-PickupLoc-v0": 16,
    "BabyAI-PickupDistDebug-v0": 32,
    "BabyAI-OpenDoorDebug-v0": 16,
    "BabyAI-KeyInBox-v0": 8,
    "BabyAI-OneRoomS8-v0": 16,
}
"""Episodes by id."""

ALL_EVENTS = (
    "key picked up",
    "ball picked up",
    "box picked up",
    "hand full",
    "dropped",
    "no room to drop",
    "box opened",
    "door locked to locked",
    "door locked to open",
    "door closed to open",
    "door open to closed",
    "walked into nothing",
    "walked into wall",
    "walked into key",
    "walked into ball",
    "walked into box",
    "walked into door locked",
    "walked into door closed",
    "walked into door open",
    "walked into goal",
    "walked into lava",
    "success",
    "failure",
    "out of time",
)


def world_of(env_id: str, **kwargs: Any) -> GridWorld:
    row = MINIGRID_IDS[env_id]
    world = build_simulator(row.simulator, **row.kwargs, **kwargs)
    assert isinstance(world, GridWorld)
    return world


def test_every_kind_of_event_is_equal() -> None:
    """Some episodes of ids of every kind; what happened is counted over all, and all that can happen does."""
    events: Counter[str] = Counter()
    for env_id, episodes in QUICK.items():
        events += events_of_equal_episodes(env_id, world_of(env_id), episodes, seed=1, rows=8)
    assert {event: events[event] for event in ALL_EVENTS if events[event] < 5} == {}


@pytest.mark.slow
@pytest.mark.parametrize("env_id", IDS)
def test_many_episodes_are_equal(env_id: str) -> None:
    events = events_of_equal_episodes(env_id, world_of(env_id), episodes=64, seed=2, rows=16)
    assert events["success"] + events["failure"] + events["out of time"] == events["episodes"]


@pytest.mark.parametrize("env_id", IDS)
def test_time_limits_and_spaces_are_equal(env_id: str) -> None:
    env: Any = gym.make(env_id, disable_env_checker=True)
    env.reset(seed=0)
    world = world_of(env_id)
    assert world.horizon == env.unwrapped.max_steps
    assert world.action_space == env.action_space
    assert world.observation_space["image"] == env.observation_space["image"]
    assert world.observation_space["direction"] == env.observation_space["direction"]


@pytest.mark.parametrize("env_id", ["MiniGrid-MultiRoom-N2-S4-v0", "MiniGrid-KeyCorridorS3R3-v0", "BabyAI-GoTo-v0"])
def test_the_full_view_is_that_of_the_wrapper(env_id: str) -> None:
    env: Any = FullyObsWrapper(gym.make(env_id, disable_env_checker=True))
    world = world_of(env_id, observation="full")
    observation, _ = env.reset(seed=3)
    state, walker = from_minigrid(world, env), Walker(np.random.default_rng(0))
    assert world.observation_space["image"] == env.observation_space["image"]
    for _ in range(60):
        np.testing.assert_array_equal(world.observe(state)["image"][0], observation["image"])
        action = walker.action(env.unwrapped)
        observation = env.step(action)[0]
        state = world.step(state, np.array([action]), CounterKey([0])).state


def test_a_target_taken_away_in_the_first_step_still_counts_as_faced() -> None:
    """BabyAI keeps the places of the objects to go to until something is dropped."""
    env: Any = gym.make("BabyAI-GoToLocal-v0", disable_env_checker=True).unwrapped
    world = world_of("BabyAI-GoToLocal-v0")
    found = 0
    for seed in range(400):
        env.reset(seed=seed)
        x, y = (int(part) for part in env.front_pos)
        targets = [tuple(map(int, place)) for place in env.instrs.desc.obj_poss]
        beside = [(tx, ty) for tx, ty in targets if (tx, ty) == (x, y)]
        if not beside and targets:
            # Put the agent before the first target, where there is room.
            tx, ty = targets[0]
            if env.grid.get(tx - 1, ty) is not None:
                continue
            env.agent_pos, env.agent_dir = np.array((tx - 1, ty)), 0
        state = from_minigrid(world, env)
        _, reward, terminated, _, _ = env.step(3)
        transition = world.step(state, np.array([3]), CounterKey([0]))
        assert (float(transition.reward[0]), bool(transition.terminated[0])) == (reward, terminated)
        assert terminated
        assert env.carrying is not None
        found += 1
        if found == 10:
            return
    raise AssertionError("no level with a free cell beside its target")


def test_from_minigrid_names_what_does_not_fit() -> None:
    env = gym.make("MiniGrid-DoorKey-6x6-v0", disable_env_checker=True)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="env is of 6 x 6 cells; expected 8 x 8"):
        from_minigrid(DoorKey(8), env)
    inner: Any = env.unwrapped
    inner.mission = "sit down"
    with pytest.raises(ValueError, match="text='sit down'; expected a mission such as 'use the key"):
        from_minigrid(DoorKey(6), env)
    fetch = gym.make("MiniGrid-Dynamic-Obstacles-8x8-v0", disable_env_checker=True)
    fetch.reset(seed=0)
    with pytest.raises(ValueError, match="expected a mission such as"):
        from_minigrid(DoorKey(8), fetch)
