"""The replay buffer: the latest transitions, sampled uniformly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from palaestra.agents.memory.fields import flatten_fields, nest_fields
from palaestra.agents.nn.networks import Observation

DRAWS = 2**62


@dataclass(frozen=True)
class Batch:
    """Transitions, one per row; `terminated` alone removes the bootstrap, `truncated` never does."""

    observation: Observation
    action: Tensor
    reward: Tensor
    next_observation: Observation
    terminated: Tensor
    truncated: Tensor
    next_mask: Tensor | None = None
    """Actions admissible in `next_observation` `[batch, num_actions]`, where the env masks them."""
    previous_action: Tensor | None = None
    """Action executed before `observation` was seen `[batch, action_dim]`, of agents that act by it too."""
    log_prob: Tensor | None = None
    """log beta(a|s) under the policy that acted `[batch]`, of agents that weigh by it."""
    signals: Tensor | None = None
    """What the env reported beside the reward `[batch, signals]`, of agents that read it."""
    collected_return: Tensor | None = None
    """Discounted rewards from here to the episode's end `[batch]`, of offline data; NaN in rows where it is unknown."""


class ReplayBuffer:
    """A ring of the latest `capacity` transitions; one row is one transition of one env.

    Rows carry absolute numbers (the n-th transition ever added), which lets a checkpoint store them in immutable
    segments. Memory is taken at the first addition, when shapes are known, and stays where it is.

    Args:
        capacity: Transitions kept, at least 1.
        device: Where the arrays live.

    Raises:
        ValueError: If capacity is below 1.
    """

    def __init__(self, capacity: int, device: torch.device) -> None:
        if capacity < 1:
            raise ValueError(f"ReplayBuffer: capacity={capacity}; expected at least 1")
        self.capacity, self.device = capacity, device
        self.rows_written = 0
        self.fields: dict[str, Tensor] = {}
        self.length = torch.zeros((), dtype=torch.int64, device=device)
        """Rows kept, on the device: sampling reads it there, so that it can be captured once and replayed for ever."""

    def __len__(self) -> int:
        return min(self.rows_written, self.capacity)

    @property
    def rows_kept_from(self) -> int:
        """Absolute number of the oldest row kept."""
        return max(0, self.rows_written - self.capacity)

    def add(self, rows: Mapping[str, Any]) -> None:
        """Append transitions: fields of `Batch` by name, each `[rows, ...]`, nested dicts for Dict observations."""
        flat = flatten_fields(rows)
        count = len(next(iter(flat.values())))
        self.write_rows(self.rows_written, flat)
        self.rows_written += count
        self.length.fill_(len(self))

    def sample(self, batch_size: int, generator: Generator | None) -> Batch:
        """Return transitions drawn uniformly with replacement.

        Raises:
            ValueError: If the buffer is empty.
        """
        return self.rows(self.draw(batch_size, generator))

    def draw(self, batch_size: int, generator: Generator | None) -> Tensor:
        """Return where `batch_size` transitions drawn uniformly with replacement lie, for `rows`.

        Raises:
            ValueError: If the buffer is empty.
        """
        if not len(self):
            raise ValueError("ReplayBuffer.sample: the buffer is empty; expected at least one transition")
        # Uniform to within one part in 2^62 / length.
        return torch.randint(DRAWS, (batch_size,), generator=generator, device=self.device) % self.length

    def rows(self, index: Tensor) -> Batch:
        """Return the transitions at places that `draw` returned."""
        return Batch(**nest_fields({name: field.index_select(0, index) for name, field in self.fields.items()}))

    def read_rows(self, start: int, stop: int) -> dict[str, Tensor]:
        """Return the rows with absolute numbers start..stop-1 of every field."""
        index = torch.arange(start, stop, device=self.device) % self.capacity
        return {name: field.index_select(0, index).cpu() for name, field in self.fields.items()}

    def begin_load(self, rows_written: int, rows_kept_from: int) -> None:
        """Prepare for `write_rows` of a saved buffer with the given counters.

        Raises:
            ValueError: If the saved buffer kept more rows than this one can hold.
        """
        if rows_written - rows_kept_from > self.capacity:
            raise ValueError(
                f"ReplayBuffer: the checkpoint holds {rows_written - rows_kept_from} rows; expected at most "
                f"capacity={self.capacity}"
            )
        self.fields = {}
        self.rows_written = rows_written
        self.length.fill_(len(self))

    def write_rows(self, start: int, rows: Mapping[str, Tensor]) -> None:
        """Write flat fields `[rows, ...]` at absolute row numbers from `start`."""
        if not self.fields:
            self.fields = {
                name: torch.zeros((self.capacity, *value.shape[1:]), dtype=value.dtype, device=self.device)
                for name, value in rows.items()
            }
        for name, value in rows.items():
            field, value = self.fields[name], value[-self.capacity :]
            first = (start + len(rows[name]) - len(value)) % self.capacity
            head = min(len(value), self.capacity - first)
            field[first : first + head] = value[:head]
            field[: len(value) - head] = value[head:]
