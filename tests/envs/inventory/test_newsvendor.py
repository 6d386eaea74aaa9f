from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from palaestra.envs.inventory.newsvendor import DayState, Newsvendor
from palaestra.envs.noise import Tape
from palaestra.envs.rollout import long_run_reward, rollout
from palaestra.seeding import row_seeds


@pytest.mark.parametrize(
    ("arguments", "order", "cost"),
    [
        ({}, 8.0, 4.22109),
        ({"demand_mean": 20.0}, 26.0, 8.18643),
        ({"demand": "normal", "demand_std": 1.6}, 7.0505, 2.80797),
        ({"underage_cost": 1.0}, 5.0, None),
        ({"max_order": 5.0}, 5.0, 8.77337),
    ],
)
def test_optimum(arguments, order, cost):
    world = Newsvendor(**arguments)
    assert world.optimal_order() == pytest.approx(order, abs=5e-5)
    oracle = world.oracle()
    assert oracle.kind == "optimum"
    if cost is not None:
        assert -oracle.value == pytest.approx(cost, abs=6e-6)
    found = -long_run_reward(world, world.expert("optimal"), row_seeds(0, "test", 64), 1500, 0)
    error = found.std(ddof=1) / 8.0
    assert abs(found.mean() + oracle.value) <= 3.0 * error
    assert error < 0.02 * found.mean()


@pytest.mark.parametrize(("order", "cost"), [(5.0, 8.77337), (8.0, 4.22109), (10.0, 5.22188)])
def test_value_of_the_post_decision_state(order, cost):
    """With the order placed only demand is uncertain: the mean reward of the second half."""
    world = Newsvendor(action_mode="orders")
    assert world.expected_cost(order) == pytest.approx(cost, abs=6e-6)
    draws = (np.arange(200_000) + 0.5) / 200_000
    post = world.decide(DayState(np.zeros(200_000), np.zeros(200_000)), np.full((200_000, 1), order))
    np.testing.assert_array_equal(post.reward, 0.0)
    reward = world.realise(post, Tape({"demand": draws})).reward
    assert reward.mean() == pytest.approx(-cost, abs=1e-3)


def test_costs_of_a_day():
    world = Newsvendor(underage_cost=4.0, overage_cost=0.5, demand="normal", demand_std=2.0, action_mode="orders")
    state = DayState(np.zeros(2), np.zeros(2))
    step = world.step(state, np.array([[7.0], [7.0]]), Tape({"demand": np.array([0.0, 2.5])}))
    np.testing.assert_array_equal(step.info["demand"], [5.0, 10.0])
    np.testing.assert_array_equal(step.info["overage"], [1.0, 0.0])
    np.testing.assert_array_equal(step.info["underage"], [0.0, 12.0])
    np.testing.assert_array_equal(step.reward, [-1.0, -12.0])
    np.testing.assert_array_equal(world.observe(step.state), [[1.0], [2.0]])


def test_habits_cost_more():
    world = Newsvendor()
    seeds = row_seeds(0, "test", 64)
    rewards = {
        name: long_run_reward(world, policy, seeds, 600, 0).mean()
        for name, policy in world.reference_policies().items()
    }
    assert rewards["critical-ratio"] > max(rewards["mean"], rewards["chasing"], rewards["random"])
    chasing = rollout(world, world.reference_policies()["chasing"], seeds, steps=20)
    np.testing.assert_allclose(chasing.info["order"][1:], 5.0 + 0.5 * (chasing.info["demand"][:-1] - 5.0), atol=1e-12)


def test_gradient_of_the_cost_in_the_order():
    """Autograd against the quantile condition (p + h) F(y) - p."""
    world = Newsvendor(demand="normal", demand_std=1.5, action_mode="orders")
    order = torch.tensor(6.0, dtype=torch.float64, requires_grad=True)
    seeds = torch.tensor(row_seeds(1, "test", 20_000))
    run = rollout(world, lambda state, observation, key: order + 0.0 * observation, seeds, steps=1)
    (gradient,) = torch.autograd.grad(-run.rewards.mean(), order)
    share = float((run.info["demand"] <= 6.0).double().mean())
    assert float(gradient) == pytest.approx(10.0 * share - 9.0, abs=1e-9)
    assert abs(share - 0.5 * (1.0 + math.erf(1.0 / 1.5 / math.sqrt(2.0)))) < 0.015


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"underage_cost": 0.0}, "underage_cost=0.0"),
        ({"overage_cost": -1.0}, "overage_cost=-1.0"),
        ({"demand": "uniform"}, "demand='uniform'; expected 'poisson' or 'normal'"),
        ({"demand_std": 2.0}, "demand_std=2.0; expected None with Poisson demand"),
        ({"demand": "normal", "demand_std": -2.0}, "demand_std=-2.0"),
        ({"horizon": 0}, "horizon=0"),
        ({"max_order": -1.0}, "max_order=-1.0"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=f"Newsvendor: {message}"):
        Newsvendor(**arguments)
