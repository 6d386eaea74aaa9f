"""Exact dynamic programming for turn-limited text worlds: values, occupancies and probabilities of any policy table.

The state of a decision is (turn, task, place, outcome), where `outcome` is the result of the previous action as far as
the agent sees it: nothing yet, done, or refused. Only policies look at the outcome; the world's law does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

NOTHING, DONE, REFUSED = range(3)


@dataclass(frozen=True)
class ExactValues:
    """Values of one policy in every decision state of a world, in the order of its `enumerate_states`.

    Attributes:
        value: float64 `[num_states]`: expected return from the state to the end of the episode (V).
        action_value: float64 `[num_states, num_actions]`: the same after each action first (Q).
        start_value: Expected return of an episode.
    """

    value: np.ndarray
    action_value: np.ndarray
    start_value: float

    @property
    def advantage(self) -> np.ndarray:
        """float64 `[num_states, num_actions]`: action value minus value."""
        return self.action_value - self.value[:, None]


@dataclass(frozen=True)
class TurnLimitedModel:
    """A finite decision process that ends at absorbing places or after `horizon` turns.

    Attributes:
        start: int `[tasks]`: the first place.
        absorbing: bool `[tasks, places]`: where episodes end.
        transition: float `[tasks, places, actions, places]`: law of the next place after an admissible action; rows of
            inadmissible actions, which leave the place as it is, are zero.
        rewards: Of a turn (0, ..., horizon - 1), the rewards of moves `[tasks, places, places]` and of inadmissible
            actions `[tasks, places]`.
        horizon: Turns after which an episode is cut.
    """

    start: np.ndarray
    absorbing: np.ndarray
    transition: np.ndarray
    rewards: Callable[[int], tuple[np.ndarray, np.ndarray]]
    horizon: int

    @property
    def admissible(self) -> np.ndarray:
        """Which actions have an effect, bool `[tasks, places, actions]`."""
        return self.transition.sum(axis=-1) > 0.0

    def solve(self, policy: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return V `[horizon, tasks, places, 3]` and Q `[horizon, tasks, places, actions]` by backward induction.

        Args:
            policy: Probabilities `[horizon, tasks, places, 3, actions]`; None solves for the optimal policy.
        """
        tasks, places, actions, _ = self.transition.shape
        values = np.zeros((self.horizon, tasks, places, 3))
        action_values = np.zeros((self.horizon, tasks, places, actions))
        following = np.zeros((tasks, places, 3))
        for turn in reversed(range(self.horizon)):
            move_reward, refusal_reward = self.rewards(turn)
            refused = refusal_reward + following[:, :, REFUSED]
            moved = np.einsum("qpan,qpn->qpa", self.transition, move_reward + following[:, None, :, DONE])
            q = np.where(self.admissible, moved, refused[:, :, None])
            v = np.max(q, axis=-1, keepdims=True) if policy is None else np.einsum("qpoa,qpa->qpo", policy[turn], q)
            action_values[turn] = q
            values[turn] = np.where(self.absorbing[:, :, None], 0.0, v)
            following = values[turn]
        return values, action_values

    def reachable(self) -> np.ndarray:
        """Return which decision states some sequence of actions can lead to, bool `[horizon, tasks, places, 3]`."""
        visits = np.zeros((self.horizon, *self.absorbing.shape, 3))
        visits[0, np.arange(len(self.start)), self.start, NOTHING] = 1.0
        anything = np.ones((*visits.shape[1:], self.transition.shape[2]))
        for turn in range(self.horizon):
            # Ones in place of sums of paths, whose number grows without bound.
            visits[turn] = (visits[turn] > 0.0) & ~self.absorbing[:, :, None]
            if turn + 1 < self.horizon:
                self._visit_next(visits, anything, turn)
        return visits > 0.0

    def best_actions(self, scores: np.ndarray, preference: np.ndarray) -> np.ndarray:
        """Return the admissible actions `[...]` of the highest score, and among equals of the highest preference.

        Args:
            scores: Of the actions, `[..., tasks, places, actions]`.
            preference: Of the actions, `[..., tasks, places, actions]`.
        """
        admissible = np.where(self.admissible, scores, -np.inf)
        equal = admissible >= admissible.max(axis=-1, keepdims=True) - 1e-12
        return np.where(equal, preference, -np.inf).argmax(axis=-1)

    def observed_best(self, action_values: np.ndarray, preference: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """Return the actions `[horizon, tasks, places, 3]` of a policy that acts alike in states that look alike.

        Going forward in time, each group of states that look alike takes the action whose value, averaged with the
        probabilities of being in each state of the group, is largest (QMDP: the values belong to a policy that
        sees the state).

        Args:
            action_values: Q `[horizon, tasks, places, actions]`.
            preference: Decides among equally good actions, `[tasks, places, actions]`.
            seen: int `[tasks, places, 3]`: equal numbers look alike.
        """
        actions = np.zeros((*action_values.shape[:3], 3), dtype=np.int64)
        visits = np.zeros(actions.shape)
        visits[0, np.arange(len(self.start)), self.start, NOTHING] = 1.0
        for turn in range(self.horizon):
            # Where nobody comes, states of a group count equally.
            weights = visits[turn] + 1e-12
            scores, preferences = (
                np.moveaxis(_group_means(values, weights, seen), 2, 0) for values in (action_values[turn], preference)
            )
            actions[turn] = np.moveaxis(self.best_actions(scores, preferences), 0, -1)
            if turn + 1 < self.horizon:
                self._visit_next(visits, np.eye(self.transition.shape[2])[actions[turn]], turn)
        return actions

    def _visit_next(self, visits: np.ndarray, policy: np.ndarray, turn: int) -> None:
        flow = np.where(self.absorbing[:, :, None, None], 0.0, visits[turn][..., None] * policy).sum(axis=2)
        visits[turn + 1, ..., DONE] = np.einsum("qpa,qpan->qn", flow, self.transition)
        visits[turn + 1, ..., REFUSED] = np.where(self.admissible, 0.0, flow).sum(axis=-1)


def _group_means(values: np.ndarray, weights: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Mean of values `[tasks, places, actions]` over the states that look alike, `[tasks, places, 3, actions]`."""
    sums = np.zeros((int(seen.max()) + 1, values.shape[2]))
    totals = np.zeros(len(sums))
    np.add.at(sums, seen, weights[..., None] * values[:, :, None, :])
    np.add.at(totals, seen, weights)
    return (sums / totals[:, None])[seen]
