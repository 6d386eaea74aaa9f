from __future__ import annotations

import itertools
import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.toy_text.frozen_lake import MAPS as FROZEN_LAKE_MAPS

from palaestra.envs.grid.slip_lake import MAPS, LakeState, SlipLake
from palaestra.envs.noise import Tape, draw_tape
from palaestra.envs.rollout import episode_returns, rollout, run_episodes
from palaestra.protocols import Enumerable, PostDecisionSimulator
from palaestra.seeding import row_seeds


@pytest.mark.parametrize("name", ["4x4", "8x8"])
def test_without_slides_it_is_gymnasiums_lake(name):
    assert list(MAPS[name]) == FROZEN_LAKE_MAPS[name]
    world = SlipLake(name, slip_probability=0.0, shaping="none")
    peer = gym.make("FrozenLake-v1", map_name=name, is_slippery=False).unwrapped
    states = world.enumerate_states()
    for action in range(4):
        step = world.step(states, np.full(len(states.cell), action), Tape({"slip": np.zeros(len(states.cell))}))
        for row, cell in enumerate(states.cell):
            ((_, following, reward, ended),) = peer.P[int(cell)][action]
            found = (int(step.state.cell[row]), float(step.reward[row]), bool(step.terminated[row]))
            assert found == (following, reward, ended)


def test_optimum_of_the_published_reward():
    """Hovering next to the goal is worth far more than reaching it."""
    assert SlipLake().oracle().value == pytest.approx(35.2178, abs=5e-5)
    found = run_episodes(SlipLake(), SlipLake().reference_policies()["goal"], row_seeds(0, "test", 500))
    assert found.info["success"].mean() > 0.95
    assert found.returns.mean() < 10.0


@pytest.mark.parametrize("shaping", ["paper", "potential", "none"])
def test_optimal_policy_attains_the_oracle(shaping):
    world = SlipLake(shaping=shaping)
    found = episode_returns(world, world.expert("optimal"), row_seeds(0, "test", 4000))[:, 0]
    assert abs(found.mean() - world.oracle().value) <= 3.0 * found.std() / math.sqrt(4000) + 1e-12


def test_exact_return_of_policies():
    world = SlipLake()
    assert isinstance(world, Enumerable)
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(4), 11)

    def actor(state, observation, key):
        table = np.zeros((16, 4))
        table[world.enumerate_states().cell] = probabilities
        return (key.uniform("policy")[:, None] >= np.cumsum(table[state.cell], axis=1)[:, :3]).sum(1)

    found = run_episodes(world, actor, row_seeds(0, "test", 20_000))
    error = found.returns.std() / math.sqrt(20_000)
    assert abs(found.returns.mean() - world.exact_return(probabilities)) <= 3.0 * error
    rate = world.success_rate(probabilities)
    assert abs(found.info["success"].mean() - rate) <= 4.0 * math.sqrt(rate * (1.0 - rate) / 20_000) + 1e-9
    assert world.exact_return(probabilities) < world.oracle().value


def test_slides_follow_the_chances_of_the_tile():
    world = SlipLake(horizon=1)
    state = world.initial(draw_tape(np.arange(80_000), 1).at(0))
    step = world.step(state, np.full(80_000, 1), draw_tape(np.arange(80_000), 1).at(1))
    # Down from the start is cell 4, a frozen one; by its tile the skater slides left (stays), down, right or up.
    chances = 0.5 * np.random.RandomState(42).dirichlet(np.ones(4), size=(4, 4))[1, 0]
    expected = {4: 0.5 + chances[0], 8: chances[1], 5: chances[2], 0: chances[3]}
    for cell, chance in expected.items():
        assert abs((step.state.cell == cell).mean() - chance) <= 4.0 * math.sqrt(chance / 80_000)
    assert abs(step.info["slipped"].mean() - 0.5) < 0.01
    np.testing.assert_array_equal(step.terminated, step.state.cell == 5)


def test_rewards_of_both_halves():
    world = SlipLake(slip_probability=1.0)
    world._bounds = np.tile([0.0, 0.0, 1.0, 1.0], (16, 1))  # Every slide goes to the right.
    draw = Tape({"slip": np.array([0.5])})

    def step(cell: int, action: int) -> tuple[int, float, bool]:
        post = world.decide(LakeState(np.array([cell]), np.array([0])), np.array([action]))
        half = world.realise(post, draw)
        return int(half.state.cell[0]), float(post.reward[0] + half.reward[0]), bool(half.terminated[0])

    assert step(0, 1) == (5, pytest.approx(1 / 6 + 1 / 5 - 1 / 8), True)  # To 4, and on into the hole at 5
    assert step(1, 1) == (6, pytest.approx(1 / 5 - 1 / 8 + 1 / 4), False)  # Through the hole at 5, to 6
    assert step(14, 2) == (15, pytest.approx(1.0), True)  # Into the goal, where nothing slides
    assert step(13, 1) == (14, pytest.approx(1 / 3 + 1 / 2), False)
    assert step(10, 1) == (15, pytest.approx(1 / 2 + 1.0), True)  # To 14, and slid into the goal
    assert step(3, 3) == (3, pytest.approx(2 / 4), False)  # Off the map twice


def test_potential_adds_the_same_to_every_finished_episode():
    shaped, plain = SlipLake(shaping="potential", horizon=2000), SlipLake(shaping="none", horizon=2000)
    seeds = row_seeds(0, "test", 200)
    policy = plain.reference_policies()["random"]
    difference = episode_returns(shaped, policy, seeds) - episode_returns(plain, policy, seeds)
    # Distance 6 from the start, over 4 rows and 4 columns.
    np.testing.assert_allclose(difference, 0.75, atol=1e-12)
    assert shaped.oracle().value == pytest.approx(plain.oracle().value + 0.75, abs=1e-6)


def test_observations():
    world = SlipLake()
    assert isinstance(world, PostDecisionSimulator)
    states = world.enumerate_states()
    np.testing.assert_array_equal(world.observe(states), np.eye(16)[states.cell])
    post = world.decide(states, np.zeros(11, np.int64))
    np.testing.assert_array_equal(world.observe_post(post).argmax(1), post.cell)
    numbered = SlipLake(one_hot=False)
    assert numbered.observation_space == gym.spaces.Discrete(16)
    np.testing.assert_array_equal(numbered.observe(states), states.cell)
    assert gym.make("palaestra/SlipLake-v0", one_hot=False).reset(seed=0)[0] == 0


def test_torch_agrees():
    for world in (SlipLake(), SlipLake(shaping="potential")):
        seeds = np.array(row_seeds(4, "test", 64))
        for policy in (world.expert("optimal"), world.reference_policies()["goal"]):
            ours, theirs = (
                rollout(world, policy, seeds, steps=40),
                rollout(world, policy, torch.as_tensor(seeds), steps=40),
            )
            np.testing.assert_array_equal(theirs.state.cell.numpy(), ours.state.cell)
            np.testing.assert_allclose(theirs.rewards.numpy(), ours.rewards, atol=1e-14)


def test_a_map_of_ones_own():
    world = SlipLake(layout=("SG",), slip_probability=0.0, shaping="none", horizon=1)
    assert world.oracle().value == 1.0
    assert world.render(world.initial(draw_tape([0], 1).at(0)), mode="ansi") == "[S] G "
    for rows, columns in itertools.product((1, 3), (2, 5)):
        layout = ["F" * columns] * rows
        layout[0] = "S" + layout[0][1:]
        layout[-1] = layout[-1][:-1] + "G"
        world = SlipLake(layout=layout, horizon=rows + columns - 2, slip_probability=0.0, shaping="none")
        assert world.oracle().value == 1.0
        assert world.observation_space.shape == (rows * columns,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"map_name": "5x5"}, r"map_name='5x5'; expected one of \['4x4', '8x8'\]"),
        ({"layout": ["SF", "G"]}, "layout=.*; expected equal rows"),
        ({"layout": ["SF", "GG"]}, "layout=.*; expected .* one G"),
        ({"layout": ["SX", "FG"]}, "layout="),
        ({"layout": []}, "layout="),
        ({"slip_probability": 1.5}, "slip_probability=1.5; expected a number from 0 to 1"),
        ({"shaping": "much"}, "shaping='much'; expected 'paper', 'potential' or 'none'"),
        ({"horizon": 0}, "horizon=0"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=f"SlipLake: {message}"):
        SlipLake(**arguments)
