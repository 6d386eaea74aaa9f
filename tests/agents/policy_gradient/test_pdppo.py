"""PDPPO: its two readings and its unbiased form, against PPO, exact post-decision values and closed forms."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import palaestra  # noqa: F401
from palaestra.agents.losses.component_ratio import component_log_probs
from palaestra.agents.nn.distributions import DiagonalGaussian, MultiCategorical
from palaestra.agents.registry import make_agent
from palaestra.envs.registration import make_simulator
from palaestra.wrappers.post_decision import post_decision_of
from tests.agents import worlds  # noqa: F401

SMALL: dict[str, Any] = {"hidden": (16, 16), "batch_size": 64, "n_epochs": 1, "num_envs": 4, "n_steps": 16}


def agent_for(env: str, **options: Any) -> Any:
    env_kwargs = options.pop("env_kwargs", None)
    return make_agent(
        "pdppo", env, seed=3, device="cpu", preset_name=None, env_kwargs=env_kwargs, **{**SMALL, **options}
    )


def first_rollout(agent: Any) -> dict[str, Any]:
    """Fill one rollout, learn nothing from it, and return its fields as one batch."""
    kept: list[dict[str, Any]] = []
    agent.improve = lambda rollout: kept.append(rollout.flat_tree())
    agent.learn(agent.config.n_steps * agent.num_envs)
    return kept[0]


def gradient_of(agent: Any, batch: dict[str, Any]) -> dict[str, Tensor]:
    """The loss's gradient in the policy and value network."""
    names, parameters = zip(*agent.network.named_parameters(), strict=True)
    loss, _ = agent.loss(batch, 0.2)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


@pytest.mark.parametrize("kind", ["Discrete", "MultiDiscrete"])
def test_with_one_critic_on_the_state_alone_it_is_ppo_with_monte_carlo_returns(kind: str) -> None:
    shared: dict[str, Any] = {"ent_coef": 0.01, "gae_lambda": 1.0, "normalize_advantage": False}
    ours = agent_for("TestIdentity-v0", env_kwargs={"kind": kind}, standardise_returns=False, **shared)
    ppo = make_agent(
        "ppo",
        "TestIdentity-v0",
        seed=3,
        device="cpu",
        preset_name=None,
        env_kwargs={"kind": kind},
        **{**SMALL, **shared},
    )

    class SameCritic(nn.Module):
        def forward(self, observation: Tensor) -> Tensor:
            value: Tensor = ours.network.value(ours.network.encoder(observation)).squeeze(-1)
            return value

    # The test world's post-decision state is its state.
    ours.post_critic = SameCritic()
    batch, theirs = first_rollout(ours), first_rollout(ppo)
    torch.testing.assert_close(batch["post_observation"], batch["observation"])
    for name in ("action", "advantage", "target"):
        torch.testing.assert_close(batch[name], theirs[name], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(batch["log_prob"].sum(-1), theirs["log_prob"])
    if kind == "MultiDiscrete":
        return  # Here the ratios are PDPPO's own: one for each component.
    expected = gradient_of(ppo, theirs)
    for name, gradient in gradient_of(ours, batch).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("critics", ["minimum", "separate"])
def test_the_advantage_is_the_larger_of_the_two(critics: str) -> None:
    agent = agent_for("palaestra/LotSizing-v0", critics=critics)
    batch = first_rollout(agent)
    with torch.no_grad():
        value = agent.network.evaluate(batch["observation"], None, None)
        post_value = agent.post_critic(batch["post_observation"])
    ours, theirs = batch["target"] - value, batch["target"] - post_value
    torch.testing.assert_close(batch["advantage"], torch.maximum(ours, theirs))
    assert 0.1 < float((post_value < value).float().mean()) < 0.9


def test_the_loss_of_the_minimum_trains_one_critic_for_each_sample() -> None:
    agent = agent_for("palaestra/LotSizing-v0")
    value, post_value = (torch.randn(50, generator=torch.Generator().manual_seed(k)) for k in (0, 1))
    value, post_value = value.requires_grad_(), post_value.requires_grad_()
    target = torch.zeros(50)
    batch = {"target": target, "post_target": target}
    ours, theirs = torch.autograd.grad(agent.critic_loss(value, post_value, batch), (value, post_value))
    lower = value < post_value
    torch.testing.assert_close(ours, torch.where(lower, 2.0 * value / 50, 0.0))
    torch.testing.assert_close(theirs, torch.where(lower, 0.0, 2.0 * post_value / 50))
    agent = agent_for("palaestra/LotSizing-v0", critics="separate")
    ours, theirs = torch.autograd.grad(agent.critic_loss(value, post_value, batch), (value, post_value))
    torch.testing.assert_close(ours, 2.0 * value / 50)
    torch.testing.assert_close(theirs, 2.0 * post_value / 50)


def test_with_known_demand_the_post_decision_value_is_what_nature_adds_exactly() -> None:
    env_kwargs = {"demand_probability": 1.0, "demand_trials": 7, "horizon": 1000}
    agent = agent_for("palaestra/LotSizing-v0", critics="sound", env_kwargs=env_kwargs, standardise_returns=False)
    batch = first_rollout(agent)
    world = make_simulator("palaestra/LotSizing-v0", **env_kwargs)
    items = world.plant.items
    stock = np.round(batch["post_observation"].double().numpy()[:, :items] * world.plant.capacity)
    left = np.minimum(np.maximum(stock - 7.0, 0.0), world.plant.capacity)
    cost = np.maximum(7.0 - stock, 0.0) @ world.plant.shortage_cost + left @ world.plant.holding_cost
    following = batch["post_observation"].clone()
    following[:, :items] = torch.as_tensor(left / world.plant.capacity).float()
    with torch.no_grad():
        value = agent.network.evaluate(following, None, None)
    expected = agent.config.gamma * value - torch.as_tensor(cost).float()
    torch.testing.assert_close(batch["post_target"], expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        batch["decided_reward"] + batch["post_target"],
        batch["reward"] + agent.config.gamma * value,
        rtol=1e-4,
        atol=1e-4,
    )


class ExactNewsvendor(nn.Module):
    """V^x of a day of the newsvendor, shown as the order over a mean demand of 5."""

    def __init__(self) -> None:
        super().__init__()
        world = make_simulator("palaestra/Newsvendor-v0")
        self.orders = np.linspace(0.0, 15.0, 301)
        self.values = -np.array([world.expected_cost(order) for order in self.orders])

    def forward(self, observation: Tensor) -> Tensor:
        order = 5.0 * observation[:, 0].double().numpy()
        return torch.as_tensor(np.interp(order, self.orders, self.values)).float()


class Constant(nn.Module):
    """The same value everywhere."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, features: Tensor) -> Tensor:
        return torch.full((len(features), 1), self.value)


def exact_newsvendor(critics: str) -> tuple[dict[str, Any], Tensor, float]:
    """A long rollout of a one-day newsvendor whose critics are exact; V is that of the policy that plays."""
    agent = agent_for(
        "palaestra/Newsvendor-v0", critics=critics, gamma=0.0, n_steps=500, num_envs=32, standardise_returns=False
    )
    agent.post_critic = ExactNewsvendor()
    # With gamma 0 a first rollout without learning gives the policy's own mean.
    orders = first_rollout(agent)["post_observation"]
    value = float(agent.post_critic(orders).mean())
    agent.network.value = Constant(value)
    batch = first_rollout(agent)
    return batch, agent.post_critic(batch["post_observation"]), value


def test_exact_critics_bias_the_paper_s_advantage_upwards_and_leave_the_sound_one_unbiased() -> None:
    """E[A|a] is max(Q(a) - V, 0) with the minimum, and Q(a) - V in the sound form."""
    batch, action_value, value = exact_newsvendor("separate")
    paper = batch["advantage"]
    sound, _, _ = exact_newsvendor("sound")
    torch.testing.assert_close(sound["advantage"], action_value - value, rtol=1e-4, atol=1e-4)
    order = 5.0 * batch["post_observation"][:, 0]
    for low, high in ((0.0, 4.0), (4.0, 8.0), (8.0, 12.0), (12.0, 15.1)):
        chosen = (order >= low) & (order < high)
        error = (paper - (action_value - value).clamp(min=0.0))[chosen]
        assert abs(float(error.mean())) < 4.0 * float(error.std()) / chosen.sum().sqrt()
    assert float(paper.mean()) > 0.1


def test_the_sound_advantage_varies_less_than_monte_carlo() -> None:
    """By the law of total variance: nature's noise is averaged out."""
    batch, _, _ = exact_newsvendor("sound")
    assert float(batch["advantage"].var()) < 0.7 * float(batch["target"].var())


def test_the_post_decision_critic_learns_the_newsvendor_s_expected_cost() -> None:
    """Closed form for Poisson demand of mean 5: -8.77337, -4.22109 and -5.22188 after orders of 5, 8 and 10."""
    agent = agent_for(
        "palaestra/Newsvendor-v0",
        critics="sound",
        gamma=0.0,
        hidden=(32, 32),
        num_envs=256,
        n_steps=64,
        batch_size=256,
        n_epochs=8,
        learning_rate=1e-9,
        critic_learning_rate=5e-3,
        learning_rate_schedule="linear",
        weight_decay=0.0,
        log_std_init=-0.5,
        standardise_returns=False,
    )
    agent.learn(6 * 256 * 64)
    with torch.no_grad():
        values = agent.in_units_of_reward(agent.post_critic(torch.tensor([[5.0], [8.0], [10.0]]) / 5.0))
    np.testing.assert_allclose(values.numpy(), [-8.77337, -4.22109, -5.22188], atol=0.3)


def test_component_log_probs_sum_to_the_joint_one() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 7, generator=generator)
    several = MultiCategorical(logits, [3, 4])
    gaussian = DiagonalGaussian(logits[:, :3], logits[:, 3:6])
    for policy, parts in ((several, 2), (gaussian, 3), (several.parts[0], 1)):
        action = policy.sample(generator)
        log_probs = component_log_probs(policy, action)
        assert log_probs.shape == (6, parts)
        torch.testing.assert_close(log_probs.sum(-1), policy.log_prob(action))


def test_returns_are_standardised_over_a_rollout() -> None:
    agent = agent_for("palaestra/LotSizing-v0")
    target = first_rollout(agent)["target"]
    assert abs(float(target.mean())) < 1e-5
    assert float(target.std(correction=0)) == pytest.approx(1.0, abs=1e-5)
    value = torch.tensor([-1.0, 0.5])
    expected = agent.return_mean + agent.return_deviation * value
    torch.testing.assert_close(agent.in_units_of_reward(value), expected)


@pytest.mark.parametrize("env", ["palaestra/SlipLake-v0", "palaestra/LotSizing-v0", "palaestra/Newsvendor-v0"])
@pytest.mark.parametrize("vectorization", ["own", "sync"])
def test_worlds_show_what_they_decide(env: str, vectorization: str) -> None:
    mode = "vector_entry_point" if vectorization == "own" else "sync"
    batch = gym.make_vec(env, 3, vectorization_mode=mode)
    batch.reset(seed=[4, 5, 6])
    batch.action_space.seed(0)
    action = batch.action_space.sample()
    observation, reward = post_decision_of(batch)(action)
    assert observation.shape == batch.observation_space.shape
    assert reward.dtype == np.float64
    singles = [gym.make(env) for _ in range(3)]
    for row, single in enumerate(singles):
        single.reset(seed=4 + row)
        shown, known = single.unwrapped.post_decision(action[row])
        np.testing.assert_array_equal(observation[row], shown)
        assert reward[row] == known
    # Asking changes nothing.
    following, _ = post_decision_of(batch)(action)
    np.testing.assert_array_equal(following, observation)


def test_envs_without_post_decision_states_are_refused() -> None:
    for env in ("palaestra/Kuhn-v0", "CartPole-v1"):
        with pytest.raises(TypeError, match="shows no post-decision states; expected a world"):
            agent_for(env)
    env = gym.make("palaestra/OneStoreBacklog-v0")
    env.reset(seed=0)
    with pytest.raises(TypeError, match="shows no post-decision state; expected a world that defines observe_post"):
        env.unwrapped.post_decision(env.action_space.sample())


def test_wrappers_that_change_what_is_seen_are_refused() -> None:
    env = gym.make_vec("palaestra/SlipLake-v0", 2)
    changed = gym.wrappers.vector.TransformReward(env, lambda reward: 2.0 * reward)
    with pytest.raises(ValueError, match="wrapped by TransformReward, which"):
        post_decision_of(changed)


@pytest.mark.parametrize(
    "options", [{"normalize_reward": True}, {"clip_range_vf": 0.2}, {"recurrent_size": 8}, {"frame_stack": 2}]
)
def test_options_without_a_meaning_here_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"PDPPOConfig: {next(iter(options))}="):
        agent_for("palaestra/SlipLake-v0", **options)
