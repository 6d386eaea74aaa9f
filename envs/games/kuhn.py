"""Kuhn poker against a fixed opponent, with every value by enumeration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import ClassVar, Literal

import gymnasium as gym
import numpy as np
from array_api_compat import array_namespace

from palaestra.envs.games.extensive_form import CHANCE, TERMINAL, GameTree, Node
from palaestra.envs.simulator import RandomActor, Simulator
from palaestra.envs.tables import table_like
from palaestra.protocols import Actor, Array, Estimand, Key, Oracle, Transition

PASS, BET = 0, 1
CARDS = "JQK"
DEALS = tuple(permutations(range(3), 2))
HISTORIES = ("", "p", "b", "pb", "pp", "bp", "bb", "pbp", "pbb")
"""Moves so far; the first four are decisions (of players 0, 1, 1, 0), the others end the game."""

NUM_INFORMATION_SETS = 12
"""Row `3 * history + card` of a policy table: what the player of that history does with that card."""

_PLAYER = (0, 1, 1, 0)
_MOVER, _CARD = np.array(_PLAYER), np.array(DEALS)
_NEXT = np.array([[HISTORIES.index(h + move) if h + move in HISTORIES else -1 for move in "pb"] for h in HISTORIES])
_WINNER_PLAYER, _SHOWDOWN = {"bp": 0, "pbp": 1}, {"pp": 1.0, "bb": 2.0, "pbb": 2.0}


def _payoff(deal: tuple[int, int], history: str) -> float:
    """What player 0 wins from player 1; both put one chip in the pot first, a bet is one more."""
    if history in _WINNER_PLAYER:
        return 1.0 if _WINNER_PLAYER[history] == 0 else -1.0
    return _SHOWDOWN[history] * (1.0 if deal[0] > deal[1] else -1.0)


_PAYOFF = np.array([[_payoff(deal, h) if len(h) > 1 and h != "pb" else 0.0 for h in HISTORIES] for deal in DEALS])


def _rules(history: tuple[int, int] | None) -> Node[tuple[int, int] | None]:
    if history is None:
        return Node(CHANCE, children=[(deal, 0) for deal in range(6)], probabilities=[1 / 6] * 6)
    deal, moves = history
    if moves >= len(_PLAYER):
        return Node(TERMINAL, payoff=float(_PAYOFF[deal, moves]))
    player = _PLAYER[moves]
    children = [(deal, int(following)) for following in _NEXT[moves]]
    return Node(player, children=children, information_set=3 * moves + DEALS[deal][player])


def game_tree() -> GameTree:
    """Return the whole game, for values, best responses and exploitability of any pair of policy tables."""
    return GameTree.build(None, _rules, range(NUM_INFORMATION_SETS), num_actions=2)


def policy_table(name: str, alpha: float = 1 / 3) -> np.ndarray:
    """Return a named policy as probabilities of (pass, bet), `[12, 2]`; row `3 * history + card`.

    Args:
        name: "uniform", "pass", "bet", or "equilibrium".
        alpha: How often the equilibrium's player 0 bets first with the jack, in [0, 1/3].

    Raises:
        ValueError: If the name is unknown or alpha outside its range.

    Source: Kuhn, "A simplified two-person poker", 1950.
    """
    if not 0.0 <= alpha <= 1 / 3:
        raise ValueError(f"Kuhn: alpha={alpha}; expected a number from 0 to 1/3")
    bets: Mapping[str, Sequence[float]] = {
        "uniform": [0.5] * 12,
        "pass": [0.0] * 12,
        "bet": [1.0] * 12,
        "equilibrium": [alpha, 0.0, 3 * alpha, 1 / 3, 0.0, 1.0, 0.0, 1 / 3, 1.0, 0.0, alpha + 1 / 3, 1.0],
    }
    if name not in bets:
        raise ValueError(f"Kuhn: opponent={name!r}; expected one of {sorted(bets)} or a table [12, 2]")
    bet = np.array(bets[name])
    return np.stack([1.0 - bet, bet], axis=-1)


@dataclass(frozen=True)
class KuhnState:
    """One hand per row: `deal` {0..5} (index of `DEALS`), the agent's `seat` {0, 1}, `history` {0..8}; int64 `[batch]`."""

    deal: Array
    seat: Array
    history: Array


@dataclass(frozen=True)
class TableActor:
    """Plays a policy table `[12, 2]` from either seat."""

    table: np.ndarray

    def __call__(self, state: KuhnState, observation: Array, key: Key) -> Array:
        """Return actions `[batch]`."""
        xp = array_namespace(state.deal)
        bet = table_like(self.table[:, BET], state.deal)[_information_set(state)]
        return xp.astype(key.uniform("policy") < bet, xp.int64)


def _information_set(state: KuhnState) -> Array:
    """Row of the policy table `[batch]` at the agent's decisions; at the end of a hand, the row of the first one."""
    xp = array_namespace(state.deal)
    card = table_like(_CARD, state.deal)[state.deal, state.seat]
    return 3 * xp.where(state.history < len(_PLAYER), state.history, xp.zeros_like(state.history)) + card


class Kuhn(Simulator[KuhnState]):
    """Kuhn poker: three cards, two players, one bet.

    Each player antes one chip and gets one card of jack, queen, king. Player 0 passes or bets one chip; then player 1
    does; after pass-bet player 0 once more. A pass after a bet folds; otherwise the higher card takes the pot.

    **Observation**: float32 `[11]`, zeros and ones: own seat (2), own card (3), then for each of up to three moves
    whether it was pass or bet (2 each; both 0 before the move). It is the whole information state.
    **Action**: 0 pass, 1 bet; both always admissible (`action_mask` is all true).
    **Reward**: chips won at the end of the hand, -2, -1, 1 or 2; 0 before. **Episode**: one hand, of one or two own
    decisions, always ended by the rules; the horizon of 3 is never reached.
    **Info**: `action_mask`, `seat`, `information_set` (row of a policy table), `state_key`.

    **Noise**: draws "deal", "seat" and "opponent"; the opponent's move (at most one a step, and its opening when
    the agent sits second) happens inside `initial` and `step`.

    **Oracle**: the exact value of the best response, by enumeration. Against "uniform" .5 in seat 0 and .416667 in seat 1, so
    .458333 for "both"; against an equilibrium -1/18 and 1/18.

    **Version history**: v0, first release.

    Args:
        seat: 0, 1, or "both": drawn anew with each hand.
        opponent: "uniform", "pass", "bet", "equilibrium", or a table `[12, 2]` of probabilities of (pass, bet), whose
            row `3 * history + card` belongs to histories "", pass, bet, pass-bet and cards jack, queen, king.
        alpha: Bluffing probability of the opponent "equilibrium", in [0, 1/3]; of no effect otherwise.

    Raises:
        ValueError: If an argument is outside its range.

    Source: Kuhn, "A simplified two-person poker", 1950.
    """

    render_modes: ClassVar[tuple[str, ...]] = ("ansi",)
    render_fps: ClassVar[int] = 1
    horizon = 3

    def __init__(
        self,
        seat: int | Literal["both"] = "both",
        opponent: str | Sequence[Sequence[float]] | np.ndarray = "uniform",
        alpha: float = 1 / 3,
    ) -> None:
        if seat not in (0, 1, "both"):
            raise ValueError(f"Kuhn: seat={seat!r}; expected 0, 1 or 'both'")
        self.seats = (0, 1) if seat == "both" else (int(seat),)
        self.opponent = policy_table(opponent, alpha) if isinstance(opponent, str) else _checked_table(opponent)
        self.observation_space = gym.spaces.Box(0.0, 1.0, (11,), np.float32)
        self.action_space = gym.spaces.Discrete(2)
        self.tree = game_tree()
        self._observations = _observation_table()

    def initial(self, key: Key) -> KuhnState:
        """Return freshly dealt hands at the agent's first decision."""
        deal = key.integers("deal", len(DEALS))
        xp = array_namespace(deal)
        seat = key.integers("seat", 2) if len(self.seats) == 2 else xp.full_like(deal, self.seats[0])
        return self._opponent_moves(KuhnState(deal, seat, xp.zeros_like(deal)), key)

    def step(self, state: KuhnState, action: Array, key: Key) -> Transition[KuhnState]:
        """Return the hands after the agent's move and, where the opponent is next, its answer."""
        xp = array_namespace(state.deal)
        moved = table_like(_NEXT, state.deal)[state.history, action]
        state = self._opponent_moves(KuhnState(state.deal, state.seat, moved), key)
        won = table_like(_PAYOFF, state.deal)[state.deal, state.history]
        return Transition(
            state=state,
            reward=xp.where(state.seat == 0, won, -won),
            terminated=state.history >= len(_PLAYER),
            info=self.information(state),
        )

    def _opponent_moves(self, state: KuhnState, key: Key) -> KuhnState:
        xp = array_namespace(state.deal)
        deciding = state.history < len(_PLAYER)
        history = xp.where(deciding, state.history, xp.zeros_like(state.history))
        theirs = deciding & (table_like(_MOVER, state.deal)[history] != state.seat)
        card = table_like(_CARD, state.deal)[state.deal, 1 - state.seat]
        bet = table_like(self.opponent[:, BET], state.deal)[3 * history + card]
        action = xp.astype(key.uniform("opponent") < bet, xp.int64)
        moved = table_like(_NEXT, state.deal)[history, action]
        return KuhnState(state.deal, state.seat, xp.where(theirs, moved, state.history))

    def observe(self, state: KuhnState) -> Array:
        """Return the information states, float32 `[batch, 11]`."""
        return table_like(self._observations, state.deal)[state.deal, state.seat, state.history]

    def action_masks(self, state: KuhnState) -> Array:
        """Return all true, `[batch, 2]`."""
        xp = array_namespace(state.deal)
        return xp.ones((state.deal.shape[0], 2), dtype=xp.bool)

    def information(self, state: KuhnState) -> Mapping[str, Array]:
        """Return the seat, the row of the policy table and the state key of every row."""
        xp = array_namespace(state.deal)
        return {
            "action_mask": self.action_masks(state),
            "seat": state.seat,
            "information_set": _information_set(state),
            "state_key": self.state_key(state),
        }

    def state_key(self, state: KuhnState) -> Array:
        """Return a number `[batch]` that is different for every deal, seat and history."""
        return (state.deal * 2 + state.seat) * len(HISTORIES) + state.history

    def enumerate_states(self) -> KuhnState:
        """Return one state for every decision the agent can face, in the order of the rows of `decision_rows`.

        The other player's card, which the agent does not see, is the lowest that is left.
        """
        deals, seats, histories = [], [], []
        for row in self.decision_rows():
            history, card = divmod(int(row), 3)
            seat = _PLAYER[history]
            deals.append(next(i for i, deal in enumerate(DEALS) if deal[seat] == card))
            seats.append(seat)
            histories.append(history)
        return KuhnState(np.array(deals), np.array(seats), np.array(histories))

    def decision_rows(self) -> np.ndarray:
        """Return the information sets of the agent's seats, int `[num_states]`; all twelve for "both"."""
        return np.flatnonzero(np.isin(self.tree.owner, self.seats))

    def exact_return(self, probabilities: np.ndarray) -> float:
        """Return the mean chips won per hand by a policy.

        Args:
            probabilities: Of the actions `[num_states, 2]`, in the order of `enumerate_states`.
        """
        values = [self.tree.value(self._pair(seat, probabilities)) * (1 - 2 * seat) for seat in self.seats]
        return float(np.mean(values))

    def best_response(self) -> tuple[float, np.ndarray]:
        """Return the largest mean chips won per hand, and the policy table `[12, 2]` that wins them."""
        values, table = [], self.opponent.copy()
        for seat in self.seats:
            value, response = self.tree.best_response(self.opponent, seat)
            values.append(value)
            table[self.tree.owner == seat] = response[self.tree.owner == seat]
        return float(np.mean(values)), table

    def _pair(self, seat: int, probabilities: np.ndarray) -> np.ndarray:
        table = self.opponent.copy()
        mine = self.tree.owner[self.decision_rows()] == seat
        table[self.tree.owner == seat] = probabilities[mine]
        return table

    def oracle(self) -> Oracle:
        """Return the value of the best response to the opponent."""
        return Oracle(self.best_response()[0], Estimand(unit="chips per hand"), "optimum", "best response by enumeration")

    def experts(self) -> Mapping[str, Actor]:
        """Return the best response, "optimal"."""
        return {"optimal": TableActor(self.best_response()[1])}

    def reference_policies(self) -> Mapping[str, Actor]:
        """Return "random" and an unexploitable player, "equilibrium"."""
        return {"random": RandomActor(self.action_space), "equilibrium": TableActor(policy_table("equilibrium"))}

    def render(self, state: KuhnState, row: int = 0, mode: str = "ansi") -> str:
        """Return the hand of one row as a text; the opponent's card shows at a showdown."""
        if mode != "ansi":
            return super().render(state, row, mode)
        deal, seat, history = DEALS[int(state.deal[row])], int(state.seat[row]), HISTORIES[int(state.history[row])]
        names = {"p": "pass", "b": "bet"}
        lines = [f"you sit {('first', 'second')[seat]} with the {CARDS[deal[seat]]}"]
        lines += [f"{'you' if i % 2 == seat else 'opponent'}: {names[move]}" for i, move in enumerate(history)]
        if history in _SHOWDOWN:
            lines.append(f"opponent shows the {CARDS[deal[1 - seat]]}")
        if history in _SHOWDOWN or history in _WINNER_PLAYER:
            chips = _payoff(deal, history) * (1 - 2 * seat)
            lines.append(f"you {'win' if chips > 0 else 'lose'} {abs(chips):.0f}")
        return "\n".join(lines)


def _checked_table(table: Sequence[Sequence[float]] | np.ndarray) -> np.ndarray:
    checked = np.array(table, dtype=np.float64)
    if checked.shape != (NUM_INFORMATION_SETS, 2):
        raise ValueError(f"Kuhn: opponent has shape {checked.shape}; expected a table of shape (12, 2) or a name")
    if not (np.all(checked >= 0.0) and np.allclose(checked.sum(axis=1), 1.0)):
        raise ValueError(f"Kuhn: opponent={checked.tolist()}; expected rows of probabilities that sum to 1")
    return checked


def _observation_table() -> np.ndarray:
    """The information state for every deal, seat and history, float32 `[6, 2, 9, 11]`."""
    table = np.zeros((len(DEALS), 2, len(HISTORIES), 11), dtype=np.float32)
    for d, deal in enumerate(DEALS):
        for seat in (0, 1):
            table[d, seat, :, seat] = 1.0
            table[d, seat, :, 2 + deal[seat]] = 1.0
            for h, history in enumerate(HISTORIES):
                for i, move in enumerate(history):
                    table[d, seat, h, 5 + 2 * i + "pb".index(move)] = 1.0
    return table
