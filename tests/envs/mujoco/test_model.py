"""A world of one's own on an MJCF model, through both faces; and Gymnasium's worlds on the suite's own noise."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

pytest.importorskip("mujoco")

from palaestra.envs.faces import SimulatorEnv, SimulatorVectorEnv
from palaestra.envs.mujoco.model import MujocoSimulator
from palaestra.envs.mujoco.pendulums_and_arms import InvertedDoublePendulum, Pusher, Reacher
from palaestra.envs.mujoco.runners import HalfCheetah, Hopper
from palaestra.envs.mujoco.starts import GeneratorStarts, KeyStarts
from palaestra.envs.mujoco.state import MujocoState
from palaestra.envs.mujoco.walkers_3d import Ant
from palaestra.envs.noise import CounterKey
from palaestra.envs.rollout import run_episodes
from palaestra.envs.simulator import RandomActor
from palaestra.protocols import Array, Key
from palaestra.wrappers.env_state import restore_env, snapshot_env
from palaestra.wrappers.replay_recorder import tree_sha256

SWING = """
<mujoco>
  <option timestep="0.01" integrator="RK4"><flag contact="disable"/></option>
  <worldbody>
    <body>
      <joint name="hinge" axis="0 1 0"/>
      <geom type="capsule" fromto="0 0 0 0 0 -1" size=".02" mass="1"/>
      <site name="tip" pos="0 0 -1"/>
    </body>
  </worldbody>
  <actuator><motor joint="hinge" ctrlrange="-3 5"/></actuator>
</mujoco>
"""


class SwingUp(MujocoSimulator):
    """A pole to be swung up: the reward is the height of its tip; it ends where it turns too fast."""

    tracked = ("site_xpos",)
    draws = ("angle",)

    def __init__(self, model: Any = SWING, frame_skip: int = 2, horizon: int = 30, **engine: Any) -> None:
        super().__init__(model, frame_skip=frame_skip, horizon=horizon, **engine)
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float64)

    def initial(self, key: Key) -> MujocoState:
        return self.place(qpos=key.uniform("angle", (1,)) - 0.5)

    def observe(self, state: MujocoState) -> Array:
        angle, speed = self.field(state, "qpos"), self.field(state, "qvel")
        xp = torch if isinstance(angle, torch.Tensor) else np
        return xp.concatenate([xp.cos(angle), xp.sin(angle), speed], axis=1)

    def outcome(
        self, before: MujocoState, action: Array, after: MujocoState
    ) -> tuple[Array, Array, Mapping[str, Array]]:
        speed = abs(self.field(after, "qvel")[:, 0])
        return self.field(after, "site_xpos")[:, 0, 2] + 0.0, speed > 3.0, {"speed": speed}


def sampled(env: Any, steps: int) -> list[np.ndarray]:
    env.action_space.seed(0)
    return [env.action_space.sample() for _ in range(steps)]


def test_the_single_face_keeps_gymnasiums_rules() -> None:
    env = SimulatorEnv(SwingUp())
    env.spec = gym.spec("CartPole-v1")
    check_env(env, skip_render_check=True)


def test_rows_equal_the_single_face_through_ends_and_resets() -> None:
    singles, batch = [SimulatorEnv(SwingUp()) for _ in range(4)], SimulatorVectorEnv(SwingUp(), 4)
    seeds = [5, 1, 7, 2**62]
    observation, _ = batch.reset(seed=seeds)
    np.testing.assert_array_equal(
        observation, [single.reset(seed=seed)[0] for single, seed in zip(singles, seeds, strict=True)]
    )
    ends = set()
    for action in sampled(batch, 100):
        observation, reward, terminated, truncated, info = batch.step(action)
        for row, single in enumerate(singles):
            expected, one_reward, one_terminated, one_truncated, _ = single.step(action[row])
            assert (reward[row], terminated[row], truncated[row]) == (one_reward, one_terminated, one_truncated)
            if one_terminated or one_truncated:
                ends.add("terminated" if one_terminated else "truncated")
                np.testing.assert_array_equal(info["final_obs"][row], expected)
                expected, _ = single.reset()
            np.testing.assert_array_equal(observation[row], expected)
    assert ends == {"terminated", "truncated"}


def test_a_snapshot_continues_bit_for_bit_and_branches_differ() -> None:
    env, other = SimulatorVectorEnv(SwingUp(), 3), SimulatorVectorEnv(SwingUp(), 3)
    env.reset(seed=3)
    actions = sampled(env, 90)
    for action in actions[:40]:
        env.step(action)
    saved = snapshot_env(env)
    expected = [tree_sha256(env.step(action)) for action in actions[40:]]
    for again in (other, pickle.loads(pickle.dumps(other)), env):
        restore_env(again, saved)
        assert [tree_sha256(again.step(action)) for action in actions[40:]] == expected
    restore_env(env, saved, branch=2)
    assert [tree_sha256(env.step(action)) for action in actions[40:]] != expected


def test_actions_span_the_control_range() -> None:
    world = SwingUp()
    np.testing.assert_allclose(world.control(np.array([[-1.0], [0.0], [1.0], [2.0]])), [[-3.0], [1.0], [5.0], [5.0]])
    state = world.step(world.initial(CounterKey([0, 1])), np.array([[1.0], [-0.5]])).state
    np.testing.assert_allclose(world.field(state, "ctrl"), [[5.0], [-1.0]])
    env = SimulatorVectorEnv(world, 2)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"SwingUp: action=.*holds 1\.5"):
        env.step(np.array([[0.0], [1.5]], np.float32))


def test_energy_is_kept_by_the_physics() -> None:
    """The tip's height and speed of a free pole: m g h + I w^2 / 2 about the hinge, with RK4 to 1e-6."""
    world = SwingUp(frame_skip=1, horizon=1000)
    state = world.place(qpos=np.array([[1.0], [2.5]]))
    # About the hinge, half a metre from the centre: a thin rod's 1/3, but for the capsule's thickness.
    inertia = float(world.model.body_inertia[1].max()) + 0.25
    assert inertia == pytest.approx(1 / 3, rel=0.05)

    def energy(state: MujocoState) -> np.ndarray:
        angle, speed = world.field(state, "qpos")[:, 0], world.field(state, "qvel")[:, 0]
        return -9.81 * 0.5 * np.cos(angle) + 0.5 * inertia * speed**2

    start = energy(state)
    rest = np.full((2, 1), -0.25)
    np.testing.assert_allclose(world.control(rest), 0.0, atol=1e-15)
    for _ in range(200):
        state = world.step(state, rest).state
    assert (abs(world.field(state, "qvel")) > 0.1).any()
    np.testing.assert_allclose(energy(state), start, atol=1e-6)


def test_what_is_shown_is_the_state_and_tracked_fields_lag_a_substep() -> None:
    world = SwingUp(SWING.replace("RK4", "Euler"), frame_skip=1)
    before = world.place(qpos=np.array([[0.7]]))
    np.testing.assert_allclose(world.field(before, "site_xpos")[0, 0], [-np.sin(0.7), 0.0, -np.cos(0.7)])
    after = world.step(before, np.array([[0.9]])).state
    assert world.field(after, "qpos")[0, 0] != 0.7
    np.testing.assert_array_equal(world.field(after, "site_xpos"), world.field(before, "site_xpos"))
    angle = world.field(after, "qpos")[0, 0]
    np.testing.assert_allclose(world.data_of(after).site_xpos[0], [-np.sin(angle), 0.0, -np.cos(angle)])


def test_an_actuator_without_a_range_is_refused() -> None:
    with pytest.raises(ValueError, match="SwingUp: actuator 0 of the model has no ctrlrange"):
        SwingUp(SWING.replace(' ctrlrange="-3 5"', ""))
    with pytest.raises(ValueError, match="SwingUp: frame_skip=0; expected an integer of at least 1"):
        SwingUp(frame_skip=0)


def test_torch_runs_as_numpy_does() -> None:
    for world in (SwingUp(), HalfCheetah(), Hopper(), InvertedDoublePendulum(), Reacher(), Pusher(), Ant()):
        seeds = np.arange(3)
        keys = [CounterKey(seeds), CounterKey(torch.from_numpy(seeds))]
        states = [world.initial(key) for key in keys]
        actor = RandomActor(world.action_space)
        for _ in range(5):
            moves = [world.step(state, actor(state, None, key)) for state, key in zip(states, keys, strict=True)]
            assert isinstance(moves[1].reward, torch.Tensor)
            np.testing.assert_allclose(moves[1].reward.numpy(), moves[0].reward, rtol=0, atol=1e-9)
            np.testing.assert_array_equal(moves[1].terminated.numpy(), moves[0].terminated)
            states = [move.state for move in moves]
            shown = [world.observe(state) for state in states]
            np.testing.assert_allclose(shown[1].numpy(), shown[0], rtol=0, atol=1e-9)
            for name, values in moves[0].info.items():
                np.testing.assert_allclose(np.asarray(moves[1].info[name]), values, rtol=0, atol=1e-9)
            assert set(world.information(states[1])) == set(world.information(states[0]))


def test_starts_from_keys_are_distributed_as_gymnasiums() -> None:
    """Two-sample Kolmogorov-Smirnov distances of every coordinate, at the level of 1e-4 over all of them."""
    rows = 3000
    generators = [np.random.default_rng(seed) for seed in range(rows)]
    for world in (HalfCheetah(), Hopper(), Reacher(), Pusher()):
        ours = np.concatenate(world.start(KeyStarts(CounterKey(np.arange(rows)))), axis=1)
        theirs = np.concatenate(world.start(GeneratorStarts(generators)), axis=1)
        assert ours.shape == theirs.shape == (rows, world.model.nq + world.model.nv)
        varying = theirs.std(axis=0) > 0
        np.testing.assert_array_equal(ours.std(axis=0) > 0, varying)
        np.testing.assert_array_equal(ours[:, ~varying], theirs[:, ~varying])
        level = 1e-4 / varying.sum()
        bound = np.sqrt(-np.log(level / 2) / 2 * 2 / rows)
        for column in np.flatnonzero(varying):
            both = np.concatenate([ours[:, column], theirs[:, column]])
            shares = [np.searchsorted(np.sort(side[:, column]), both, side="right") / rows for side in (ours, theirs)]
            assert abs(shares[0] - shares[1]).max() < bound, (type(world).__name__, column)


def test_a_goal_starts_where_it_may() -> None:
    key = CounterKey(np.arange(2000))
    reach = Reacher().start(KeyStarts(key))[0][:, -2:]
    assert (np.linalg.norm(reach, axis=1) < 0.2).all()
    push = Pusher().start(KeyStarts(key))[0][:, -4:-2]
    assert (np.linalg.norm(push, axis=1) > 0.17).all()
    assert (push >= [-0.3, -0.2]).all()
    assert (push <= [0.0, 0.2]).all()


def test_gymnasiums_worlds_run_as_simulators() -> None:
    world = Hopper(horizon=40)
    episodes = run_episodes(world, RandomActor(world.action_space), np.arange(6), episodes=2)
    assert episodes.lengths.min() >= 3
    assert episodes.lengths.max() <= 40
    assert len(set(episodes.lengths.ravel().tolist())) > 3
    # Gymnasium's own env, placed where a row starts, sees and earns what the row does.
    single = gym.make("Hopper-v5").unwrapped
    single.reset(seed=0)
    state = world.initial(CounterKey([8, 9]))
    single.set_state(world.field(state, "qpos")[1], world.field(state, "qvel")[1])  # type: ignore[attr-defined]
    for step in range(10):
        action = np.sin(np.arange(6.0).reshape(2, 3) + step)
        transition = world.step(state, action)
        state = transition.state
        expected, reward, terminated, *_ = single.step(action[1])
        np.testing.assert_array_equal(world.observe(state)[1], expected)
        assert (transition.reward[1], transition.terminated[1]) == (reward, terminated)
    env = SimulatorVectorEnv("palaestra.envs.mujoco.runners:HalfCheetah", 2, frame_skip=1)
    assert env.single_observation_space == gym.make("HalfCheetah-v5").observation_space
    with pytest.raises(TypeError, match="HalfCheetah: unknown argument frameskip=1; expected some of"):
        HalfCheetah(frameskip=1)
