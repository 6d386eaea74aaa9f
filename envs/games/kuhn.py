"""Kuhn poker against a fixed opponent, with every value by enumeration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import ClassVar, Literal

import gymnasium as gym
import numpy as np

from palaestra.envs.arrays import namespace_of, table_like
from palaestra.envs.games.extensive_form import CHANCE, TERMINAL, GameTree, Node
from palaestra.envs.simulator import RandomActor, Simulator
from palaestra.protocols import Actor, Array, Estimand, Key, Oracle, Transition

PASS, BET = 0, 1
CARDS = "JQK"
DEALS = tuple(permutations(range(3), 2))
HISTORIES = ("", "p", "b", "pb", "pp", "bp", "bb", "pbp", "pbb")
"""Moves so far; the first four are decisions (of players 0, 1, 1, 0), the others end the game."""

NUM_INFORMATION_SETS = 12
"""Row `3 * history + card` of a policy table: what the player of that history does with that card."""

_PLAYER = (0, 1, 1, 0)
_NEXT = [[HISTORIES.index(h + move) for move in "pb"] for h in HISTORIES[: len(_PLAYER)]]
_FOLDS, _SHOWDOWNS = {"bp": 1.0, "pbp": -1.0}, {"pp": 1.0, "bb": 2.0, "pbb": 2.0}

POSITIONS = tuple(product(range(len(DEALS)), range(2), range(len(HISTORIES))))
"""(deal, the agent's seat, history) of every position."""


def _payoff(deal: tuple[int, int], history: str) -> float:
    """What player 0 wins from player 1: both put one chip in the pot first, a bet is one more."""
    won = _SHOWDOWNS.get(history, 0.0) * (1.0 if deal[0] > deal[1] else -1.0)
    return _FOLDS.get(history, won)


def _row(deal: int, player: int, history: int) -> int:
    """Row of a policy table; at the end of a hand, that of the first history."""
    return 3 * (history if history < len(_PLAYER) else 0) + DEALS[deal][player]


_INFORMATION_SET = np.array([_row(*position) for position in POSITIONS])


def _rules(history: tuple[int, int] | None) -> Node[tuple[int, int] | None]:
    if history is None:
        return Node(CHANCE, children=[(deal, 0) for deal in range(6)], probabilities=[1 / 6] * 6)
    deal, moves = history
    if moves >= len(_PLAYER):
        return Node(TERMINAL, payoff=_payoff(DEALS[deal], HISTORIES[moves]))
    player = _PLAYER[moves]
    return Node(player, [(deal, following) for following in _NEXT[moves]], (), _row(deal, player, moves))


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
    """One hand per row: `position` int64 `[batch]`, an index of `POSITIONS`."""

    position: Array


@dataclass(frozen=True)
class TableActor:
    """Plays a policy table `[12, 2]` from either seat."""

    table: np.ndarray

    def __call__(self, state: KuhnState, observation: Array, key: Key) -> Array:
        """Return actions `[batch]`."""
        xp = namespace_of(state.position)
        bet = table_like(self.table[_INFORMATION_SET, BET], state.position)[state.position]
        return xp.astype(key.uniform("policy") < bet, xp.int64)


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

    **Oracle**: the exact value of the best response, by enumeration. Against "uniform" .5 in seat 0 and .416667 in
    seat 1, so .458333 for "both"; against an equilibrium -1/18 and 1/18.

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
    draws: ClassVar[tuple[str, ...]] = ("deal", "seat", "opponent", "policy")
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
        self._tables = _build_tables(self.opponent)

    def initial(self, key: Key) -> KuhnState:
        """Return freshly dealt hands at the agent's first decision."""
        deal = key.integers("deal", len(DEALS))
        seat = key.integers("seat", 2) if len(self.seats) == 2 else 0 * deal + self.seats[0]
        return self._opponent_moves((deal * 2 + seat) * len(HISTORIES), key)

    def step(self, state: KuhnState, action: Array, key: Key) -> Transition[KuhnState]:
        """Return the hands after the agent's move and, where the opponent is next, its answer."""
        moved = table_like(self._tables.after, state.position)[2 * state.position + action]
        following = self._opponent_moves(moved, key)
        return Transition(
            state=following,
            reward=table_like(self._tables.reward, moved)[following.position],
            terminated=table_like(self._tables.over, moved)[following.position],
        )

    def _opponent_moves(self, position: Array, key: Key) -> KuhnState:
        xp = namespace_of(position)
        bets = key.uniform("opponent") < table_like(self._tables.opponent_bet, position)[position]
        answer = 2 * position + xp.astype(bets, xp.int64)
        return KuhnState(table_like(self._tables.after_opponent, position)[answer])

    def observe(self, state: KuhnState) -> Array:
        """Return the information states, float32 `[batch, 11]`."""
        return table_like(self._tables.observation, state.position)[state.position]

    def action_masks(self, state: KuhnState) -> Array:
        """Return all true, `[batch, 2]`."""
        xp = namespace_of(state.position)
        return xp.ones((state.position.shape[0], 2), dtype=xp.bool, device=state.position.device)

    def information(self, state: KuhnState) -> Mapping[str, Array]:
        """Return the agent's seat, its row of the policy table, and the state key."""
        return {
            "seat": state.position // len(HISTORIES) % 2,
            "information_set": table_like(_INFORMATION_SET, state.position)[state.position],
            "state_key": self.state_key(state),
        }

    def state_key(self, state: KuhnState) -> Array:
        """Return the position `[batch]`."""
        # A copy: what users are given is never the state's own memory.
        return state.position + 0

    def enumerate_states(self) -> KuhnState:
        """Return one state for every decision the agent can face, in the order of the rows of `decision_rows`.

        The other player's card, which the agent does not see, is the lowest that is left.
        """
        first: dict[int, int] = {}
        for position, (_, seat, history) in enumerate(POSITIONS):
            if history < len(_PLAYER) and _PLAYER[history] == seat:
                first.setdefault(int(_INFORMATION_SET[position]), position)
        return KuhnState(np.array([first[row] for row in self.decision_rows()]))

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
        return Oracle(
            self.best_response()[0], Estimand(unit="chips per hand"), "optimum", "best response by enumeration"
        )

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
        deal_index, seat, history_index = POSITIONS[int(state.position[row])]
        deal, history = DEALS[deal_index], HISTORIES[history_index]
        names = {"p": "pass", "b": "bet"}
        lines = [f"you sit {('first', 'second')[seat]} with the {CARDS[deal[seat]]}"]
        lines += [f"{'you' if i % 2 == seat else 'opponent'}: {names[move]}" for i, move in enumerate(history)]
        if history in _SHOWDOWNS:
            lines.append(f"opponent shows the {CARDS[deal[1 - seat]]}")
        if history in _SHOWDOWNS or history in _FOLDS:
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


@dataclass(frozen=True)
class _Tables:
    """What follows from each position; `after*` are flat, `2 * position + action`."""

    after: np.ndarray
    after_opponent: np.ndarray
    opponent_bet: np.ndarray
    reward: np.ndarray
    over: np.ndarray
    observation: np.ndarray


def _build_tables(opponent: np.ndarray) -> _Tables:
    count = len(POSITIONS)
    after = np.repeat(np.arange(count)[:, None], 2, axis=1)
    after_opponent = after.copy()
    tables = _Tables(
        after=after.reshape(-1),
        after_opponent=after_opponent.reshape(-1),
        opponent_bet=np.zeros(count),
        reward=np.zeros(count),
        over=np.zeros(count, dtype=bool),
        observation=np.zeros((count, 11), dtype=np.float32),
    )
    for position, (deal, seat, history) in enumerate(POSITIONS):
        if history < len(_PLAYER):
            following = [position - history + moved for moved in _NEXT[history]]
            if _PLAYER[history] == seat:
                after[position] = following
            else:
                after_opponent[position] = following
                tables.opponent_bet[position] = opponent[_row(deal, 1 - seat, history), BET]
        else:
            tables.over[position] = True
            tables.reward[position] = _payoff(DEALS[deal], HISTORIES[history]) * (1 - 2 * seat)
        moves = [5 + 2 * i + "pb".index(move) for i, move in enumerate(HISTORIES[history])]
        tables.observation[position, [seat, 2 + DEALS[deal][seat], *moves]] = 1.0
    return tables
