"""A generative head and a value of states, as on-policy agents ask for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from palaestra.agents.nn.actor_critic import PolicyAndValue, flat_steps
from palaestra.agents.nn.networks import Observation
from palaestra.agents.nn.state_value import StateValue


class GenerativeActorCritic(PolicyAndValue):
    """Two separate networks, neither recurrent; masks of actions do not apply to Box actions.

    Args:
        head: Says for observations what the policy is there.
        value: Of states.
    """

    head: nn.Module
    value: StateValue

    def __init__(self, head: nn.Module, value: StateValue) -> None:
        super().__init__()
        self.head, self.value = head, value

    def forward(
        self,
        observation: Observation,
        mask: Tensor | None = None,
        state: Tensor | None = None,
        start: Tensor | None = None,
    ) -> tuple[Any, Tensor, Tensor | None]:
        """Return the policy, the values `[batch]` and no state."""
        return self.head(observation), self.value(observation), None

    def act(
        self, observation: Observation, mask: Tensor | None, state: Tensor | None, start: Tensor | None
    ) -> tuple[Any, Tensor | None]:
        """Return the policy and no state."""
        return self.head(observation), None

    def evaluate(self, observation: Observation, state: Tensor | None, start: Tensor | None) -> Tensor:
        """Return the values `[batch]`."""
        values: Tensor = self.value(observation)
        return values

    def unroll(
        self, observation: Observation, mask: Tensor | None, state: Tensor | None, start: Tensor | None
    ) -> tuple[Any, Tensor]:
        """Return the policy in and the values of all steps, `[steps * batch]`."""
        policy, value, _ = self(flat_steps(observation))
        return policy, value

    def initial_state(self, batch: int, device: torch.device) -> Tensor | None:
        """Return None."""
        return None

    def policy_parameters(self) -> list[nn.Parameter]:
        """Return the head's parameters that are learnt."""
        return [parameter for parameter in self.head.parameters() if parameter.requires_grad]
