"""The bandit's values, noise, modes and soft optima against enumeration and quadrature."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from palaestra.envs.control.bias_bandit import BanditState, BiasBandit
from palaestra.envs.noise import Tape
from palaestra.envs.rollout import run_episodes
from palaestra.seeding import row_seeds

WORLDS = [{}, {"modes": 2}, {"modes": 3, "gap": 0.3, "context_shift": 0.1}, {"action_dim": 3, "modes": 2, "gap": 1.0}]


def at(world: BiasBandit, context: np.ndarray) -> BanditState:
    return BanditState(context, np.zeros((len(context), world.action_dim)), 0.0 * context)


def given(world: BiasBandit, rows: int = 500) -> tuple[BanditState, np.ndarray]:
    rng = np.random.default_rng(0)
    return at(world, rng.uniform(-1, 1, rows)), rng.uniform(-1, 1, (rows, world.action_dim))


def test_values_by_hand():
    world = BiasBandit(action_dim=2, modes=2, gap=0.5, curvature=4.0, context_shift=0.25)
    state = at(world, np.array([0.0, 0.0, 1.0, 0.0]))
    action = np.array([[-0.5, 0.0], [0.5, 0.5], [-0.25, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(world.action_value(state, action), [0.0, -0.5 - 1.0, 0.0, -1.0])
    single = BiasBandit(context_shift=0.0)
    np.testing.assert_allclose(single.action_value(at(single, np.zeros(2)), np.array([[0.5], [-1.0]])), [0.0, -9.0])


@pytest.mark.parametrize("kwargs", WORLDS)
def test_the_optimum_is_zero_at_the_first_centre_and_nowhere_else_better(kwargs):
    world = BiasBandit(**kwargs)
    state, action = given(world)
    values = world.action_value(state, action)
    best = world.expert("optimal")(state, world.observe(state), None)
    assert world.action_space.contains(best[0].astype(np.float32))
    assert (abs(best) <= 1.0).all()
    np.testing.assert_allclose(world.action_value(state, best), world.oracle().value, atol=1e-15)
    assert (values <= 0.0).all()
    last = world.reference_policies()["last-mode"](state, world.observe(state), None)
    np.testing.assert_allclose(world.action_value(state, last), -world.gap * (world.modes - 1), atol=1e-15)


@pytest.mark.parametrize("modes", [1, 2, 5])
def test_there_are_as_many_local_optima_as_modes(modes):
    world = BiasBandit(modes=modes, gap=0.0 if modes == 1 else 0.5 * 4.0 * (2.0 / modes) ** 2, context_shift=0.0)
    line = np.linspace(-1, 1, 4001)[:, None]
    values = world.action_value(at(world, np.zeros(4001)), line)
    inner = (values[1:-1] >= values[:-2]) & (values[1:-1] > values[2:])
    np.testing.assert_allclose(line[1:-1][inner][:, 0], world.centres, atol=1e-3)


def test_rewards_have_the_stated_mean_and_noise():
    world = BiasBandit(action_dim=2, noise_std=0.7, noise_slope=-0.5)
    state, action = given(world, 3)
    noise = np.random.default_rng(1).normal(size=3)
    result = world.step(state, action, Tape({"reward": noise}))
    std = 0.7 * (1.0 - 0.5 * action[:, 0])
    np.testing.assert_allclose(result.reward, world.action_value(state, action) + std * noise)
    np.testing.assert_allclose(world.reward_std(action), std)
    assert result.terminated.all()
    np.testing.assert_allclose(result.info["regret"], -world.action_value(state, action))


def test_modes_of_actions_are_named():
    world = BiasBandit(modes=3, context_shift=0.1)
    state = at(world, np.array([0.0, 0.0, 0.0, 1.0]))
    result = world.step(state, np.array([[-0.9], [0.1], [0.5], [0.4]]), Tape({"reward": np.zeros(4)}))
    np.testing.assert_array_equal(result.info["mode"], [0, 1, 2, 1])


@pytest.mark.parametrize("temperature", [0.05, 0.5, 3.0])
@pytest.mark.parametrize("kwargs", WORLDS[:3])
def test_soft_values_and_densities_equal_quadrature(kwargs, temperature):
    world = BiasBandit(**kwargs)
    for context in (-1.0, 0.3):
        state = at(world, np.array([context]))
        borders = world.borders[1:-1] + world.context_shift * context
        points = sorted(b for b in (*borders, *(world.centres + world.context_shift * context)) if -1 < b < 1)

        def value(a, state=state):
            return world.action_value(state, np.array([[a]]))[0]

        mass, _ = quad(lambda a: np.exp(value(a) / temperature), -1, 1, points=points)
        soft = world.soft_value(np.array([context]), temperature)[0]
        assert soft == pytest.approx(temperature * np.log(mass), abs=1e-8)
        density = world.soft_density(np.array([context]), np.array([[0.2]]), temperature)[0]
        assert density == pytest.approx(np.exp(value(0.2) / temperature) / mass, rel=1e-7)


def test_further_dimensions_are_independent_of_the_first():
    flat, deep = BiasBandit(modes=2), BiasBandit(action_dim=2, modes=2)
    mass, _ = quad(lambda a: np.exp(-4.0 * a**2 / 0.5), -1, 1)
    context = np.array([0.4])
    difference = deep.soft_value(context, 0.5) - flat.soft_value(context, 0.5)
    np.testing.assert_allclose(difference, 0.5 * np.log(mass))


def test_a_cold_soft_value_is_the_optimum_and_no_temperature_is_refused():
    world = BiasBandit()
    assert world.soft_value(np.zeros(1), 1e-6)[0] == pytest.approx(0.0, abs=1e-4)
    with pytest.raises(ValueError, match=r"temperature=0\.0; expected a number above 0"):
        world.soft_value(np.zeros(1), 0.0)


def test_every_episode_is_one_step():
    world = BiasBandit(noise_std=0.0)
    episodes = run_episodes(world, world.expert("optimal"), row_seeds(0, "test", 50))
    assert (episodes.lengths == 1).all()
    np.testing.assert_allclose(episodes.returns, 0.0, atol=1e-12)


def test_values_are_differentiable():
    world = BiasBandit(action_dim=2, modes=2)
    state = BanditState(torch.zeros(3).double(), torch.zeros(3, 2).double(), torch.zeros(3).double())
    action = torch.tensor([[0.3, 0.1], [-0.7, -0.2], [0.9, 0.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a: world.action_value(state, a), (action,))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"action_dim": 0}, "action_dim=0; expected an integer of at least 1"),
        ({"modes": 1.5}, "modes=1.5; expected an integer"),
        ({"curvature": 0.0}, "curvature=0.0; expected a finite number above 0"),
        ({"noise_std": -1.0}, "noise_std=-1.0"),
        ({"noise_slope": 1.5}, r"noise_slope=1.5; expected a number in \[-1, 1\]"),
        ({"context_shift": 0.6}, "context_shift=0.6; expected at most 0.5"),
        ({"modes": 2, "gap": 4.0}, "gap=4.0; expected less than 4"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=f"BiasBandit: {message}"):
        BiasBandit(**arguments)


def test_picture_shows_the_action():
    world = BiasBandit(modes=2)
    pictures = []
    for action in (-0.5, 0.5):
        state = BanditState(np.zeros(1), np.array([[action]]), np.array([0.5]))
        pictures.append(world.render(state))
    columns = np.unique(np.argwhere((pictures[0] != pictures[1]).any(-1))[:, 1])
    assert all(min(abs(column - 66), abs(column - 174)) <= 5 for column in columns)
    with pytest.raises(ValueError, match="mode='ansi'"):
        world.render(state, mode="ansi")
