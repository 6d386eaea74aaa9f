"""The verbs that all agents share: predict, set_env, load, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import yaml

import palaestra
from palaestra.agents.actor_critic.sac import SAC
from palaestra.agents.actor_critic.td3 import TD3
from palaestra.agents.registry import agent_class, agent_ids, preset, register_agent
from palaestra.agents.training.config import field_help, make_config
from palaestra.agents.training.episodic import EpisodicAgent
from tests.agents import worlds  # noqa: F401

SMALL = {"hidden": (8,), "learning_starts": 5, "batch_size": 4, "buffer_size": 100}


def small_sac(env: Any = "Pendulum-v1", **config: Any) -> Any:
    return palaestra.make_agent("sac", env, preset_name=None, device="cpu", **{**SMALL, **config})


def test_one_observation_and_a_batch() -> None:
    agent = small_sac()
    batch = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    actions, state = agent.predict(batch, deterministic=True)
    assert actions.shape == (4, 1)
    assert state is None
    single, _ = agent.predict(batch[2], deterministic=True)
    np.testing.assert_allclose(single, actions[2], rtol=1e-5)
    assert agent.action_space.contains(single)


@pytest.mark.parametrize("observation", [np.zeros(4), np.zeros((2, 2, 3)), "left"])
def test_observations_of_wrong_shape_are_refused(observation: Any) -> None:
    with pytest.raises(ValueError, match=r"predict: observation of shape .*; expected \(3,\) or a batch"):
        small_sac().predict(observation)


def test_dict_observations_need_their_keys() -> None:
    agent = palaestra.make_agent("ppo", "TestIdentity-v0", env_kwargs={"observation": "dict"}, n_steps=8)
    with pytest.raises(ValueError, match=r"expected a dict with keys \['goal', 'noise'\]"):
        agent.predict({"goal": 1})


def test_set_env_continues_on_another_env() -> None:
    agent = small_sac().learn(20)
    agent.set_env(gym.make("Pendulum-v1", g=9.0))
    agent.learn(20, reset_num_timesteps=False)
    assert agent.num_timesteps == 40
    with pytest.raises(ValueError, match="set_env: observation space"):
        agent.set_env("MountainCarContinuous-v0")
    with pytest.raises(ValueError, match="set_env: num_envs=2; expected 1"):
        agent.set_env(palaestra.make_vec("Pendulum-v1", 2))


@pytest.mark.parametrize("make", [lambda: gym.make("Pendulum-v1"), lambda: palaestra.make_vec("Pendulum-v1", 2)])
def test_envs_may_be_given_as_objects(make: Any) -> None:
    agent = small_sac(make()).learn(20)
    assert agent.num_timesteps == 20
    assert agent.env_id == "Pendulum-v1"


def test_learning_on_adds_up_and_learning_anew_starts_over() -> None:
    agent = small_sac().learn(20)
    agent.learn(10, reset_num_timesteps=False)
    assert agent.num_timesteps == 30
    agent.learn(15)
    assert agent.num_timesteps == 15
    with pytest.raises(ValueError, match="total_timesteps=-1"):
        agent.learn(-1)
    with pytest.raises(ValueError, match="expected one to continue"):
        small_sac().learn(None)


def test_callbacks_may_be_functions_lists_or_wrong() -> None:
    seen: list[int] = []
    agent = small_sac().learn(100, [lambda agent: seen.append(agent.num_timesteps), lambda agent: len(seen) < 7])
    assert agent.num_timesteps == 7
    with pytest.raises(TypeError, match="expected a Callback, a function or a list"):
        agent.learn(1, callback=3)  # type: ignore[arg-type]


def test_loading_as_another_class_is_refused(tmp_path: Path) -> None:
    small_sac().save(tmp_path / "agent")
    assert isinstance(SAC.load(tmp_path / "agent"), SAC)
    with pytest.raises(TypeError, match="holds a SAC; expected a TD3"):
        TD3.load(tmp_path / "agent")


def test_an_attribute_that_cannot_be_saved_is_named(tmp_path: Path) -> None:
    agent = small_sac()
    agent.forgotten = object()
    with pytest.raises(TypeError, match="attribute 'forgotten' of type object"):
        agent.save(tmp_path / "agent")
    assert not (tmp_path / "agent").exists()


def test_frames_are_stacked() -> None:
    agent = small_sac(frame_stack=3).learn(20)
    assert agent.observation_space.shape == (9,)
    with pytest.raises(ValueError, match="frame_stack=3: expected 1 where env is an object"):
        small_sac(gym.make("Pendulum-v1"), frame_stack=3)


def test_minigrid_trains_with_its_mission_as_tokens() -> None:
    agent = palaestra.make_agent("ppo", "BabyAI-GoToObj-v0", n_steps=16, batch_size=16, n_epochs=1, num_envs=2).learn(
        32
    )
    assert agent.num_timesteps == 32
    assert set(agent.observation_space.spaces) == {"direction", "image", "mission"}


def test_an_id_belongs_to_one_class() -> None:
    with pytest.raises(ValueError, match=r"'sac' belongs to palaestra\.agents\.actor_critic\.sac\.SAC"):
        register_agent("sac")(TD3)


@pytest.mark.parametrize("agent_id", agent_ids())
def test_every_preset_is_a_valid_configuration_that_trains(agent_id: str) -> None:
    table = yaml.safe_load((Path(palaestra.agents.__path__[0]) / f"presets/{agent_id}.yaml").read_text())
    for env_id in table:
        config = make_config(agent_class(agent_id).config_class, preset(agent_id, env_id))
        least = {
            "learning_starts": 3,
            "buffer_size": 50,
            "n_epochs": 1,
            "behaviour_epochs": 1,
            "train_freq": 1,
            "gradient_steps": 1,
        }
        short = {name: value for name, value in least.items() if hasattr(config, name)}
        agent = palaestra.make_agent(agent_id, env_id, device="cpu", **short)
        # With n_steps 1, episodic agents play whole episodes before an update.
        agent.learn(config.num_envs * max(100 * isinstance(agent, EpisodicAgent), getattr(config, "n_steps", 5)))
        assert agent.num_updates > 0


@pytest.mark.parametrize("agent_id", agent_ids())
def test_every_setting_is_explained(agent_id: str) -> None:
    config_class = agent_class(agent_id).config_class
    assert field_help(config_class).keys() == config_class().to_dict().keys()
