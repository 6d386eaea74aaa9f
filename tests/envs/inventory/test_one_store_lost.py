from __future__ import annotations

import itertools
import math

import gymnasium as gym
import numpy as np
import pytest
import torch

from palaestra.envs.inventory.one_store import BaseStock, ConstantOrder, StoreState
from palaestra.envs.inventory.one_store_lost import OneStoreLost
from palaestra.envs.noise import Tape, TapeBlock, draw_tape
from palaestra.envs.rollout import long_run_reward, rollout
from palaestra.seeding import row_seeds


def test_table_of_the_documentation():
    for lead, costs in {1: (4.0407, 5.4382, 6.6757, 7.8359), 2: (4.3953, 6.0936, 7.6644, 9.1064)}.items():
        for underage, cost in zip((4.0, 9.0, 19.0, 39.0), costs, strict=True):
            oracle = OneStoreLost(lead, underage).oracle()
            assert oracle.kind == "optimum"
            assert round(-oracle.value, 4) == cost
    for underage, cost in zip((4.0, 9.0, 19.0, 39.0), (4.5987, 6.5314, 8.3625, 10.0385), strict=True):
        assert round(-OneStoreLost(3, underage).oracle().value, 4) == cost


@pytest.mark.slow
def test_table_of_the_documentation_for_the_longest_lead_time():
    for underage, cost in zip((4.0, 9.0, 19.0, 39.0), (4.7285, 6.8359, 8.8872, 10.7944), strict=True):
        assert round(-OneStoreLost(4, underage).oracle().value, 4) == cost


@pytest.mark.parametrize(
    ("lead", "underage", "integers"), [(1, 4.0, True), (2, 39.0, True), (3, 9.0, True), (2, 9.0, False)]
)
def test_optimal_orders_attain_the_optimum(lead, underage, integers):
    world = OneStoreLost(lead, underage, integer_orders=integers)
    cost = -long_run_reward(world, world.expert("optimal"), row_seeds(5, "test", 512), 1500, 300)
    error = cost.std(ddof=1) / math.sqrt(512)
    assert error < 0.01 * cost.mean()
    assert abs(cost.mean() + world.oracle().value) <= 3.0 * error


def test_rules_of_thumb_are_in_order():
    """On the same demand; at long lead times and small penalties ordering a constant beats the backlog's level."""
    world = OneStoreLost(4, 4.0, integer_orders=True)
    policies = {**world.reference_policies(), **world.experts()}
    seeds = row_seeds(0, "test", 128)
    rewards = {name: long_run_reward(world, policy, seeds, 1200, 200) for name, policy in policies.items()}
    chains = (
        ("optimal", "capped-base-stock", "base-stock", "backlog-level", "random"),
        ("capped-base-stock", "constant-order", "backlog-level"),
    )
    for better, worse in (pair for chain in chains for pair in itertools.pairwise(chain)):
        gain = rewards[better] - rewards[worse]
        assert gain.mean() > 2.0 * gain.std(ddof=1) / math.sqrt(128), (better, worse)
    # The capped rule is known to be within a percent or two of the optimum.
    assert rewards["capped-base-stock"].mean() > 1.02 * rewards["optimal"].mean()


def test_two_periods_by_hand():
    world = OneStoreLost(2, action_mode="orders")
    state = StoreState(np.array([[3.0, 4.0]]), np.zeros(1))
    # A uniform draw of .62 is a demand of 5: P(D <= 5) = .616, P(D <= 6) = .762.
    first = world.step(state, np.array([[6.0]]), Tape({"demand": np.array([0.5])}))
    np.testing.assert_array_equal(first.info["demand"], [5.0])
    np.testing.assert_array_equal(first.state.pipeline, [[4.0, 6.0]])  # What was short is lost.
    np.testing.assert_array_equal(first.reward, [-18.0])
    second = world.step(first.state, np.array([[12.0]]), Tape({"demand": np.array([0.0])}))
    np.testing.assert_array_equal(second.info["demand"], [0.0])
    np.testing.assert_array_equal(second.state.pipeline, [[10.0, 10.0]])  # At most 10 are ordered.
    np.testing.assert_array_equal(second.reward, [-4.0])
    assert {name: float(value[0]) for name, value in first.info.items()} == {
        "order": 6.0,
        "demand": 5.0,
        "inventory": -2.0,
        "holding": 0.0,
        "underage": 18.0,
    }


@pytest.mark.parametrize("lead", [1, 2, 4])
def test_stock_is_conserved(lead):
    world = OneStoreLost(lead, action_mode="orders")
    run = rollout(world, world.reference_policies()["random"], row_seeds(0, "test", 30), steps=50)
    start = world.initial(draw_tape(row_seeds(0, "test", 30), 50).at(0)).pipeline.sum(-1)
    demand, inventory = run.info["demand"], run.info["inventory"]
    sold = demand - np.maximum(-inventory, 0.0)
    np.testing.assert_allclose(run.state.pipeline.sum(-1), start + run.info["order"].sum(0) - sold.sum(0), atol=1e-9)
    assert (inventory < 0.0).any()
    assert (run.state.pipeline >= 0.0).all()


def test_three_ways_to_act_are_one_world():
    seeds = row_seeds(0, "test", 20)
    runs = []
    for mode in ("normalised", "orders", "discrete"):
        world = OneStoreLost(2, action_mode=mode, integer_orders=True)
        runs.append(rollout(world, BaseStock(world, 17.0, 8.0), seeds, steps=60))
        assert np.array_equal(runs[-1].info["order"], np.round(runs[-1].info["order"]))
        assert np.array_equal(runs[-1].state.pipeline, np.round(runs[-1].state.pipeline))
    for run in runs[1:]:
        np.testing.assert_array_equal(run.rewards, runs[0].rewards)
    assert runs[2].actions.dtype == np.int64
    env = gym.make("palaestra/OneStoreLost-v0", action_mode="discrete", max_order=25)
    assert env.action_space == gym.spaces.Discrete(26)
    env.reset(seed=0)
    assert env.step(7)[-1]["order"] == 7.0


def test_capped_base_stock():
    world = OneStoreLost(3, action_mode="orders")
    run = rollout(world, BaseStock(world, 22.0, 6.0), row_seeds(0, "test", 20), steps=40)
    assert run.info["order"].max() == 6.0
    assert (run.info["order"] < 6.0).any()
    constant = rollout(world, ConstantOrder(world, 4.5), row_seeds(0, "test", 20), steps=40)
    np.testing.assert_array_equal(constant.info["order"], 4.5)


def test_the_bound_beyond_what_can_be_solved():
    world = OneStoreLost(6)
    assert world.oracle().kind == "bound"
    assert world.experts() == {}
    cost = -long_run_reward(world, world.reference_policies()["capped-base-stock"], row_seeds(0, "test", 64), 900, 200)
    assert cost.mean() > -world.oracle().value


def test_autograd_of_a_rollout_equals_finite_differences():
    world = OneStoreLost(3)
    tape = draw_tape(torch.tensor(row_seeds(3, "test", 32)), 25)

    def mean_cost(weights: torch.Tensor) -> torch.Tensor:
        def actor(state, observation, key):
            return torch.tanh(observation @ weights[:3] + weights[3])[:, None]

        return -rollout(world, actor, noise=tape, steps=25).rewards.mean()

    weights = torch.tensor([-0.3, -0.2, 0.1, 0.4], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(mean_cost(weights), weights)
    for index in range(4):
        step = 1e-6 * torch.eye(4, dtype=torch.float64)[index]
        with torch.no_grad():
            difference = (mean_cost(weights + step) - mean_cost(weights - step)) / 2e-6
        assert float(gradient[index]) == pytest.approx(float(difference), rel=1e-5, abs=1e-7)


def test_numpy_and_torch_agree():
    world = OneStoreLost(3, integer_orders=True)
    seeds = np.array(row_seeds(4, "test", 64))
    for policy in (world.expert("optimal"), world.reference_policies()["random"]):
        ours, theirs = rollout(world, policy, seeds, steps=60), rollout(world, policy, torch.as_tensor(seeds), steps=60)
        np.testing.assert_array_equal(theirs.rewards.numpy(), ours.rewards)


def test_single_precision_stays_single():
    world = OneStoreLost(2)
    noise = TapeBlock({"demand": torch.rand(9, 5)}, {"slots": torch.rand(5, 2)})
    run = rollout(world, BaseStock(world, 16.0), steps=9, noise=noise)
    assert run.rewards.dtype == torch.float32
    assert run.state.pipeline.dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lead_time": 0}, "lead_time=0; expected an integer of at least 1"),
        ({"underage_cost": -1.0}, "underage_cost=-1.0; expected a finite number above 0"),
        ({"demand_mean": 0.0}, "demand_mean=0.0"),
        ({"max_order": 0}, "max_order=0; expected a whole number of at least 1"),
        ({"max_order": 7.5}, "max_order=7.5; expected a whole number"),
        ({"action_mode": "units"}, "action_mode='units'; expected 'normalised', 'orders' or 'discrete'"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=f"OneStoreLost: {message}"):
        OneStoreLost(**arguments)
