"""The latest rollouts, kept beside the one that is being filled."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from palaestra.agents.memory.rollout import RolloutBuffer

Observation = Tensor | dict[str, Tensor]


class RecentRollouts:
    """The last `count` rollouts and what was observed after each.

    Args:
        count: Rollouts kept, at least 0; the oldest goes first.
        device: Where the arrays live.
    """

    def __init__(self, count: int, device: torch.device) -> None:
        self.count, self.device = count, device
        self.kept: list[tuple[RolloutBuffer, Observation]] = []

    def push(self, rollout: RolloutBuffer, following: Observation) -> None:
        """Keep a copy of a full rollout.

        Args:
            rollout: The rollout.
            following: Observations after its last step `[num_envs, ...]`.
        """
        copy = RolloutBuffer(rollout.steps, self.device)
        copy.load_state_dict(rollout.state_dict())
        self.kept = [*self.kept, (copy, following)][-self.count :] if self.count else []

    def together_with(self, rollout: RolloutBuffer) -> RolloutBuffer:
        """Return one rollout of all filled steps, the given one's last; for minibatches of steps alone."""
        parts = [part for part, _ in self.kept] + [rollout]
        whole = RolloutBuffer(sum(part.position for part in parts), self.device)
        names = set.intersection(*(set(part.fields) for part in parts))
        whole.fields = {
            name: torch.cat([part.fields[name][: part.position] for part in parts]) for name in sorted(names)
        }
        whole.position = whole.steps
        return whole

    def state_dict(self) -> dict[str, Any]:
        """Return the rollouts."""
        return {"kept": [{"rollout": rollout.state_dict(), "following": after} for rollout, after in self.kept]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the rollouts."""
        self.kept = []
        for entry in state["kept"]:
            rollout = RolloutBuffer(entry["rollout"]["position"], self.device)
            rollout.load_state_dict(entry["rollout"])
            self.kept.append((rollout, entry["following"]))
