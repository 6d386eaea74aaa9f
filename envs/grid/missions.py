"""What the agent is told to do: texts, their tokens, and the events that end an episode well or badly."""

from __future__ import annotations

from functools import lru_cache
from itertools import product

import numpy as np

from palaestra.envs.arrays import namespace_of
from palaestra.envs.grid.cells import COLORS
from palaestra.envs.grid.dynamics import (
    AT_GOAL,
    FACED_TARGET,
    IN_LAVA,
    OPENED_OTHER,
    OPENED_TARGET,
    PICKED_OTHER,
    PICKED_TARGET,
)
from palaestra.envs.text.vocabulary import encode, padded
from palaestra.protocols import Array

MISSION_TOKENS = 32
"""Tokens of a mission, as `palaestra.wrappers.encode_text` makes of MiniGrid's."""

GO_TO, PICK, OPEN = range(3)
ANY_COLOR = len(COLORS)
KINDS = ("object", "key", "ball", "box", "door")
OBJECT_KIND, KEY_KIND, BALL_KIND, BOX_KIND, DOOR_KIND = range(5)
PLACES = ("", " on your left", " on your right", " in front of you", " behind you")
_VERBS = ("go to", "pick up", "open")
_SHAPE = (len(_VERBS), 2, len(COLORS) + 1, len(KINDS), len(PLACES))

_SUCCESS = {GO_TO: FACED_TARGET, PICK: PICKED_TARGET, OPEN: OPENED_TARGET}
_STRICT_FAILURE = {GO_TO: 0, PICK: PICKED_OTHER, OPEN: OPENED_OTHER}


class Missions:
    """All missions of a world, by number.

    Args:
        texts: What is said, one text for each mission.
        success: Event that fulfils all of them, or one for each.
        failure: Events that end the episode with nothing, the same.

    Attributes:
        texts: As given.
        success, failure: int64 `[missions]`.
        tokens: int32 `[missions, 32]`, in the suite's vocabulary, padded with 0.
        go: Whether any is fulfilled by standing before an object.
    """

    def __init__(
        self, texts: tuple[str, ...], success: int | np.ndarray = AT_GOAL, failure: int | np.ndarray = IN_LAVA
    ):
        self.texts = texts
        self.success = np.zeros(len(texts), np.int64) + success
        self.failure = np.zeros(len(texts), np.int64) + failure
        self.tokens = np.stack([padded(encode(text), MISSION_TOKENS) for text in texts])
        self.go = bool((self.success & FACED_TARGET).any())
        self._number = {text: number for number, text in enumerate(texts)}

    def number_of(self, text: str) -> int:
        """Return the number of a mission.

        Raises:
            ValueError: If the world has no such mission.
        """
        if text not in self._number:
            raise ValueError(f"number_of: text={text!r}; expected a mission such as {self.texts[0]!r}")
        return self._number[text]


@lru_cache(maxsize=64)
def fixed_mission(text: str, success: int = AT_GOAL) -> Missions:
    """Return the missions of a world that has one."""
    return Missions((text,), success)


@lru_cache(maxsize=64)
def colored_missions(beginning: str, ending: str) -> Missions:
    """Return the missions "beginning color ending" to pick something up, numbered by the colour."""
    return Missions(tuple(f"{beginning} {color} {ending}" for color in COLORS), PICKED_TARGET)


@lru_cache(maxsize=16)
def errands(verbs: frozenset[int], strict: bool) -> Missions:
    """Return BabyAI's instructions of one part, numbered by `errand`.

    Args:
        verbs: Those that a world uses, of `GO_TO`, `PICK` and `OPEN`; the numbers do not depend on it.
        strict: Whether to pick up or to open something else ends the episode.
    """
    texts, success, failure = [], [], []
    for verb, several, color, kind, place in product(*map(range, _SHAPE)):
        name = KINDS[kind] if color == ANY_COLOR else f"{COLORS[color]} {KINDS[kind]}"
        texts.append(f"{_VERBS[verb]} {'a' if several else 'the'} {name}{PLACES[place]}")
        success.append(_SUCCESS[verb] if verb in verbs else 0)
        failure.append(_STRICT_FAILURE[verb] if strict else 0)
    return Missions(tuple(texts), np.array(success), np.array(failure))


def errand(verb: Array | int, several: Array, color: Array | int, kind: Array | int, place: Array | int = 0) -> Array:
    """Return the numbers `[batch]` of instructions.

    Args:
        verb: `GO_TO`, `PICK` or `OPEN`.
        several: Whether more than one object fits: "a" instead of "the"; bool `[batch]`.
        color: 0 to 5, or `ANY_COLOR`.
        kind: Index of `KINDS`.
        place: Index of `PLACES`.
    """
    number = (verb * 2 + namespace_of(several).astype(several, namespace_of(several).int64)) * _SHAPE[2] + color
    return (number * _SHAPE[3] + kind) * _SHAPE[4] + place
