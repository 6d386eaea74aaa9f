"""Any agent at a lower decision frequency: it looks once, and acts for several steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class _Intention:
    """What each row is about to do: the agent's recurrent state, actions `[rows, length, ...]`, the next of them."""

    state: Any
    actions: np.ndarray
    position: np.ndarray


class OpenLoop:
    """A policy that sees every `length`-th observation of an episode alone.

    One that plans (`predict_sequence(observation, length, ...)`, arguments and results as of `predict` but for actions
    `[batch, length, ...]`) plays the actions it decided on together; any other repeats its action. Every episode
    begins with a decision. What it returns as its state is to be given back as it is.

    Args:
        policy: An agent: anything with the `predict` of the suite's agents or of stable-baselines3's.
        length: Steps for each decision, at least 1; 1 is the policy itself.

    Raises:
        TypeError: If `policy` has no `predict`.
        ValueError: If `length` is below 1.
    """

    def __init__(self, policy: Any, length: int) -> None:
        if not hasattr(policy, "predict"):
            raise TypeError(f"OpenLoop: policy={policy!r}; expected an agent, with a method predict")
        if length < 1:
            raise ValueError(f"OpenLoop: length={length}; expected an integer of at least 1")
        self.policy, self.length = policy, length
        self.config = getattr(policy, "config", None)
        self.device = getattr(policy, "device", "cpu")
        self.stochastic_modes = getattr(policy, "stochastic_modes", False)

    def predict(
        self,
        observation: Any,
        state: _Intention | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        **keywords: Any,
    ) -> tuple[np.ndarray, _Intention]:
        """Return the actions of a batch of rows, and what they intend.

        Args:
            observation: Observations `[batch, ...]`; only rows that decide now are looked at.
            state: What the previous call returned.
            episode_start: Bools `[batch]`: an episode begins here, and with it a decision.
            deterministic: Whether to take the policy's mode.
            **keywords: Further arguments of the policy, such as `action_masks` and `generator`.
        """
        if state is None:
            due = None
        else:
            due = state.position == self.length
            due = due if episode_start is None else due | np.asarray(episode_start, bool)
        if state is None or due is None or due.any():
            state = self._decided(observation, state, due, episode_start, deterministic, keywords)
        actions = state.actions[np.arange(len(state.position)), state.position]
        return actions, _Intention(state.state, state.actions, state.position + 1)

    def _decided(
        self,
        observation: Any,
        state: _Intention | None,
        due: np.ndarray | None,
        episode_start: np.ndarray | None,
        deterministic: bool,
        keywords: dict[str, Any],
    ) -> _Intention:
        before = None if state is None else state.state
        asked = {"state": before, "episode_start": episode_start, "deterministic": deterministic, **keywords}
        if hasattr(self.policy, "predict_sequence"):
            actions, after = self.policy.predict_sequence(observation, self.length, **asked)
        else:
            action, after = self.policy.predict(observation, **asked)
            actions = np.repeat(np.asarray(action)[:, None], self.length, axis=1)
        if state is None or due is None or due.all():
            return _Intention(after, actions, np.zeros(len(actions), np.int64))
        return _Intention(
            _chosen(due, after, before),
            _rows_where(due, actions, state.actions, 0),
            np.where(due, 0, state.position),
        )


def _chosen(due: np.ndarray, after: Any, before: Any) -> Any:
    """Return the recurrent state after the decision in the rows that made one, and that before it elsewhere.

    Agents of the suite have an array with the rows in front, sb3-contrib's a tuple of arrays `[layers, rows, size]`.
    """
    if after is None:
        return None
    if isinstance(after, tuple):
        return tuple(_rows_where(due, new, old, 1) for new, old in zip(after, before, strict=True))
    return _rows_where(due, after, before, 0)


def _rows_where(due: np.ndarray, chosen: np.ndarray, other: np.ndarray, axis: int) -> np.ndarray:
    shape = [1] * chosen.ndim
    shape[axis] = len(due)
    return np.where(due.reshape(shape), chosen, other)
