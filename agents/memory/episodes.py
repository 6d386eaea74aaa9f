"""A rollout of whole episodes, all of them played from their first step to their last by one policy."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from palaestra.agents.memory.rollout import RolloutBuffer

WAITING, RECORDING, DONE = 0, 1, 2


class EpisodeBuffer(RolloutBuffer):
    """A rollout in which only whole episodes count as valid, and which grows until every row has its share.

    A row records episodes until it has `least_steps` steps and the episode at hand has ended. What it plays from then
    until all rows are done, and the rest of the episode that it is in when the policy changes, is stored as not valid:
    every row contributes the episodes that come first, long or short, so that their mean is not biased to short ones.

    Args:
        least_steps: Steps after which a row starts no further episode; 1 is one episode a row.
        num_envs: Number of rows.
        device: Where the arrays live.
    """

    def __init__(self, least_steps: int, num_envs: int, device: torch.device) -> None:
        super().__init__(max(least_steps, 16), device)
        self.least_steps = least_steps
        self.stage = torch.full((num_envs,), RECORDING, device=device)
        self.recorded = torch.zeros(num_envs, dtype=torch.int64, device=device)
        self.fresh = torch.ones(num_envs, dtype=torch.bool, device=device)

    @property
    def full(self) -> bool:
        """Whether every row has recorded its episodes."""
        return bool((self.stage == DONE).all())

    def add(self, **step: Tensor | dict[str, Tensor]) -> None:
        """Store one step; `valid` is kept where the row records."""
        if self.position == self.steps:
            self.fields = {name: torch.cat([field, torch.zeros_like(field)]) for name, field in self.fields.items()}
            self.steps *= 2
        happened, ended = _tensor(step["valid"]), _tensor(step["terminated"]) | _tensor(step["truncated"])
        recording = self.stage == RECORDING
        step["valid"] = happened & recording
        super().add(**step)
        self.recorded += happened & recording
        self.stage[ended & (self.stage == WAITING)] = RECORDING
        self.stage[ended & recording & (self.recorded >= self.least_steps)] = DONE
        # A step that did nothing but reset leaves the row at the start of its episode.
        self.fresh = ended | (self.fresh & ~happened)

    def trim(self) -> None:
        """Drop the room that is not filled, so that fields are `[position, num_envs, ...]`."""
        self.fields = {name: field[: self.position] for name, field in self.fields.items()}
        self.steps = self.position

    def clear(self) -> None:
        """Start anew: rows in the middle of an episode wait for its end."""
        super().clear()
        self.stage = torch.where(self.fresh, RECORDING, WAITING)
        self.recorded.zero_()

    def restart(self) -> None:
        """Start anew with every row at the start of an episode, because the env was reset."""
        self.fresh.fill_(True)
        self.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return the filled part, and where every row stands."""
        return {**super().state_dict(), "stage": self.stage, "recorded": self.recorded, "fresh": self.fresh}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the filled part, and where every row stands."""
        self.steps = max(self.steps, state["position"])
        super().load_state_dict(state)
        self.stage, self.recorded, self.fresh = (state[name].clone() for name in ("stage", "recorded", "fresh"))


def _tensor(value: Tensor | dict[str, Tensor]) -> Tensor:
    assert isinstance(value, Tensor)
    return value
