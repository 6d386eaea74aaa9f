"""The estimators of REINFORCE, N-PG-IGT and HARPG against exact gradients, and what they reduce to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from palaestra.agents.nn.flat_parameters import flat_values
from palaestra.agents.policy_gradient.harpg import HARPG, extrapolated, transported
from palaestra.agents.registry import make_agent
from palaestra.agents.training.episodic import EpisodicAgent, Trajectories

SMALL: dict[str, Any] = {"hidden": (8,), "device": "cpu", "preset_name": None}


def coin(parameter: nn.Parameter) -> torch.Tensor:
    """Log-probabilities of tails and heads."""
    return torch.nn.functional.logsigmoid(torch.cat([-parameter, parameter]))


def bandit_transport(theta: float, vector: float) -> float:
    """The exact mean of B v on the bandit with pi(1) = sigmoid(theta) and the action as its reward."""
    parameter = nn.Parameter(torch.tensor([theta], dtype=torch.float64))
    probability, total = coin(parameter).detach().exp(), 0.0
    for action in (0, 1):
        product = transported(
            coin(parameter)[action : action + 1],
            torch.tensor([float(action)], dtype=torch.float64),
            torch.tensor([0]),
            1,
            [parameter],
            torch.tensor([vector], dtype=torch.float64),
        )
        total += float(probability[action] * product)
    return total


def test_transport_of_the_sigmoid_bandit() -> None:
    """E[B] = p (1 - p) (1 - 2p), the second derivative of J = p."""
    p = 1.0 / (1.0 + np.exp(-0.7))
    assert bandit_transport(0.7, 1.0) == pytest.approx(p * (1 - p) * (1 - 2 * p), abs=1e-12)


def test_transport_between_random_points_is_the_difference_of_gradients() -> None:
    """The average over q of Hess J(q x + (1 - q) y)(x - y) = grad J(x) - grad J(y), from logit -0.5 to 1.2."""
    nodes, weights = np.polynomial.legendre.leggauss(12)
    low, high = -0.5, 1.2
    average = sum(
        0.5 * w * bandit_transport(low + (high - low) * (n + 1) / 2, high - low)
        for n, w in zip(nodes, weights, strict=True)
    )
    assert average == pytest.approx(-0.0571093, abs=1e-7)


def test_transport_of_two_steps_needs_the_score_of_the_whole_trajectory() -> None:
    """Two tosses, the second one's result is paid: the mean is that of one toss, but for the scores of both."""
    parameter = nn.Parameter(torch.tensor([0.4], dtype=torch.float64))
    heads = torch.sigmoid(parameter.detach())
    actions = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    probability = coin(parameter).detach().exp()[actions].prod(-1)
    mean = 0.0
    for toss, share in zip(actions, probability, strict=True):
        reward = toss[1].double()
        weight = torch.stack([reward, reward])
        product = transported(
            coin(parameter)[toss], weight, torch.tensor([0, 0]), 1, [parameter], torch.ones(1, dtype=torch.float64)
        )
        mean += float(share * product)
    assert mean == pytest.approx(float(heads * (1 - heads) * (1 - 2 * heads)), abs=1e-12)


def test_transport_averages_over_trajectories() -> None:
    parameter = nn.Parameter(torch.tensor([0.4], dtype=torch.float64))
    steps = torch.tensor([1, 0, 1, 1, 0])
    weight = torch.tensor([1.0, -0.5, 2.0, 0.3, 0.7], dtype=torch.float64)
    number, vector = torch.tensor([0, 1, 0, 1, 1]), torch.ones(1, dtype=torch.float64)
    together = transported(coin(parameter)[steps], weight, number, 2, [parameter], vector)
    apart = [
        transported(
            coin(parameter)[steps[number == n]], weight[number == n], number[number == n] * 0, 1, [parameter], vector
        )
        for n in (0, 1)
    ]
    torch.testing.assert_close(together, (apart[0] + apart[1]) / 2)


def test_extrapolation_is_exact_for_affine_gradients() -> None:
    """(1 - eta) grad J(previous) + eta grad J(x) = grad J(theta)."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    theta, previous = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    for eta in (0.1, 0.6, 1.0):
        mixed = (1 - eta) * matrix @ previous + eta * matrix @ extrapolated(theta, previous, eta)
        torch.testing.assert_close(mixed, matrix @ theta)


def trained(agent_id: str, steps: int = 300, **config: Any) -> EpisodicAgent:
    agent = make_agent(agent_id, "CartPole-v1", seed=3, **SMALL, **config)
    assert isinstance(agent, EpisodicAgent)
    agent.learn(steps)
    assert agent.num_updates > 3
    return agent


def test_without_momentum_igt_is_normalised_reinforce() -> None:
    plain = trained("reinforce", normalize_direction=True, learning_rate=0.1, step_decay=1.0)
    igt = trained("n-pg-igt", momentum_decay=0.0)
    assert igt.num_updates == plain.num_updates
    torch.testing.assert_close(flat_values(igt.parameters), flat_values(plain.parameters), atol=1e-6, rtol=1e-5)


def test_without_extrapolation_igt_plays_its_own_policy() -> None:
    momentum, igt = trained("n-pg-igt", extrapolate=False), trained("n-pg-igt")
    assert torch.equal(flat_values(momentum.sampler_parameters), flat_values(momentum.parameters))
    eta = igt.momentum_weight(igt.num_updates)
    theta = flat_values(igt.parameters)
    torch.testing.assert_close(flat_values(igt.sampler_parameters), extrapolated(theta, igt.previous, eta))
    assert not torch.equal(theta, flat_values(igt.sampler_parameters))


@pytest.mark.parametrize("agent_id", ["n-pg-igt", "n-harpg"])
def test_normalised_steps_have_the_length_asked_for(agent_id: str) -> None:
    agent = trained(agent_id, learning_rate=0.05, step_decay=0.0)
    moved = flat_values(agent.parameters) - agent.previous
    assert float(moved.norm()) == pytest.approx(0.05, rel=1e-4)


def some_trajectories(agent: HARPG) -> Trajectories:
    generator = torch.Generator().manual_seed(1)
    observation = torch.randn(7, 4, generator=generator)
    steps = {"observation": observation, "action": torch.randint(2, (7,), generator=generator)}
    weight = torch.randn(7, generator=generator)
    return Trajectories(steps, weight, torch.ones(7), torch.tensor([0, 0, 0, 1, 1, 1, 1]), 2)


def gradient_of(agent: HARPG, batch: Trajectories) -> torch.Tensor:
    gradients = torch.autograd.grad(agent.surrogate(agent.network, batch), agent.parameters)
    return torch.cat([g.flatten() for g in gradients])


def test_harpg_is_momentum_but_for_the_transport() -> None:
    agent = make_agent("harpg", "CartPole-v1", learning_rate=0.1, step_decay=0.0, **SMALL)
    assert isinstance(agent, HARPG)
    batch = some_trajectories(agent)
    theta, gradient = flat_values(agent.parameters), gradient_of(agent, batch)
    agent.learn_from(batch)
    # eta_0 = 1: the first step is REINFORCE's.
    torch.testing.assert_close(flat_values(agent.parameters), theta + 0.1 * gradient)
    assert agent.playing == "transport"
    span, played = flat_values(agent.parameters) - theta, flat_values(agent.sampler_parameters)
    share = ((played - theta) @ span / (span @ span)).item()
    assert 0.0 < share < 1.0
    torch.testing.assert_close(played, theta + share * span)

    agent.learn_from(batch)
    assert agent.num_updates == 1
    assert float(agent.transport.norm()) > 0.0
    theta = flat_values(agent.parameters)
    assert torch.equal(flat_values(agent.sampler_parameters), theta)
    agent.transport.zero_()
    second = gradient_of(agent, batch)
    agent.learn_from(batch)
    expected = (1 - 2 / 3) * gradient + 2 / 3 * second
    torch.testing.assert_close(flat_values(agent.parameters), theta + 0.1 * expected)


def test_estimates_are_unbiased_on_a_bandit_by_enumeration() -> None:
    """With every pair of actions as a batch of two trajectories, weighted by its probability."""
    agent = make_agent("reinforce", "CartPole-v1", **SMALL)
    observation = torch.tensor([[0.1, -0.2, 0.3, 0.4]])
    reward = torch.tensor([1.5, -0.5])
    policy, _ = agent.network.act(observation, None, None, None)
    probs = policy.probs[0]
    exact = torch.autograd.grad(probs @ reward, agent.parameters)
    exact_flat = torch.cat([g.flatten() for g in exact])
    mean = torch.zeros_like(exact_flat)
    for first in (0, 1):
        for second in (0, 1):
            actions = torch.tensor([first, second])
            steps = {"observation": observation.expand(2, 4), "action": actions}
            batch = Trajectories(steps, reward[actions], torch.ones(2), torch.arange(2), 2)
            mean += probs[first].item() * probs[second].item() * gradient_of(agent, batch)  # type: ignore[arg-type]
    torch.testing.assert_close(mean, exact_flat, atol=1e-6, rtol=1e-4)


def test_weights_are_discounted_rewards_to_go() -> None:
    """sum_{t >= h} gamma^t r_t, from the episode's start, on CartPole's reward of 1."""
    agent = make_agent("reinforce", "CartPole-v1", gamma=0.9, num_envs=2, **SMALL)
    batches: list[Trajectories] = []
    agent.learn_from = batches.append
    agent.learn(60)
    assert batches
    for batch in batches:
        assert batch.count == 2
        for number in range(batch.count):
            weight = batch.weight[batch.number == number].numpy()
            discounted = 0.9 ** np.arange(len(weight))
            np.testing.assert_allclose(weight, discounted[::-1].cumsum()[::-1], rtol=1e-5)


def test_recurrent_policies_are_refused() -> None:
    with pytest.raises(ValueError, match="HARPGConfig: recurrent_size=4; expected 0"):
        make_agent("n-harpg", "CartPole-v1", recurrent_size=4)
