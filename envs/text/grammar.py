"""Between an action and its words: a fixed catalogue of action texts, its parser, and the trie of its tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from palaestra.envs.arrays import table_like
from palaestra.envs.text.vocabulary import END, PAD, VOCABULARY_SIZE, encode
from palaestra.protocols import Actor, Array, Key

LONGEST_ACTION_TEXT = 4096
"""Characters of an action text that are read; the rest is ignored."""

_ACT_WORD, _COLON, _NEW_LINE = encode("act:\n")
_ACT_LINE = re.compile(r"^[ \t]*act:", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True)
class Reject:
    """An action text that names no action of the catalogue, with the reason that the world reports."""

    reason: str


EMPTY = Reject("empty action")
UNKNOWN = Reject("unknown action")
REJECT_CODES = {EMPTY: -1, UNKNOWN: -2}
"""How rejects stand among the indices of actions in arrays."""


class Grammar:
    """The catalogue of a world's actions as texts: `parse(render(a)) == a` for every action `a`.

    Args:
        texts: One text per action, lower-case, words separated by single spaces, all different.

    Raises:
        ValueError: If a text is not in that form or stands twice.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        for text in texts:
            if not text or text != _normalised(text):
                raise ValueError(
                    f"Grammar: texts contains {text!r}; expected lower-case words with single spaces between"
                )
        if len(set(texts)) != len(texts):
            raise ValueError(f"Grammar: texts={list(texts)}; expected all to be different")
        self.texts = tuple(texts)
        self._index = {text: action for action, text in enumerate(self.texts)}

    def render(self, action: int) -> str:
        """Return the text of an action of the catalogue."""
        return self.texts[action]

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return what `parse` finds in every text, int64 `[batch]`; rejects are `REJECT_CODES`."""
        found = [self.parse(text) for text in texts]
        return np.array([REJECT_CODES[part] if isinstance(part, Reject) else part for part in found], dtype=np.int64)

    def parse(self, text: str) -> int | Reject:
        """Return the action that a text names, or why it names none; never raises, linear in the text's length.

        The last line that begins with `act:` starts the action, and everything before it is a thought; without such
        a line the whole text is the action. Letter case and the amount of white space do not matter. Only the first
        4,096 characters are read.
        """
        text = text[:LONGEST_ACTION_TEXT]
        act_lines = list(_ACT_LINE.finditer(text))
        action = _normalised(text[act_lines[-1].end() :] if act_lines else text)
        if not action:
            return EMPTY
        return self._index.get(action, UNKNOWN)


def _normalised(text: str) -> str:
    return " ".join(text.lower().split())


def read_action_tokens(tokens: Array, catalogue: Array) -> Array:
    """Return the action that each row of tokens names, int64 `[batch]`; rejects are `REJECT_CODES`.

    What counts of a row are the tokens before the first `<end>` or `<pad>`, and of these what follows the last `act:`
    that begins a line; they must be exactly the tokens of an action's text.

    Args:
        tokens: Token ids `[batch, length]`.
        catalogue: Token ids of the texts of all actions, padded on the right, `[num_actions, length]`.
    """
    xp = array_namespace(tokens)
    place = xp.arange(tokens.shape[1], device=tokens.device)
    zeros = xp.zeros_like(tokens)
    over = xp.cumulative_sum(xp.astype((tokens == PAD) | (tokens == END), xp.int64), axis=1) > 0
    tokens = xp.where(over, zeros, tokens)
    begins = xp.concat((over[:, :1] | True, tokens[:, :-2] == _NEW_LINE), axis=1)
    act_line = begins & (tokens[:, :-1] == _ACT_WORD) & (tokens[:, 1:] == _COLON)
    thought = xp.max(xp.where(act_line, place[:-1] + 2, zeros[:, :-1]), axis=1)
    # Rows move left past their thought; what comes in on the right is padding.
    source = place + thought[:, None]
    inside = source < tokens.shape[1]
    action = xp.where(inside, xp.take_along_axis(tokens, xp.where(inside, source, zeros), axis=1), zeros)
    equal = xp.all(action[:, None, :] == catalogue, axis=2)
    empty = action[:, 0] == PAD
    rejected = xp.where(empty, REJECT_CODES[EMPTY] + 0 * thought, REJECT_CODES[UNKNOWN] + 0 * thought)
    return xp.where(xp.any(equal, axis=1), xp.argmax(xp.astype(equal, xp.int64), axis=1), rejected)


class Trie:
    """The token sequences of a catalogue as a tree, for masked decoding; every sequence ends with the `<end>` token.

    A token policy that at each node puts its probability on the allowed next tokens, multiplied along the tree, is a
    proper distribution over the admissible actions, so token-level and action-level methods act in one and the
    same decision process.

    Args:
        texts: One text per action, all different.

    Attributes:
        tokens: int32 `[num_actions, longest]`: the sequences, padded on the right.
        children: int64 `[num_nodes, VOCABULARY_SIZE]`: the next node, or -1; node 0 is the root.
        below: bool `[num_nodes, num_actions]`: the actions whose sequence passes through the node.
        leaf: int64 `[num_actions]`: the node at which an action is complete.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        sequences = [[*encode(text), END] for text in texts]
        longest = max(map(len, sequences))
        self.tokens = np.array([row + [PAD] * (longest - len(row)) for row in sequences], dtype=np.int32)
        edges: dict[tuple[int, int], int] = {}
        paths = []
        for row in sequences:
            path = [0]
            for token in row:
                path.append(edges.setdefault((path[-1], token), len(edges) + 1))
            paths.append(path)
        self.children = np.full((len(edges) + 1, VOCABULARY_SIZE), -1, dtype=np.int64)
        for (node, token), child in edges.items():
            self.children[node, token] = child
        self.below = np.zeros((len(edges) + 1, len(sequences)), dtype=bool)
        for action, path in enumerate(paths):
            self.below[path, action] = True
        self.leaf = np.array([path[-1] for path in paths])
        self._paths = paths
        self._sequences = sequences

    @property
    def num_nodes(self) -> int:
        """Number of nodes, the root and the complete actions among them."""
        return len(self.children)

    def token_masks(self, nodes: np.ndarray, admissible: np.ndarray) -> np.ndarray:
        """Return the tokens that lead towards an admissible action, bool `[batch, VOCABULARY_SIZE]`.

        Args:
            nodes: Where each row stands, int `[batch]`, not a complete action.
            admissible: Admissible actions, bool `[batch, num_actions]`.
        """
        children = self.children[nodes]
        open_nodes = admissible.astype(np.uint8) @ self.below.T.astype(np.uint8) > 0
        return (children >= 0) & np.take_along_axis(open_nodes, np.maximum(children, 0), axis=1)

    def advance(self, nodes: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Return the nodes `[batch]` after one more token each; -1 once a token has left the tree."""
        return np.where(nodes < 0, -1, self.children[nodes, tokens])

    def actions(self, nodes: np.ndarray) -> np.ndarray:
        """Return the action `[batch]` complete at each node, or -1 where none is."""
        complete = np.full(self.num_nodes + 1, -1)
        complete[self.leaf] = np.arange(len(self.leaf))
        return complete[nodes]

    def action_probabilities(self, weights: np.ndarray, admissible: np.ndarray) -> np.ndarray:
        """Return the distribution over actions `[batch, num_actions]` that masked decoding of a token policy yields.

        Args:
            weights: Unnormalised probabilities of the next token at every node, `[batch, num_nodes, VOCABULARY_SIZE]`,
                above 0 for every token that can be needed.
            admissible: Admissible actions, bool `[batch, num_actions]`, at least one in each row.
        """
        batch = len(weights)
        probabilities = np.ones((batch, len(self.leaf)))
        for node in range(self.num_nodes):
            if (self.children[node] < 0).all():
                continue
            allowed = self.token_masks(np.full(batch, node), admissible)
            masked = np.where(allowed, weights[:, node], 0.0)
            total = masked.sum(axis=1)
            for action in np.flatnonzero(self.below[node]):
                token = self._sequences[action][self._paths[action].index(node)]
                probabilities[:, action] *= masked[:, token] / np.where(total > 0.0, total, 1.0)
        return np.where(admissible, probabilities, 0.0)


@dataclass(frozen=True)
class SpeakingActor:
    """Says what another actor does: a tuple of one text for each row, as a Text action space takes it."""

    actor: Actor
    texts: tuple[str, ...]

    def __call__(self, state: Any, observation: Any, key: Key) -> tuple[str, ...]:
        """Return the texts of the actor's actions."""
        return tuple(self.texts[action] for action in self.actor(state, observation, key).tolist())


@dataclass(frozen=True)
class SpellingActor:
    """Spells what another actor does: rows of a table of tokens `[num_actions, length]`."""

    actor: Actor
    tokens: np.ndarray

    def __call__(self, state: Any, observation: Any, key: Key) -> Array:
        """Return the tokens `[batch, length]` of the actor's actions."""
        actions = self.actor(state, observation, key)
        return table_like(self.tokens, actions)[actions]
