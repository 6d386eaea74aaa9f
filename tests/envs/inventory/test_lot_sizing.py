from __future__ import annotations

import itertools
import math
from functools import lru_cache

import gymnasium as gym
import numpy as np
import pytest
import torch

from palaestra.envs.inventory.exact.lot_sizing import fluid_bound, lot_sizing_optimum, solvable
from palaestra.envs.inventory.lot_sizing import LookAhead, LotSizing, PlantState
from palaestra.envs.inventory.lot_sizing_plants import PRESETS, preset_plant
from palaestra.envs.noise import Tape, draw_tape
from palaestra.envs.rollout import episode_returns, rollout
from palaestra.protocols import PostDecisionSimulator
from palaestra.seeding import row_seeds


def test_the_easy_plant():
    optimum = LotSizing("easy").optimum
    assert optimum is not None
    assert optimum.cost[3, 0, 0, 0] == pytest.approx(4.0375, abs=1e-12)
    assert optimum.actions[3, 0, 0, 0] in (1, 2)
    assert optimum.cost[3, 0, 0, 1] == pytest.approx(2.7125, abs=1e-12)
    # Idling now and acting well from then on: two units of demand, half of each lost, at 2, and what follows.
    assert 2.0 + optimum.cost[2, 0, 0, 0] == pytest.approx(5.15, abs=1e-12)
    long = LotSizing("easy", horizon=20).optimum
    assert long is not None
    assert round(float(long.cost[20, 0, 0, 0]), 4) == 13.6641
    idle = rollout(LotSizing("easy"), lambda *_: np.zeros((4000, 1), np.int64), row_seeds(0, "test", 4000), steps=3)
    world = LotSizing("easy")
    start = world.initial(draw_tape(row_seeds(0, "test", 4000), 3).at(0))
    empty = start.inventory.sum(1) == 0.0
    found = -idle.rewards.sum(0)[empty]
    assert abs(found.mean() - 6.0) <= 3.0 * found.std() / math.sqrt(empty.sum())


def recursion(periods: int, stock: tuple[int, int], setup: int) -> float:
    """The optimum of a plant of one machine and two items by plain recursion, every number written out."""

    @lru_cache(None)
    def value(left: int, stock: tuple[int, int], setup: int) -> float:
        if left == 0:
            return 0.0
        best = math.inf
        for action in range(3):
            total, made = 0.0, [0, 0]
            if action:
                changed = action != setup
                total += (1.5, 0.5)[action - 1] * changed
                made[action - 1] = max(0, (3, 1)[action - 1] - (1, 2)[action - 1] * changed)
            for first, second in itertools.product(range(3), repeat=2):
                chance = (0.49, 0.42, 0.09)[first] * (0.49, 0.42, 0.09)[second]
                over = stock[0] + made[0] - first, stock[1] + made[1] - second
                kept = min(max(over[0], 0), 2), min(max(over[1], 0), 3)
                lost = 1.0 * max(-over[0], 0) + 4.0 * max(-over[1], 0)
                total += chance * (lost + 0.1 * kept[0] + 0.3 * kept[1] + value(left - 1, kept, action))
            best = min(best, total)
        return best

    return value(periods, stock, setup)


def small(**changes: object) -> LotSizing:
    given = {
        "preset": "easy",
        "production": [[3, 1]],
        "setup_cost": [[1.5, 0.5]],
        "setup_loss": [[1, 2]],
        "capacity": [2, 3],
        "holding_cost": [0.1, 0.3],
        "shortage_cost": [1.0, 4.0],
        "demand_trials": 2,
        "demand_probability": 0.3,
        "horizon": 5,
        **changes,
    }
    return LotSizing(**given)  # type: ignore[arg-type]


def test_the_programme_equals_plain_recursion():
    optimum = small().optimum
    assert optimum is not None
    for stock in itertools.product(range(3), range(4)):
        for setup in range(3):
            expected = recursion(5, stock, setup)  # type: ignore[arg-type]
            assert optimum.cost[(5, *stock, setup)] == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(
    "world",
    [
        LotSizing("easy"),
        small(),
        # Two machines, of which one makes only the second item.
        small(production=[[3, 1], [0, 2]], setup_cost=1.0, setup_loss=1, horizon=6),
    ],
    ids=["easy", "small", "two-machines"],
)
def test_optimal_policy_attains_the_oracle(world):
    oracle = world.oracle()
    assert oracle.kind == "optimum"
    found = episode_returns(world, world.expert("optimal"), row_seeds(0, "test", 6000))[:, 0]
    assert abs(found.mean() - oracle.value) <= 3.0 * found.std() / math.sqrt(6000)
    rule = episode_returns(world, world.reference_policies()["look-ahead"], row_seeds(0, "test", 6000))[:, 0]
    gain = found - rule
    assert gain.mean() > -3.0 * gain.std() / math.sqrt(6000)


def test_a_period_by_hand():
    """Two machines: one goes on with item 1, the other changes from 1 to 2; then the first idles."""
    world = small(production=[[3, 1], [2, 2]], setup_cost=[[1.5, 0.5], [7.0, 0.75]], setup_loss=1)
    state = PlantState(np.array([[1.0, 0.0]]), np.array([[1, 1]]), np.array([0]), np.zeros((1, 2)))
    post = world.decide(state, np.array([[1, 2]]))
    np.testing.assert_array_equal(post.inventory, [[4.0, 1.0]])  # 1 + 3, and 2 less 1 lost to the setup
    np.testing.assert_array_equal(post.reward, [-0.75])
    # Draws of .95 are a demand of 2, of .1 a demand of 0.
    step = world.realise(post, Tape({"demand": np.array([[0.1, 0.95]])}))
    np.testing.assert_array_equal(step.info["demand"], [[0.0, 2.0]])
    np.testing.assert_array_equal(step.state.inventory, [[2.0, 0.0]])  # At most 2 of item 1 are kept.
    np.testing.assert_array_equal(step.info["short"], [[0.0, 1.0]])
    np.testing.assert_allclose(step.reward, [-(4.0 + 0.2)])
    np.testing.assert_array_equal(step.state.setup, [[1, 2]])
    # Idling loses the setup, so that going on afterwards costs one.
    idle = world.decide(step.state, np.array([[0, 2]]))
    np.testing.assert_array_equal(idle.setup, [[0, 2]])
    np.testing.assert_array_equal(idle.reward, [0.0])
    again = world.decide(PlantState(idle.inventory, idle.setup, idle.period, step.info["demand"]), np.array([[1, 2]]))
    np.testing.assert_array_equal(again.reward, [-1.5])
    np.testing.assert_array_equal(again.inventory - idle.inventory, [[2.0, 2.0]])


def test_a_masked_item_is_paid_for_and_not_made():
    world = small(production=[[3, 0], [0, 2]], setup_cost=1.0, setup_loss=1)
    state = world.initial(draw_tape([0], 1).at(0))
    np.testing.assert_array_equal(world.action_masks(state), [[True, True, False, True, False, True]])
    post = world.decide(state, np.array([[2, 0]]))
    np.testing.assert_array_equal(post.inventory, state.inventory)
    np.testing.assert_array_equal(post.reward, [-1.0])


@pytest.mark.parametrize("preset", PRESETS)
def test_items_are_conserved_and_costs_add_up(preset):
    world = LotSizing(preset)
    plant = world.plant
    tape, random = draw_tape(np.arange(40), 12), world.reference_policies()["random"]
    state = world.initial(tape.at(0))
    assert isinstance(world, PostDecisionSimulator)
    thrown_away = 0.0
    for period in range(1, 13):
        action = random(state, None, tape.at(period))
        post = world.decide(state, action)
        made = np.zeros_like(state.inventory)
        paid = np.zeros(40)
        for row, machine in itertools.product(range(40), range(plant.machines)):
            item, changed = action[row, machine] - 1, action[row, machine] != state.setup[row, machine]
            if item >= 0:
                lost = plant.setup_loss[machine, item] * changed
                made[row, item] += max(0, plant.production[machine, item] - lost)
                paid[row] += plant.setup_cost[machine, item] * changed
        np.testing.assert_array_equal(post.inventory, state.inventory + made)
        np.testing.assert_allclose(post.reward, -paid)
        step = world.realise(post, tape.at(period))
        info = step.info
        over = post.inventory - info["demand"] + info["short"] - info["inventory"]
        assert (over >= 0.0).all()
        assert ((over == 0.0) | (info["inventory"] == plant.capacity)).all()
        thrown_away += float(over.sum())
        cost = info["short"] @ plant.shortage_cost + info["inventory"] @ plant.holding_cost
        np.testing.assert_allclose(step.reward, -cost)
        np.testing.assert_allclose(info["lost"] + info["holding"], cost)
        np.testing.assert_array_equal(info["setup"], -post.reward)
        shown = world.observe_post(post)
        np.testing.assert_allclose(shown[:, : plant.items], post.inventory / plant.capacity)
        np.testing.assert_array_equal(shown[:, plant.items :], action / plant.items)
        state = step.state
        assert world.observation_space.contains(world.observe(state)[0].astype(np.float32))
    assert thrown_away > 0.0
    np.testing.assert_array_equal(state.period, 12)


@pytest.mark.parametrize("preset", PRESETS)
def test_starts_are_random_and_feasible(preset):
    world = LotSizing(preset)
    state = world.initial(draw_tape(np.arange(4000), 1).at(0))
    for item, most in enumerate(world.plant.capacity):
        assert set(np.unique(state.inventory[:, item])) <= set(range(int(most)))
        assert state.inventory[:, item].max() == most - 1
    for machine, row in enumerate(world.plant.production):
        assert set(np.unique(state.setup[:, machine]).tolist()) == set((1 + np.flatnonzero(row)).tolist())
    masks = world.action_masks(state)[0].reshape(world.plant.machines, -1)
    np.testing.assert_array_equal(masks[:, 1:], world.plant.production > 0)


def test_presets_have_the_published_shapes_and_ranges():
    ranges = {
        "i5m2": ((5, 2, 50), (0, 4), (1, 2), (1, 1), {1.0, 2.0, 3.0}),
        "i15m5": ((15, 5, 100), (0, 40), (15, 30), (1, 3), {0.1, 1.1}),
        "i25m15": ((25, 15, 100), (0, 40), (15, 30), (1, 3), {0.1, 1.1}),
    }
    for preset, (sizes, production, cost, loss, shortage) in ranges.items():
        assert PRESETS[preset] == sizes
        plants = [preset_plant(preset, seed) for seed in range(30)]
        stacked = {
            name: np.stack([getattr(plant, name) for plant in plants])
            for name in ("production", "setup_cost", "setup_loss", "shortage_cost")
        }
        for name, (low, high) in {"production": production, "setup_cost": cost, "setup_loss": loss}.items():
            assert (stacked[name].min(), stacked[name].max()) == (low, high), name
        assert set(np.round(np.unique(stacked["shortage_cost"]), 12)) == shortage
        empty = (stacked["production"] == 0).mean()
        assert abs(empty - (0.2 if preset == "i5m2" else 0.4)) < 0.04
        assert all(plant.production.max(axis=0).min() > 0 for plant in plants)
        np.testing.assert_array_equal(preset_plant(preset, 3).production, plants[3].production)


def test_bounds_hold():
    # Where the optimum is known it is above the linear programme's bound.
    for world in (LotSizing("easy"), small(), small(horizon=40)):
        bound = fluid_bound(world.plant, world.horizon, 0.5 * (world.plant.capacity - 1.0))
        assert 0.0 < bound < -world.oracle().value
    for preset in ("i5m2", "i15m5"):
        world = LotSizing(preset)
        assert not solvable(world.plant)
        assert world.experts() == {}
        oracle = world.oracle()
        assert oracle.kind == "bound"
        found = episode_returns(world, LookAhead(world, 6.0, 0.5), row_seeds(0, "test", 50))
        assert found.mean() < oracle.value
    with pytest.raises(ValueError, match="lot_sizing_optimum: 5 items of capacity 10 on 2 machines; expected at most"):
        lot_sizing_optimum(preset_plant("i5m2", 0), 5)


def test_a_plant_with_ample_machines_costs_its_bound():
    """One machine for each item that makes what is sold: no setup, and stock at the newsvendor's level throughout."""
    world = LotSizing(
        "easy",
        production=[[1, 0], [0, 1]],
        setup_cost=0.0,
        setup_loss=0,
        capacity=1,
        demand_probability=1.0,
        horizon=50,
    )
    run = episode_returns(world, lambda *_: np.array([[1, 2]] * 8), row_seeds(0, "test", 8))
    np.testing.assert_allclose(run, 0.0)
    assert fluid_bound(world.plant, 50, np.zeros(2)) == pytest.approx(0.0, abs=1e-9)


def test_look_ahead_beats_random_by_far():
    world = LotSizing("i15m5")
    seeds = row_seeds(0, "test", 30)
    rule = episode_returns(world, LookAhead(world, 3.0, 0.5), seeds)
    random = episode_returns(world, world.reference_policies()["random"], seeds)
    assert rule.max() < 0.0
    assert rule.mean() > 0.5 * random.mean()
    rows = rollout(world, LookAhead(world, np.full(30, 3.0), np.full(30, 0.5)), seeds, steps=20)
    np.testing.assert_array_equal(rows.rewards, rollout(world, LookAhead(world, 3.0, 0.5), seeds, steps=20).rewards)
    masks = world.action_masks(rows.state).reshape(30, 5, 16)
    assert np.take_along_axis(masks[None], rows.actions[..., None], axis=-1).all()


def test_torch_agrees():
    world = LotSizing("i15m5")
    seeds = np.array(row_seeds(4, "test", 16))
    for policy in (LookAhead(world, 4.0, 0.5), world.reference_policies()["random"]):
        ours, theirs = rollout(world, policy, seeds, steps=30), rollout(world, policy, torch.as_tensor(seeds), steps=30)
        np.testing.assert_array_equal(theirs.actions.numpy(), ours.actions)
        np.testing.assert_allclose(theirs.rewards.numpy(), ours.rewards, rtol=1e-12)
    easy = LotSizing("easy")
    ours = rollout(easy, easy.expert("optimal"), seeds, steps=3)
    theirs = rollout(easy, easy.expert("optimal"), torch.as_tensor(seeds), steps=3)
    np.testing.assert_allclose(theirs.rewards.numpy(), ours.rewards, rtol=1e-12)


def test_through_gymnasium():
    env = gym.make("palaestra/LotSizing-v0", preset="i15m5")
    assert env.action_space == gym.spaces.MultiDiscrete([16] * 5)
    _, info = env.reset(seed=0)
    assert info["action_mask"].shape == (80,)
    assert np.array_equal(env.unwrapped.action_masks(), info["action_mask"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preset": "huge"}, r"preset='huge'; expected one of \['easy', 'i15m5', 'i25m15', 'i5m2'\]"),
        ({"instance_seed": -1}, "instance_seed=-1"),
        ({"horizon": 0}, "horizon=0"),
        ({"production": [2, 2]}, r"production of shape \(2,\); expected \[machines, items\]"),
        ({"production": [[2, 0]]}, r"production\[:, 1\] is 0; expected a machine that makes item 1"),
        (
            {"production": [[2, 2], [0, 0]], "setup_cost": 1.0, "setup_loss": 1},
            r"production\[1\] is 0; expected an item",
        ),
        (
            {"production": [[2, 2, 2]]},
            r"setup_cost of dtype float64 and shape \(1, 2\); expected numbers, one or of shape",
        ),
        ({"setup_cost": -1.0}, "setup_cost=-1.0; expected finite values of at least 0"),
        ({"setup_loss": 0.5}, "setup_loss of dtype float64"),
        ({"capacity": 0}, "capacity=0; expected finite values of at least 1"),
        ({"holding_cost": [0.1, float("nan")]}, r"holding_cost=\[0.1, nan\]"),
        ({"shortage_cost": [1.0, 1.0, 1.0]}, r"shortage_cost of dtype float64 and shape \(3,\)"),
        ({"demand_trials": 0}, "demand_trials=0"),
        ({"demand_probability": 1.5}, "demand_probability=1.5; expected a number from 0 to 1"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=f"LotSizing: {message}"):
        LotSizing(**{"preset": "easy", **arguments})
