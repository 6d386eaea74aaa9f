"""Candidate actions: several proposed for each state, judged by critics, one of them picked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from palaestra.agents.nn.networks import Observation


@dataclass(frozen=True)
class Candidates:
    """Actions proposed for each row of a batch; with one alone, every selection is that action.

    Attributes:
        action: `[batch, count, action_dim]`.
        log_prob: Log-density of each under what proposed it `[batch, count]`.
    """

    action: Tensor
    log_prob: Tensor

    def pick(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return the actions `[batch, action_dim]` and log-densities `[batch]` of one candidate a row, `[batch]`."""
        return picked(self.action, index), picked(self.log_prob, index)

    def values(self, critics: Callable[[Observation, Tensor], Tensor], observation: Observation) -> Tensor:
        """Return the values `[critics, batch, count]` of all candidates.

        Args:
            critics: Returns values `[critics, rows]` of observations and actions `[rows, ...]`.
            observation: `[batch, ...]`.
        """
        batch, count = self.log_prob.shape
        values = critics(_repeated(observation, count), self.action.flatten(0, 1))
        return values.unflatten(-1, (batch, count))


def picked(values: Tensor, index: Tensor) -> Tensor:
    """Return one entry of each row: `[batch, ...]` of values `[batch, count, ...]` and indices `[batch]`."""
    index = index.view(-1, *(1 for _ in values.shape[1:])).expand(-1, 1, *values.shape[2:])
    return values.gather(1, index).squeeze(1)


def _repeated(observation: Observation, count: int) -> Observation:
    """Return every row `count` times in turn."""
    if isinstance(observation, dict):
        return {key: _rows_repeated(value, count) for key, value in observation.items()}
    return _rows_repeated(observation, count)


def _rows_repeated(value: Tensor, count: int) -> Tensor:
    return value.unsqueeze(1).expand(-1, count, *value.shape[1:]).flatten(0, 1)
