"""Rows of the pool are Gymnasium's own envs: starts, steps, ends, resets, infos and whole futures of snapshots."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

pytest.importorskip("mujoco")

from palaestra.envs.mujoco.pool import PoolVectorEnv, why_not_pool
from palaestra.wrappers.env_state import restore_env, snapshot_env, why_not_resumable
from palaestra.wrappers.replay_recorder import tree_sha256

LIMITS = {
    "HalfCheetah-v5": 60,
    "Hopper-v5": None,
    "Walker2d-v5": None,
    "Swimmer-v5": 60,
    "Ant-v5": 60,
    "Humanoid-v5": 40,
    "InvertedPendulum-v5": None,
    "InvertedDoublePendulum-v5": None,
    "Reacher-v5": None,
    "Pusher-v5": None,
}
"""All ids, and a shorter time limit for those whose random episodes last 1000 steps or cost much."""
SEEDS = [3, 0, 10**12]


def pool(env_id: str, num_envs: int = 3, **arguments: Any) -> PoolVectorEnv:
    return PoolVectorEnv(gym.spec(env_id), num_envs, **arguments)


def random_actions(env: Any, steps: int, reach: float = 1.2, seed: int = 0) -> np.ndarray:
    """Actions that leave the bounds now and then, in the precision that agents use."""
    share = np.random.default_rng(seed).uniform(-reach, reach, (steps, *env.action_space.shape))
    return (share * env.single_action_space.high).astype(np.float32)


def assert_rows_are_single_envs(env: PoolVectorEnv, singles: list[gym.Env[Any, Any]], actions: np.ndarray) -> int:
    """Step both with the same actions; return the number of episodes that ended."""
    observation, info = env.reset(seed=SEEDS)
    for row, single in enumerate(singles):
        expected, expected_info = single.reset(seed=SEEDS[row])
        np.testing.assert_array_equal(observation[row], expected)
        assert_info(info, row, expected_info)
    ended = 0
    for action in actions:
        observation, reward, terminated, truncated, info = env.step(action)
        assert (reward.dtype, terminated.dtype, truncated.dtype) == (np.float64, bool, bool)
        for row, single in enumerate(singles):
            expected, one_reward, one_terminated, one_truncated, expected_info = single.step(action[row])
            assert (terminated[row], truncated[row]) == (one_terminated, one_truncated)
            np.testing.assert_allclose(reward[row], one_reward, rtol=0, atol=1e-10)
            if one_terminated or one_truncated:
                ended += 1
                np.testing.assert_array_equal(info["final_obs"][row], expected)
                assert_info(info["final_info"], row, expected_info)
                assert info["_final_obs"][row]
                assert info["_final_info"][row]
                expected, expected_info = single.reset()
                assert_info(info, row, expected_info, exactly=False)
            else:
                assert not info.get("_final_obs", np.zeros(env.num_envs, bool))[row]
                assert_info(info, row, expected_info)
            np.testing.assert_array_equal(observation[row], expected)
    return ended


def assert_info(info: dict[str, Any], row: int, expected: dict[str, Any], exactly: bool = True) -> None:
    if exactly:
        assert {name for name in info if "final" not in name} == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(info[name][row], value, rtol=0, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("env_id", LIMITS)
def test_rows_equal_the_single_env_over_whole_episodes(env_id: str) -> None:
    limit = {} if LIMITS[env_id] is None else {"max_episode_steps": LIMITS[env_id]}
    env, singles = pool(env_id, threads=2, **limit), [gym.make(env_id, **limit) for _ in SEEDS]
    assert env.single_observation_space == singles[0].observation_space
    assert env.single_action_space == singles[0].action_space
    assert env.metadata["render_fps"] == singles[0].metadata["render_fps"]
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    steps = {"Ant-v5": 130, "Humanoid-v5": 90, "Pusher-v5": 105}.get(env_id, 150)
    ended = assert_rows_are_single_envs(env, singles, random_actions(env, steps))
    assert ended >= 3


def test_a_whole_episode_of_a_thousand_steps_ends_with_that_of_the_single_env() -> None:
    env, single = pool("HalfCheetah-v5", 2), gym.make("HalfCheetah-v5")
    actions = random_actions(env, 1000)
    env.reset(seed=[5, 6])
    single.reset(seed=6)
    for action in actions:
        observation, _, terminated, truncated, info = env.step(action)
        expected, *_, one_truncated, _ = single.step(action[1])
    assert one_truncated
    assert truncated.all()
    assert not terminated.any()
    np.testing.assert_array_equal(info["final_obs"][1], expected)
    np.testing.assert_array_equal(observation[1], single.reset()[0])


XML = (Path(gym.__file__).parent / "envs/mujoco/assets/half_cheetah.xml").read_text()


@pytest.mark.parametrize(
    ("env_id", "arguments"),
    [
        ("HalfCheetah-v5", {"frame_skip": 2, "forward_reward_weight": 3.0, "ctrl_cost_weight": 0.7}),
        ("HalfCheetah-v5", {"exclude_current_positions_from_observation": False, "reset_noise_scale": 0.3}),
        ("HalfCheetah-v5", {"width": 100, "height": 50, "camera_id": 0}),
        (
            "Hopper-v5",
            {"terminate_when_unhealthy": False, "healthy_reward": 2.5, "healthy_state_range": (-1.0, 1.0)},
        ),
        ("Walker2d-v5", {"healthy_z_range": (1.2, 1.3), "healthy_angle_range": (-0.5, 0.1)}),
        ("Swimmer-v5", {"exclude_current_positions_from_observation": False, "ctrl_cost_weight": 0.1}),
        (
            "Ant-v5",
            {
                "include_cfrc_ext_in_observation": False,
                "main_body": "front_left_leg",
                "contact_cost_weight": 0.1,
                "contact_force_range": (-0.3, 0.5),
            },
        ),
        ("Ant-v5", {"exclude_current_positions_from_observation": False, "healthy_z_range": (0.5, 0.8)}),
        (
            "Humanoid-v5",
            {"include_cinert_in_observation": False, "include_cvel_in_observation": False, "contact_cost_weight": 1.0},
        ),
        (
            "Humanoid-v5",
            {"include_qfrc_actuator_in_observation": False, "include_cfrc_ext_in_observation": False},
        ),
        ("InvertedDoublePendulum-v5", {"healthy_reward": 3.0, "reset_noise_scale": 0.01}),
        ("Reacher-v5", {"reward_dist_weight": 2.0, "reward_control_weight": 0.1, "max_episode_steps": 7}),
        ("Pusher-v5", {"reward_near_weight": 0.1, "reward_dist_weight": 2.0, "reward_control_weight": 0.3}),
    ],
)
def test_arguments_are_those_of_the_env(env_id: str, arguments: dict[str, Any]) -> None:
    env, singles = pool(env_id, **arguments), [gym.make(env_id, **arguments) for _ in SEEDS]
    assert env.single_observation_space == singles[0].observation_space
    assert_rows_are_single_envs(env, singles, random_actions(env, 25))


def test_a_model_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "heavy.xml"
    path.write_text(XML.replace('settotalmass="14"', 'settotalmass="30"'))
    env = pool("HalfCheetah-v5", xml_file=str(path))
    assert_rows_are_single_envs(
        env, [gym.make("HalfCheetah-v5", xml_file=str(path)) for _ in SEEDS], random_actions(env, 25)
    )
    assert env.world.model.body_mass.sum() == pytest.approx(30.0)


def test_actions_of_double_precision_are_priced_in_it() -> None:
    env, singles = pool("HalfCheetah-v5"), [gym.make("HalfCheetah-v5") for _ in SEEDS]
    assert_rows_are_single_envs(env, singles, random_actions(env, 5).astype(np.float64) + 1e-9)


def everything(env: PoolVectorEnv, actions: np.ndarray) -> list[str]:
    return [tree_sha256(env.step(action)) for action in actions]


@pytest.mark.parametrize("env_id", ["HalfCheetah-v5", "Ant-v5", "InvertedDoublePendulum-v5", "Reacher-v5"])
def test_the_number_of_threads_changes_no_bit(env_id: str) -> None:
    found = []
    for threads in (1, 2, 3):
        env = pool(env_id, 5, threads=threads)
        env.reset(seed=1)
        found.append(everything(env, random_actions(env, 60 if env_id != "Ant-v5" else 15)))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("env_id", ["Hopper-v5", "Humanoid-v5", "InvertedDoublePendulum-v5", "Pusher-v5"])
def test_a_snapshot_continues_bit_for_bit(env_id: str) -> None:
    steps = 20 if env_id == "Humanoid-v5" else 110
    env, other = pool(env_id), pool(env_id)
    assert why_not_resumable(env) is None
    actions = random_actions(env, 2 * steps)
    env.reset(seed=SEEDS)
    everything(env, actions[:steps])
    saved = snapshot_env(env)
    digest = tree_sha256(saved)
    expected = everything(env, actions[steps:])
    assert tree_sha256(saved) == digest, "later steps change what was saved"
    for again in (other, other, env, pickle.loads(pickle.dumps(other))):
        restore_env(again, saved)
        assert everything(again, actions[steps:]) == expected


def test_restoring_shows_the_saved_moment_and_other_branches_draw_other_noise() -> None:
    env = pool("Hopper-v5")
    env.reset(seed=SEEDS)
    actions = random_actions(env, 80)
    observation = None
    for action in actions[:9]:
        observation, *_, info = env.step(action)
    saved = env.snapshot()
    futures = []
    for branch in (0, 0, 1, 1, 2):
        shown, shown_info = env.restore(saved, branch)
        np.testing.assert_array_equal(shown, observation)
        np.testing.assert_array_equal(shown_info["x_position"], info["x_position"])
        futures.append([env.step(action)[0] for action in actions[9:]])
    np.testing.assert_array_equal(futures[0], futures[1])
    np.testing.assert_array_equal(futures[2], futures[3])
    # Only resets draw noise: the present episodes go on as they were, the next ones start elsewhere.
    np.testing.assert_array_equal(futures[0][0], futures[2][0])
    assert not np.array_equal(futures[0][-1], futures[2][-1])
    assert not np.array_equal(futures[2][-1], futures[4][-1])


def test_resets_without_seeds_go_on_with_each_rows_noise() -> None:
    env, singles = pool("Swimmer-v5"), [gym.make("Swimmer-v5") for _ in SEEDS]
    env.reset(seed=SEEDS)
    for single, seed in zip(singles, SEEDS, strict=True):
        single.reset(seed=seed)
    np.testing.assert_array_equal(env.reset()[0], [single.reset()[0] for single in singles])
    observation, _ = env.reset(seed=[None, 8, None])
    np.testing.assert_array_equal(observation[1], singles[1].reset(seed=8)[0])
    np.testing.assert_array_equal(observation[0], singles[0].reset()[0])
    np.testing.assert_array_equal(
        env.reset(seed=4)[0], [single.reset(seed=4 + i)[0] for i, single in enumerate(singles)]
    )
    first, second = pool("Swimmer-v5").reset()[0], pool("Swimmer-v5").reset()[0]
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("env_id", ["Hopper-v5", "InvertedPendulum-v5"])
def test_observations_and_infos_may_be_kept_and_changed(env_id: str) -> None:
    def rewards(spoil: bool) -> list[float]:
        env = pool(env_id)
        env.reset(seed=0)
        found = []
        for action in random_actions(env, 40):
            observation, reward, *_, info = env.step(action)
            if spoil:
                observation[...] = 1.0
                action[...] = 0.0
                for value in info.values():
                    if isinstance(value, np.ndarray):
                        value[...] = 0
            found += reward.tolist()
        return found

    assert rewards(True) == rewards(False)


def test_bad_actions_and_calls_out_of_order_change_nothing() -> None:
    env = pool("HalfCheetah-v5")
    for call in (lambda: env.step(np.zeros((3, 6))), env.snapshot, env.render):
        with pytest.raises(gym.error.ResetNeeded, match="before reset"):
            call()
    env.reset(seed=0)
    before = tree_sha256(env.snapshot())
    wrong = np.zeros((3, 6))
    wrong[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"action of row 1 is .*nan.*; expected finite numbers"):
        env.step(wrong)
    wrong[1, 2] = -np.inf
    with pytest.raises(ValueError, match="action of row 1"):
        env.step(wrong)
    with pytest.raises(ValueError, match=r"action of shape \(3, 5\); expected \(3, 6\)"):
        env.step(np.zeros((3, 5)))
    with pytest.raises(TypeError, match="expected real numbers"):
        env.step(np.full((3, 6), "a"))
    with pytest.raises(ValueError, match=r"options=.*; expected None"):
        env.reset(options={"x": 1})
    with pytest.raises(ValueError, match="expected 3 seeds"):
        env.reset(seed=[1, 2])
    assert tree_sha256(env.snapshot()) == before


def test_a_step_whose_resets_fail_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    env = pool("InvertedPendulum-v5")
    env.reset(seed=0)
    failed = 0
    for action in random_actions(env, 40):
        before = tree_sha256(env.snapshot())

        def fails(**fields: Any) -> None:
            raise RuntimeError("no memory")

        with monkeypatch.context() as patched:
            patched.setattr(env.world, "place", fails)
            try:
                env.step(action)
            except RuntimeError:
                failed += 1
                assert tree_sha256(env.snapshot()) == before
                patched.undo()
                env.step(action)
    assert failed >= 3


def test_snapshots_of_others_are_refused() -> None:
    env = pool("HalfCheetah-v5")
    env.reset(seed=0)
    saved = env.snapshot()
    with pytest.raises(ValueError, match="snapshot of world 'HalfCheetah-v5'; expected one of 'Hopper-v5'"):
        pool("Hopper-v5").restore(saved)
    with pytest.raises(ValueError, match="state of shapes"):
        pool("HalfCheetah-v5", 2).restore(saved)
    with pytest.raises(ValueError, match="branch=-1"):
        env.restore(saved, -1)


def test_what_the_pool_cannot_step_says_why() -> None:
    for arguments, reason in (
        ({"reward_threshold": 1}, "does not know reward_threshold"),
        ({"max_episode_steps": -1}, "max_episode_steps=-1"),
    ):
        assert reason in (why_not_pool(gym.spec("HalfCheetah-v5"), arguments) or "")
        with pytest.raises(ValueError, match=reason):
            pool("HalfCheetah-v5", **arguments)
    assert "none of Gymnasium's MuJoCo worlds" in (why_not_pool(gym.spec("CartPole-v1"), {}) or "")
    assert "none of Gymnasium's MuJoCo worlds" in (why_not_pool(gym.spec("HalfCheetah-v4"), {}) or "")
    with pytest.raises(ValueError, match="num_envs=0"):
        pool("HalfCheetah-v5", 0)
    with pytest.raises(ValueError, match="render_mode='ansi'"):
        pool("HalfCheetah-v5", render_mode="ansi")


PICTURES = """
import gymnasium as gym, numpy as np
from palaestra.envs.mujoco.pool import PoolVectorEnv
arguments = {"render_mode": "rgb_array", "width": 64, "height": 48}
env, single = PoolVectorEnv(gym.spec("HalfCheetah-v5"), 2, **arguments), gym.make("HalfCheetah-v5", **arguments)
env.reset(seed=[2, 1])
single.reset(seed=2)
expected = single.render()
print("drawn")
frames = env.render()
assert [frame.shape for frame in frames] == [(48, 64, 3)] * 2
assert np.array_equal(frames[0], expected)
assert not np.array_equal(frames[0], frames[1])
env.close()
print("equal")
"""


def test_pictures_are_gymnasiums() -> None:
    environment = {**os.environ, "MUJOCO_GL": os.environ.get("MUJOCO_GL", "egl")}
    child = subprocess.run([sys.executable, "-c", PICTURES], capture_output=True, text=True, env=environment)
    if "drawn" not in child.stdout:
        pytest.skip(f"nothing to draw with: {child.stderr[-200:]}")
    assert "equal" in child.stdout, child.stderr


def test_without_a_render_mode_nothing_is_drawn() -> None:
    env = pool("HalfCheetah-v5")
    env.reset()
    with pytest.raises(ValueError, match="render_mode=None"):
        env.render()
