"""Training metrics gathered without waiting for the device, and the stop on the first non-finite loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

Metrics = dict[str, Tensor]
"""Scalar tensors by name, detached, as an update returns them."""


class NonFiniteError(FloatingPointError):
    """A loss or another training metric became NaN or infinite."""


class MetricAccumulator:
    """Running means of update metrics since they were last collected, and the first bad update of each.

    Everything stays on the device until `collect` or `raise_if_bad`, so that updates never synchronise.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.sums: Tensor | None = None
        self.first_bad: Tensor | None = None
        self.count = 0

    def add(self, metrics: Mapping[str, Tensor], update: int | Tensor) -> None:
        """Merge the metrics of the update with the given number; as a tensor, it is read on the device when needed."""
        values = torch.stack([value.detach().float() for value in metrics.values()])
        if self.sums is None or self.first_bad is None:
            self.names = list(metrics)
            self.sums = torch.zeros_like(values)
            self.first_bad = torch.full_like(values, -1.0, dtype=torch.float64)
        self.sums += values
        self.count += 1
        if isinstance(update, int) and values.device.type == "cpu" and math.isfinite(values.sum().item()):
            return
        fresh = ~torch.isfinite(values) & (self.first_bad < 0)
        self.first_bad.masked_fill_(fresh, update)

    def raise_if_bad(self, owner: str, num_timesteps: int) -> None:
        """Raise NonFiniteError naming the first metric that was not finite and its update."""
        if self.first_bad is None or not bool((self.first_bad >= 0).any()):
            return
        bad = [
            (int(update), name) for update, name in zip(self.first_bad.tolist(), self.names, strict=True) if update >= 0
        ]
        update, name = min(bad, key=lambda item: item[0])
        raise NonFiniteError(
            f"{owner}: {name} was not finite at update {update} (env step {num_timesteps}); training stopped before "
            "another checkpoint was written, so the last one holds finite parameters"
        )

    def collect(self) -> dict[str, float]:
        """Return the means since the last call and start anew."""
        if self.sums is None or self.count == 0:
            return {}
        means = dict(zip(self.names, (self.sums / self.count).tolist(), strict=True))
        self.sums.zero_()
        self.count = 0
        return means

    def state_dict(self) -> dict[str, Any]:
        """Return the sums since the last collection."""
        return {"names": self.names, "sums": self.sums, "first_bad": self.first_bad, "count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the sums since the last collection."""
        self.names, self.count = list(state["names"]), int(state["count"])
        self.sums, self.first_bad = state["sums"], state["first_bad"]
