from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from palaestra.envs import rendering
from palaestra.envs.control.cart_pole import CartPole, CartPoleState
from palaestra.envs.noise import CounterKey
from palaestra.envs.rollout import rollout, run_episodes
from palaestra.seeding import row_seeds
from tests.envs.control.classic import assert_follows, peer_of

FIELDS = ("position", "velocity", "angle", "angular_velocity")


def at(position: float = 0.0, velocity: float = 0.0, angle: float = 0.0, spin: float = 0.0, force: float = 0.0):
    return CartPoleState(*(np.array([value]) for value in (position, velocity, angle, spin, force)))


def coin(state, rng):
    return int(rng.integers(2))


def test_equals_gymnasium_under_random_pushes_to_the_last_bit():
    compared, ended = assert_follows(
        CartPole(), peer_of("CartPole-v1"), FIELDS, coin, episodes=200, steps=500, tolerance=0.0
    )
    assert compared > 3000
    assert ended == 200


def test_equals_gymnasium_over_whole_balanced_episodes():
    """Free runs of 500 steps of an unstable world: equal only because every operation is."""
    world = CartPole()
    lqr = world.expert("optimal")

    def choose(state, rng):
        return int(lqr(state, None, CounterKey([0]))[0]) if rng.random() < 0.9 else int(rng.integers(2))

    compared, _ = assert_follows(world, peer_of("CartPole-v1"), FIELDS, choose, episodes=10, steps=500, tolerance=1e-12)
    assert compared == 5000


@pytest.mark.parametrize("integrator", ["euler", "semi-implicit"])
def test_equals_gymnasium_with_other_physics(integrator):
    world = CartPole(
        gravity=3.7,
        cart_mass=2.0,
        pole_mass=0.7,
        half_length=0.9,
        max_force=5.0,
        time_step=0.03,
        integrator=integrator,
        angle_limit=0.5,
        position_limit=1.0,
        sutton_barto_reward=True,
    )
    peer = peer_of(
        "CartPole-v1",
        gravity=3.7,
        masscart=2.0,
        masspole=0.7,
        total_mass=0.7 + 2.0,
        length=0.9,
        polemass_length=0.7 * 0.9,
        force_mag=5.0,
        tau=0.03,
        kinematics_integrator=integrator,
        theta_threshold_radians=0.5,
        x_threshold=1.0,
        _sutton_barto_reward=True,
    )
    assert assert_follows(world, peer, FIELDS, coin, episodes=60, steps=500)[1] == 60


def test_ends_beyond_either_limit_and_not_on_it():
    world = CartPole()
    cases = [
        (at(position=2.4), False),
        (at(position=2.4, velocity=0.1), True),
        (at(position=-2.4, velocity=-0.1), True),
        (at(angle=12 * math.pi / 180), False),
        (at(angle=12 * math.pi / 180, spin=0.1), True),
        (at(angle=-12 * math.pi / 180, spin=-0.1), True),
    ]
    for state, expected in cases:
        transition = world.step(state, np.array([1]), CounterKey([0], step=1))
        assert bool(transition.terminated[0]) is expected
        assert transition.reward[0] == 1.0
        paid = CartPole(sutton_barto_reward=True).step(state, np.array([1]), CounterKey([0], step=1))
        assert paid.reward[0] == (-1.0 if expected else 0.0)


def test_mirror_image():
    """Left and right are alike: the mirrored state under the mirrored push is the mirror of the result, bit for bit."""
    world = CartPole(action_mode="continuous")
    rng = np.random.default_rng(0)
    parts, action = rng.normal(size=(5, 50)) * 0.1, rng.uniform(-1.0, 1.0, (50, 1))
    one = world.step(CartPoleState(*parts), action, CounterKey(range(50), step=1)).state
    other = world.step(CartPoleState(*-parts), -action, CounterKey(range(50), step=1)).state
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(one, name), -getattr(other, name))


def test_full_forces_are_the_two_pushes():
    continuous, discrete = CartPole(action_mode="continuous"), CartPole()
    state = discrete.initial(CounterKey(range(4)))
    pushes = np.array([0, 1, 1, 0])
    ours = continuous.step(state, (2.0 * pushes - 1.0)[:, None], CounterKey(range(4), step=1)).state
    theirs = discrete.step(state, pushes, CounterKey(range(4), step=1)).state
    for f in dataclasses.fields(ours):
        np.testing.assert_array_equal(getattr(ours, f.name), getattr(theirs, f.name))


@pytest.mark.parametrize("integrator", ["euler", "semi-implicit"])
def test_gradients_of_a_step_equal_finite_differences(integrator):
    world = CartPole(action_mode="continuous", integrator=integrator)
    rng = np.random.default_rng(1)

    def step(position, velocity, angle, spin, action):
        state = CartPoleState(position, velocity, angle, spin, 0.0 * spin)
        following = world.step(state, action, CounterKey([0, 1, 2], step=1)).state
        return tuple(getattr(following, name) for name in FIELDS)

    parts = [torch.tensor(rng.normal(size=3), requires_grad=True) for _ in range(4)]
    action = torch.tensor(rng.uniform(-0.9, 0.9, (3, 1)), requires_grad=True)
    assert torch.autograd.gradcheck(step, (*parts, action))


def test_gradients_flow_through_a_whole_run():
    """The last angle after 25 steps, as a function of the gain of a linear policy."""
    world = CartPole(action_mode="continuous", angle_limit=10.0, position_limit=100.0)
    seeds = torch.tensor(row_seeds(0, "test", 4))

    def last_angle(gain):
        def actor(state, observation, key):
            return torch.tanh(observation @ gain)[:, None]

        return rollout(world, actor, seeds, steps=25).state.angle.sum()

    gain = torch.tensor([0.1, 0.2, 1.0, 0.5], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(last_angle(gain), gain)
    for index in range(4):
        shift = torch.zeros(4, dtype=torch.float64)
        shift[index] = 1e-6
        difference = (last_angle(gain + shift) - last_angle(gain - shift)) / 2e-6
        assert gradient[index].item() == pytest.approx(difference.item(), rel=1e-5)


def test_regulator_is_of_the_worlds_own_derivatives():
    """The linearisation by hand against autograd at the upright rest; and its closed loop is stable."""
    world = CartPole(action_mode="continuous", gravity=4.0, pole_mass=0.5, half_length=0.8, max_force=3.0)
    a, b = world.linearised()

    def step(parts, force):
        state = CartPoleState(*(part[None] for part in parts), torch.zeros(1, dtype=torch.float64))
        following = world.step(state, (force / world.max_force)[:, None], CounterKey([0], step=1)).state
        return torch.stack([getattr(following, name)[0] for name in FIELDS])

    rest = (torch.zeros(4, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    by_state, by_force = torch.autograd.functional.jacobian(step, rest)
    np.testing.assert_allclose(a, by_state, atol=1e-14)
    np.testing.assert_allclose(b, by_force, atol=1e-14)
    closed = a - b @ np.array([world.regulator_gain()])
    assert np.abs(np.linalg.eigvals(closed)).max() < 1.0


@pytest.mark.parametrize("action_mode", ["discrete", "continuous"])
def test_regulator_holds_every_start_far_beyond_the_horizon(action_mode):
    world = CartPole(action_mode=action_mode, horizon=3000)
    episodes = run_episodes(world, world.expert("optimal"), row_seeds(0, "test", 300))
    np.testing.assert_array_equal(episodes.returns, 3000.0)


def test_oracle_is_an_optimum_for_the_default_physics_alone():
    assert CartPole().oracle().value == 500.0
    assert CartPole().oracle().kind == "optimum"
    assert CartPole(horizon=200, action_mode="continuous").oracle().value == 200.0
    assert CartPole(sutton_barto_reward=True).oracle().value == 0.0
    for other in ({"gravity": 20.0}, {"start_range": 0.2}, {"integrator": "semi-implicit"}, {"angle_limit": 0.01}):
        world = CartPole(**other)
        assert world.oracle().kind == "bound"
        assert world.experts() == {}


def test_picture_shows_pole_and_push():
    world = CartPole()

    def colored(state, color):
        return np.argwhere((world.render(state) == color).all(axis=-1))

    upright, leaning = (colored(at(angle=angle), rendering.ORANGE) for angle in (0.0, 0.15))
    assert abs(upright[:, 1].mean() - 160) < 1
    # The pole is 1 m long, 280 pixels show 4.8 m.
    assert leaning[:, 1].mean() == pytest.approx(160 + 0.5 * 280 / 4.8 * math.sin(0.15), abs=1.0)
    assert len(colored(at(angle=0.3), rendering.RED)) > 100
    assert len(colored(at(), rendering.GREEN)) == 0
    left, right = (colored(at(force=force), rendering.GREEN)[:, 1].mean() for force in (-10.0, 10.0))
    assert left < 160 < right
    assert colored(at(position=1.0), rendering.BLUE)[:, 1].mean() > 200


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("gravity", -1.0),
        ("cart_mass", 0.0),
        ("half_length", math.nan),
        ("integrator", "rk4"),
        ("action_mode", "force"),
        ("horizon", 0),
        ("start_range", -0.1),
    ],
)
def test_bad_arguments_are_named(argument, value):
    with pytest.raises(ValueError, match=f"CartPole: {argument}="):
        CartPole(**{argument: value})
