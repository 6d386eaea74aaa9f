from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from palaestra.envs.control.multi_goal_2d import MultiGoal2D, goal_visit_entropy
from palaestra.envs.noise import Tape
from palaestra.envs.rollout import rollout, run_episodes
from palaestra.seeding import row_seeds

STILL = {"noise_std": 0.0, "start_std": 0.0}


def at(world: MultiGoal2D, *points: tuple[float, float]):
    position = np.array(points)
    return world._state_at(position)


def quiet(rows: int) -> Tape:
    return Tape({"motion": np.zeros((rows, 2)), "start": np.zeros((rows, 2))})


def test_one_step_by_hand():
    """Moves of every length, the wall, a goal entered, and the reward of each."""
    world = MultiGoal2D(**STILL, action_cost=0.5, shaping=0.1)
    state = at(world, (0.0, 0.0), (0.0, 0.0), (1.0, 2.0), (6.9, 6.9), (3.8, 0.0))
    actions = np.array([[0.3, 0.4], [1.0, 1.0], [0.0, 0.0], [1.0, 1.0], [1.0, 0.0]])
    result = world.step(state, actions, quiet(5))
    root = math.sqrt(0.5)
    expected = [[0.3, 0.4], [root, root], [1.0, 2.0], [7.0, 7.0], [4.8, 0.0]]
    np.testing.assert_allclose(result.state.position, expected, rtol=1e-14)
    np.testing.assert_array_equal(result.terminated, [False, False, False, False, True])
    np.testing.assert_array_equal(result.state.goal, [-1, -1, -1, -1, 0])

    def rim(x: float, y: float) -> float:
        return max(min(math.dist((x, y), goal) for goal in [(5, 0), (0, 5), (-5, 0), (0, -5)]) - 0.5, 0.0)

    shaping = [0.1 * (rim(*before) - rim(*after)) for before, after in zip(state.position, expected, strict=True)]
    costs = [0.125, 0.5, 0.0, 0.5, 0.5]
    bonus = [0.0, 0.0, 0.0, 0.0, 10.0]
    np.testing.assert_allclose(result.reward, np.array(shaping) - costs + bonus, atol=1e-13)
    info = world.information(result.state)
    np.testing.assert_array_equal(info["success"], [False, False, False, False, True])
    np.testing.assert_allclose(info["distance"], [rim(*after) for after in expected], atol=1e-13)


def test_goals_lie_on_the_circle_and_are_told_apart():
    for num_goals in (1, 4, 6):
        world = MultiGoal2D(num_goals=num_goals)
        np.testing.assert_allclose(np.hypot(*world.goals.T), 5.0)
        inside = world._state_at(world.goals + 0.3)
        np.testing.assert_array_equal(inside.goal, np.arange(num_goals))
        np.testing.assert_array_equal(inside.distance, 0.0)
        outside = world._state_at(world.goals * (1.0 + 0.501 / 5.0))
        np.testing.assert_array_equal(outside.goal, -1)
        np.testing.assert_allclose(outside.distance, 0.001, atol=1e-12)


def test_all_goals_are_equally_good():
    """A quarter turn of start, noise and actions turns the whole run and leaves every reward as it was."""
    world = MultiGoal2D()
    rng = np.random.default_rng(0)
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    start, noise, actions = rng.normal(size=(64, 2)), rng.normal(size=(12, 64, 2)), rng.uniform(-1, 1, (12, 64, 2))
    ours, turned = world.initial(Tape({"start": start})), world.initial(Tape({"start": start @ turn.T}))
    for motion, action in zip(noise, actions, strict=True):
        one = world.step(ours, action, Tape({"motion": motion}))
        other = world.step(turned, action @ turn.T, Tape({"motion": motion @ turn.T}))
        np.testing.assert_allclose(other.reward, one.reward, atol=1e-12)
        np.testing.assert_allclose(other.state.position, one.state.position @ turn.T, atol=1e-12)
        expected = np.where(one.state.goal < 0, -1, (one.state.goal + 1) % 4)
        np.testing.assert_array_equal(other.state.goal, expected)
        ours, turned = one.state, other.state


def test_shaping_adds_up_to_the_distance_gained():
    world = MultiGoal2D(action_cost=0.0, shaping=0.7)
    seeds = row_seeds(0, "test", 200)
    result = rollout(world, world.reference_policies()["random"], seeds, steps=20)
    start = rollout(world, world.reference_policies()["random"], seeds, steps=1)
    first = start.state
    gained = 0.7 * (first.distance - result.state.distance) + start.rewards[0]
    expected = gained + 10.0 * (result.terminated[-1] & ~start.terminated[-1])
    np.testing.assert_allclose(result.rewards.sum(axis=0), expected, atol=1e-12)


@pytest.mark.parametrize("num_goals", [1, 4, 6])
def test_bound_is_short_of_the_straight_line_by_its_action_costs_alone(num_goals):
    """Without noise: return = bound - action cost of the moves, exactly."""
    world = MultiGoal2D(num_goals=num_goals, **STILL)
    for goal in range(num_goals):
        result = rollout(world, world.expert(f"goal-{goal}"), [0], steps=8)
        moves = int(result.terminated[:, 0].argmax()) + 1
        cost = world.action_cost * (np.minimum(np.hypot(*result.actions[:moves, 0].T), 1.0) ** 2).sum()
        assert world.oracle().value - cost == pytest.approx(result.rewards.sum(), abs=1e-12)
        assert result.state.goal[0] == goal


def test_mean_starting_distance_stays_below_the_bound_used_in_the_proof():
    for start_std in (0.1, 1.0, 3.0):
        world = MultiGoal2D(start_std=start_std)
        rng = np.random.default_rng(1)
        distance = world.initial(Tape({"start": rng.normal(size=(200_000, 2))})).distance
        bound = (world.oracle().value - 10.0) / world.shaping
        assert distance.mean() <= bound


def test_experts_reach_their_goals_and_their_mixture_visits_all():
    world = MultiGoal2D(num_goals=6)
    seeds = row_seeds(0, "test", 100)
    visited = []
    for goal in range(6):
        episodes = run_episodes(world, world.expert(f"goal-{goal}"), seeds)
        assert episodes.info["success"].all()
        np.testing.assert_array_equal(episodes.info["goal"], goal)
        visited.append(episodes.info["goal"])
    assert goal_visit_entropy(np.concatenate(visited), 6) == pytest.approx(math.log(6))
    nearest = run_episodes(world, world.expert("nearest"), seeds)
    assert nearest.info["success"].all()
    assert set(world.experts()) == {"nearest", *(f"goal-{goal}" for goal in range(6))}


@pytest.mark.parametrize(
    ("goals", "entropy"),
    [
        ([0, 1, 2, 3], math.log(4)),
        ([2, 2, 2], 0.0),
        ([0, 0, 1, -1, -1], -(2 / 3) * math.log(2 / 3) - (1 / 3) * math.log(1 / 3)),
        ([-1, -1], 0.0),
        ([], 0.0),
    ],
)
def test_goal_visit_entropy(goals, entropy):
    assert goal_visit_entropy(np.array(goals, dtype=int), 4) == pytest.approx(entropy)


def test_goal_visit_entropy_refuses_strange_goals():
    for goals in ([4], [-2]):
        with pytest.raises(ValueError, match="expected integers from -1 to 3"):
            goal_visit_entropy(np.array(goals), 4)


def test_gradients_are_finite_everywhere_and_equal_finite_differences():
    world = MultiGoal2D(**STILL)
    # No move, no distance, inside a goal, and a move longer than 1: the places where roots and limits bend.
    position = torch.tensor([[0.0, 0.0], [5.0, 0.0], [5.1, 0.1], [1.0, 2.0]], dtype=torch.float64)
    action = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.2, 0.1], [0.9, 0.8]], dtype=torch.float64, requires_grad=True)
    noise = Tape({"motion": torch.zeros(4, 2, dtype=torch.float64)})
    reward = world.step(world._state_at(position), action, noise).reward
    (gradient,) = torch.autograd.grad(reward.sum(), action)
    assert torch.isfinite(gradient).all()
    smooth = torch.tensor([[0.5, 0.3], [0.9, 0.8]], dtype=torch.float64, requires_grad=True)
    start = world._state_at(torch.tensor([[1.0, 0.2], [1.0, 2.0]], dtype=torch.float64))
    still = Tape({"motion": torch.zeros(2, 2, dtype=torch.float64)})
    assert torch.autograd.gradcheck(lambda move: world.step(start, move, still).reward, (smooth,))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_goals": 0}, "num_goals=0; expected an integer of at least 1"),
        ({"num_goals": 2.5}, "num_goals=2.5; expected an integer"),
        ({"horizon": 0}, "horizon=0"),
        ({"radius": -1.0}, "radius=-1.0; expected a finite number above 0"),
        ({"goal_radius": float("nan")}, "goal_radius=nan"),
        ({"noise_std": -0.1}, "noise_std=-0.1; expected a finite number of at least 0"),
        ({"shaping": "much"}, "shaping='much'"),
        ({"num_goals": 40}, "expected less than .* neither overlap"),
        ({"radius": 0.4}, "expected less than"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=f"MultiGoal2D: .*{message}"):
        MultiGoal2D(**arguments)


def test_picture_shows_goals_and_point():
    world = MultiGoal2D()
    pictures = [world.render(at(world, point)) for point in ((0.0, 0.0), (2.0, -3.0))]
    assert pictures[0].shape == (256, 256, 3)
    differing = np.argwhere((pictures[0] != pictures[1]).any(axis=-1))
    scale = 124 / world.wall
    # Only the surroundings of the two places of the point differ.
    near = [
        np.hypot(differing[:, 1] - x, differing[:, 0] - y) for x, y in ((128, 128), (128 + 2 * scale, 128 + 3 * scale))
    ]
    assert (np.minimum(*near) <= 5).all()
    with pytest.raises(ValueError, match="mode='ansi'"):
        world.render(at(world, (0.0, 0.0)), mode="ansi")
