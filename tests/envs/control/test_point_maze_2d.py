from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from palaestra.envs.control.point_maze_2d import LAYOUTS, PointMaze2D
from palaestra.envs.noise import CounterKey, Tape
from palaestra.envs.rollout import rollout, run_episodes
from palaestra.seeding import row_seeds

STILL = {"noise_std": 0.0, "start_width": 0.0}


def at(world: PointMaze2D, *points: tuple[float, float], gate: int = -1):
    count = len(points)
    return world._state_at(np.array(points), np.full(count, gate), np.zeros(count, int))


def quiet(rows: int) -> Tape:
    return Tape({"motion": np.zeros((rows, 2)), "start": np.full((rows, 2), 0.5), "route": np.zeros(rows)})


def test_one_step_by_hand():
    """A free move, one along a wall, one through a gate, one into the goal, one longer than is possible."""
    world = PointMaze2D(**STILL)
    state = at(world, (1.5, 1.5), (1.9, 3.5), (3.8, 5.5), (7.5, 3.0), (1.5, 2.5))
    actions = np.array([[0.3, 0.4], [1.0, 0.0], [1.0, 0.0], [0.0, 0.6], [-0.8, 0.8]])
    result = world.step(state, actions, quiet(5))
    root = 0.5 * math.sqrt(0.5)
    expected = [[1.65, 1.7], [2.0, 3.5], [4.3, 5.5], [7.5, 3.3], [1.5 - root, 2.5 + root]]
    np.testing.assert_allclose(result.state.position, expected, atol=1e-12)
    np.testing.assert_array_equal(result.reward, [0.0, 0.0, 0.0, 1.0, 0.0])
    np.testing.assert_array_equal(result.terminated, [False, False, False, True, False])
    np.testing.assert_array_equal(result.state.gate, [-1, -1, 0, -1, -1])
    slid = world.step(at(world, (1.9, 3.5)), np.array([[0.6, 0.8]]), quiet(1)).state.position
    # A third of the move is made before the wall, the rest of its upward part along it.
    np.testing.assert_allclose(slid, [[2.0, 3.9]], atol=1e-12)


def test_gates_are_passed_by_any_part_of_a_move():
    """The corridor cell from x = 4 to 5: over it, along its rim, up to just before it, back through it."""
    world = PointMaze2D(**STILL, speed=4.0)
    state = at(world, (3.0, 5.5), (2.5, 5.0), (3.0, 5.5), (6.0, 1.5))
    actions = np.array([[1.0, 0.0], [1.0, 0.0], [0.24, 0.0], [-1.0, 0.0]])
    after = world.step(state, actions, quiet(4)).state
    np.testing.assert_array_equal(after.gate, [0, 0, -1, 1])
    stay = world.step(after, np.zeros((4, 2)), quiet(4)).state
    np.testing.assert_array_equal(stay.gate, after.gate)


def test_route_is_reported_at_the_goal_alone():
    world = PointMaze2D(**STILL)
    state = at(world, (7.5, 3.0), (7.5, 2.0), gate=1)
    info = world.information(world.step(state, np.array([[0.0, 1.0], [0.0, 1.0]]), quiet(2)).state)
    np.testing.assert_array_equal(info["route"], [1, -1])
    np.testing.assert_array_equal(info["gate"], [1, 1])
    np.testing.assert_array_equal(info["success"], [True, False])


def test_route_lengths_by_hand():
    side = math.hypot(0.5, 1.5)
    np.testing.assert_allclose(PointMaze2D().route_lengths(), [2 * side + 4.7] * 2, atol=1e-7)
    np.testing.assert_allclose(
        PointMaze2D("three-routes").route_lengths(), [2 * side + 6.7, 7.7, 2 * side + 6.7], atol=1e-7
    )
    own = PointMaze2D("#####/#S0G#/#####", goal_radius=0.5)
    np.testing.assert_allclose(own.route_lengths(), [1.5])


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_walkers_take_their_route_in_the_fewest_steps(layout):
    """Without noise: at most one step above the path's length for every corner it bends at, and none below it."""
    world = PointMaze2D(layout, **STILL)
    lengths = world.route_lengths()
    for route in range(world.num_routes):
        episode = run_episodes(world, world.expert(f"route-{route}"), [0])
        assert int(episode.info["route"][0, 0]) == route
        least = math.ceil(lengths[route] / world.speed - 1e-9)
        assert least <= episode.lengths[0, 0] <= least + 3
    slow = PointMaze2D(layout, **STILL, speed=0.01, horizon=2000)
    steps = run_episodes(slow, slow.expert("shortest"), [0]).lengths[0, 0]
    assert steps * 0.01 == pytest.approx(lengths.min(), abs=0.04)


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_expert_reaches_the_goal_by_every_route(layout):
    """With time enough nearly always, by the route it intends, and with its horizon about half of the time."""
    seeds = row_seeds(0, "test", 400)
    patient = PointMaze2D(layout, horizon=100)
    multimodal = patient.reference_policies()["multimodal"]
    episodes = run_episodes(patient, multimodal, seeds)
    assert episodes.info["success"].mean() > 0.99
    intended = patient.initial(CounterKey(seeds)).intended
    taken = episodes.info["route"][:, 0]
    assert (taken == intended)[taken >= 0].mean() > 0.99
    assert set(taken[taken >= 0].tolist()) == set(range(patient.num_routes))


def test_expert_is_slow_and_noisy_as_told():
    """Its actions have the length asked for without noise, and deviate by the noise asked for with it."""
    slow = PointMaze2D(expert_speed=0.4, expert_noise=0.0)
    actions = rollout(slow, slow.reference_policies()["multimodal"], row_seeds(0, "test", 50), steps=10).actions
    # Where a corner is near, the step ends there.
    lengths = np.linalg.norm(actions, axis=-1)
    assert lengths.max() == pytest.approx(0.4)
    assert np.median(lengths) == pytest.approx(0.4)
    noisy = PointMaze2D(expert_speed=0.4, expert_noise=0.1, **STILL)
    first = rollout(noisy, noisy.reference_policies()["multimodal"], row_seeds(0, "test", 2000), steps=1).actions[0]
    centre = 0.4 * np.array([0.5, 1.5]) / math.hypot(0.5, 1.5)
    deviation = first * np.where(first[:, 1:] > 0.0, 1.0, [[1.0, -1.0]]) - centre
    np.testing.assert_allclose(deviation.std(axis=0), 0.1, rtol=0.1)
    np.testing.assert_allclose(deviation.mean(axis=0), 0.0, atol=0.01)
    half = PointMaze2D()
    seeds = row_seeds(1, "test", 1000)
    rate = run_episodes(half, half.reference_policies()["multimodal"], seeds).info["success"].mean()
    assert 0.3 < rate < 0.7


@pytest.mark.parametrize("probabilities", [None, (0.5, 0.2, 0.3), (0.0, 1.0, 0.0)])
def test_routes_are_drawn_with_their_probabilities(probabilities):
    """Chi-square of 3,000 draws at the level of a thousandth; a route of probability 0 never comes."""
    world = PointMaze2D("three-routes", route_probabilities=probabilities)
    intended = world.initial(CounterKey(row_seeds(0, "test", 3000))).intended
    counts = np.bincount(intended, minlength=3)
    expected = 3000 * np.asarray(probabilities or (1 / 3,) * 3)
    possible = expected > 0
    assert counts[~possible].sum() == 0
    if possible.sum() > 1:
        assert stats.chisquare(counts[possible], expected[possible]).pvalue > 1e-3


def test_intended_route_is_no_part_of_what_agents_see():
    world = PointMaze2D(**STILL)
    one, other = (world._state_at(np.array([[1.5, 3.5]]), np.array([-1]), np.array([route])) for route in (0, 1))
    np.testing.assert_array_equal(world.observe(one), world.observe(other))
    assert set(world.information(one)) == {"route", "gate", "success"}
    multimodal = world.reference_policies()["multimodal"]
    key = CounterKey([0], step=1)
    assert multimodal(one, None, key)[0, 1] > 0.0 > multimodal(other, None, key)[0, 1]


def test_mean_of_the_expert_walks_into_the_wall():
    """What makes the data bimodal: the mean of both routes' first actions leads straight to the block."""
    world = PointMaze2D(**STILL, expert_noise=0.0)
    key = CounterKey(row_seeds(0, "test", 2000))
    state = world.initial(key)
    mean = world.reference_policies()["multimodal"](state, None, key).mean(0)
    assert abs(mean[1]) < 0.03 < mean[0]
    stuck = at(world, (1.5, 3.5))
    for _ in range(world.horizon):
        stuck = world.step(stuck, mean[None] * np.array([[1.0, 0.0]]), quiet(1)).state
    np.testing.assert_allclose(stuck.position, [[2.0, 3.5]])


def test_shaping_adds_up_to_the_path_gained_and_stays_below_the_bound():
    world = PointMaze2D(shaping=0.7)
    seeds = row_seeds(0, "test", 100)
    for name in ("random", "multimodal", "shortest"):
        actor = world.reference_policies()[name]
        start, end = world.initial(CounterKey(seeds)), rollout(world, actor, seeds, steps=30)
        gained = 0.7 * (start.distance - end.state.distance) + end.terminated[-1]
        np.testing.assert_allclose(end.rewards.sum(axis=0), gained, atol=1e-9)
        assert end.rewards.sum(axis=0).mean() <= world.oracle().value
    assert world.oracle().value == pytest.approx(1.0 + 0.7 * (world.route_lengths().min() + 0.2 * math.sqrt(2 / 3)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"speed": 0.0}, "speed=0.0; expected a finite number above 0"),
        ({"goal_radius": 0.6}, "goal_radius=0.6; expected at most 0.5"),
        ({"start_width": 0.7}, "start_width=0.7; expected at most 0.5"),
        ({"expert_speed": 1.5}, "expert_speed=1.5; expected at most 1.0"),
        ({"horizon": 0}, "horizon=0"),
        ({"expert_noise": -1.0}, "expert_noise=-1.0"),
        ({"route_probabilities": (0.5, 0.6)}, "route_probabilities=.*expected 2 numbers"),
        ({"route_probabilities": (1.0,)}, "expected 2 numbers"),
        ({"layout": "spiral"}, "layout='spiral'; expected one of"),
        ({"layout": "####/#S0G#/####"}, "rows of equal length"),
        ({"layout": "#####/#SxG#/#####"}, "rows of equal length of the letters"),
        ({"layout": "#####/#S0G./#####"}, "walls all around"),
        ({"layout": "#####/#S0S#/#####"}, "one start S and one goal G"),
        ({"layout": "#####/#S1G#/#####"}, "gates 0, 1, ... with none left out"),
        ({"layout": "#####/#S.G#/#.0.#/#####"}, "gates on every way"),
        ({"layout": "######/#S0#1#/#..#G#/######"}, "a way from S to G through each gate alone"),
        ({"layout": "######/#S.#.#/#.#.0#/#..0G#/######"}, "do not touch at a corner alone"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=f"PointMaze2D: .*{message}"):
        PointMaze2D(**arguments)


def test_picture_shows_the_point():
    world = PointMaze2D()
    pictures = [world.render(at(world, point)) for point in ((1.5, 1.5), (4.5, 5.5))]
    assert pictures[0].shape == (7 * 32, 9 * 32, 3)
    differing = np.argwhere((pictures[0] != pictures[1]).any(axis=-1))
    near = [np.hypot(differing[:, 1] - x, differing[:, 0] - y) for x, y in ((48, 176), (144, 48))]
    assert (np.minimum(*near) <= 6).all()
    with pytest.raises(ValueError, match="mode='ansi'"):
        world.render(at(world, (1.5, 1.5)), mode="ansi")
