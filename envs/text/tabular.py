"""Exact dynamic programming for turn-limited text worlds: values, occupancies and probabilities of any policy table.

The state of a decision is (turn, task, place, outcome), where `outcome` is the result of the previous action as far as the
agent sees it: nothing yet, done, or refused. Only policies look at the outcome; the world's law does not.
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
        """bool `[tasks, places, actions]`."""
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

    def occupancy(self, policy: np.ndarray) -> np.ndarray:
        """Return the probability `[horizon, tasks, places, 3]` that an episode of each task is in each decision state.

        Args:
            policy: Probabilities `[horizon, tasks, places, 3, actions]`.
        """
        visits = np.zeros((self.horizon, *self.absorbing.shape, 3))
        visits[0, np.arange(len(self.start)), self.start, NOTHING] = 1.0
        for turn in range(self.horizon - 1):
            self._visit_next(visits, policy[turn], turn)
        return visits

    def reachable(self) -> np.ndarray:
        """Return the decision states `[horizon, tasks, places, 3]` that some sequence of actions can lead to, as bools."""
        visits = np.zeros((self.horizon, *self.absorbing.shape, 3))
        visits[0, np.arange(len(self.start)), self.start, NOTHING] = 1.0
        anything = np.ones((*visits.shape[1:], self.transition.shape[2]))
        for turn in range(self.horizon):
            # Ones in place of sums of paths, whose number grows without bound.
            visits[turn] = (visits[turn] > 0.0) & ~self.absorbing[:, :, None]
            if turn + 1 < self.horizon:
                self._visit_next(visits, anything, turn)
        return visits > 0.0

    def observed_best(self, action_values: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """Return a policy `[horizon, tasks, places, 3, actions]` that acts alike in states that look alike.

        Going forward in time, each group of states that look alike takes the action whose value, averaged with the
        probabilities of being in each state of the group, is largest (QMDP: the values belong to a policy that
        sees the state).

        Args:
            action_values: Q `[horizon, tasks, places, actions]`.
            seen: int `[tasks, places, 3]`: equal numbers look alike.
        """
        policy = np.zeros((*action_values.shape[:3], 3, action_values.shape[3]))
        visits = np.zeros(policy.shape[:4])
        visits[0, np.arange(len(self.start)), self.start, NOTHING] = 1.0
        admissible = np.broadcast_to(self.admissible[:, :, None, :], policy.shape[1:])
        for turn in range(self.horizon):
            # Where nobody comes, states of a group count equally.
            weights = visits[turn] + 1e-12
            scores = np.zeros((int(seen.max()) + 1, action_values.shape[3]))
            np.add.at(scores, seen, weights[..., None] * action_values[turn][:, :, None, :])
            best = np.where(admissible, scores[seen], -np.inf).argmax(axis=-1)
            np.put_along_axis(policy[turn], best[..., None], 1.0, axis=-1)
            if turn + 1 < self.horizon:
                self._visit_next(visits, policy[turn], turn)
        return policy

    def _visit_next(self, visits: np.ndarray, policy: np.ndarray, turn: int) -> None:
        flow = np.where(self.absorbing[:, :, None, None], 0.0, visits[turn][..., None] * policy).sum(axis=2)
        visits[turn + 1, ..., DONE] = np.einsum("qpa,qpan->qn", flow, self.transition)
        visits[turn + 1, ..., REFUSED] = np.where(self.admissible, 0.0, flow).sum(axis=-1)
