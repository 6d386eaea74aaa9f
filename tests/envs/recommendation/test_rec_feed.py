"""RecFeed: chances and moments in closed form, and the conflict between its signals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from palaestra.envs.noise import CounterKey
from palaestra.envs.recommendation.feed_clips import EVENTS
from palaestra.envs.recommendation.interests import logistic
from palaestra.envs.recommendation.rec_feed import SIGNALS, FeedState, RecFeed, SoftmaxClips
from palaestra.envs.rollout import run_episodes
from palaestra.envs.simulator import take_rows
from palaestra.seeding import row_seeds

ROWS = 40_000


def one_viewer(world: RecFeed, fatigue: float = 0.3) -> FeedState:
    """Many copies of one viewer."""
    state = world.initial(CounterKey([3]))
    state = take_rows(state, np.zeros(ROWS, np.int64))
    return replace(state, fatigue=state.fatigue + fatigue)


def test_responses_have_the_stated_means_and_the_watched_share_is_beta() -> None:
    world = RecFeed()
    state = one_viewer(world)
    clip = np.full(ROWS, 40)
    transition = world.step(state, clip, CounterKey(np.arange(ROWS), step=1))
    signals = transition.info["signals"]
    affinity = (state.interest[:1] * world.clips.embeddings[40]).sum(-1)
    seconds = world.clips.seconds.values[40]
    share = 10.0 * signals[:, 0] / seconds
    mean = float(logistic(world.clips.watch_logit(affinity, state.fatigue[:1], clip[:1]))[0])
    theta = mean / (1.0 - mean)
    # Beta (theta, 1): mean theta / (theta + 1), variance theta / ((theta + 1)^2 (theta + 2)).
    deviation = np.sqrt(theta / ((theta + 1.0) ** 2 * (theta + 2.0)))
    assert share.mean() == pytest.approx(mean, abs=4.0 * deviation / np.sqrt(ROWS))
    assert share.std() == pytest.approx(deviation, rel=0.02)
    chances = logistic(world.clips.event_logits(affinity, clip[:1]))[0]
    happened = np.abs(signals[:, 1:]).mean(axis=0)
    np.testing.assert_allclose(happened, chances, atol=4.0 * 0.5 / np.sqrt(ROWS))
    assert (signals[:, SIGNALS.index("hate")] <= 0.0).all()


def test_interest_moves_towards_what_was_watched_and_fatigue_grows_as_stated() -> None:
    world = RecFeed(drift=0.2)
    state = one_viewer(world)
    transition = world.step(state, np.full(ROWS, 7), CounterKey(np.arange(ROWS), step=1))
    following, signals = transition.state, transition.info["signals"]
    np.testing.assert_allclose(np.linalg.norm(following.interest, axis=1), 1.0)
    share = 10.0 * signals[:, 0] / world.clips.seconds.values[7]
    moved = state.interest + 0.2 * share[:, None] * world.clips.embeddings[7]
    np.testing.assert_allclose(following.interest, moved / np.linalg.norm(moved, axis=1, keepdims=True))
    grown = 0.015 + 0.05 * (1.0 - share) - 0.15 * signals[:, -1]
    np.testing.assert_allclose(following.fatigue - state.fatigue, grown)
    leaves = logistic(4.0 * following.fatigue - 4.5)
    assert transition.terminated.mean() == pytest.approx(leaves.mean(), abs=4.0 * 0.5 / np.sqrt(ROWS))


def test_long_clips_bring_watch_time_and_few_likes() -> None:
    world = RecFeed()
    random, longest = (
        run_episodes(world, world.reference_policies()[name], row_seeds(1, "test", 400))
        for name in ("random", "length")
    )
    assert (longest.returns / longest.lengths).mean() > 2.0 * (random.returns / random.lengths).mean()
    likes = [
        run_episodes(RecFeed(objective="like"), world.reference_policies()[name], row_seeds(1, "test", 400))
        for name in ("random", "length")
    ]
    rates = [(episodes.returns / episodes.lengths).mean() for episodes in likes]
    assert rates[1] < 0.8 * rates[0]


@pytest.mark.parametrize("objective", SIGNALS)
def test_the_reward_is_the_signal_that_is_the_objective(objective: str) -> None:
    world = RecFeed(objective=objective)  # type: ignore[arg-type]
    state = world.initial(CounterKey(np.arange(50)))
    transition = world.step(state, np.arange(50), CounterKey(np.arange(50), step=1))
    np.testing.assert_array_equal(transition.reward, transition.info["signals"][:, SIGNALS.index(objective)])
    assert (world.oracle() is None) == (objective != "watch")


def test_the_logging_policy_samples_from_the_probabilities_that_it_states() -> None:
    world = RecFeed(num_clips=6)
    state = one_viewer(world)
    policy = SoftmaxClips(world, 0.5)
    clips = policy(state, world.observe(state), CounterKey(np.arange(ROWS), step=1))
    expected = np.exp(policy.log_probabilities(take_rows(state, np.array([0])))[0])
    assert expected.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(np.bincount(clips, minlength=6) / ROWS, expected, atol=4.0 * 0.5 / np.sqrt(ROWS))


def test_a_place_in_the_order_of_lengths_chooses_the_same_clips() -> None:
    by_length, by_number = RecFeed(action_mode="length"), RecFeed()
    clips = np.arange(150)
    np.testing.assert_array_equal(by_length.clip_of(by_length.action_of(clips)), clips)
    np.testing.assert_array_equal(by_length.clip_of(np.array([[-1.0], [1.0]])), [0, 149])
    assert (np.diff(by_length.clips.seconds.values) >= 0.0).all()
    state = by_number.initial(CounterKey(clips))
    key = CounterKey(clips, step=1)
    np.testing.assert_array_equal(
        by_length.step(state, by_length.action_of(clips), key).reward, by_number.step(state, clips, key).reward
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_clips": 1}, "RecFeed: num_clips=1; expected an integer of at least 2"),
        ({"dimensions": 1}, "RecFeed: dimensions=1; expected an integer of at least 2"),
        ({"horizon": 0}, "RecFeed: horizon=0; expected an integer of at least 1"),
        ({"drift": -0.1}, "RecFeed: drift=-0.1; expected a finite number of at least 0"),
        ({"objective": "money"}, "RecFeed: objective='money'; expected one of"),
        ({"action_mode": "words"}, "RecFeed: action_mode='words'; expected 'clips' or 'length'"),
        ({"instance_seed": -1}, "RecFeed: instance_seed=-1; expected an integer of at least 0"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RecFeed(**arguments)  # type: ignore[arg-type]


def test_totals_add_up_the_signals_of_the_visit() -> None:
    world = RecFeed()
    state, added = world.initial(CounterKey(np.arange(20))), np.zeros((20, 6))
    for step in range(1, 6):
        transition = world.step(state, np.arange(20) + step, CounterKey(np.arange(20), step=step))
        state, added = transition.state, added + transition.info["signals"]
    np.testing.assert_allclose(world.information(state)["totals"], added)


def test_events_and_signals_have_one_order() -> None:
    assert ("watch", *EVENTS) == SIGNALS
