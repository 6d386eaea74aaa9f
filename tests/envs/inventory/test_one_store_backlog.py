from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from palaestra.envs.inventory.one_store import BaseStock, StoreState
from palaestra.envs.inventory.one_store_backlog import OneStoreBacklog
from palaestra.envs.noise import Tape, TapeBlock, draw_tape
from palaestra.envs.rollout import long_run_reward, rollout
from palaestra.seeding import row_seeds


@pytest.mark.parametrize(
    ("lead_time", "underage", "cost"),
    [
        (1, 9.0, 3.9711),
        (4, 9.0, 6.2788),
        (7, 9.0, 7.9421),
        (10, 9.0, 9.3130),
        (15, 9.0, 11.2319),
        (20, 9.0, 12.8678),
        (4, 4.0, 5.0081),
        (4, 19.0, 7.3798),
        (4, 39.0, 8.3640),
    ],
)
def test_closed_form_costs(lead_time, underage, cost):
    world = OneStoreBacklog(lead_time=lead_time, underage_cost=underage)
    oracle = world.oracle()
    assert oracle is not None
    assert round(-oracle.value, 4) == cost
    assert (oracle.kind, oracle.estimand.kind) == ("optimum", "long_run_reward")
    assert (oracle.estimand.periods, oracle.estimand.ignore) == (5000, 3000)
    # The level minimises the expected cost of L + 1 periods of demand, whose minimum is the cost.
    demand = stats.norm(5.0 * (lead_time + 1), 1.6 * math.sqrt(lead_time + 1))

    def expected_cost(level: float) -> float:
        return demand.expect(lambda d: max(level - d, 0.0) + underage * max(d - level, 0.0), epsabs=1e-10)

    level = world.optimal_level()
    assert expected_cost(level) == pytest.approx(-oracle.value, abs=1e-6)
    assert expected_cost(level) < min(expected_cost(level - 0.05), expected_cost(level + 0.05))


def test_closed_form_levels():
    assert OneStoreBacklog(lead_time=1).optimal_level() == pytest.approx(12.900, abs=5e-4)
    assert OneStoreBacklog(lead_time=4).optimal_level() == pytest.approx(29.585, abs=5e-4)


@pytest.mark.parametrize(("lead_time", "underage"), [(1, 9.0), (4, 4.0), (4, 39.0), (7, 9.0)])
def test_optimal_policy_attains_the_closed_form(lead_time, underage):
    world = OneStoreBacklog(lead_time=lead_time, underage_cost=underage)
    reward = long_run_reward(world, world.expert("optimal"), row_seeds(1, "test", 128), 2000, 100)
    error = reward.std(ddof=1) / math.sqrt(len(reward))
    assert error < 0.02 * world.optimal_cost()
    assert abs(reward.mean() + world.optimal_cost()) <= 3.0 * error


def test_two_periods_by_hand():
    """Lead time 2: slots (3, 4), orders 6 and 7, demands 5 and 1; holding 1, underage 9."""
    world = OneStoreBacklog(lead_time=2, demand_std=1.0, action_mode="orders")
    state = StoreState(np.array([[3.0, 4.0]]), np.zeros(1))
    first = world.step(state, np.array([[6.0]]), Tape({"demand": np.array([0.0])}))
    np.testing.assert_array_equal(first.state.pipeline, [[2.0, 6.0]])  # 3 - 5 + 4, and the order next
    np.testing.assert_array_equal(first.reward, [-18.0])  # 2 short
    np.testing.assert_array_equal(first.state.last_demand, [5.0])
    second = world.step(first.state, np.array([[7.0]]), Tape({"demand": np.array([-4.0])}))
    np.testing.assert_array_equal(second.state.pipeline, [[7.0, 7.0]])  # 2 - 1 + 6
    np.testing.assert_array_equal(second.reward, [-1.0])
    expected = {"order": 7.0, "demand": 1.0, "inventory": 1.0, "holding": 1.0, "underage": 0.0}
    assert {name: float(value[0]) for name, value in second.info.items()} == expected
    none = world.step(first.state, np.array([[0.0]]), Tape({"demand": np.array([-9.0])}))
    assert none.info["demand"][0] == 0.0  # demand is clipped at 0


@pytest.mark.parametrize("lead_time", [1, 2, 5])
def test_an_order_arrives_after_its_lead_time(lead_time):
    world = OneStoreBacklog(lead_time=lead_time, demand_std=0.0, action_mode="orders")
    tape = TapeBlock({"demand": np.zeros((lead_time + 1, 1))}, start={"slots": np.zeros((1, lead_time))})
    orders = iter([7.0] + [0.0] * lead_time)
    result = rollout(world, lambda *_: np.array([[next(orders)]]), noise=tape, steps=lead_time + 1)
    # On hand less demand so far; the order of period 0 is there in period `lead_time`, before its demand.
    expected = [-5.0 * (period + 1) + 7.0 * (period >= lead_time) for period in range(lead_time + 1)]
    np.testing.assert_array_equal(result.info["inventory"][:, 0], expected)


def test_decision_and_demand_are_two_halves():
    world = OneStoreBacklog()
    state = world.initial(draw_tape([1, 2, 3], 1).at(0))
    post = world.decide(state, np.zeros((3, 1)))
    np.testing.assert_array_equal(post.reward, 0.0)
    np.testing.assert_array_equal(post.order, 5.0)
    key = draw_tape([1, 2, 3], 1).at(1)
    np.testing.assert_array_equal(world.realise(post, key).reward, world.step(state, np.zeros((3, 1)), key).reward)


def test_start_is_uniform_up_to_the_mean_demand():
    world = OneStoreBacklog(lead_time=3)
    pipeline = world.initial(draw_tape(np.arange(5000), 1).at(0)).pipeline
    assert stats.kstest(pipeline.ravel() / 5.0, "uniform").pvalue > 1e-3
    np.testing.assert_array_equal(world.observe(StoreState(pipeline, None)), pipeline / 5.0)


def test_both_action_modes_are_one_world():
    seeds = row_seeds(0, "test", 20)
    runs = []
    for mode in ("normalised", "orders"):
        world = OneStoreBacklog(action_mode=mode)
        runs.append(rollout(world, world.expert("optimal"), seeds, steps=60))
    np.testing.assert_allclose(runs[0].info["order"], runs[1].info["order"], atol=1e-12)
    np.testing.assert_allclose(runs[0].rewards, runs[1].rewards, atol=1e-11)
    assert np.abs(runs[0].actions).max() <= 1.0


def test_base_stock_holds_its_position():
    world = OneStoreBacklog(max_order=20.0)
    seeds = row_seeds(0, "test", 50)
    result = rollout(world, BaseStock(world, 28.0), seeds, steps=40)
    # Position after ordering is the level, once the start has been filled up: each order is the demand before it.
    np.testing.assert_allclose(result.info["order"][10:], result.info["demand"][9:-1], atol=1e-12)


@pytest.mark.parametrize("level", [27.0, 29.585, 31.0])
def test_gradient_of_the_cost_in_the_level(level):
    """Autograd through the rollout, against the count on the same demands, and (h + p) F(S) - p."""
    world = OneStoreBacklog()
    seeds = torch.tensor(row_seeds(2, "test", 4000))
    parameter = torch.tensor(level, dtype=torch.float64, requires_grad=True)
    result = rollout(world, BaseStock(world, parameter), seeds, steps=20)  # type: ignore[arg-type]
    late = result.rewards[10:]
    (gradient,) = torch.autograd.grad(-late.mean(), parameter)
    shortfall = result.info["inventory"][10:] < 0.0
    per_path = torch.where(shortfall, -9.0, 1.0).to(torch.float64).mean(dim=0)
    assert float(gradient) == pytest.approx(float(per_path.mean()), abs=1e-12)
    closed = 10.0 * stats.norm.cdf((level - 25.0) / (1.6 * math.sqrt(5.0))) - 9.0
    error = float(per_path.std()) / math.sqrt(len(seeds))
    assert error < 0.1
    assert abs(float(gradient) - closed) <= 4.0 * error


def test_autograd_of_a_batched_rollout_equals_finite_differences():
    """Float64, 32 paths of 25 periods, in every weight of a smooth policy of the whole observation."""
    world = OneStoreBacklog(lead_time=3)
    tape = draw_tape(torch.tensor(row_seeds(3, "test", 32)), 25)

    def mean_cost(weights: torch.Tensor) -> torch.Tensor:
        def actor(state, observation, key):
            return torch.tanh(observation @ weights[:3] + weights[3])[:, None]

        return -rollout(world, actor, noise=tape, steps=25).rewards.mean()

    weights = torch.tensor([-0.3, -0.2, 0.1, 0.4], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(mean_cost(weights), weights)
    width = 1e-6
    for index in range(4):
        step = width * torch.eye(4, dtype=torch.float64)[index]
        with torch.no_grad():
            difference = (mean_cost(weights + step) - mean_cost(weights - step)) / (2.0 * width)
        assert float(gradient[index]) == pytest.approx(float(difference), rel=1e-6, abs=1e-8)


def test_numpy_and_torch_agree_to_1e_12():
    world = OneStoreBacklog()
    seeds = np.array(row_seeds(4, "test", 64))
    ours = rollout(world, world.expert("optimal"), seeds, steps=100)
    theirs = rollout(world, world.expert("optimal"), torch.as_tensor(seeds), steps=100)
    np.testing.assert_allclose(theirs.state.pipeline.numpy(), ours.state.pipeline, rtol=0.0, atol=1e-12)
    np.testing.assert_allclose(theirs.rewards.numpy(), ours.rewards, rtol=0.0, atol=1e-11)


def test_oracle_says_only_what_holds():
    assert OneStoreBacklog(demand_std=2.0).oracle() is None
    assert OneStoreBacklog(demand_std=2.0).experts() == {}
    capped = OneStoreBacklog(max_order=6.0)
    oracle = capped.oracle()
    assert oracle is not None
    assert oracle.kind == "bound"
    assert "optimal" not in capped.experts()
    # Never ordering more than 6 costs more than the bound.
    cost = -long_run_reward(capped, capped.reference_policies()["base-stock"], row_seeds(0, "test", 64), 1000, 200)
    assert cost.mean() > -oracle.value
    steady = OneStoreBacklog(demand_std=0.0)
    oracle = steady.oracle()
    assert oracle is not None
    assert oracle.value == 0.0
    assert long_run_reward(steady, steady.expert("optimal"), [0, 1], 60, 30) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lead_time": 0}, "lead_time=0; expected an integer of at least 1"),
        ({"lead_time": 2.0}, "lead_time=2.0; expected an integer"),
        ({"lead_time": True}, "lead_time=True; expected an integer"),
        ({"underage_cost": 0.0}, "underage_cost=0.0; expected a finite number above 0"),
        ({"holding_cost": -1.0}, "holding_cost=-1.0"),
        ({"demand_mean": float("inf")}, "demand_mean=inf"),
        ({"demand_std": -1.0}, "demand_std=-1.0; expected a finite number of at least 0"),
        ({"horizon": 0}, "horizon=0"),
        ({"max_order": 0.0}, "max_order=0.0"),
        ({"action_mode": "units"}, "action_mode='units'; expected 'normalised' or 'orders'"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=f"OneStoreBacklog: {message}"):
        OneStoreBacklog(**arguments)


def test_renderers():
    world = OneStoreBacklog(lead_time=3)
    state = StoreState(np.array([[-4.0, 5.0, 6.5]]), np.array([7.25]))
    assert world.render(state, mode="ansi") == "on hand -4.0 | on order 5.0 6.5 | last demand 7.2"
    picture = world.render(state)
    red, blue, orange = ((picture == color).all(axis=-1) for color in ((203, 24, 29), (33, 113, 181), (217, 95, 14)))
    # Backlog hangs below the ground line, stock and demand stand on it, as high as they are large.
    assert np.argwhere(red)[:, 0].min() >= 130
    assert np.argwhere(blue)[:, 0].max() < 130
    assert orange.sum() / 34 == pytest.approx(7.25 * 90 / 20, abs=1.0)
    with pytest.raises(ValueError, match="mode='human'"):
        world.render(state, mode="human")
