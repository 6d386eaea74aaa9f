"""The laws that every agent keeps, on worlds with known answers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import palaestra
from palaestra.agents.registry import agent_class, agent_ids, make_agent
from palaestra.agents.training.tree import pack
from tests.agents import worlds

SMALL: dict[str, dict[str, Any]] = {
    "sac": {"hidden": (32, 32), "learning_starts": 50, "batch_size": 32, "buffer_size": 2_000},
    "td3": {"hidden": (32, 32), "learning_starts": 50, "batch_size": 32, "buffer_size": 2_000},
    "ppo": {
        "hidden": (32, 32),
        "n_steps": 40,
        "batch_size": 40,
        "n_epochs": 4,
        "normalize_observation": True,
        "normalize_reward": True,
    },
}
KINDS = [
    (agent_id, kind)
    for agent_id in agent_ids()
    for kind, space in worlds.SPACES.items()
    if isinstance(space, agent_class(agent_id).action_spaces)
]


def make(agent_id: str, env: str = "TestIdentity-v0", seed: int = 0, **options: Any):
    env_kwargs = options.pop("env_kwargs", {"kind": "Box"} if env in ("TestIdentity-v0", "TestChain-v0") else None)
    return make_agent(agent_id, env, seed=seed, device="cpu", env_kwargs=env_kwargs, **{**SMALL[agent_id], **options})


def fingerprint(agent: Any) -> dict[str, Any]:
    """Everything saved, replay included, as comparable bytes."""
    tree, tensors = pack(agent.state_dict())
    for name, stream in agent.streams().items():
        tensors |= {f"{name}/{k}": v for k, v in stream.read_rows(stream.rows_kept_from, stream.rows_written).items()}
    return {"tree": tree, **{name: tensor.numpy().tobytes() for name, tensor in tensors.items()}}


def assert_same(one: Any, other: Any) -> None:
    ours, theirs = fingerprint(one), fingerprint(other)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []


IDENTITY_BUDGET = {"sac": 3_000, "td3": 3_000, "ppo": 6_000}


@pytest.mark.parametrize(("agent_id", "kind"), KINDS)
def test_solves_the_identity_task(agent_id: str, kind: str) -> None:
    tuned = {"gamma": 0.0, "learning_rate": 3e-3, "normalize_reward": False, "normalize_observation": False}
    if agent_id != "ppo":
        tuned.pop("normalize_reward")
    agent = make(agent_id, env_kwargs={"kind": kind}, **tuned)
    agent.learn(IDENTITY_BUDGET[agent_id])
    rewards, observation = [], None
    env = worlds.Identity(kind)
    observation, _ = env.reset(seed=123)
    for _ in range(100):
        action, _ = agent.predict(observation, deterministic=True)
        observation, reward, _, _, _ = env.step(action)
        rewards.append(reward)
    assert np.mean(rewards) > (-0.1 if kind == "Box" else 0.95)


@pytest.mark.parametrize("agent_id", agent_ids())
def test_seeded_runs_are_equal_and_seeds_differ(agent_id: str) -> None:
    one, two, other = (make(agent_id, seed=seed).learn(120) for seed in (5, 5, 6))
    assert_same(one, two)
    assert fingerprint(one) != fingerprint(other)


@pytest.mark.parametrize("agent_id", agent_ids())
def test_global_generators_are_untouched(agent_id: str) -> None:
    before = torch.get_rng_state(), np.random.mtrand._rand.get_state()[1].copy()
    make(agent_id).learn(100)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.mtrand._rand.get_state()[1])


@pytest.mark.parametrize("agent_id", agent_ids())
def test_save_and_load_are_equal(agent_id: str, tmp_path: Path) -> None:
    agent = make(agent_id).learn(110)
    agent.save(tmp_path / "agent")
    loaded = palaestra.load(tmp_path / "agent", env="TestIdentity-v0")
    assert_same(agent, loaded)
    observation = np.linspace(-2, 2, 7, dtype=np.float32)[:, None]
    without_env = palaestra.load(tmp_path / "agent")
    for deterministic in (True, False):
        expected = agent.predict(observation, deterministic=deterministic)[0]
        np.testing.assert_array_equal(expected, without_env.predict(observation, deterministic=deterministic)[0])


RESUME = """
import sys, palaestra
from tests.agents import worlds
agent = palaestra.load(sys.argv[1], env=sys.argv[2])
agent.learn(None)
agent.save(sys.argv[3])
"""


@pytest.mark.parametrize("env", ["TestIdentity-v0", "palaestra/MultiGoal2D-v0"])
@pytest.mark.parametrize("agent_id", agent_ids())
def test_resume_in_a_new_process_is_exact(agent_id: str, env: str, tmp_path: Path) -> None:
    """2N steps = N + save + new process + load + N; N falls inside an episode and inside a rollout."""
    n, kwargs = 93, {"num_envs": 2}
    whole = make(agent_id, env, **kwargs).learn(2 * n)

    def stop(agent: Any) -> bool | None:
        return False if agent.num_timesteps >= n else None

    half = make(agent_id, env, **kwargs).learn(2 * n, stop)
    assert n <= half.num_timesteps < 2 * n
    half.save(tmp_path / "half")
    command = [sys.executable, "-c", RESUME, str(tmp_path / "half"), env, str(tmp_path / "whole")]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2], timeout=120)
    resumed = palaestra.load(tmp_path / "whole", env=env)
    assert_same(whole, resumed)


@pytest.mark.parametrize("agent_id", agent_ids())
def test_prediction_never_advances_training(agent_id: str) -> None:
    plain, watched = make(agent_id), make(agent_id)
    observation = np.zeros((3, 1), np.float32)

    def look(agent: Any) -> None:
        generator = torch.Generator().manual_seed(agent.num_timesteps)
        agent.predict(observation, deterministic=False, generator=generator)
        agent.predict(observation, deterministic=True)

    plain.learn(120)
    watched.learn(120, look)
    assert_same(plain, watched)


@pytest.mark.parametrize("agent_id", agent_ids())
def test_update_is_deterministic(agent_id: str) -> None:
    """From equal states, the same stretch of training gives equal states."""
    one = make(agent_id).learn(80)
    two = make(agent_id).learn(80)
    one.learn(80, reset_num_timesteps=False)
    two.learn(80, reset_num_timesteps=False)
    assert_same(one, two)


@pytest.mark.parametrize("ending", ["terminated", "truncated"])
@pytest.mark.parametrize("agent_id", agent_ids())
def test_termination_and_truncation_on_a_chain(agent_id: str, ending: str) -> None:
    """With gamma 1/2: values 1.75, 1.5, 1 where the round ends in a termination, and 2 everywhere where it is cut."""
    tuned: dict[str, Any] = {"gamma": 0.5, "learning_rate": 3e-3}
    if agent_id == "ppo":
        tuned |= {
            "normalize_observation": False,
            "normalize_reward": False,
            "n_steps": 30,
            "batch_size": 30,
            "gae_lambda": 0.5,
            "vf_coef": 1.0,
            "learning_rate_schedule": "linear",
        }
    else:
        tuned |= {"tau": 0.1}
    if agent_id == "sac":
        tuned |= {"ent_coef": 0.0}
    agent = make(agent_id, "TestChain-v0", env_kwargs={"ending": ending, "kind": "Box"}, **tuned)
    agent.learn(2_000)
    states = torch.eye(3)
    with torch.no_grad():
        values = (
            agent.network(states)[1] if agent_id == "ppo" else agent.critics(states, agent.act(states, None)).mean(0)
        )
    expected = [1.75, 1.5, 1.0] if ending == "terminated" else [2.0, 2.0, 2.0]
    np.testing.assert_allclose(values.numpy(), expected, atol=0.05)


@pytest.mark.parametrize("agent_id", agent_ids())
def test_a_loss_that_is_not_finite_stops_and_names_itself(agent_id: str) -> None:
    from palaestra.agents.training.metrics import NonFiniteError

    agent = make(agent_id)

    def poison(agent: Any) -> None:
        if agent.num_timesteps == 60:
            module = agent.network if agent_id == "ppo" else agent.critics
            next(module.parameters()).data[0] = torch.nan

    with pytest.raises(
        (NonFiniteError, ValueError), match=r"(loss|q_mean|entropy) was not finite at update \d+ \(env step \d+\)"
    ):
        agent.learn(400, poison)


def test_unfit_spaces_say_which_fit() -> None:
    with pytest.raises(TypeError, match=r"sac: action space Discrete.*expected Box.*Agents that fit this space: ppo"):
        make_agent("sac", "CartPole-v1")


def test_unknown_agent_suggests_a_near_one() -> None:
    with pytest.raises(ValueError, match="did you mean 'sac'"):
        make_agent("sacc", "Pendulum-v1")


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"learning_rat": 1e-3}, TypeError, "did you mean 'learning_rate'"),
        ({"learning_rate": "fast"}, TypeError, r"learning_rate='fast' is of type str; expected float"),
        ({"batch_size": 2.5}, TypeError, r"batch_size=2.5 is of type float; expected int"),
        ({"gamma": 1.5}, ValueError, r"gamma=1.5; expected a number in \[0, 1\]"),
        ({"hidden": (64, "x")}, TypeError, "hidden="),
        ({"normalize_observation": 1}, TypeError, "normalize_observation=1 is of type int; expected bool"),
    ],
)
def test_bad_configuration_is_refused(config: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make_agent("sac", "Pendulum-v1", **config)
