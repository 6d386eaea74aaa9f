"""The linear world against its matrices, and its optimum against dynamic programming, SciPy and simulation."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

from palaestra.envs.control.lqr import LQR, MassesState, Regulator
from palaestra.envs.noise import Tape
from palaestra.envs.rollout import episode_returns, rollout
from palaestra.seeding import row_seeds

WORLDS = [{}, {"masses": 3}, {"stiffness": 0.0}, {"masses": 2, "damping": 0.5, "noise_std": 0.2, "horizon": 30}]


def at(world: LQR, z: np.ndarray) -> MassesState:
    n = world.masses
    return MassesState(z[:, :n], z[:, n:], 0.0 * z[:, :n], np.zeros(len(z), np.int64))


@pytest.mark.parametrize("kwargs", WORLDS)
def test_steps_are_those_of_the_matrices(kwargs):
    world, rng = LQR(**kwargs), np.random.default_rng(0)
    z, action = rng.normal(size=(20, 2 * world.masses)), rng.uniform(-1, 1, (20, world.masses))
    share = rng.uniform(size=(20, world.masses))
    result = world.step(at(world, z), action, Tape({"kick": share}))
    kick = np.sqrt(3.0) * world.noise_std * (2.0 * share - 1.0)
    force = world.max_force * action
    expected = z @ world.dynamics.T + (force + kick / world.time_step) @ world.control.T
    np.testing.assert_allclose(world.observe(result.state), expected, atol=1e-12)
    n = world.masses
    cost = (z[:, :n] ** 2).sum(-1) + 0.1 * (z[:, n:] ** 2).sum(-1) + 0.1 * (force**2).sum(-1)
    np.testing.assert_allclose(result.reward, -0.1 * cost)
    assert not result.terminated.any()


def test_one_step_by_hand():
    world = LQR(stiffness=2.0, damping=0.1, noise_std=0.0)
    result = world.step(at(world, np.array([[1.0, -1.0]])), np.array([[0.5]]), Tape({"kick": np.zeros((1, 1))}))
    velocity = 0.99 * -1.0 + 0.1 * (2.0 * -2.0 + 0.5 * world.max_force)
    assert result.state.velocity.item() == pytest.approx(velocity)
    assert result.state.position.item() == pytest.approx(1.0 + 0.1 * velocity)


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_values_are_those_of_bellmans_equation(gamma):
    """V_t(z) = max over u of r(z, u) + gamma E V_{t+1}(z'), the maximum found by search and E by exact moments."""
    world, rng = LQR(masses=2, horizon=12, noise_std=0.3), np.random.default_rng(1)
    solution = world.solution(gamma)
    z = rng.normal(size=(5, 4))
    spread = world.noise_std**2 * world.control @ world.control.T / world.time_step**2
    for time in (0, 5, 11):

        def backed_up(force, time=time):
            after = z @ world.dynamics.T + force @ world.control.T
            following = solution.value(after, time + 1) - np.trace(solution.values[time + 1] @ spread)
            cost = (z[:, :2] ** 2).sum(-1) + 0.1 * (z[:, 2:] ** 2).sum(-1) + 0.1 * (force**2).sum(-1)
            return -0.1 * cost + gamma * following

        best = -z @ solution.gains[time].T
        np.testing.assert_allclose(backed_up(best), solution.value(z, time), atol=1e-12)
        for _ in range(20):
            assert (backed_up(best + 0.3 * rng.normal(size=best.shape)) < solution.value(z, time)).all()
    assert (solution.gains[-1] == 0.0).all()


def test_an_infinite_horizon_is_the_limit_of_long_ones_and_scipys():
    world = LQR(masses=2)
    limit, long = world.solution(0.95, forever=True), world.solution(0.95, 2_000)
    np.testing.assert_allclose(long.values[0], limit.values[0], rtol=1e-9)
    np.testing.assert_allclose(long.gains[0], limit.gains[0], rtol=1e-9)
    np.testing.assert_allclose(long.constants[0], limit.constants[0], rtol=1e-9)
    # The undiscounted equation, by SciPy alone.
    cost = 0.1 * np.diag([1.0, 1.0, 0.1, 0.1])
    peer = scipy.linalg.solve_discrete_are(world.dynamics, world.control, cost, 0.01 * np.eye(2))
    np.testing.assert_allclose(world.solution(1.0, 2_000).values[0], peer, rtol=1e-9)


@pytest.mark.parametrize("kwargs", WORLDS)
def test_simulated_returns_of_the_optimal_policy_are_the_oracles(kwargs):
    world = LQR(**kwargs)
    returns = episode_returns(world, world.expert("optimal"), row_seeds(0, "test", 3_000), 1)[:, 0]
    error = returns.std(ddof=1) / np.sqrt(len(returns))
    assert abs(returns.mean() - world.oracle().value) < 3.5 * error
    assert error < 0.05 * abs(world.oracle().value)


def test_other_gains_do_worse_on_the_same_noise():
    world = LQR(horizon=50)
    seeds = row_seeds(0, "test", 2_000)
    best = episode_returns(world, world.expert("optimal"), seeds, 1)
    gains = world.solution().gains
    for other in (0.8 * gains, 1.25 * gains, gains + np.array([[0.3, -0.3]])):
        gain = best - episode_returns(world, Regulator(world, other), seeds, 1)
        assert gain.mean() > 3.0 * gain.std(ddof=1) / np.sqrt(len(gain))


@pytest.mark.parametrize("kwargs", WORLDS)
def test_the_optimal_policy_is_never_clipped_though_it_can_come_close(kwargs):
    world = LQR(**kwargs)
    run = rollout(world, world.expert("optimal"), row_seeds(0, "test", 500), steps=world.horizon)
    assert abs(run.actions).max() < 1.0
    # The worst corner of the start, pushed by the worst noise, is what the box was made for.
    causes, most, step_of_most = world.start_size * np.eye(2 * world.masses), 0.0, 0
    for step, gain in enumerate(world.solution().gains):
        size = abs(gain @ causes).sum(-1).max()
        if size > most:
            most, step_of_most = size, step
        closed = world.dynamics - world.control @ gain
        kick = np.sqrt(3.0) * world.noise_std * world.control / world.time_step
        causes = np.hstack([closed @ causes, kick])
    assert most == pytest.approx(world.max_force, rel=1e-6)
    if step_of_most == 0:
        gain = world.solution().gains[0]
        row = int(abs(gain).sum(-1).argmax())
        corner = world.start_size * np.sign(gain[row])[None]
        action = world.expert("optimal")(at(world, corner), world.observe(at(world, corner)), None)
        assert abs(action[0, row]) == pytest.approx(1.0, rel=1e-6)


def test_everything_within_reach_is_in_the_observation_space():
    """The largest position and speed are those of the constant push along the worst start and noise."""
    world = LQR(stiffness=0.0, horizon=20)
    state, kick = at(world, np.array([[1.0, 1.0]])), Tape({"kick": np.ones((1, 1))})
    for _ in range(20):
        state = world.step(state, np.ones((1, 1)), kick).state
    farthest = world.observe(state)[0]
    assert world.observation_space.contains(farthest.astype(np.float32))
    np.testing.assert_allclose(farthest, world.observation_space.high, rtol=1e-5)


def test_the_gain_of_every_step_is_taken_and_the_last_one_beyond():
    world = LQR(horizon=10)
    gains = world.solution().gains
    z = np.array([[1.0, 0.0]] * 3)
    state = MassesState(z[:, :1], z[:, 1:], 0.0 * z[:, :1], np.array([0, 4, 25]))
    action = world.expert("optimal")(state, world.observe(state), None)
    np.testing.assert_allclose(action[:, 0] * world.max_force, -gains[[0, 4, 9], 0, 0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"masses": 0}, "LQR: masses=0; expected an integer of at least 1"),
        ({"force_cost": 0.0}, "LQR: force_cost=0.0; expected a finite number above 0"),
        ({"noise_std": -0.1}, "LQR: noise_std=-0.1"),
        ({"horizon": 1.5}, "LQR: horizon=1.5"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        LQR(**arguments)
    for gamma, forever in ((0.0, False), (1.0, True), (1.1, False)):
        with pytest.raises(ValueError, match="gamma="):
            LQR().solution(gamma, forever=forever)


def test_picture_shows_masses_and_forces():
    world = LQR(masses=2)
    state = MassesState(np.array([[0.5, 0.0]]), np.zeros((1, 2)), np.array([[world.max_force, 0.0]]), np.zeros(1, int))
    rest = MassesState(np.zeros((1, 2)), np.zeros((1, 2)), np.zeros((1, 2)), np.zeros(1, int))
    pictures = [world.render(state), world.render(rest)]
    assert pictures[0].shape == (90, 270, 3)
    columns = np.argwhere((pictures[0] != pictures[1]).any(-1))[:, 1]
    assert columns.max() < 165
    with pytest.raises(ValueError, match="mode='ansi'"):
        world.render(rest, mode="ansi")
