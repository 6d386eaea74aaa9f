"""Any id or env becomes a vector env that resets in the same step, can be resumed, and gives away fresh arrays."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from palaestra.envs.backends import OWN_BACKENDS, OwnBackend
from palaestra.envs.faces import SimulatorVectorEnv
from palaestra.envs.registration import own_env_ids
from palaestra.envs.simulator import Simulator
from palaestra.protocols import Transition
from palaestra.wrappers.env_state import why_not_resumable
from palaestra.wrappers.frame_stack import VectorFrameStack
from palaestra.wrappers.replay_recorder import ReplayRecorder
from palaestra.wrappers.vectorize import RecordedVectorEnv, as_vector_env, backend_of, make_vec, native_backend


@pytest.mark.parametrize("env_id", own_env_ids())
def test_own_worlds_step_all_rows_at_once(env_id: str) -> None:
    env = make_vec(env_id, 5)
    assert isinstance(env, SimulatorVectorEnv)
    assert env.num_envs == 5
    assert why_not_resumable(env) is None


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "MiniGrid-Empty-5x5-v0", "gymnasium:CartPole-v1"])
def test_rows_of_any_id_can_be_its_own_envs(env_id: str) -> None:
    env = make_vec(env_id, 2, backend="sync")
    assert isinstance(env, RecordedVectorEnv)
    assert backend_of(env) == "sync"
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert all(isinstance(row, ReplayRecorder) for row in env.envs)
    assert env.envs[0] is not env.envs[1]
    assert env.spec is not None
    assert env.spec.id == env_id.rpartition(":")[2]
    assert why_not_resumable(env) is None


def test_rows_are_those_of_single_envs() -> None:
    env = make_vec("Pendulum-v1", 2, env_kwargs={"g": 5.0}, backend="sync")
    singles = [gym.make("Pendulum-v1", g=5.0) for _ in range(2)]
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
@pytest.mark.parametrize(
    "env_id", ["CartPole-v1", "palaestra/OneStoreBacklog-v0", "MiniGrid-Empty-5x5-v0", "Swimmer-v5"]
)
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


@pytest.mark.parametrize(
    ("env_id", "num_envs", "arguments", "expected"),
    [
        ("palaestra/Kuhn-v0", 1, {}, "own"),
        ("palaestra/Kuhn-v0", 2, {}, "own"),
        ("HalfCheetah-v5", 1, {}, "sync"),
        ("HalfCheetah-v5", 2, {}, "mujoco-pool"),
        ("HalfCheetah-v5", 2, {"ctrl_cost_weight": 0.2, "max_episode_steps": 10}, "mujoco-pool"),
        ("HalfCheetah-v5", 2, {"max_episode_steps": -1}, "sync"),
        ("HalfCheetah-v4", 2, {}, "sync"),
        ("FrozenLake-v1", 2, {"is_slippery": False}, "sync"),
    ],
)
def test_the_fastest_back_end_that_can_do_it_is_chosen(
    env_id: str, num_envs: int, arguments: dict[str, Any], expected: str
) -> None:
    pytest.importorskip("mujoco")
    env = make_vec(env_id, num_envs, env_kwargs=arguments)
    assert backend_of(env) == expected
    assert why_not_resumable(env) is None
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert env.spec is not None
    assert (env.spec.id, {name: env.spec.kwargs[name] for name in arguments}) == (env_id, arguments)


class Sprint(Simulator[Any]):
    """A stand-in for Pendulum-v1: the state counts steps, the observation shows it."""

    render_modes = ("ansi",)

    def __init__(self, horizon: int, g: float = 10.0) -> None:
        self.horizon, self.g = horizon, g
        self.observation_space = gym.make("Pendulum-v1").observation_space
        self.action_space = gym.make("Pendulum-v1").action_space

    def initial(self, key: Any) -> Any:
        return Count(np.zeros(key.batch))

    def step(self, state: Any, action: Any, key: Any) -> Transition[Any]:
        return Transition(Count(state.steps + 1), np.full(len(state.steps), self.g), np.zeros(len(state.steps), bool))

    def observe(self, state: Any) -> Any:
        return np.stack([state.steps] * 3, axis=1)


@dataclass(frozen=True)
class Count:
    steps: np.ndarray


def test_an_own_simulator_stands_in_for_a_foreign_id(monkeypatch: pytest.MonkeyPatch) -> None:
    row = OwnBackend(f"{__name__}:Sprint", arguments=frozenset({"g"}))
    monkeypatch.setitem(OWN_BACKENDS, "Pendulum-v1", row)
    env = make_vec("Pendulum-v1", 3, env_kwargs={"g": 4.0})
    assert backend_of(env) == "own"
    assert env.spec is not None
    assert env.spec.id == "Pendulum-v1"
    env.reset(seed=0)
    for step in range(200):
        _, reward, _, truncated, _ = env.step(np.zeros((3, 1), np.float32))
        assert truncated.all() == (step == 199)
    np.testing.assert_array_equal(reward, 4.0)
    short = make_vec("Pendulum-v1", 2, env_kwargs={"max_episode_steps": 5})
    short.reset(seed=0)
    assert [bool(short.step(np.zeros((2, 1), np.float32))[3].all()) for _ in range(5)] == [False] * 4 + [True]
    assert backend_of(make_vec("Pendulum-v1", 1)) == "sync"
    assert backend_of(make_vec("Pendulum-v1", 2, backend="sync")) == "sync"
    assert backend_of(make_vec("Pendulum-v1", 2, render_mode="ansi")) == "own"
    assert backend_of(make_vec("Pendulum-v1", 2, render_mode="rgb_array")) == "sync"
    with pytest.raises(ValueError, match="does not draw render_mode='rgb_array'"):
        make_vec("Pendulum-v1", 2, render_mode="rgb_array", backend="own")
    with pytest.raises(ValueError, match="the own simulator of Pendulum-v1 does not take colour"):
        make_vec("Pendulum-v1", 2, env_kwargs={"colour": 1}, backend="own")


def test_back_ends_go_by_name() -> None:
    env = make_vec("CartPole-v1", 3, frame_stack=2, backend="gymnasium-vector")
    assert backend_of(env) == "gymnasium-vector"
    assert "CartPoleVectorEnv has no snapshot() and restore()" in (why_not_resumable(env) or "")
    assert backend_of(make_vec("palaestra/Kuhn-v0", 2, backend="sync")) == "sync"
    assert backend_of(as_vector_env(gym.make("CartPole-v1"))) == "given"
    assert [native_backend(env_id) for env_id in ("CartPole-v1", "palaestra/Kuhn-v0")] == ["sync", "own"]
    for env_id, backend, reason in (
        ("CartPole-v1", "fast", "expected one of .*'mujoco-pool'"),
        ("FrozenLake-v1", "own", "FrozenLake-v1 has no own simulator"),
        ("CartPole-v1", "mujoco-pool", "none of Gymnasium's MuJoCo worlds"),
        ("HalfCheetah-v5", "gymnasium-vector", "HalfCheetah-v5 has no vector class"),
    ):
        with pytest.raises(ValueError, match=f"make_vec: backend='{backend}'.*{reason}"):
            make_vec(env_id, 2, backend=backend)


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
