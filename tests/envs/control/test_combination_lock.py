"""The combination lock: its observations, its chances, and what its optimum and its behaviours are worth."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from scipy.linalg import hadamard

from palaestra.envs.control.combination_lock import (
    DEAD,
    LARGEST_NORMAL,
    CombinationLock,
    LockState,
    hadamard_transform,
)
from palaestra.envs.noise import CounterKey
from palaestra.envs.rollout import episode_returns
from palaestra.seeding import row_seeds

ROWS = 20_000


def state_at(world: CombinationLock, latent: int, step: int, rows: int = ROWS) -> LockState:
    return LockState(np.full(rows, latent), np.full(rows, step), np.zeros((rows, world.horizon + 4)))


def key(rows: int = ROWS, step: int = 1) -> CounterKey:
    return CounterKey(np.arange(rows), step=step)


def chance_of_right(world: CombinationLock, epsilon: float) -> float:
    """Chance of the right button by a policy that presses it alone, or, with `epsilon`, any of them alike."""
    surest = 1.0 / (1.0 + (world.buttons - 1) * np.exp(-1.0 / world.temperature))
    return float((1.0 - epsilon) * surest + epsilon / world.buttons)


def value(world: CombinationLock, right: float) -> float:
    opened = right**world.horizon
    return opened + (1.0 - opened) * world.decoy_reward * world.decoy_probability


@pytest.mark.parametrize("size", [1, 2, 8, 32])
def test_transform_is_the_product_with_sylvesters_matrix(size: int) -> None:
    entries = np.random.default_rng(0).normal(size=(5, size))
    transformed = hadamard_transform(entries)
    np.testing.assert_allclose(transformed, entries @ hadamard(size), rtol=0.0, atol=1e-12)
    np.testing.assert_allclose(hadamard_transform(transformed) / size, entries, rtol=0.0, atol=1e-12)


def test_observation_hides_state_and_step_in_noise() -> None:
    world = CombinationLock(horizon=5)
    assert world.size == 16
    state = world.initial(key(4000))
    entries = hadamard_transform(np.asarray(world.observe(state))) / world.size
    shown = np.eye(3)[state.latent]
    np.testing.assert_allclose(entries[:, :3].mean(0), shown.mean(0), atol=0.01)
    assert entries[:, :3].argmax(1).tolist() == state.latent.tolist()
    assert (entries[:, 3:9].argmax(1) == 0).all()
    assert entries[:, 4:9].std() == pytest.approx(0.1, rel=0.02)
    assert np.abs(entries[:, 9:]).max() < 1e-12
    quiet = CombinationLock(horizon=5, noise_std=0.0)
    np.testing.assert_array_equal(
        quiet.observe(state_at(quiet, DEAD, 2, 1))[0], (np.eye(16)[2] + np.eye(16)[5]) @ hadamard(16)
    )


def test_no_normal_draw_exceeds_the_bound_of_the_space() -> None:
    # Box and Muller from 53 bits: the radius is sqrt(-2 log 2**-53) at most.
    assert np.sqrt(2.0 * 53.0 * np.log(2.0)) < LARGEST_NORMAL


def test_the_button_that_gives_way_follows_the_softmax() -> None:
    world = CombinationLock(horizon=3, buttons=4, temperature=0.5)
    action = np.array([0.2, 0.9, 0.4, 0.0])
    chances = np.exp(action / 0.5) / np.exp(action / 0.5).sum()
    for latent in (0, 1):
        right = int(world.right_button(state_at(world, latent, 1, 1))[0])
        step = world.step(state_at(world, latent, 1), np.tile(action, (ROWS, 1)), key())
        survived = (step.state.latent != DEAD).mean()
        assert survived == pytest.approx(chances[right], abs=4.0 * np.sqrt(0.25 / ROWS))


def test_good_states_swap_and_dead_ones_stay_dead() -> None:
    world = CombinationLock(horizon=4, switch_probability=0.3)
    for latent in (0, 1):
        state = state_at(world, latent, 0)
        step = world.step(state, np.eye(10)[world.right_button(state)], key())
        alive = step.state.latent[step.state.latent != DEAD]
        assert len(alive) / ROWS > 0.999
        assert (alive != latent).mean() == pytest.approx(0.3, abs=0.015)
        assert not step.reward.any()
        assert not step.terminated.any()
    dead = state_at(world, DEAD, 0)
    step = world.step(dead, np.eye(10)[world.right_button(state_at(world, 1, 0))], key())
    assert (step.state.latent == DEAD).all()


def test_the_last_step_pays_one_or_the_decoy() -> None:
    world = CombinationLock(horizon=2, decoy_reward=0.25, decoy_probability=0.2, temperature=0.01)
    good, dead = state_at(world, 1, 1), state_at(world, DEAD, 1)
    opened = world.step(good, np.eye(10)[world.right_button(good)], key())
    assert (opened.reward == 1.0).all()
    assert opened.terminated.all()
    assert world.information(opened.state)["success"].all()
    for state, action in ((good, np.eye(10)[(world.right_button(good) + 1) % 10]), (dead, np.zeros((ROWS, 10)))):
        failed = world.step(state, action, key())
        assert set(np.unique(failed.reward)) == {0.0, 0.25}
        assert (failed.reward > 0).mean() == pytest.approx(0.2, abs=0.015)
        assert not world.information(failed.state)["success"].any()


@pytest.mark.parametrize("horizon", [1, 5, 10])
def test_behaviours_are_worth_what_their_chances_say(horizon: int) -> None:
    world = CombinationLock(horizon=horizon)
    seeds = row_seeds(0, "test", 4000)
    for name, epsilon in (("optimal", 0.0), ("epsilon-greedy", 1.0 / horizon), ("random", 1.0)):
        returns = episode_returns(world, world.reference_policies()[name], seeds, 2).ravel()
        expected = value(world, chance_of_right(world, epsilon))
        assert returns.mean() == pytest.approx(expected, abs=4.0 * returns.std() / np.sqrt(returns.size) + 1e-3)
    oracle = world.oracle()
    assert oracle.value == pytest.approx(value(world, chance_of_right(world, 0.0)))


def test_no_action_beats_the_experts_at_any_step() -> None:
    """By random search: no action of the box makes the right button likelier."""
    world = CombinationLock(buttons=3, temperature=0.2)
    actions = np.random.default_rng(0).uniform(size=(5000, 3))
    chances = np.exp(actions / 0.2)[:, 0] / np.exp(actions / 0.2).sum(1)
    assert chances.max() <= chance_of_right(world, 0.0)


def test_combinations_differ_by_seed_and_are_shared_by_rows() -> None:
    one, same, other = (CombinationLock(horizon=10, combination=c)._right for c in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    assert one.shape == (2, 10)
    assert one.min() >= 0
    assert one.max() <= 9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"horizon": 0}, "horizon=0; expected an integer of at least 1"),
        ({"buttons": 1}, "buttons=1; expected an integer of at least 2"),
        ({"temperature": 0.0}, "temperature=0.0; expected a finite number above 0"),
        ({"switch_probability": 1.5}, "switch_probability=1.5; expected a number from 0 to 1"),
        ({"decoy_reward": 2.0}, "decoy_reward=2.0; expected a number from 0 to 1"),
        ({"combination": -1}, "combination=-1; expected an integer of at least 0"),
    ],
)
def test_arguments_outside_their_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CombinationLock(**arguments)


def test_pictures_mark_the_present_state() -> None:
    env = gym.make("palaestra/CombinationLock-v0", render_mode="ansi")
    _, info = env.reset(seed=0)
    lines = env.render().splitlines()  # type: ignore[union-attr]
    assert ["[" in line for line in lines] == [line == info["latent"] for line in range(3)]
