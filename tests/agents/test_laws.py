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
from palaestra.agents.nn.estimates import Estimate
from palaestra.agents.registry import agent_class, agent_ids, make_agent
from palaestra.agents.training.episodic import EpisodicAgent
from palaestra.agents.training.epsilon_greedy import EpsilonGreedyAgent
from palaestra.agents.training.on_policy import OnPolicyAgent
from palaestra.agents.training.tree import pack
from tests.agents import worlds

SMALL: dict[str, dict[str, Any]] = {
    "sac": {"hidden": (32, 32), "learning_starts": 50, "batch_size": 32, "buffer_size": 2_000},
    "td3": {"hidden": (32, 32), "learning_starts": 50, "batch_size": 32, "buffer_size": 2_000},
    **{
        agent_id: {"hidden": (32, 32), "learning_starts": 50, "batch_size": 32, "buffer_size": 2_000, "train_freq": 1}
        for agent_id in ("dsac", "dsac-t")
    },
    **{
        agent_id: {
            "hidden": (32, 32),
            "learning_starts": 50,
            "batch_size": 32,
            "buffer_size": 2_000,
            "train_freq": 1,
            "target_update_interval": 4,
        }
        for agent_id in ("dqn", "qr-dqn")
    },
    "ppo": {
        "hidden": (32, 32),
        "n_steps": 40,
        "batch_size": 40,
        "n_epochs": 4,
        "normalize_observation": True,
        "normalize_reward": True,
    },
    "pdppo": {
        "hidden": (32, 32),
        "n_steps": 40,
        "batch_size": 40,
        "n_epochs": 4,
        "critic_learning_rate": 3e-3,
        "normalize_observation": True,
    },
    "prorl": {"hidden": (32, 32), "num_envs": 4, "group_size": 2, "normalize_observation": True},
    "tscac": {
        "hidden": (32, 32),
        "learning_starts": 50,
        "batch_size": 32,
        "buffer_size": 4_000,
        "critic_learning_rate": 3e-3,
        "weight_decay": 0.0,
        "multipliers": (0.2,),
    },
    "trpo": {"hidden": (32, 32), "n_steps": 40, "batch_size": 40, "normalize_observation": True},
    "srl": {
        "hidden": (32, 32),
        "model_hidden": (32, 32),
        "sequence_length": 2,
        "learning_starts": 50,
        "batch_size": 32,
        "buffer_size": 2_000,
    },
    "hnpg": {
        "hidden": (32, 32),
        "critic_hidden": (32, 32),
        "baseline": "value",
        "normalize_observation": True,
        "n_steps": 20,
        "offline_steps": 200,
        "evaluation_iterations": 2,
        "averaged_iterations": 1,
        "critic_steps": 5,
    },
    "mdpo": {"hidden": (32, 32), "n_steps": 40, "batch_size": 40},
    "mdpo-off": {
        "hidden": (32, 32),
        "learning_starts": 50,
        "batch_size": 32,
        "buffer_size": 2_000,
        "old_policy_interval": 50,
    },
    "pmoe": {
        "hidden": (32, 32),
        "learning_starts": 50,
        "batch_size": 32,
        "buffer_size": 2_000,
        "standardise_reward": False,
        "reward_scale": 1.0,
    },
    "pmoe-ppo": {
        "hidden": (32, 32),
        "experts": 3,
        "n_steps": 40,
        "batch_size": 40,
        "n_epochs": 4,
        "normalize_observation": True,
        "normalize_reward": True,
    },
    "props": {
        "hidden": (32, 32),
        "n_steps": 40,
        "batch_size": 40,
        "n_epochs": 2,
        "behaviour_interval": 20,
        "behaviour_epochs": 2,
        "normalize_observation": True,
        "normalize_reward": True,
    },
    **{
        agent_id: {"hidden": (32, 32), "baseline": "value", "normalize_observation": True, "learning_rate": 1e-3}
        for agent_id in ("reinforce", "n-pg-igt", "harpg", "n-harpg")
    },
    **{
        agent_id: {"hidden": (8,), "baseline": "value", "normalize_observation": True, "fisher_samples": 2}
        for agent_id in ("bpg", "bac")
    },
    "ddpg": {"hidden": (32, 32), "learning_starts": 50, "batch_size": 32, "buffer_size": 2_000},
    **{
        agent_id: {
            "hidden": (32,),
            "critic_hidden": (32,),
            "learning_starts": 50,
            "batch_size": 32,
            "buffer_size": 2_000,
            "gradient_steps": 1,
            **own,
        }
        for agent_id, own in {
            "crossq": {},
            "simba-sac": {},
            "bro": {"num_quantiles": 8, "resets": (70, 105)},
            "fast-td3": {"num_envs": 1, "train_freq": 1, "return_min": -20.0, "return_max": 5.0, "weight_decay": 0.001},
        }.items()
    },
    **{
        agent_id: {
            "hidden": (32, 32),
            "learning_starts": 50,
            "batch_size": 32,
            "buffer_size": 2_000,
            "levels": 5,
            **own,
        }
        for agent_id, own in {
            "dacer": {
                "train_freq": 1,
                "reward_scale": 1.0,
                "entropy_interval": 25,
                "entropy_states": 8,
                "entropy_samples": 20,
            },
            "dipo": {"critic_learning_rate": 3e-3, "climbing_steps": 5},
            "qsm": {"critic_learning_rate": 3e-3, "score_scale": 0.25},
            "qvpo": {"critic_learning_rate": 3e-3, "own_actions": 8, "behaviour_actions": 2, "evaluation_actions": 8},
        }.items()
    },
    **{
        agent_id: {
            "hidden": (32, 32),
            "critic_hidden": (32, 32),
            "num_critics": 3,
            "levels": 3,
            "learning_starts": 50,
            "batch_size": 32,
            "buffer_size": 2_000,
            **own,
        }
        for agent_id, own in {
            "expo": {
                "base_hidden": (32, 32),
                "base_trunk": "mlp",
                "base_tau": 0.05,
                "num_samples": 2,
                "edit_scale": 0.5,
                "gradient_steps": 1,
                "policy_delay": 1,
            },
            "pa-rl": {
                "critic_learning_rate": 3e-3,
                "num_samples": 4,
                "kept_samples": 2,
                "climbing_steps": 2,
                "climbing_rate": 0.03,
                "return_min": -20.0,
                "return_max": 5.0,
                "num_atoms": 101,
            },
        }.items()
    },
    **{
        agent_id: {
            "hidden": (32, 32),
            "value_hidden": (32, 32),
            "num_envs": 1,
            "n_steps": 40,
            "batch_size": 40,
            "n_epochs": 4,
            "normalize_observation": True,
            "normalize_reward": True,
            **own,
        }
        for agent_id, own in {
            "fpo": {"flow_steps": 5},
            "policyflow": {"flow_steps": 5},
            "dppo": {
                "critic_learning_rate": 3e-3,
                "levels": 5,
                "learnt_steps": 3,
                "imitated_steps": 200,
                "imitation_updates": 100,
            },
        }.items()
    },
    "gorl": {
        "hidden": (32, 32),
        "n_steps": 40,
        "batch_size": 40,
        "n_epochs": 4,
        "normalize_observation": True,
        "normalize_reward": True,
        "stage_steps": 40,
        "collection_steps": 30,
        "decoder_hidden": (16,),
        "decoder_epochs": 2,
    },
    "hdpo": {"hidden": (8,), "num_paths": 2, "periods": 5, "warm_up": 0},
    "ts-ddr": {"hidden": (8,), "num_paths": 2},
}
KINDS = [
    (agent_id, kind)
    for agent_id in agent_ids()
    for kind, space in worlds.SPACES.items()
    if isinstance(space, agent_class(agent_id).action_spaces) and not agent_class(agent_id).simulators_only
]


def first_kind(agent_id: str) -> str:
    return next((kind for known, kind in KINDS if known == agent_id), "Box")


SIMULATED: dict[str, tuple[str, dict[str, Any], str]] = {
    "hdpo": ("palaestra/OneStoreBacklog-v0", {"lead_time": 1}, "palaestra/Serial-v0"),
    "ts-ddr": ("palaestra/Hydro1R-v0", {"horizon": 3}, "palaestra/HydroCascade11-v0"),
}
"""Of agents that train through simulators alone: a small world that they fit, its arguments, and a larger one."""


def home(agent_id: str) -> str:
    """The world that an agent is tested on: the identity task, or one that it fits."""
    return SIMULATED[agent_id][0] if agent_class(agent_id).simulators_only else "TestIdentity-v0"


def observations(agent_id: str, count: int) -> np.ndarray:
    """Observations of the identity task in the agent's first kind, or of its own world."""
    if first_kind(agent_id) == "Box":
        column = np.linspace(-2, 2, count, dtype=np.float32)[:, None]
        return column.repeat(3, axis=1) if agent_id == "ts-ddr" else column
    return np.arange(count) % 3 + 1


def make(agent_id: str, env: str | None = None, seed: int = 0, **options: Any):
    env = home(agent_id) if env is None else env
    kind: dict[str, Any] | None = {"kind": first_kind(agent_id)} if env in ("TestIdentity-v0", "TestChain-v0") else None
    if agent_class(agent_id).simulators_only and env == home(agent_id):
        kind = SIMULATED[agent_id][1]
    env_kwargs = options.pop("env_kwargs", kind)
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


def on_policy(agent_id: str) -> bool:
    return issubclass(agent_class(agent_id), OnPolicyAgent)


def value_based(agent_id: str) -> bool:
    return issubclass(agent_class(agent_id), EpsilonGreedyAgent)


def episodic(agent_id: str) -> bool:
    return issubclass(agent_class(agent_id), EpisodicAgent)


EPISODIC_IDENTITY = {"gamma": 0.5, "num_envs": 20, "value_learning_rate": 3e-3}
"""With gamma 0 only the first step of an episode would be learnt from: later ones weigh gamma^h."""
IDENTITY: dict[str, tuple[int, dict[str, Any]]] = {
    "sac": (3_000, {}),
    "td3": (3_000, {}),
    "dsac": (3_000, {}),
    "dsac-t": (3_000, {}),
    "ddpg": (3_000, {}),
    "crossq": (3_000, {}),
    "simba-sac": (3_000, {}),
    "bro": (3_000, {"resets": ()}),
    "fast-td3": (3_000, {}),
    "dacer": (3_000, {}),
    "expo": (3_000, {}),
    "pa-rl": (3_000, {}),
    "dipo": (3_000, {}),
    "qsm": (3_000, {}),
    "qvpo": (3_000, {}),
    "dqn": (2_000, {}),
    "qr-dqn": (2_000, {"num_quantiles": 20}),
    "ppo": (6_000, {"normalize_reward": False}),
    "fpo": (6_000, {"normalize_reward": False, "learning_rate": 1e-3}),
    "policyflow": (6_000, {"normalize_reward": False}),
    "dppo": (6_000, {"normalize_reward": False}),
    "gorl": (6_000, {"normalize_reward": False, "stage_steps": 3_000, "stages": 2}),
    "pdppo": (6_000, {}),
    "prorl": (20_000, {**EPISODIC_IDENTITY, "learning_rate": 0.01}),
    "tscac": (4_000, {"multipliers": (0.3,), "weight_cap": 1e4}),
    "trpo": (6_000, {}),
    "srl": (3_000, {}),
    "hnpg": (
        10_000,
        {
            **EPISODIC_IDENTITY,
            "learning_rate": 3e-3,
            "target_kl": 0.05,
            "offline_steps": 1_000,
            "evaluation_iterations": 5,
            "averaged_iterations": 2,
            "critic_steps": 30,
        },
    ),
    "mdpo": (6_000, {"normalize_reward": False}),
    "mdpo-off": (3_000, {}),
    "pmoe": (3_000, {}),
    "pmoe-ppo": (6_000, {"normalize_reward": False}),
    "props": (6_000, {"normalize_reward": False}),
    "reinforce": (20_000, {**EPISODIC_IDENTITY, "learning_rate": 0.02}),
    "n-pg-igt": (40_000, {**EPISODIC_IDENTITY, "learning_rate": 0.5}),
    "harpg": (40_000, {**EPISODIC_IDENTITY, "learning_rate": 0.03, "step_decay": 0.0}),
    "bpg": (20_000, {**EPISODIC_IDENTITY, "learning_rate": 0.2, "noise_variance": 100.0}),
    "bac": (20_000, {**EPISODIC_IDENTITY, "learning_rate": 0.03}),
    "n-harpg": (40_000, {**EPISODIC_IDENTITY, "learning_rate": 0.3, "step_decay": 0.8}),
}
"""Steps of the identity task, and what is set apart from the small configuration."""


@pytest.mark.parametrize(("agent_id", "kind"), KINDS)
def test_solves_the_identity_task(agent_id: str, kind: str) -> None:
    budget, own = IDENTITY[agent_id]
    tuned = {"gamma": 0.0, "learning_rate": 3e-3, "normalize_observation": False, **own}
    agent = make(agent_id, env_kwargs={"kind": kind}, **tuned)
    agent.learn(budget)
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
    loaded = palaestra.load(tmp_path / "agent", env=home(agent_id))
    assert_same(agent, loaded)
    observation = observations(agent_id, 7)
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


@pytest.mark.parametrize("env", ["TestIdentity-v0", "own"])
@pytest.mark.parametrize("agent_id", agent_ids())
def test_resume_in_a_new_process_is_exact(agent_id: str, env: str, tmp_path: Path) -> None:
    """2N steps = N + save + new process + load + N; N falls inside an episode and inside a rollout."""
    n, kwargs = 93, {"num_envs": 2}
    if agent_class(agent_id).simulators_only:
        env = SIMULATED[agent_id][2] if env == "own" else home(agent_id)
    elif env == "own":
        env = {"Box": "palaestra/MultiGoal2D-v0", "Discrete": "palaestra/Kuhn-v0"}[first_kind(agent_id)]
        if agent_id == "pdppo":
            env = "palaestra/Newsvendor-v0"  # It shows its post-decision states.
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
    observation = observations(agent_id, 3)

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


def with_values() -> list[str]:
    """Agents that learn values; ProRL learns a policy alone."""
    return [known for known in agent_ids() if not agent_class(known).simulators_only and known != "prorl"]


@pytest.mark.parametrize("ending", ["terminated", "truncated"])
@pytest.mark.parametrize("agent_id", with_values())
def test_termination_and_truncation_on_a_chain(agent_id: str, ending: str) -> None:
    """With gamma 1/2: values 1.75, 1.5, 1 where the round ends in a termination, and 2 everywhere where it is cut."""
    tuned: dict[str, Any] = {"gamma": 0.5, "learning_rate": 3e-3}
    if on_policy(agent_id):
        tuned |= {
            "normalize_observation": False,
            "normalize_reward": False,
            "n_steps": 30,
            "gae_lambda": 0.5,
            "learning_rate_schedule": "linear",
        }
    if agent_id == "pdppo":
        # With the loss of the minimum the higher critic is never corrected.
        tuned |= {"batch_size": 30, "critics": "separate", "standardise_returns": False, "weight_decay": 0.0}
    elif agent_id in ("ppo", "props", "pmoe-ppo", "fpo", "policyflow", "dppo", "gorl"):
        tuned |= {"batch_size": 30, "n_epochs": 4, "vf_coef": 1.0}
    elif episodic(agent_id):
        tuned |= {"value_learning_rate": 3e-3}
    elif not on_policy(agent_id):
        tuned |= {"tau": 0.1, "normalize_observation": False}
    if agent_id in ("sac", "dsac", "dsac-t", "mdpo-off", "pmoe", "crossq", "simba-sac", "bro", "srl"):
        tuned |= {"ent_coef": 0.0}
    agent = make(agent_id, "TestChain-v0", env_kwargs={"ending": ending, "kind": first_kind(agent_id)}, **tuned)
    agent.learn(2_000)
    states = torch.eye(3)
    with torch.no_grad():
        if on_policy(agent_id) or agent_id == "tscac":
            values = agent.network(states)[1]
        elif value_based(agent_id):
            values = agent.values(states).amax(-1)
        else:
            said = agent.critics(states, agent.act(states, None))
            values = (said.mean() if isinstance(said, Estimate) else said).mean(0)
    expected = [1.75, 1.5, 1.0] if ending == "terminated" else [2.0, 2.0, 2.0]
    np.testing.assert_allclose(values.numpy(), expected, atol=0.05)


@pytest.mark.parametrize("agent_id", agent_ids())
def test_a_loss_that_is_not_finite_stops_and_names_itself(agent_id: str) -> None:
    from palaestra.agents.training.metrics import NonFiniteError

    agent = make(agent_id)

    def poison(agent: Any) -> None:
        if agent.num_timesteps == 60:
            name = "behaviour" if on_policy(agent_id) else "network" if value_based(agent_id) else "critics"
            name = "policy" if agent_class(agent_id).simulators_only else "network" if agent_id == "tscac" else name
            module = getattr(agent, name)
            next(module.parameters()).data[0] = torch.nan

    with pytest.raises(
        (NonFiniteError, ValueError), match=r"(loss|q_mean|entropy) was not finite at update \d+ \(env step \d+\)"
    ):
        agent.learn(400, poison)


def test_unfit_spaces_say_which_fit() -> None:
    with pytest.raises(TypeError, match=r"sac: action space Discrete.*expected Box.*Agents that fit this space: .*ppo"):
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
