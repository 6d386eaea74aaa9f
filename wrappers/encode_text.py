"""Texts in observations as token arrays, for agents that read numbers."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import gymnasium as gym
import numpy as np

from palaestra.envs.text.vocabulary import VOCABULARY_SIZE, encode, padded


class EncodeText(gym.ObservationWrapper[Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Turns every text in the observation, alone or inside a Dict, into the token ids of the suite's vocabulary.

    A text becomes int32 `[length]`, 0 (`<pad>`) after its last token; the rest of the observation stays as it is. The
    result is a pure function of the observation, so the wrapper has no state to save.

    Args:
        env: An env with a text in its observation: `gym.spaces.Text`, or any space of strings such as the missions of
            MiniGrid.
        length: Tokens per text; what is longer is cut. Among MiniGrid's and BabyAI's ids only missions of the
            boss levels, chains of four instructions, pass 32.

    Raises:
        ValueError: If the observation holds no text, or `length` is below 1.
    """

    def __init__(self, env: gym.Env[Any, Any], length: int = 32) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, length=length)
        super().__init__(env)
        if length < 1:
            raise ValueError(f"EncodeText: length={length}; expected an integer of at least 1")
        if not has_text(env.observation_space):
            raise ValueError(
                f"EncodeText: observation_space={env.observation_space} holds no text; expected a space of texts"
            )
        self.length = length
        self.observation_space = self._encoded_space(env.observation_space)

    def observation(self, observation: Any) -> Any:
        """Return the observation with its texts encoded."""
        return self._encoded(observation, self.env.observation_space)

    def _encoded_space(self, space: gym.Space[Any]) -> gym.Space[Any]:
        if isinstance(space, gym.spaces.Dict):
            return gym.spaces.Dict({name: self._encoded_space(part) for name, part in space.items()})
        if is_text(space):
            return gym.spaces.Box(0, VOCABULARY_SIZE - 1, (self.length,), np.int32)
        return space

    def _encoded(self, value: Any, space: gym.Space[Any]) -> Any:
        if isinstance(space, gym.spaces.Dict):
            return {name: self._encoded(value[name], part) for name, part in space.items()}
        return _tokens(value, self.length).copy() if is_text(space) else value


def is_text(space: gym.Space[Any]) -> bool:
    """Return whether the elements of a space are strings."""
    return space.dtype is not None and space.dtype.kind == "U"


def has_text(space: gym.Space[Any]) -> bool:
    """Return whether a space is one of strings, or a Dict with one inside."""
    if isinstance(space, gym.spaces.Dict):
        return any(has_text(part) for part in space.values())
    return is_text(space)


@lru_cache(maxsize=4096)
def _tokens(text: str, length: int) -> np.ndarray:
    return padded(encode(text), length)
