"""The rollout buffer: one stretch of on-policy experience, its advantages and its minibatches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Generator, Tensor

from palaestra.agents.losses.advantages import generalised_advantages
from palaestra.agents.memory.fields import flatten_fields, nest_fields

_OF_ADVANTAGES = frozenset({"valid", "reward", "terminated", "truncated"})


class RolloutBuffer:
    """Fields `[steps, num_envs, ...]`, filled step by step; a checkpoint may be taken when it is partly full.

    Required fields of a step: reward, terminated, truncated, valid. Everything else (observation, action, masks,
    recurrent states, the stored extras of a ratio) is kept and returned as given. Values and what a ratio needs of the
    old policy are computed once of the whole rollout, when it is full: the network has not changed since its first
    step.

    Args:
        steps: Steps per rollout.
        device: Where the arrays live.
    """

    def __init__(self, steps: int, device: torch.device) -> None:
        self.steps, self.device = steps, device
        self.position = 0
        self.fields: dict[str, Tensor] = {}
        self.finals: list[dict[str, Any]] = []
        self.computed: set[str] = set()

    @property
    def full(self) -> bool:
        """Whether all steps are filled."""
        return self.position == self.steps

    def clear(self) -> None:
        """Start a new rollout."""
        self.position, self.finals = 0, []
        for name in self.computed:
            del self.fields[name]
        self.computed = set()

    def add(self, **step: Tensor | dict[str, Tensor]) -> None:
        """Store one step; each value is `[num_envs, ...]` or a dict of such."""
        flat = flatten_fields(step)
        for name, value in flat.items():
            if name not in self.fields:
                self.fields[name] = torch.zeros((self.steps, *value.shape), dtype=value.dtype, device=self.device)
            self.fields[name][self.position] = value
        self.position += 1

    def tree(self) -> dict[str, Any]:
        """Return all fields `[steps, num_envs, ...]`, nested as they were added."""
        return nest_fields(self.fields)

    def flat_tree(self) -> dict[str, Any]:
        """Return all fields as one batch `[steps * num_envs, ...]`, nested as they were added."""
        return nest_fields({name: field.flatten(0, 1) for name, field in self.fields.items()})

    def add_final(self, rows: Tensor, observation: Tensor | dict[str, Tensor], state: Tensor | None) -> None:
        """Keep what the rows `[count]` that the last step truncated would have gone on from, `[count, ...]` each."""
        self.finals.append({"step": self.position - 1, "rows": rows, "observation": observation, "state": state})

    def add_computed(self, fields: Mapping[str, Tensor]) -> None:
        """Add fields `[steps, num_envs, ...]` that were computed of the full rollout; `clear` drops them."""
        self.fields |= fields
        self.computed |= fields.keys()

    def compute_advantages(
        self, value: Tensor, last_value: Tensor, final_values: list[Tensor], gamma: float, gae_lambda: float
    ) -> None:
        """Add the fields `value`, `advantage` and `target` (= advantage + value), all `[steps, num_envs]`.

        Args:
            value: V of the observations acted on `[steps, num_envs]`.
            last_value: V of the observations after the last step `[num_envs]`.
            final_values: V of each entry of `finals` `[count]`.
            gamma: Discount in [0, 1].
            gae_lambda: Trace decay in [0, 1].
        """
        f = self.fields
        next_value = torch.cat([value[1:], last_value.unsqueeze(0)])
        for final, values in zip(self.finals, final_values, strict=True):
            next_value[final["step"], final["rows"]] = values
        advantage = generalised_advantages(
            f["reward"], value, next_value, f["terminated"], f["truncated"], gamma, gae_lambda
        )
        self.add_computed({"value": value, "advantage": advantage, "target": advantage + value})

    def minibatches(self, batch_size: int, generator: Generator) -> Iterator[dict[str, Any]]:
        """Yield shuffled minibatches covering every valid step once; fields are `[batch, ...]`.

        What the advantages were made of (rewards, endings, successors' values) is left out.
        """
        flat = {name: field.flatten(0, 1) for name, field in self.fields.items() if name not in _OF_ADVANTAGES}
        valid = self.fields["valid"].flatten()
        order = torch.randperm(len(valid), generator=generator, device=self.device)
        if not bool(valid.all()):
            order = order[valid[order]]
        for rows in order.split(batch_size):
            yield nest_fields({name: field.index_select(0, rows) for name, field in flat.items()})

    def sequence_minibatches(self, envs_per_batch: int, generator: Generator) -> Iterator[dict[str, Any]]:
        """Yield minibatches of whole env rows for recurrent policies.

        Each holds the valid steps flat `[batch, ...]`, and under "sequence" every field as `[steps, envs, ...]`.
        """
        order = torch.randperm(self.fields["reward"].shape[1], generator=generator, device=self.device)
        for envs in order.split(envs_per_batch):
            rows = {name: field[:, envs] for name, field in self.fields.items()}
            valid = rows["valid"].flatten()
            flat = {name: field.flatten(0, 1)[valid] for name, field in rows.items()}
            yield {"sequence": nest_fields(rows), **nest_fields(flat)}

    def state_dict(self) -> dict[str, Any]:
        """Return the filled part."""
        filled = {name: field[: self.position] for name, field in self.fields.items() if self.position}
        return {"position": self.position, "fields": filled, "finals": self.finals}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the filled part."""
        self.position, self.fields, self.finals = state["position"], {}, list(state["finals"])
        self.computed = set()
        if self.position == 0:
            return
        for name, value in state["fields"].items():
            field = torch.zeros((self.steps, *value.shape[1:]), dtype=value.dtype, device=self.device)
            field[: self.position] = value
            self.fields[name] = field
