"""Values, best responses and exploitability of flat game trees, on games whose answers are known."""

import itertools

import numpy as np
import pytest

from palaestra.envs.games.extensive_form import CHANCE, TERMINAL, GameTree, Node
from palaestra.envs.games.kuhn import game_tree, policy_table


def matching_pennies(stake: float = 1.0) -> GameTree:
    """Player 1 does not see player 0's coin; heads against heads pays `stake` instead of 1."""

    def rules(history: str) -> Node[str]:
        if len(history) == 2:
            won = stake if history == "HH" else 1.0
            return Node(TERMINAL, payoff=won if history[0] == history[1] else -1.0)
        return Node(len(history), [history + side for side in "HT"], information_set=len(history))

    return GameTree.build("", rules, (0, 1), num_actions=2)


def test_matching_pennies_by_hand() -> None:
    tree, heads, fair = matching_pennies(), np.array([[1.0, 0.0]] * 2), np.full((2, 2), 0.5)
    assert tree.value(fair) == 0.0
    assert tree.nash_conv(fair) == 0.0
    assert tree.value(heads) == 1.0
    value, table = tree.best_response(heads, 1)
    assert value == 1.0
    np.testing.assert_array_equal(table, [[1.0, 0.0], [0.0, 1.0]])
    assert tree.nash_conv(heads) == 2.0


def test_a_biased_game_has_its_mixed_equilibrium() -> None:
    # Payoffs 3, -1 / -1, 1: both mix 1/3, and the value is 1/3.
    tree, mixed = matching_pennies(3.0), np.array([[1 / 3, 2 / 3]] * 2)
    assert tree.value(mixed) == pytest.approx(1 / 3)
    assert tree.nash_conv(mixed) == pytest.approx(0.0, abs=1e-15)


def test_chance_is_averaged_and_beliefs_are_weighed_by_reach() -> None:
    # Chance deals good (.9) or bad (.1) to player 0, who always bets when bad and half the time when good; player 1,
    # who sees only the bet, pays 1 against good and wins 4 against bad, or folds for nothing: .45 to .4, so he folds.
    def rules(history: str) -> Node[str]:
        if history == "":
            return Node(CHANCE, ["g", "b"], probabilities=[0.9, 0.1])
        if len(history) == 1:
            return Node(0, [history + "b", history + "p"], information_set=history)
        if len(history) == 2 and history[1] == "b":
            return Node(1, [history + "c", history + "f"], information_set="bet")
        return Node(TERMINAL, payoff={"gbc": 1.0, "bbc": -4.0}.get(history, 0.0))

    tree = GameTree.build("", rules, ("g", "b", "bet"), num_actions=2)
    table = np.array([[0.5, 0.5], [1.0, 0.0], [1.0, 0.0]])
    assert tree.value(table) == pytest.approx(0.45 - 0.4)
    value, response = tree.best_response(table, 1)
    assert value == 0.0
    np.testing.assert_array_equal(response[2], [0.0, 1.0])
    table[0] = [0.25, 0.75]
    assert tree.best_response(table, 1)[0] == pytest.approx(0.4 - 0.225)


def test_information_sets_of_uneven_depth_are_refused() -> None:
    def rules(history: str) -> Node[str]:
        if len(history) < 3:
            return Node(0, [history + "l", history + "r"], information_set="lost")
        return Node(TERMINAL)

    with pytest.raises(ValueError, match="'lost' has histories of lengths 0 and 1"):
        GameTree.build("", rules, ("lost",), num_actions=2)


@pytest.mark.parametrize("player", [0, 1])
def test_a_best_response_is_the_best_of_all_pure_policies(player: int) -> None:
    tree, rng = game_tree(), np.random.default_rng(player)
    mine = np.flatnonzero(tree.owner == player)
    for _ in range(3):
        table = rng.dirichlet([1.0, 1.0], size=12)
        value, response = tree.best_response(table, player)
        sign = 1.0 if player == 0 else -1.0
        assert sign * tree.value(response) == pytest.approx(value, abs=1e-12)
        np.testing.assert_array_equal(np.delete(response, mine, axis=0), np.delete(table, mine, axis=0))
        best = -np.inf
        for actions in itertools.product((0, 1), repeat=len(mine)):
            table[mine] = np.eye(2)[list(actions)]
            best = max(best, sign * tree.value(table))
        assert value == pytest.approx(best, abs=1e-12)


def test_kuhn_has_its_known_values() -> None:
    tree, uniform = game_tree(), policy_table("uniform")
    assert len(tree.player) == 55
    assert tree.value(uniform) == pytest.approx(1 / 8)
    assert tree.best_response(uniform, 0)[0] == pytest.approx(1 / 2)
    assert tree.best_response(uniform, 1)[0] == pytest.approx(5 / 12)
    assert tree.nash_conv(uniform) == pytest.approx(11 / 12)
    assert tree.nash_conv(policy_table("pass")) == pytest.approx(2.0)


@pytest.mark.parametrize("alpha", [0.0, 0.1, 1 / 3])
def test_kuhns_equilibria_cannot_be_exploited(alpha: float) -> None:
    tree, table = game_tree(), policy_table("equilibrium", alpha)
    assert tree.value(table) == pytest.approx(-1 / 18)
    assert tree.nash_conv(table) == pytest.approx(0.0, abs=1e-12)
