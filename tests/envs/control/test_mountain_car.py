from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from palaestra.envs import rendering
from palaestra.envs.control.mountain_car import CarState, MountainCar, MountainCarContinuous
from palaestra.envs.noise import CounterKey
from palaestra.envs.rollout import run_episodes
from palaestra.seeding import row_seeds
from tests.envs.control.classic import assert_follows, peer_of

FIELDS = ("position", "velocity")


def at(position: float, velocity: float = 0.0, thrust: float = 0.0) -> CarState:
    return CarState(*(np.array([value]) for value in (position, velocity, thrust)))


def mostly_along(largest):
    """Pushes along mostly, so that walls, the speed limit and the goal are met, and at random besides."""

    def choose(state, rng):
        along = 1.0 if state.velocity[0] >= 0.0 else -1.0
        direction = along if rng.random() < 0.8 else rng.uniform(-1.0, 1.0)
        return largest(direction)

    return choose


@pytest.mark.parametrize("physics", [{}, {"goal_velocity": 0.03, "force": 0.003, "gravity": 0.004, "max_speed": 0.05}])
def test_equals_gymnasium(physics):
    compared, ended = assert_follows(
        MountainCar(**physics),
        peer_of("MountainCar-v0", **physics),
        FIELDS,
        mostly_along(lambda direction: int(np.sign(np.round(direction))) + 1),
        episodes=40,
        steps=400,
    )
    assert compared > 500
    assert ended > 20


@pytest.mark.parametrize("physics", [{}, {"goal_velocity": 0.03, "force": 0.003, "max_speed": 0.05}])
def test_continuous_equals_gymnasium_which_computes_in_single_precision(physics):
    """From the first step, whose state is in float64, on."""
    names = {"force": "power"}
    compared, ended = assert_follows(
        MountainCarContinuous(**physics, single_precision=True),
        peer_of("MountainCarContinuous-v0", **{names.get(name, name): value for name, value in physics.items()}),
        FIELDS,
        mostly_along(lambda direction: np.array([direction], np.float32)),
        episodes=40,
        steps=400,
    )
    assert compared > 500
    assert ended > 20


def test_double_precision_differs_by_rounding_alone():
    rng = np.random.default_rng(0)
    exact, rounded = MountainCarContinuous(), MountainCarContinuous(single_precision=True)
    state = at(-0.5)
    for step in range(1, 60):
        action = rng.uniform(-1.0, 1.0, (1, 1)).astype(np.float32)
        one, other = (world.step(state, action, CounterKey([0], step=step)) for world in (exact, rounded))
        np.testing.assert_allclose(one.state.position, other.state.position, atol=1e-7)
        np.testing.assert_allclose(one.state.velocity, other.state.velocity, atol=1e-8)
        assert np.float32(other.state.position[0]) == other.state.position[0]
        state = one.state


def test_stops_at_the_wall_and_arrives_at_the_goal():
    world = MountainCar()
    wall = world.step(at(-1.19, -0.07), np.array([0]), CounterKey([0], step=1))
    assert (wall.state.position[0], wall.state.velocity[0]) == (-1.2, 0.0)
    goal = world.step(at(0.49, 0.05), np.array([2]), CounterKey([0], step=1))
    assert bool(goal.terminated[0])
    assert goal.reward[0] == -1.0
    slow = MountainCar(goal_velocity=0.06).step(at(0.49, 0.05), np.array([2]), CounterKey([0], step=1))
    assert not bool(slow.terminated[0])
    paid = MountainCarContinuous().step(at(0.44, 0.05), np.array([[0.5]]), CounterKey([0], step=1))
    assert paid.reward[0] == pytest.approx(100.0 - 0.1 * 0.25)


def test_gradients_of_a_step_equal_finite_differences():
    world = MountainCarContinuous()

    def step(position, velocity, action):
        transition = world.step(CarState(position, velocity, 0.0 * velocity), action, CounterKey([0, 1], step=1))
        return transition.state.position, transition.state.velocity, transition.reward

    position = torch.tensor([-0.5, 0.1], dtype=torch.float64, requires_grad=True)
    velocity = torch.tensor([0.01, -0.02], dtype=torch.float64, requires_grad=True)
    action = torch.tensor([[0.4], [-0.3]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(step, (position, velocity, action))


@pytest.mark.parametrize(("world", "least"), [(MountainCar(), -130.0), (MountainCarContinuous(), 85.0)])
def test_pushing_along_arrives_from_every_start_and_coasting_never(world, least):
    seeds = row_seeds(0, "test", 200)
    policies = world.reference_policies()
    assert run_episodes(world, policies["energy"], seeds).returns.min() > least
    np.testing.assert_array_equal(run_episodes(world, policies["coast"], seeds).lengths, world.horizon)


def test_picture_shows_car_and_push():
    world = MountainCar()

    def colored(state: CarState, color) -> np.ndarray:
        return np.argwhere((world.render(state) == color).all(axis=-1))

    assert colored(at(-1.0), rendering.BLUE)[:, 1].mean() < 80
    assert colored(at(0.5), rendering.BLUE)[:, 1].mean() > 260
    assert len(colored(at(-0.5), rendering.ORANGE)) == 0
    middle = colored(at(-0.5), rendering.BLUE)[:, 1].mean()
    left, right = (colored(at(-0.5, thrust=t), rendering.ORANGE)[:, 1].mean() for t in (-0.001, 0.001))
    assert left < middle < right


@pytest.mark.parametrize(
    ("argument", "value"),
    [("force", 0.0), ("max_speed", -1.0), ("goal_position", 0.7), ("goal_velocity", math.nan), ("horizon", 0)],
)
def test_bad_arguments_are_named(argument, value):
    for world in (MountainCar, MountainCarContinuous):
        with pytest.raises(ValueError, match=f"{world.__name__}: {argument}="):
            world(**{argument: value})
