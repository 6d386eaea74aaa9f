from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from palaestra.envs import rendering
from palaestra.envs.control.pendulum import Pendulum, PendulumState, wrapped
from palaestra.envs.noise import CounterKey
from palaestra.envs.rollout import run_episodes
from palaestra.seeding import row_seeds
from tests.envs.control.classic import assert_follows, peer_of

FIELDS = ("angle", "angular_velocity")
REWARD = {False: 1e-12, True: 1e-9}
"""Tolerance of rewards: Gymnasium squares float32 torques by the C library, which does not always round correctly."""


def at(angle: float = 0.0, spin: float = 0.0, torque: float = 0.0) -> PendulumState:
    return PendulumState(*(np.array([value]) for value in (angle, spin, torque)))


@pytest.mark.parametrize("single_precision", [False, True])
def test_equals_gymnasium_in_the_precision_of_the_actions(single_precision):
    """Given float64 actions Gymnasium computes in float64, given those of its space partly in float32."""
    dtype = np.float32 if single_precision else np.float64

    def choose(state, rng):
        return rng.uniform(-2.0, 2.0, 1).astype(dtype)

    world = Pendulum(action_mode="torque", single_precision=single_precision)
    compared, ended = assert_follows(
        world, peer_of("Pendulum-v1"), FIELDS, choose, episodes=25, steps=200, reward_tolerance=REWARD[single_precision]
    )
    assert (compared, ended) == (5000, 0)


@pytest.mark.parametrize("single_precision", [False, True])
def test_equals_gymnasium_with_other_physics(single_precision):
    physics = {"gravity": 3.7, "mass": 0.7, "length": 1.3, "max_torque": 0.5, "max_speed": 2.0, "time_step": 0.02}
    names = {"gravity": "g", "mass": "m", "length": "l", "time_step": "dt"}
    peer = peer_of("Pendulum-v1", **{names.get(name, name): value for name, value in physics.items()})
    dtype = np.float32 if single_precision else np.float64

    def choose(state, rng):
        return rng.uniform(-0.5, 0.5, 1).astype(dtype)

    world = Pendulum(**physics, action_mode="torque", single_precision=single_precision)
    assert_follows(world, peer, FIELDS, choose, episodes=10, steps=200, reward_tolerance=REWARD[single_precision])


def test_normalised_actions_are_shares_of_the_largest_torque():
    state, shares = Pendulum().initial(CounterKey(range(5))), np.linspace(-1.0, 1.0, 5)[:, None]
    ours = Pendulum(max_torque=3.0).step(state, shares, CounterKey(range(5), step=1))
    theirs = Pendulum(max_torque=3.0, action_mode="torque").step(state, 3.0 * shares, CounterKey(range(5), step=1))
    np.testing.assert_array_equal(ours.state.angle, theirs.state.angle)
    np.testing.assert_array_equal(ours.reward, theirs.reward)
    np.testing.assert_array_equal(ours.state.torque, 3.0 * shares[:, 0])


def test_angles_are_wrapped():
    np.testing.assert_allclose(
        wrapped(np.array([0.1, 3.2, -3.2, 10.0, -math.pi])),
        [0.1, 3.2 - 2 * math.pi, 2 * math.pi - 3.2, 10.0 - 4 * math.pi, -math.pi],
        atol=1e-15,
    )


def test_energy_is_kept_without_a_motor():
    """A motor that is off neither adds nor takes energy, as far as the time step is small."""
    world = Pendulum(time_step=1e-4, max_speed=100.0, horizon=20_000)
    state = at(angle=2.0)

    def energy(state: PendulumState) -> float:
        return float(state.angular_velocity[0] ** 2 / 6.0 + 5.0 * math.cos(state.angle[0]))

    before = energy(state)
    for step in range(1, 10_000):
        state = world.step(state, np.zeros((1, 1)), CounterKey([0], step=step)).state
    assert energy(state) == pytest.approx(before, abs=0.01)
    assert abs(float(state.angle[0]) - 2.0) > 0.1


def test_gradients_of_a_step_equal_finite_differences():
    world = Pendulum()
    rng = np.random.default_rng(1)

    def step(angle, spin, action):
        transition = world.step(PendulumState(angle, spin, 0.0 * spin), action, CounterKey([0, 1, 2], step=1))
        return transition.state.angle, transition.state.angular_velocity, transition.reward

    angle = torch.tensor([0.4, 2.0, 7.0], dtype=torch.float64, requires_grad=True)
    spin = torch.tensor(rng.normal(size=3), requires_grad=True)
    action = torch.tensor(rng.uniform(-0.9, 0.9, (3, 1)), requires_grad=True)
    assert torch.autograd.gradcheck(step, (angle, spin, action))


def test_gradient_is_that_of_the_identity_where_precision_is_lost():
    exact, rounded = Pendulum(), Pendulum(single_precision=True)
    gradients = []
    for world in (exact, rounded):
        action = torch.tensor([[0.3], [-0.7]], dtype=torch.float64, requires_grad=True)
        state = PendulumState(*(torch.tensor([0.5, 1.0], dtype=torch.float64) for _ in range(3)))
        transition = world.step(state, action, CounterKey([0, 1], step=1))
        (transition.state.angle.sum() + transition.reward.sum()).backward()
        gradients.append(action.grad.numpy())
    np.testing.assert_allclose(gradients[0], gradients[1], rtol=1e-6)


def test_swing_up_holds_the_top_at_the_end():
    world = Pendulum()
    seeds = row_seeds(0, "test", 200)
    episodes = run_episodes(world, world.reference_policies()["swing-up"], seeds)
    assert -170.0 < episodes.returns.mean() < -140.0
    # Held for as long as one likes, the cost is that of the swing alone.
    longer = Pendulum(horizon=600)
    further = run_episodes(longer, longer.reference_policies()["swing-up"], seeds)
    assert (episodes.returns - further.returns).max() < 5.0


def test_picture_shows_rod_and_torque():
    world = Pendulum()

    def colored(state: PendulumState, color) -> np.ndarray:
        return np.argwhere((world.render(state) == color).all(axis=-1))

    # A positive angle is to the left of the top.
    assert colored(at(0.5), rendering.RED)[:, 1].mean() < 115
    assert colored(at(0.0), rendering.RED)[:, 0].mean() < 100 < colored(at(math.pi), rendering.RED)[:, 0].mean()
    assert len(colored(at(0.0), rendering.BLUE)) == 0
    left, right = (colored(at(0.0, torque=torque), rendering.BLUE)[:, 1].mean() for torque in (2.0, -2.0))
    assert left < 115 < 125 < right


@pytest.mark.parametrize(
    ("argument", "value"),
    [("gravity", -1.0), ("length", 0.0), ("max_torque", 0), ("action_mode", "x"), ("horizon", 0.5)],
)
def test_bad_arguments_are_named(argument, value):
    with pytest.raises(ValueError, match=f"Pendulum: {argument}="):
        Pendulum(**{argument: value})
