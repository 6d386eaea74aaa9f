"""Our worlds under stable-baselines3: singly, and through the adapter of the vector face."""

from __future__ import annotations

import builtins
import importlib
import sys
import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch

from palaestra.envs.registration import own_env_ids

sb3 = pytest.importorskip("stable_baselines3")
sb3_contrib = pytest.importorskip("sb3_contrib")
check_env = importlib.import_module("stable_baselines3.common.env_checker").check_env
BaseFeaturesExtractor = importlib.import_module("stable_baselines3.common.torch_layers").BaseFeaturesExtractor
VecMonitor = importlib.import_module("stable_baselines3.common.vec_env").VecMonitor
sb3_vec_env = importlib.import_module("palaestra.envs.sb3").sb3_vec_env

CONTINUOUS = ["palaestra/MultiGoal2D-v0", "palaestra/OneStoreBacklog-v0"]
TINY = {"n_steps": 16, "batch_size": 16, "n_epochs": 1, "device": "cpu", "seed": 0}


class FlatFeatures(BaseFeaturesExtractor):
    """All parts of a Dict side by side; SB3 would take grids of 7 x 7 cells for images, too small for its network."""

    def __init__(self, space):
        super().__init__(space, gym.spaces.flatdim(space))

    def forward(self, observations):
        return torch.cat([part.float().flatten(1) for part in observations.values()], 1)


def policy_for(env_id: str) -> str:
    return "MultiInputPolicy" if isinstance(gym.make(env_id).observation_space, gym.spaces.Dict) else "MlpPolicy"


def settings_for(env_id: str) -> dict:
    if "MultiInput" not in policy_for(env_id) or "image" not in gym.make(env_id).observation_space.spaces:
        return TINY
    return {**TINY, "policy_kwargs": {"features_extractor_class": FlatFeatures}}


@pytest.mark.parametrize("env_id", own_env_ids())
def test_single_face_passes_the_checker_and_trains(env_id):
    with warnings.catch_warnings():
        # That int tokens and infinite bounds are unusual is known.
        warnings.filterwarnings("ignore", message=".*Box.*", category=UserWarning)
        check_env(gym.make(env_id))
    model = sb3.PPO(policy_for(env_id), gym.make(env_id), **settings_for(env_id))
    model.learn(64)
    assert model.num_timesteps >= 64


@pytest.mark.parametrize("env_id", own_env_ids())
def test_vector_face_trains(env_id):
    face = gym.make_vec(env_id, 8)
    model = sb3.PPO(policy_for(env_id), VecMonitor(sb3_vec_env(face)), **settings_for(env_id))
    steps = 8 * 16
    model.learn(8 * steps)
    assert len(model.ep_info_buffer) > 0 or face.simulator.horizon > steps


@pytest.mark.parametrize("env_id", CONTINUOUS)
def test_off_policy_agents_train(env_id):
    for env in (gym.make(env_id), sb3_vec_env(gym.make_vec(env_id, 4))):
        sb3.SAC("MlpPolicy", env, learning_starts=16, batch_size=16, device="cpu", seed=0).learn(64)


def test_masked_ppo_finds_the_masks():
    env = sb3_vec_env(gym.make_vec("palaestra/TextCorridor-v0", 4))
    assert env.has_attr("action_masks")
    model = sb3_contrib.MaskablePPO(policy_for("palaestra/TextCorridor-v0"), env, **TINY)
    model.learn(64)
    env.reset()
    masks = np.stack(env.env_method("action_masks"))
    np.testing.assert_array_equal(masks, env.vector_env.action_masks())
    np.testing.assert_array_equal(env.env_method("action_masks", indices=[2])[0], masks[2])


def test_adapter_keeps_the_rules_of_a_vec_env():
    """Against the vector face stepped beside it: observations, terminal observations, time limits, seeds."""
    make = {"id": "palaestra/MultiGoal2D-v0", "num_envs": 6, "horizon": 12}
    adapter, face = sb3_vec_env(gym.make_vec(**make)), gym.make_vec(**make)
    assert adapter.seed(3) == list(range(3, 9))
    observation, _ = face.reset(seed=3)
    np.testing.assert_array_equal(adapter.reset(), observation)
    assert adapter.reset_infos[2]["goal"] == -1
    lines, experts = face.simulator.expert("nearest"), 0
    truncations = 0
    for _ in range(40):
        # Half of the rows walk to a goal, half stand still until the time is up.
        actions = lines(face._run.state, None, None).astype(np.float32)
        actions[::2] = 0.0
        observation, reward, terminated, truncated, info = face.step(actions)
        found, rewards, dones, infos = adapter.step(actions)
        np.testing.assert_array_equal(found, observation)
        np.testing.assert_array_equal(rewards, reward.astype(np.float32))
        np.testing.assert_array_equal(dones, terminated | truncated)
        for row in range(6):
            if not dones[row]:
                assert infos[row] == {}
                continue
            np.testing.assert_array_equal(infos[row]["terminal_observation"], info["final_obs"][row])
            assert infos[row]["TimeLimit.truncated"] == truncated[row]
            assert infos[row]["is_success"] == terminated[row]
            assert infos[row]["goal"] == info["final_info"]["goal"][row]
            experts += int(terminated[row])
            truncations += int(truncated[row])
    assert experts > 0
    assert truncations > 0
    # Seeds are used once: the next reset goes on with the following episode.
    np.testing.assert_array_equal(adapter.reset(), face.reset()[0])


def test_step_infos_on_request():
    env = sb3_vec_env(gym.make_vec("palaestra/OneStoreBacklog-v0", 2), step_infos=True)
    env.reset()
    *_, infos = env.step(np.zeros((2, 1), np.float32))
    assert infos[0]["holding"] + infos[0]["underage"] >= 0.0
    assert set(infos[0]) == set(infos[1])


def test_attributes_and_methods_of_rows():
    env = sb3_vec_env(gym.make_vec("palaestra/MultiGoal2D-v0", 3, render_mode="rgb_array"))
    env.reset()
    assert env.get_attr("render_mode") == ["rgb_array"] * 3
    assert env.env_is_wrapped(gym.Wrapper) == [False] * 3
    picture = env.render()
    assert picture is not None
    assert picture.shape[-1] == 3
    env.set_attr("tag", 5)
    assert env.get_attr("tag", indices=[0]) == [5]
    with pytest.raises(ValueError, match="expected all rows"):
        env.set_attr("tag", 5, indices=[0])
    with pytest.raises(AttributeError, match="'jump'"):
        env.env_method("jump")
    with pytest.raises(TypeError, match="expected a vector face"):
        sb3_vec_env(gym.make_vec("CartPole-v1", 2))
    env.set_options({"task": 1})
    with pytest.raises(ValueError, match="options"):
        env.reset()
    env.close()
    assert env.vector_env.closed


def test_missing_library_is_named_with_its_extra(monkeypatch):
    original = builtins.__import__

    def without_sb3(name, *args, **kwargs):
        if name.startswith("stable_baselines3"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_sb3)
    monkeypatch.delitem(sys.modules, "palaestra.envs.sb3")
    with pytest.raises(ImportError, match=r"palaestra\[sb3\]"):
        importlib.import_module("palaestra.envs.sb3")
