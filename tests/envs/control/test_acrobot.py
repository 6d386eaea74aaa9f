from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from palaestra.envs import rendering
from palaestra.envs.control.acrobot import Acrobot, AcrobotState, _wrapped
from palaestra.envs.noise import CounterKey
from palaestra.envs.rollout import run_episodes
from palaestra.seeding import row_seeds
from tests.envs.control.classic import assert_follows, peer_of

FIELDS = ("first_angle", "second_angle", "first_velocity", "second_velocity")


def at(first: float = 0.0, second: float = 0.0, spin1: float = 0.0, spin2: float = 0.0, torque: float = 0.0):
    return AcrobotState(*(np.array([value]) for value in (first, second, spin1, spin2, torque)))


def mostly_along(state, rng):
    return 2 * int(state.second_velocity[0] >= 0.0) if rng.random() < 0.9 else int(rng.integers(3))


@pytest.mark.parametrize("dynamics", ["book", "nips"])
def test_equals_gymnasium_step_by_step(dynamics):
    world, peer = Acrobot(dynamics=dynamics), peer_of("Acrobot-v1", book_or_nips=dynamics)
    compared, ended = assert_follows(world, peer, FIELDS, mostly_along, episodes=30, steps=500, put_back=True)
    assert compared > 2000
    assert ended > 20


def test_equals_gymnasium_over_a_free_run():
    """The world is chaotic: rounding grows by the step, so a free run is compared over its first 20 s."""
    compared, _ = assert_follows(
        Acrobot(), peer_of("Acrobot-v1"), FIELDS, mostly_along, episodes=20, steps=100, tolerance=1e-6
    )
    assert compared > 1000


def test_equals_gymnasium_with_other_physics():
    world = Acrobot(
        first_mass=0.8,
        second_mass=1.3,
        first_length=1.1,
        first_center=0.4,
        second_center=0.6,
        inertia=0.7,
        time_step=0.1,
    )
    peer = peer_of(
        "Acrobot-v1",
        LINK_MASS_1=0.8,
        LINK_MASS_2=1.3,
        LINK_LENGTH_1=1.1,
        LINK_COM_POS_1=0.4,
        LINK_COM_POS_2=0.6,
        LINK_MOI=0.7,
        dt=0.1,
    )
    assert_follows(world, peer, FIELDS, mostly_along, episodes=10, steps=300, put_back=True)


def test_limits_of_angles_and_velocities_are_met_as_gymnasium_does():
    """From states near every limit, where angles wrap and velocities are cut."""
    world, peer, rng = Acrobot(), peer_of("Acrobot-v1"), np.random.default_rng(0)
    wraps = cuts = 0
    for _ in range(300):
        first, second = rng.uniform(-math.pi, math.pi, 2)
        spin1, spin2 = rng.uniform(-4 * math.pi, 4 * math.pi), rng.uniform(-9 * math.pi, 9 * math.pi)
        state, action = at(first, second, spin1, spin2), int(rng.integers(3))
        peer.state = np.array([first, second, spin1, spin2])
        peer.step(action)
        following = world.step(state, np.array([action]), CounterKey([0], step=1)).state
        ours = [float(getattr(following, name)[0]) for name in FIELDS]
        np.testing.assert_allclose(ours, peer.state, rtol=0.0, atol=1e-11)
        wraps += abs(ours[0] - first) > math.pi
        cuts += abs(ours[2]) == world.max_velocities[0] or abs(ours[3]) == world.max_velocities[1]
    assert wraps > 20
    assert cuts > 20


def test_wrapping_leaves_what_is_inside_alone():
    inside = np.array([0.0, 3.0, -3.0, math.pi, 1e-300])
    np.testing.assert_array_equal(_wrapped(inside), inside)
    np.testing.assert_allclose(
        _wrapped(np.array([3.2, -3.2, 9.0])), [3.2 - 2 * math.pi, 2 * math.pi - 3.2, 9.0 - 2 * math.pi]
    )


def test_gradients_of_a_step_equal_finite_differences():
    world, rng = Acrobot(), np.random.default_rng(2)

    def step(first, second, spin1, spin2, action):
        state = AcrobotState(first, second, spin1, spin2, 0.0 * first)
        following = world.step(state, action, CounterKey([0, 1], step=1)).state
        return tuple(getattr(following, name) for name in FIELDS)

    parts = [torch.tensor(rng.normal(size=2), requires_grad=True) for _ in range(4)]
    assert torch.autograd.gradcheck(step, (*parts, torch.tensor([0.3, 1.4], dtype=torch.float64, requires_grad=True)))


def test_ends_above_the_line():
    """A link above the bar, straight up or folded."""
    world = Acrobot(time_step=1e-6)
    for first, second, expected in ((math.pi, 0.0, True), (math.pi, math.pi / 2 + 0.1, False), (0.0, 0.0, False)):
        transition = world.step(at(first, second), np.array([1]), CounterKey([0], step=1))
        assert bool(transition.terminated[0]) is expected
        assert transition.reward[0] == (0.0 if expected else -1.0)


def test_pumping_energy_arrives_soon_mostly():
    world = Acrobot()
    returns = run_episodes(world, world.reference_policies()["energy"], row_seeds(0, "test", 200)).returns
    assert np.median(returns) > -100.0


def test_picture_shows_links_and_torque():
    world = Acrobot()

    def colored(state: AcrobotState, color) -> np.ndarray:
        return np.argwhere((world.render(state) == color).all(axis=-1))

    assert colored(at(), rendering.BLUE)[:, 0].mean() > 140
    assert colored(at(math.pi), rendering.BLUE)[:, 0].mean() < 100
    assert len(colored(at(math.pi), rendering.GREEN)) > 100
    assert len(colored(at(), rendering.ORANGE)) == 0
    assert len(colored(at(torque=1.0), rendering.ORANGE)) > 50


@pytest.mark.parametrize(
    ("argument", "value"), [("first_mass", 0.0), ("inertia", -1.0), ("dynamics", "paper"), ("horizon", 0)]
)
def test_bad_arguments_are_named(argument, value):
    with pytest.raises(ValueError, match=f"Acrobot: {argument}="):
        Acrobot(**{argument: value})
