"""Any id or env becomes a vector env that resets in the same step, can be resumed, and gives away fresh arrays."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from palaestra.envs.faces import SimulatorVectorEnv
from palaestra.envs.registration import own_env_ids
from palaestra.wrappers.env_state import why_not_resumable
from palaestra.wrappers.frame_stack import VectorFrameStack
from palaestra.wrappers.replay_recorder import ReplayRecorder
from palaestra.wrappers.vectorize import RecordedVectorEnv, as_vector_env, make_vec


@pytest.mark.parametrize("env_id", own_env_ids())
def test_own_worlds_step_all_rows_at_once(env_id: str) -> None:
    env = make_vec(env_id, 5)
    assert isinstance(env, SimulatorVectorEnv)
    assert env.num_envs == 5
    assert why_not_resumable(env) is None


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "MiniGrid-Empty-5x5-v0", "gymnasium:CartPole-v1"])
def test_other_ids_become_recorded_rows(env_id: str) -> None:
    env = make_vec(env_id, 2)
    assert isinstance(env, RecordedVectorEnv)
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert all(isinstance(row, ReplayRecorder) for row in env.envs)
    assert env.envs[0] is not env.envs[1]
    assert env.spec is not None
    assert env.spec.id == env_id.rpartition(":")[2]
    assert why_not_resumable(env) is None


def test_rows_are_those_of_single_envs() -> None:
    env, singles = make_vec("Pendulum-v1", 2, env_kwargs={"g": 5.0}), [gym.make("Pendulum-v1", g=5.0) for _ in range(2)]
    observation, _ = env.reset(seed=[7, 3])
    expected = [single.reset(seed=seed)[0] for single, seed in zip(singles, (7, 3), strict=True)]
    np.testing.assert_array_equal(observation, expected)
    env.action_space.seed(0)
    for _ in range(199):
        action = env.action_space.sample()
        observation, reward, *_ = env.step(action)
        steps = [single.step(row) for single, row in zip(singles, action, strict=True)]
        np.testing.assert_array_equal(observation, [step[0] for step in steps])
        np.testing.assert_array_equal(reward, [step[1] for step in steps])
    action = env.action_space.sample()
    observation, _, _, truncated, info = env.step(action)
    last = [single.step(row) for single, row in zip(singles, action, strict=True)]
    assert truncated.all()
    np.testing.assert_array_equal(np.stack(list(info["final_obs"])), [step[0] for step in last])
    np.testing.assert_array_equal(observation, [single.reset()[0] for single in singles])


@pytest.mark.parametrize("frame_stack", [1, 3])
@pytest.mark.parametrize("env_id", ["CartPole-v1", "palaestra/OneStoreBacklog-v0", "MiniGrid-Empty-5x5-v0"])
def test_observations_may_be_kept_and_changed(env_id: str, frame_stack: int) -> None:
    def episodes(spoil: bool) -> list[Any]:
        env = make_vec(env_id, 2, frame_stack=frame_stack)
        env.action_space.seed(1)
        kept = [env.reset(seed=1)[0]]
        copies = [_copied(kept[0])]
        for _ in range(30):
            kept.append(env.step(env.action_space.sample())[0])
            copies.append(_copied(kept[-1]))
            if spoil:
                for array in _arrays(kept[-1]):
                    array[...] = 1
        if not spoil:
            for observation, copy in zip(kept, copies, strict=True):
                for array, expected in zip(_arrays(observation), _arrays(copy), strict=True):
                    np.testing.assert_array_equal(array, expected)
        return [array for copy in copies for array in _arrays(copy)]

    for array, expected in zip(episodes(True), episodes(False), strict=True):
        np.testing.assert_array_equal(array, expected)


def _arrays(observation: Any) -> list[np.ndarray]:
    return [observation[key] for key in sorted(observation)] if isinstance(observation, dict) else [observation]


def _copied(observation: Any) -> Any:
    if isinstance(observation, dict):
        return {key: value.copy() for key, value in observation.items()}
    return observation.copy()


def test_texts_become_tokens() -> None:
    for env in (make_vec("MiniGrid-DoorKey-5x5-v0", 2), as_vector_env(gym.make("MiniGrid-DoorKey-5x5-v0"))):
        observation, _ = env.reset(seed=0)
        assert observation["mission"].dtype == np.int32
        assert env.observation_space.contains(observation)


def test_frame_stack_and_render_mode_are_passed_on() -> None:
    env = make_vec("CartPole-v1", 2, frame_stack=4, render_mode="rgb_array")
    assert isinstance(env, VectorFrameStack)
    assert env.single_observation_space.shape == (16,)
    env.reset(seed=0)
    frames = env.render()
    assert frames is not None
    assert [frame.ndim for frame in frames] == [3, 3]


@pytest.mark.parametrize(
    ("env_id", "near"),
    [
        ("CartPol-v1", "CartPole-v1"),
        ("CartPole", "CartPole-v1"),
        ("HalfCheetah-v6", "HalfCheetah-v5"),
        ("palaestra/OneStoreBaklog-v0", "palaestra/OneStoreBacklog-v0"),
        ("OneStoreBacklog-v0", "palaestra/OneStoreBacklog-v0"),
        ("MiniGrid-DoorKey-5x5", "MiniGrid-DoorKey-5x5-v0"),
    ],
)
def test_an_unknown_id_names_near_ones(env_id: str, near: str) -> None:
    with pytest.raises(ValueError, match=rf"unknown env id '{env_id}'; did you mean .*'{near}'"):
        make_vec(env_id, 1)


def test_an_id_like_no_other_gets_no_list_of_hundreds() -> None:
    with pytest.raises(ValueError, match="unknown env id 'qqqq-v0'") as caught:
        make_vec("qqqq-v0", 1)
    assert len(str(caught.value)) < 200


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="num_envs=0; expected an integer of at least 1"):
        make_vec("CartPole-v1", 0)
    with pytest.raises(ValueError, match="frame_stack=0; expected an integer of at least 1"):
        make_vec("CartPole-v1", 1, frame_stack=0)
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        make_vec("no_such_package:Some-v0", 1)
    with pytest.raises(TypeError, match=r"as_vector_env: env='CartPole-v1' .*; expected a gym\.Env or VectorEnv"):
        as_vector_env("CartPole-v1")  # type: ignore[arg-type]


def test_an_id_of_a_package_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_worlds.py").write_text(
        "import gymnasium as gym\n"
        "gym.register('theirs/Poles-v0', 'gymnasium.envs.classic_control:CartPoleEnv', max_episode_steps=7)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    env = make_vec("their_worlds:theirs/Poles-v0", 2)
    env.reset(seed=0)
    for _ in range(7):
        *_, truncated, _ = env.step(np.array([0, 1]))
    assert truncated.all()
    del sys.modules["their_worlds"], gym.registry["theirs/Poles-v0"]


def test_envs_given_as_objects() -> None:
    vector_env = make_vec("CartPole-v1", 2)
    assert as_vector_env(vector_env) is vector_env
    recorder = ReplayRecorder(gym.make("CartPole-v1"))
    env = as_vector_env(recorder)
    assert isinstance(env, RecordedVectorEnv)
    assert env.envs == [recorder]
    assert env.num_envs == 1
    assert env.spec is not None
    assert env.spec.id == "CartPole-v1"
