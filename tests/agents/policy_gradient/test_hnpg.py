"""HNPG: what its critic is fitted to, what its step follows, and what is left without one of its sources."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from palaestra.agents.memory.replay import Batch
from palaestra.agents.nn.distributions import Categorical
from palaestra.agents.policy_gradient.hnpg import HNPG
from palaestra.agents.registry import make_agent
from palaestra.agents.training.episodic import Trajectories

LOCK = "palaestra/CombinationLock-v0"
SMALL: dict[str, Any] = {"hidden": (8,), "critic_hidden": (16,), "device": "cpu", "preset_name": None, "n_steps": 20}


def make(env: str = LOCK, **config: Any) -> HNPG:
    agent = make_agent("hnpg", env, **{**SMALL, **config})
    assert isinstance(agent, HNPG)
    return agent


def one_pair(agent: HNPG, returned: float, rows: int = 8) -> Trajectories:
    """Fresh trajectories of one step, all of the same state and action."""
    steps = {
        "observation": torch.ones(rows, 16),
        "action": torch.full((rows, 10), 0.5),
        "target": torch.full((rows,), returned),
    }
    ones = torch.ones(rows)
    return Trajectories(steps, ones, ones, torch.arange(rows), rows)


def offline_rows(reward: float, rows: int = 8) -> dict[str, Tensor]:
    """The same state and action offline, followed by an end."""
    ends = torch.ones(rows, dtype=torch.bool)
    return {
        "observation": torch.ones(rows, 16),
        "action": torch.full((rows, 10), 0.5),
        "reward": torch.full((rows,), reward),
        "next_observation": torch.zeros(rows, 16),
        "terminated": ends,
        "truncated": ~ends,
    }


@pytest.mark.parametrize("weight", [0.5, 1.0, 3.0])
def test_one_pair_with_return_one_and_target_zero_is_worth_the_share_of_the_returns(weight: float) -> None:
    """f = lambda / (1 + lambda)."""
    agent = make(offline_steps=8, on_policy_weight=weight, learning_rate=0.01, critic_steps=200)
    agent.offline.add(offline_rows(0.0))
    critics, losses = agent.evaluate_policy(one_pair(agent, 1.0))
    value = float(critics[-1](torch.ones(1, 16), torch.full((1, 10), 0.5)))
    assert value == pytest.approx(weight / (1.0 + weight), abs=1e-3)
    assert float(losses["train/offline_loss"]) == pytest.approx(value**2, abs=1e-3)


def test_without_weight_on_returns_it_is_offline_policy_evaluation() -> None:
    agent = make(offline_steps=8, on_policy_weight=0.0, learning_rate=0.01, critic_steps=200)
    agent.offline.add(offline_rows(0.25))
    critics, _ = agent.evaluate_policy(one_pair(agent, 1.0))
    assert float(critics[-1](torch.ones(1, 16), torch.full((1, 10), 0.5))) == pytest.approx(0.25, abs=1e-3)


def test_without_offline_data_it_is_on_policy() -> None:
    agent = make(learning_rate=0.01, critic_steps=200)
    critics, losses = agent.evaluate_policy(one_pair(agent, 0.7))
    assert float(critics[-1](torch.ones(1, 16), torch.full((1, 10), 0.5))) == pytest.approx(0.7, abs=1e-3)
    assert set(losses) == {"train/on_policy_loss"}


def test_targets_of_offline_rows_bootstrap_by_the_policy_but_not_past_an_end() -> None:
    agent = make("CartPole-v1", offline_steps=6, gamma=0.5)
    following = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    rows = {
        "observation": torch.zeros(6, 4),
        "action": torch.tensor([0, 1] * 3),
        "reward": torch.arange(6.0),
        "next_observation": following,
        "terminated": torch.tensor([True, False] * 3),
        "truncated": torch.tensor([False, True] * 3),
    }
    batch = Batch(**rows)
    agent.offline.sample = lambda *_: batch  # type: ignore[method-assign]
    _, features, target = agent._offline_targets(6)
    policy = agent._policy(following, None)
    assert isinstance(policy, Categorical)
    values = torch.stack([agent.critic(following, torch.eye(2)[[action] * 6])[0] for action in (0, 1)], -1)
    expected = torch.arange(6.0) + 0.5 * (policy.probs * values).sum(-1) * torch.tensor([0.0, 1.0] * 3)
    torch.testing.assert_close(target, expected.detach())
    assert torch.equal(features, torch.eye(2)[[0, 1] * 3])


def test_value_of_a_policy_is_exact_for_discrete_actions_and_an_average_for_others() -> None:
    agent = make(action_samples=4000)
    observation = torch.zeros(1, 16)
    policy = agent._policy(observation, None)
    few = agent.mean_value([agent.critic], policy, observation)
    actions = policy.mean + policy.log_std.exp() * torch.randn(  # type: ignore[attr-defined]
        20_000, 10, generator=torch.Generator().manual_seed(1)
    )
    many = agent.critic(observation.expand(20_000, 16), actions.clamp(-1.0, 1.0)).mean()
    assert float(few) == pytest.approx(float(many.detach()), abs=0.02)


def test_critic_is_the_average_of_its_last_iterates() -> None:
    agent = make(evaluation_iterations=4, averaged_iterations=3)
    critics, _ = agent.evaluate_policy(one_pair(agent, 1.0))
    assert len(critics) == 3
    seen, pressed = torch.ones(2, 16), torch.full((2, 10), 0.5)
    source = agent._source(critics, 1.0, seen, None, pressed)
    policy = agent._policy(seen, None)
    agent.generator.manual_seed(5)
    value = agent.mean_value(critics, policy, seen)
    agent.generator.manual_seed(5)
    again = agent._source(critics, 1.0, seen, None, pressed)
    mean = torch.stack([critic(seen, pressed)[0] for critic in critics]).mean(0)
    torch.testing.assert_close(again.advantage, mean - value)
    assert source.weight == 1.0


def test_offline_data_are_made_once_and_by_the_policy_named() -> None:
    agent = make(offline_steps=500, offline_policy="optimal", num_envs=5)
    agent.learn(50)
    assert len(agent.offline) == 500
    rows = agent.offline.read_rows(0, 500)
    assert float(rows["reward"].sum()) > 95.0
    agent.learn(50, reset_num_timesteps=False)
    assert torch.equal(agent.offline.read_rows(0, 500)["observation"], rows["observation"])
    assert agent.num_updates > 0


def test_data_without_an_env_to_make_them_in_must_be_given() -> None:
    from palaestra.wrappers.vectorize import make_single

    env = make_single("CartPole-v1")
    env.unwrapped.spec = None
    env = env.unwrapped
    with pytest.raises(ValueError, match=r"offline_steps=10 on an env without an id; expected 0, or agent\.offline"):
        make_agent("hnpg", env, **SMALL, offline_steps=10).learn(10)


def test_a_step_stays_in_its_trust_region_and_is_taken() -> None:
    agent = make(offline_steps=2_000, offline_policy="epsilon-greedy", num_envs=5, target_kl=0.02, gamma=1.0)
    accepted, kl = [], []

    def look(learner: Any) -> None:
        found = learner.metrics.collect()
        if "train/kl" in found:
            accepted.append(found["train/step_accepted"])
            kl.append(found["train/kl"])

    agent.learn(1_000, look)
    assert len(kl) == 10
    assert max(kl) <= 0.02
    assert sum(accepted) >= 8


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"averaged_iterations": 9}, "averaged_iterations=9; expected an integer from 1 to evaluation_iterations"),
        ({"on_policy_weight": 0.0}, "on_policy_weight=0.0; expected above 0 without data"),
        ({"target_kl": 0.0}, "target_kl=0.0; expected a number above 0"),
        ({"offline_steps": -1}, "offline_steps=-1; expected an integer of at least 0"),
    ],
)
def test_settings_out_of_range_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**config)
