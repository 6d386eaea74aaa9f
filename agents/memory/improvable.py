"""A replay buffer that keeps beside each executed action another one, which its agent goes on improving."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from palaestra.agents.memory.replay import ReplayBuffer


class ImprovableReplay(ReplayBuffer):
    """A replay buffer whose rows have a second action, at first the executed one.

    Rows of a buffer never change, so that checkpoints can share the segments that hold them. The second actions do, and
    are therefore no field of the rows: `improved` belongs in the state of every checkpoint, which it makes larger by
    4 bytes for each dimension of each action kept. Saved without its rows, the state is of no harm: a row that is added
    begins with its own action again.

    Args:
        capacity: Transitions kept, at least 1.
        action_dim: Dimensions of the actions.
        device: Where the arrays live.
    """

    def __init__(self, capacity: int, action_dim: int, device: torch.device) -> None:
        super().__init__(capacity, device)
        self.improved = ImprovedActions(self, action_dim)

    def add(self, rows: Mapping[str, Any]) -> None:
        """Append transitions, each with its executed action for the second one."""
        super().add(rows)
        self.improved.begin(rows["action"])


class ImprovedActions:
    """The second actions of a buffer's rows.

    Args:
        replay: The buffer.
        action_dim: Dimensions of the actions.
    """

    def __init__(self, replay: ReplayBuffer, action_dim: int) -> None:
        self.replay = replay
        self.actions = torch.zeros(replay.capacity, action_dim, device=replay.device)

    def begin(self, action: Tensor) -> None:
        """Give the rows added last their executed actions `[rows, action_dim]`."""
        action = torch.as_tensor(action, device=self.replay.device)[-self.replay.capacity :]
        stop = self.replay.rows_written
        index = torch.arange(stop - len(action), stop, device=self.replay.device) % self.replay.capacity
        self.actions.index_copy_(0, index, action)

    def at(self, index: Tensor) -> Tensor:
        """Return the actions `[batch, action_dim]` at places that the buffer's `draw` returned."""
        return self.actions.index_select(0, index)

    def write(self, index: Tensor, action: Tensor) -> None:
        """Put better actions `[batch, action_dim]` at these places; of a place drawn twice one of them stays."""
        self.actions.index_copy_(0, index, action)

    def state_dict(self) -> dict[str, Any]:
        """Return the actions of the rows kept."""
        return {"actions": self.actions[: len(self.replay)]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned; the rows themselves come from their segments."""
        self.actions[: len(state["actions"])] = state["actions"]
