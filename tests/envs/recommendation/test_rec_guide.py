"""RecGuide: its signals against direct computation, its tasks, and its bound."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

import palaestra  # noqa: F401
from palaestra.envs.noise import CounterKey
from palaestra.envs.recommendation.rec_guide import GuideState, RecGuide
from palaestra.envs.rollout import run_episodes
from palaestra.seeding import row_seeds

ROWS = 500


def log_softmax(world: RecGuide, interest: np.ndarray) -> np.ndarray:
    logits = world.sharpness * interest @ world.catalogue.embeddings.values.T
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def first_step(world: RecGuide, item: np.ndarray) -> tuple[GuideState, object]:
    state = world.initial(CounterKey(np.arange(ROWS)))
    return state, world.step(state, item, CounterKey(np.arange(ROWS), step=1))


def test_signals_are_what_a_step_does_to_the_target() -> None:
    world = RecGuide(click_weight=0.3, rank_weight=2.0, interest_weight=1.5)
    item = np.arange(ROWS) % world.num_items
    state, transition = first_step(world, item)
    rows = np.arange(ROWS)
    accepted = transition.info["accepted"]
    embedding = world.catalogue.embeddings.values[item]
    moved = state.interest + 0.3 * embedding
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    interest = np.where(accepted[:, None], moved, state.interest)
    np.testing.assert_allclose(transition.state.interest, interest)
    before, after = (log_softmax(world, u)[rows, state.target] for u in (state.interest, interest))
    ranks = [
        1 + (log_softmax(world, u) > log_softmax(world, u)[rows, state.target][:, None]).sum(axis=1)
        for u in (state.interest, interest)
    ]
    click = 1.0 / (1.0 + np.exp(-(state.interest * embedding).sum(axis=1)))
    expected = np.stack([after - before, ranks[0] - ranks[1], click], axis=1)
    np.testing.assert_allclose(transition.info["signals"], expected, atol=1e-9)
    reward = 1.5 * expected[:, 0] + 2.0 * expected[:, 1] / world.num_items + 0.3 * click
    np.testing.assert_allclose(transition.reward, reward, atol=1e-9)
    assert accepted.mean() == pytest.approx(click.mean(), abs=4.0 * 0.5 / np.sqrt(ROWS))
    information = world.information(transition.state)
    np.testing.assert_array_equal(information["rank"], ranks[1])
    np.testing.assert_allclose(information["probability"], np.exp(after))


def test_the_interest_signal_adds_up_to_what_the_path_did() -> None:
    world = RecGuide(rank_weight=0.0, click_weight=0.0)
    greedy = world.reference_policies()["step-by-step"]
    seeds = row_seeds(5, "test", 100)
    episodes = run_episodes(world, greedy, seeds)
    start = world.information(world.initial(CounterKey(seeds)))["probability"]
    gained = np.log(episodes.info["probability"][:, 0]) - np.log(start)
    np.testing.assert_allclose(episodes.returns[:, 0], gained, atol=1e-9)


def test_a_repeated_item_and_the_end_bring_nothing() -> None:
    world = RecGuide()
    item = np.full(ROWS, 9)
    _, first = first_step(world, item)
    again = world.step(first.state, item, CounterKey(np.arange(ROWS), step=2))
    assert not again.reward.any()
    assert not again.info["accepted"].any()
    assert again.info["item"].all()
    np.testing.assert_array_equal(again.state.interest, first.state.interest)
    mask = world.action_masks(first.state)
    assert not mask[:, 9].any()
    assert mask.sum() == ROWS * world.num_items
    end = world.step(first.state, np.full(ROWS, world.num_items), CounterKey(np.arange(ROWS), step=2))
    assert end.terminated.all()
    assert not end.reward.any()
    assert not end.info["item"].any()
    assert not first.terminated.any()


def test_a_task_names_user_and_target_and_a_member_its_noise() -> None:
    env = gym.make_vec("palaestra/RecGuide-v0", 6)
    options = {"task_seed": [4, 4, 4, 7, 7, 7], "member": [0, 1, 2, 3, 4, 5]}
    observation, _ = env.reset(options=options)
    np.testing.assert_array_equal(observation[:3], np.stack([observation[0]] * 3))
    np.testing.assert_array_equal(observation[3:], np.stack([observation[3]] * 3))
    assert not np.array_equal(observation[0], observation[3])
    accepted = []
    for item in range(8):
        _, _, _, _, info = env.step(np.full(6, item))
        accepted.append(info["accepted"])
    assert not np.array_equal(np.array(accepted)[:, 0], np.array(accepted)[:, 1])
    repeated, _ = env.reset(options=options)
    np.testing.assert_array_equal(repeated, observation)


def test_the_log_probability_lies_below_the_tangent_that_the_bound_is_made_of() -> None:
    world = RecGuide(num_tasks=1, rank_weight=0.0, click_weight=0.0)
    target = int(world.initial(CounterKey([0])).target[0])
    start = log_softmax(world, world.initial(CounterKey([0])).interest)[0, target]
    vectors = np.random.default_rng(0).normal(size=(20_000, world.dimensions))
    near = world.catalogue.embeddings.values[target] + 0.5 * vectors
    for cloud in (vectors, near):
        interest = cloud / np.linalg.norm(cloud, axis=1, keepdims=True)
        assert (log_softmax(world, interest)[:, target] - start).max() <= world.bound
    assert (
        log_softmax(world, near / np.linalg.norm(near, axis=1, keepdims=True))[:, target] - start
    ).max() > 0.9 * world.bound


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_items": 1}, "RecGuide: num_items=1; expected an integer of at least 2"),
        ({"num_tasks": 0}, "RecGuide: num_tasks=0; expected an integer of at least 1"),
        ({"horizon": 2.5}, "RecGuide: horizon=2.5; expected an integer of at least 1"),
        ({"pull": -1.0}, "RecGuide: pull=-1.0; expected a finite number of at least 0"),
        ({"sharpness": 0.0}, "RecGuide: sharpness=0.0; expected a finite number above 0"),
        ({"click_weight": float("nan")}, "RecGuide: click_weight=nan; expected a finite number of at least 0"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RecGuide(**arguments)  # type: ignore[arg-type]
