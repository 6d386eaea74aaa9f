"""Kuhn poker as a world: every value equals what complete enumeration of deals and answers plays out."""

import itertools
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from palaestra.envs.faces import SimulatorEnv, SimulatorVectorEnv
from palaestra.envs.games import kuhn
from palaestra.envs.games.kuhn import DEALS, HISTORIES, POSITIONS, Kuhn, KuhnState, TableActor, policy_table
from palaestra.envs.noise import CounterKey, Tape, draw_tape
from palaestra.protocols import Enumerable

OPPONENTS = ("uniform", "pass", "bet", "equilibrium")


def play_out(world: Kuhn, table: np.ndarray, cells: int = 6) -> float:
    """Mean return over all deals, seats and cells of the draws: exact for probabilities in sixths."""
    grid = (np.arange(cells) + 0.5) / cells
    draws = np.array(list(itertools.product(range(6), range(2), grid, grid, grid, grid)))
    deal, seat, opening, answer, first, second = draws.T
    state = world.initial(Tape({"deal": deal.astype(int), "seat": seat.astype(int), "opponent": opening}))
    total, running = np.zeros(len(draws)), np.ones(len(draws), bool)
    for policy in (first, second):
        # A row plays at most twice, and meets at most one answer after its opening.
        key = Tape({"opponent": answer, "policy": policy})
        step = world.step(state, TableActor(table)(state, world.observe(state), key), key)
        total += running * step.reward
        running, state = running & ~step.terminated, step.state
    assert not running.any()
    return float(total.mean())


@pytest.mark.parametrize("opponent", OPPONENTS)
@pytest.mark.parametrize("seat", [0, 1, "both"])
def test_exact_values_are_those_of_playing_out_every_hand(opponent: str, seat: Any) -> None:
    world = Kuhn(seat, opponent)
    assert isinstance(world, Enumerable)
    rows = world.decision_rows()
    rng = np.random.default_rng(0)
    for table in (policy_table("uniform"), world.best_response()[1], policy_table("equilibrium", 1 / 6)):
        assert world.exact_return(table[rows]) == pytest.approx(play_out(world, table), abs=1e-12)
    bets = rng.integers(0, 7, 12) / 6
    table = np.stack([1.0 - bets, bets], axis=1)
    assert world.exact_return(table[rows]) == pytest.approx(play_out(world, table), abs=1e-12)


@pytest.mark.parametrize(
    ("seat", "opponent", "value"),
    [
        (0, "uniform", 1 / 2),
        (1, "uniform", 5 / 12),
        ("both", "uniform", 11 / 24),
        (0, "pass", 1.0),
        (1, "pass", 1.0),
        (0, "equilibrium", -1 / 18),
        (1, "equilibrium", 1 / 18),
        ("both", "equilibrium", 0.0),
    ],
)
def test_the_oracle_is_the_value_of_the_best_response(seat: Any, opponent: str, value: float) -> None:
    world = Kuhn(seat, opponent)
    oracle = world.oracle()
    assert (oracle.kind, oracle.estimand.kind) == ("optimum", "episode_return")
    assert oracle.value == pytest.approx(value, abs=1e-12)
    assert world.exact_return(world.best_response()[1][world.decision_rows()]) == pytest.approx(value, abs=1e-12)


def test_a_table_and_its_name_are_the_same_opponent() -> None:
    table = policy_table("equilibrium", 0.2)
    assert Kuhn(opponent=table.tolist()).oracle() == Kuhn(opponent="equilibrium", alpha=0.2).oracle()


def test_every_decision_has_its_own_observation_and_row() -> None:
    world = Kuhn()
    states = world.enumerate_states()
    observations = world.observe(states)
    np.testing.assert_array_equal(world.information(states)["information_set"], np.arange(12))
    assert len(np.unique(observations, axis=0)) == 12
    # The opponent's card is hidden: positions of one row look the same.
    everywhere = KuhnState(np.arange(len(POSITIONS)))
    rows, seats = world.information(everywhere)["information_set"], world.information(everywhere)["seat"]
    seen = world.observe(everywhere)
    for position, (_, seat, history) in enumerate(POSITIONS):
        if history < 4 and (0, 1, 1, 0)[history] == seat:
            np.testing.assert_array_equal(seen[position], observations[rows[position]])
        assert seats[position] == seat


def test_the_observation_reads_as_specified() -> None:
    world = Kuhn()
    position = POSITIONS.index((DEALS.index((0, 2)), 0, HISTORIES.index("pb")))
    np.testing.assert_array_equal(
        world.observe(KuhnState(np.array([position])))[0], np.array([1, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0], np.float32)
    )
    assert Kuhn(seat=1).enumerate_states().position.shape == (6,)


def test_rewards_are_paid_at_the_end_and_hands_are_short() -> None:
    env = SimulatorVectorEnv(Kuhn(), 256)
    env.reset(seed=0)
    rng, seen = np.random.default_rng(0), set()
    for _ in range(100):
        _, reward, terminated, truncated, info = env.step(rng.integers(0, 2, 256))
        assert not truncated.any()
        assert (reward[~terminated] == 0.0).all()
        seen |= set(reward[terminated].tolist())
        assert info["action_mask"].all()
        assert info["action_mask"].shape == (256, 2)
    assert seen == {-2.0, -1.0, 1.0, 2.0}


@pytest.mark.parametrize("seat", [0, 1, "both"])
def test_simulated_hands_return_the_exact_value(seat: Any) -> None:
    world, hands = Kuhn(seat), 20000
    tape = draw_tape(range(hands), 2)
    for actor, table in (
        (world.expert("optimal"), world.best_response()[1]),
        (world.reference_policies()["random"], policy_table("uniform")),
        (world.reference_policies()["equilibrium"], policy_table("equilibrium")),
    ):
        state = world.initial(tape.at(0))
        total, running = np.zeros(hands), np.ones(hands, bool)
        for turn in (1, 2):
            step = world.step(state, actor(state, world.observe(state), tape.at(turn)), tape.at(turn))
            total += running * step.reward
            running, state = running & ~step.terminated, step.state
        exact = world.exact_return(table[world.decision_rows()])
        assert abs(total.mean() - exact) <= 4.0 * total.std() / np.sqrt(hands)


def test_info_is_the_users_own_memory() -> None:
    env = SimulatorVectorEnv(Kuhn(seat=0), 8)
    _, info = env.reset(seed=0)
    keys = info["state_key"].copy()
    info["state_key"][:] = 0
    np.testing.assert_array_equal(env.snapshot()["state"]["position"], keys)


def test_torch_plays_as_numpy_does() -> None:
    torch = pytest.importorskip("torch")
    world, rows = Kuhn(), 200
    arrays, tensors = CounterKey(list(range(rows))), CounterKey(torch.arange(rows))
    state, other = world.initial(arrays), world.initial(tensors)
    for turn in (1, 2):
        np.testing.assert_array_equal(world.observe(other).numpy(), world.observe(state))
        running = state.position % 9 < 4
        state, other = KuhnState(state.position[running]), KuhnState(other.position[torch.from_numpy(running)])
        seeds = np.arange(len(state.position))
        actions = np.random.default_rng(turn).integers(0, 2, len(seeds))
        step = world.step(state, actions, CounterKey(seeds, step=turn))
        same = world.step(other, torch.from_numpy(actions), CounterKey(torch.from_numpy(seeds), step=turn))
        np.testing.assert_array_equal(same.reward.numpy(), step.reward)
        np.testing.assert_array_equal(same.terminated.numpy(), step.terminated)
        np.testing.assert_array_equal(world.action_masks(same.state).numpy(), world.action_masks(step.state))
        state, other = step.state, same.state


def test_a_hand_is_told_in_words() -> None:
    env = gym.make("palaestra/Kuhn-v0", seat=0, opponent="bet", render_mode="ansi")
    for seed in range(6):
        env.reset(seed=seed)
        assert str(env.render()).startswith("you sit first with the ")
        env.step(kuhn.PASS)
        assert str(env.render()).splitlines()[1:] == ["you: pass", "opponent: bet"]
        _, reward, _, _, _ = env.step(kuhn.BET)
        lines = str(env.render()).splitlines()
        assert lines[3] == "you: bet"
        assert lines[4].startswith("opponent shows the ")
        assert lines[5] == f"you {'win' if reward > 0 else 'lose'} 2"


def test_a_fold_shows_no_card() -> None:
    env = SimulatorEnv(Kuhn(seat=0, opponent="pass"), render_mode="ansi")
    env.reset(seed=0)
    env.step(kuhn.BET)
    assert env.render().splitlines()[1:] == ["you: bet", "opponent: pass", "you win 1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seat": 2}, "Kuhn: seat=2; expected 0, 1 or 'both'"),
        ({"seat": None}, "Kuhn: seat=None"),
        ({"opponent": "shark"}, "Kuhn: opponent='shark'; expected one of"),
        ({"opponent": np.full((11, 2), 0.5)}, r"Kuhn: opponent has shape \(11, 2\)"),
        ({"opponent": np.full((12, 2), 0.6)}, "rows of probabilities that sum to 1"),
        ({"opponent": np.full((12, 2), np.nan)}, "rows of probabilities that sum to 1"),
        ({"opponent": "equilibrium", "alpha": 0.5}, "Kuhn: alpha=0.5; expected a number from 0 to 1/3"),
    ],
)
def test_arguments_out_of_range_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Kuhn(**arguments)
