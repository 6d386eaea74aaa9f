"""TextCorridor solved exactly: its decision states in a row, values, probabilities, and the policies made of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from palaestra.envs.arrays import namespace_of, table_like
from palaestra.envs.text.tabular import REFUSED, ExactValues, TurnLimitedModel
from palaestra.protocols import Array, Key


@dataclass(frozen=True)
class CorridorState:
    """One walk per row, int64 `[batch]` each.

    Attributes:
        place: Task and room, as `task * rooms + room`.
        last: Result of the previous action, an index of the texts of the `last:` line.
        turn: Turns taken.
    """

    place: Array
    last: Array
    turn: Array


@dataclass(frozen=True)
class TableActor:
    """Takes the action that a table `[horizon, places, 3]` names for the state."""

    table: np.ndarray

    def __call__(self, state: CorridorState, observation: object, key: Key) -> Array:
        """Return actions `[batch]`."""
        xp = namespace_of(state.place)
        # Results that only texts can have count as refusals; at the time limit any action will do.
        last = xp.where(state.last > REFUSED, REFUSED + 0 * state.last, state.last)
        turn = xp.where(state.turn < len(self.table), state.turn, 0 * state.turn)
        return table_like(self.table, state.place)[turn, state.place, last]


class CorridorExact:
    """The decision process of a TextCorridor, in the order of its decision states.

    Args:
        model: Law and rewards.
        seen: int `[tasks, rooms, 3]`: equal numbers where the agent reads the same.
    """

    def __init__(self, model: TurnLimitedModel, seen: np.ndarray) -> None:
        self.model = model
        self.seen = seen
        self._rooms = model.absorbing.shape[1]
        reachable = model.reachable()
        self._where = np.nonzero(reachable)
        self._row = np.full(reachable.shape, -1)
        self._row[self._where] = np.arange(len(self._where[0]))

    def states(self) -> CorridorState:
        """Return every state in which a decision can fall, whatever was done before."""
        turn, task, room, last = self._where
        return CorridorState(task * self._rooms + room, last, turn)

    @property
    def fully_observed(self) -> bool:
        """Whether no two rooms in which decisions fall look the same."""
        deciding = self.seen[:, :, 1][~self.model.absorbing]
        return len(np.unique(deciding)) == len(deciding)

    def values(self, probabilities: np.ndarray | None = None) -> ExactValues:
        """Return the values of a policy `[num_states, num_actions]`, or of the optimal one."""
        values, action_values = self.model.solve(None if probabilities is None else self._dense(probabilities))
        turn, task, room, last = self._where
        starts = values[0, np.arange(len(self.model.start)), self.model.start, 0]
        return ExactValues(values[turn, task, room, last], action_values[turn, task, room], float(starts.mean()))

    def trajectory_probability(self, walk: CorridorState, actions: np.ndarray, probabilities: np.ndarray) -> float:
        """Return how likely a policy `[num_states, num_actions]` is to take a walk by the given actions.

        Args:
            walk: Consecutive states, `len(actions)` + 1 rows, the first at the start of an episode.
            actions: int `[turns]`.
            probabilities: Of the policy's actions.
        """
        task, room = np.divmod(walk.place, self._rooms)
        rows = self._row[walk.turn[:-1], task[:-1], room[:-1], walk.last[:-1]]
        here, there = (task[:-1], room[:-1], actions), room[1:]
        stayed = (there == room[:-1]) & (walk.last[1:] == REFUSED)
        steps = np.where(self.model.admissible[here], self.model.transition[(*here, there)], stayed)
        return float(np.prod(probabilities[rows, actions] * steps) / len(self.model.start))

    def optimal_actor(self, preference: np.ndarray) -> TableActor:
        """Return the actor of the optimal policy, which sees the state.

        Args:
            preference: Decides among equally good actions, `[tasks, rooms, actions]`.
        """
        _, action_values = self.model.solve()
        best = self.model.best_actions(action_values, preference)
        return self._actor(np.repeat(best[..., None], 3, axis=-1))

    def observed_actor(self, preference: np.ndarray) -> TableActor:
        """Return the actor that sees the present observation only and knows the tasks (QMDP); argument as above."""
        _, action_values = self.model.solve()
        return self._actor(self.model.observed_best(action_values, preference, self.seen))

    def preferring_actor(self, preference: np.ndarray) -> TableActor:
        """Return the actor that takes the admissible action of the highest preference `[tasks, rooms, actions]`."""
        best = self.model.best_actions(preference, preference)
        return self._actor(np.broadcast_to(best[None, :, :, None], self._row.shape))

    def _actor(self, table: np.ndarray) -> TableActor:
        return TableActor(table.reshape(len(table), -1, 3))

    def _dense(self, probabilities: np.ndarray) -> np.ndarray:
        expected = (len(self._where[0]), self.model.transition.shape[2])
        table = np.asarray(probabilities, dtype=np.float64)
        if table.shape != expected:
            raise ValueError(
                f"probabilities has shape {table.shape}; expected {expected}, as enumerate_states orders them"
            )
        if not (np.all(table >= 0.0) and np.allclose(table.sum(axis=1), 1.0, atol=1e-4)):
            raise ValueError("probabilities holds rows that are no distributions; expected rows that sum to 1")
        dense = np.zeros((*self._row.shape, expected[1]))
        dense[self._where] = table
        return dense
