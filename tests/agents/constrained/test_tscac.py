"""TSCAC: its weights and stages against closed forms, and what it makes of a log."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

import palaestra  # noqa: F401
from palaestra.agents.losses.constrained import constrained_optimum
from palaestra.agents.memory.replay import Batch
from palaestra.agents.registry import make_agent
from palaestra.agents.training.collector import Step
from tests.agents import worlds  # noqa: F401

SMALL: dict[str, Any] = {"hidden": (16,), "batch_size": 64, "learning_starts": 50, "buffer_size": 5_000}


class SignalBandit(gym.Env[Any, Any]):
    """One state, three actions; the reward prefers the second, the signal the first, and the episode ends at once."""

    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward, liked = (0.0, 1.0, 0.5)[int(action)], (1.0, 0.0, 0.0)[int(action)]
        return np.zeros(1, np.float32), reward, True, False, {"signals": np.array([reward, liked])}


def agent_for(env: Any, **options: Any) -> Any:
    env_kwargs = options.pop("env_kwargs", None)
    return make_agent(
        "tscac", env, seed=3, device="cpu", preset_name=None, env_kwargs=env_kwargs, **{**SMALL, **options}
    )


def feed_batch(agent: Any) -> Batch:
    agent.learn(50)
    return agent.replay.sample(64, torch.Generator().manual_seed(0))


def test_on_a_bandit_it_ends_at_the_closed_form() -> None:
    """Two stages from logged actions: pi proportional to pi_1 exp(A / lambda), pi_1 being the first stage's policy."""
    agent = agent_for(
        SignalBandit(),
        constraints=(1,),
        multipliers=(0.5,),
        learning_rate=1e-2,
        critic_learning_rate=3e-2,
        weight_decay=0.0,
        bc_coef=0.3,
        weight_cap=1e3,
        gamma=0.0,
        auxiliary_gamma=0.0,
        tau=1.0,
    )
    agent.learn(1_200)
    nothing = torch.zeros(1, 1)
    with torch.no_grad():
        policies = [pair.act(nothing, None, None, None)[0] for pair in agent.pairs]
        value = float(agent.network.evaluate(nothing, None, None))
    assert value == pytest.approx(0.5, abs=0.05)
    assert float(policies[1].probs[0, 0]) > 0.5
    advantage = torch.tensor([0.0, 1.0, 0.5]) - value
    expected = constrained_optimum(policies[1].log_probs, advantage[None], agent.multipliers).exp()
    np.testing.assert_allclose(policies[0].probs.numpy(), expected.numpy(), atol=0.05)


def test_the_weight_is_capped_and_counted() -> None:
    agent = agent_for(
        "palaestra/RecFeed-v0", constraints=(1, 2), multipliers=(1e-3,), behaviour="world", weight_cap=5.0
    )
    batch = feed_batch(agent)
    advantage = batch.reward - batch.reward.mean()
    _, weight = agent.policy_loss(batch, advantage)
    assert float(weight.max()) == 5.0
    assert 0.1 < float((weight == 5.0).float().mean()) < 0.9
    metrics = agent.update(batch)
    assert 0.0 <= float(metrics["train/capped_weights"]) <= 1.0


def test_without_constraints_and_with_a_large_multiplier_it_clones_the_logging_policy() -> None:
    agent = agent_for("palaestra/RecFeed-v0", multipliers=(1e9,), behaviour="world")
    batch = feed_batch(agent)
    loss, weight = agent.policy_loss(batch, batch.reward)
    torch.testing.assert_close(weight, torch.ones_like(weight), atol=1e-5, rtol=0.0)
    policy, _ = agent.network.act(batch.observation, None, None, None)
    torch.testing.assert_close(loss, -policy.log_prob(batch.action).mean())


def test_the_first_stage_moves_the_auxiliary_policies_alone_and_the_second_the_main_one() -> None:
    agent = agent_for("palaestra/RecFeed-v0", constraints=(1, 2), behaviour="world", learning_starts=100)

    def policies() -> list[torch.Tensor]:
        return [torch.cat([p.detach().flatten() for p in pair.policy_parameters()]) for pair in agent.pairs]

    seen = [policies()]

    def look(agent: Any) -> None:
        if agent.num_timesteps in (199, 400):  # The second half begins with step 200.
            seen.append(policies())

    agent.learn(400, look)
    start, between, end = seen
    assert torch.equal(start[0], between[0])
    assert not torch.equal(between[0], end[0])
    for auxiliary in (1, 2):
        assert not torch.equal(start[auxiliary], between[auxiliary])
        assert torch.equal(between[auxiliary], end[auxiliary])


def test_the_log_is_the_behaviour_s_whatever_is_learnt() -> None:
    logs = []
    for learning_rate in (1e-5, 1e-1):
        agent = agent_for("palaestra/RecFeed-v0", constraints=(1,), behaviour="world", learning_rate=learning_rate)
        agent.learn(300)
        logs.append(agent.replay.read_rows(0, 300))
    for name, column in logs[0].items():
        assert torch.equal(column, logs[1][name]), name
    log_prob = logs[0]["log_prob"]
    assert -20.0 < float(log_prob.min()) < float(log_prob.max()) < 0.0


def test_signals_are_of_the_step_that_was_taken_also_where_episodes_end() -> None:
    info = {
        "signals": np.array([[1.0], [2.0]]),
        "final_info": {"signals": np.array([[0.0], [9.0]])},
    }
    ended = np.array([False, True])
    step = Step(
        np.zeros((2, 1)), np.zeros(2), ended, ~ended & ended, np.zeros((2, 1)), ~ended | ended, ended, None, info
    )
    np.testing.assert_array_equal(step.reported("signals"), [[1.0], [9.0]])
    assert step.reported("nothing") is None
    agent = agent_for(SignalBandit(), constraints=(1,))
    rows = feed_batch(agent)
    assert rows.signals is not None
    torch.testing.assert_close(rows.signals[:, 0], rows.reward)
    torch.testing.assert_close(rows.signals[:, 1], (rows.action == 0).float())


def test_weighted_signals_are_added_to_the_reward() -> None:
    plain, weighted = (agent_for("palaestra/RecFeed-v0", bonus=bonus) for bonus in ((), (0.0, 10.0)))
    batch = feed_batch(weighted)
    liked = batch.signals[:, 1] > 0.0
    difference = weighted.fit_critics(batch) - plain.fit_critics(batch)
    torch.testing.assert_close(difference[0], 10.0 * liked.float(), atol=1e-4, rtol=0.0)
    assert liked.any()


@pytest.mark.parametrize(
    ("env", "options", "message"),
    [
        ("CartPole-v1", {"constraints": (1,)}, r"info\['signals'\]: none; expected \[num_envs, at least 2\]"),
        (
            "palaestra/RecFeed-v0",
            {"constraints": (6,)},
            r"signals of shape \(1, 6\); expected \[num_envs, at least 7\]",
        ),
        ("CartPole-v1", {"behaviour": "world"}, "behaviour='world' on CartPole-v1; expected a world"),
    ],
)
def test_what_the_env_does_not_report_is_asked_for(env: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        agent_for(env, **options).learn(10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"constraints": (1, 2), "multipliers": (1.0, 1.0, 1.0)}, r"expected 1 or 2 numbers above 0"),
        ({"constraints": (-1,)}, "expected integers of at least 0"),
        ({"first_stage": 1.0}, r"first_stage=1.0; expected a number in \[0, 1\)"),
        ({"weight_cap": 0.0}, "weight_cap=0.0; expected a number above 0"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        agent_for("palaestra/RecFeed-v0", **options)
