"""Two-player zero-sum games of perfect recall as flat trees: values, best responses and exploitability by enumeration.

A policy is one table `[num_information_sets, num_actions]` for both players; each row belongs to the player who moves
there.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

History = TypeVar("History")

CHANCE, TERMINAL = -1, -2


@dataclass(frozen=True)
class Node(Generic[History]):
    """What the rules say of one history.

    Attributes:
        player: 0 or 1, or `CHANCE`, or `TERMINAL`.
        children: The histories after each action or outcome.
        probabilities: Of the outcomes of chance.
        information_set: What the player knows.
        payoff: What player 0 wins from player 1 at the end.
    """

    player: int
    children: Sequence[History] = ()
    probabilities: Sequence[float] = ()
    information_set: Hashable = None
    payoff: float = 0.0


@dataclass(frozen=True)
class GameTree:
    """A game with its nodes ordered by depth, so that one pass over the levels computes any expectation.

    Attributes:
        player: int `[nodes]`: 0, 1, `CHANCE` or `TERMINAL`.
        information_set: int `[nodes]`: row of a policy table, -1 where nobody decides.
        children: int `[nodes, widest]`: -1 after the last child.
        chance: float `[nodes, widest]`: probabilities of chance's outcomes, 0 elsewhere.
        payoff: float `[nodes]`: what player 0 wins at the end.
        levels: Nodes by depth.
        owner: int `[num_information_sets]`: who moves there.
        num_actions: Actions at every information set.
    """

    player: np.ndarray
    information_set: np.ndarray
    children: np.ndarray
    chance: np.ndarray
    payoff: np.ndarray
    levels: tuple[np.ndarray, ...]
    owner: np.ndarray
    num_actions: int

    @classmethod
    def build(
        cls,
        root: History,
        rules: Callable[[History], Node[History]],
        information_sets: Sequence[Hashable],
        num_actions: int,
    ) -> GameTree:
        """Return the tree that the rules unfold from the root.

        Args:
            root: First history.
            rules: What stands at a history.
            information_sets: All of them, in the order of the rows of a policy table.
            num_actions: Actions at every information set.

        Raises:
            ValueError: If an information set has histories of different lengths, which a level-wise pass cannot treat.
        """
        row_of = {information_set: row for row, information_set in enumerate(information_sets)}
        nodes: list[Node[History]] = []
        children: list[list[int]] = []
        levels: list[np.ndarray] = []
        level: list[History] = [root]
        while level:
            first = len(nodes)
            found = [rules(history) for history in level]
            nodes += found
            levels.append(np.arange(first, len(nodes)))
            below: list[History] = []
            for node in found:
                children.append([len(nodes) + len(below) + i for i in range(len(node.children))])
                below += node.children
            level = below
        widest = max(map(len, children))
        owner = np.full(len(row_of), TERMINAL)
        depth = np.repeat(np.arange(len(levels)), [len(level) for level in levels])
        depth_of: dict[Hashable, int] = {}
        child_table = np.full((len(nodes), widest), -1)
        chance = np.zeros((len(nodes), widest))
        for index, node in enumerate(nodes):
            child_table[index, : len(node.children)] = children[index]
            chance[index, : len(node.probabilities)] = node.probabilities
            if node.player >= 0:
                owner[row_of[node.information_set]] = node.player
                if depth_of.setdefault(node.information_set, depth[index]) != depth[index]:
                    raise ValueError(
                        f"GameTree: information_sets: {node.information_set!r} has histories of lengths "
                        f"{depth_of[node.information_set]} and {depth[index]}; expected one length"
                    )
        return cls(
            player=np.array([node.player for node in nodes]),
            information_set=np.array([row_of[node.information_set] if node.player >= 0 else -1 for node in nodes]),
            children=child_table,
            chance=chance,
            payoff=np.array([node.payoff for node in nodes]),
            levels=tuple(levels),
            owner=owner,
            num_actions=num_actions,
        )

    def value(self, policy: np.ndarray) -> float:
        """Return what player 0 wins on average when both play the table `[num_information_sets, num_actions]`."""
        weights = self._weights(policy)
        value = self.payoff.copy()
        for level in reversed(self.levels):
            value[level] += np.sum(weights[level] * value[self.children[level]], axis=-1)
        return float(value[0])

    def best_response(self, policy: np.ndarray, player: int) -> tuple[float, np.ndarray]:
        """Return the best value of a player against the other's rows of a table, and the table with the best rows in.

        Args:
            policy: Probabilities `[num_information_sets, num_actions]`; the rows of `player` do not matter.
            player: 0 or 1.

        Returns:
            The value for `player`, and the table; among equally good actions the first is taken.
        """
        # Reach of a node by chance and the other player alone: within an information set these weigh the beliefs.
        weights = self._weights(np.where((self.owner == player)[:, None], 1.0, policy))
        reach = np.ones(len(self.player))
        for level in self.levels:
            present = self.children[level] >= 0
            reach[self.children[level][present]] = (reach[level][:, None] * weights[level])[present]
        sign = 1.0 if player == 0 else -1.0
        value = sign * self.payoff
        response = np.array(policy, dtype=np.float64)
        for level in reversed(self.levels):
            child_values = np.where(self.children[level] >= 0, value[self.children[level]], 0.0)
            mine = self.player[level] == player
            nodes, action_values = level[mine], child_values[mine][:, : self.num_actions]
            totals = np.zeros_like(response)
            np.add.at(totals, self.information_set[nodes], reach[nodes, None] * action_values)
            rows = np.unique(self.information_set[nodes])
            response[rows] = np.eye(self.num_actions)[totals[rows].argmax(axis=-1)]
            expected = np.sum(weights[level] * child_values, axis=-1)
            expected[mine] = np.sum(response[self.information_set[nodes]] * action_values, axis=-1)
            value[level] += expected
        return float(value[0]), response

    def nash_conv(self, policy: np.ndarray) -> float:
        """Return the sum over players of what a best response would gain; 0 exactly at an equilibrium."""
        return self.best_response(policy, 0)[0] + self.best_response(policy, 1)[0]

    def _weights(self, policy: np.ndarray) -> np.ndarray:
        """Probability of each child `[nodes, widest]`, from chance and the policy."""
        weights = self.chance.copy()
        decides = self.player >= 0
        weights[decides, : self.num_actions] = policy[self.information_set[decides]]
        return weights
