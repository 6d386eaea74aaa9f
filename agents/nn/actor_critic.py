"""Policy and value networks over a common encoder, with an optional recurrent core."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import torch
from gymnasium import spaces
from torch import Tensor, nn

from palaestra.agents.nn.distributions import Categorical, DiagonalGaussian, Distribution, MultiCategorical
from palaestra.agents.nn.fused import fused_mlp
from palaestra.agents.nn.networks import Observation, make_encoder, orthogonal_


class PolicyAndValue(nn.Module, ABC):
    """What on-policy agents ask of their network: a policy and a value for every observation.

    A policy is whatever offers `sample(generator)` and `mode()`, and what the agent's ratio provider needs.
    """

    @abstractmethod
    def forward(
        self,
        observation: Observation,
        mask: Tensor | None = None,
        state: Tensor | None = None,
        start: Tensor | None = None,
    ) -> tuple[Any, Tensor, Tensor | None]:
        """Return the policy, the values `[batch]` and the next recurrent state; arguments as for `ActorCritic`."""

    @abstractmethod
    def act(
        self, observation: Observation, mask: Tensor | None, state: Tensor | None, start: Tensor | None
    ) -> tuple[Any, Tensor | None]:
        """Return the policy and the next recurrent state."""

    @abstractmethod
    def evaluate(self, observation: Observation, state: Tensor | None, start: Tensor | None) -> Tensor:
        """Return the values `[batch]`."""

    @abstractmethod
    def unroll(
        self, observation: Observation, mask: Tensor | None, state: Tensor | None, start: Tensor | None
    ) -> tuple[Any, Tensor]:
        """Return the policy in and the values of all steps `[steps * batch]` of sequences `[steps, batch, ...]`."""

    @abstractmethod
    def initial_state(self, batch: int, device: torch.device) -> Tensor | None:
        """Return the recurrent state before an episode, or None without one."""

    @abstractmethod
    def policy_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that the policy depends on."""


def flat_steps(observation: Observation) -> Observation:
    """Return sequences of observations `[steps, batch, ...]` as one batch `[steps * batch, ...]`."""
    if isinstance(observation, dict):
        return {key: value.flatten(0, 1) for key, value in observation.items()}
    return observation.flatten(0, 1)


class ActorCritic(PolicyAndValue):
    """Separate policy and value trunks; a diagonal Gaussian or (masked) categorical head by the action space.

    Args:
        observation_space: Space of one observation.
        action_space: Box, Discrete or MultiDiscrete.
        hidden: Widths of the hidden layers of both trunks.
        activation: Name of the activation.
        log_std_init: Initial log standard deviation of Box actions, in the [-1, 1] scale.
        recurrent_size: Width of an LSTM between encoder and trunks, 0 for none.
        encoder: Name of the encoder.
    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        hidden: Sequence[int],
        activation: str = "tanh",
        log_std_init: float = 0.0,
        recurrent_size: int = 0,
        encoder: str = "auto",
    ) -> None:
        super().__init__()
        self.encoder = make_encoder(observation_space, encoder)
        width = self.encoder.features
        self.core = nn.LSTMCell(width, recurrent_size) if recurrent_size else None
        width = recurrent_size or width
        self.counts: list[int] = []
        self.log_std: nn.Parameter | None = None
        if isinstance(action_space, spaces.Box):
            outputs = math.prod(action_space.shape)
            self.log_std = nn.Parameter(torch.full((outputs,), float(log_std_init)))
        elif isinstance(action_space, spaces.MultiDiscrete):
            self.counts = [int(n) for n in action_space.nvec.flat]
            outputs = sum(self.counts)
        elif isinstance(action_space, spaces.Discrete):
            outputs = int(action_space.n)
        else:
            raise TypeError(f"ActorCritic: action space {action_space}; expected Box, Discrete or MultiDiscrete")
        self.policy = fused_mlp([width, *hidden, outputs], activation)
        self.value = fused_mlp([width, *hidden, 1], activation)
        orthogonal_(self, math.sqrt(2.0))
        orthogonal_(self.policy[-1], 0.01)
        orthogonal_(self.value[-1], 1.0)

    def forward(
        self,
        observation: Observation,
        mask: Tensor | None = None,
        state: Tensor | None = None,
        start: Tensor | None = None,
    ) -> tuple[Distribution, Tensor, Tensor | None]:
        """Return the action distribution, the values `[batch]` and the next recurrent state.

        Args:
            observation: `[batch, ...]`.
            mask: Admissible actions `[batch, num_actions]`.
            state: Recurrent state `[batch, 2 * recurrent_size]` (hidden, cell), for recurrent networks.
            start: Bools `[batch]`: the state is zeroed where an episode starts.
        """
        features, state = self._features(observation, state, start)
        return self._heads(features, mask), self.value(features).squeeze(-1), state

    def act(
        self, observation: Observation, mask: Tensor | None, state: Tensor | None, start: Tensor | None
    ) -> tuple[Distribution, Tensor | None]:
        """Return the action distribution and the next recurrent state; arguments as for `forward`."""
        features, state = self._features(observation, state, start)
        return self._heads(features, mask), state

    def evaluate(self, observation: Observation, state: Tensor | None, start: Tensor | None) -> Tensor:
        """Return the values `[batch]`; arguments as for `forward`."""
        return self.value(self._features(observation, state, start)[0]).squeeze(-1)

    def unroll(
        self, observation: Observation, mask: Tensor | None, state: Tensor | None, start: Tensor | None
    ) -> tuple[Distribution, Tensor]:
        """Return distributions and values `[steps * batch]` of sequences `[steps, batch, ...]` from a first state.

        Args:
            observation: `[steps, batch, ...]`.
            mask: `[steps, batch, num_actions]` or None.
            state: State before the first step `[batch, 2 * recurrent_size]`, for recurrent networks.
            start: Bools `[steps, batch]`, for recurrent networks.
        """
        features = self.encoder(flat_steps(observation))
        if self.core is not None and state is not None and start is not None:
            outputs = []
            for step_features, step_start in zip(features.unflatten(0, start.shape), start, strict=True):
                output, state = self._recur(step_features, state, step_start)
                outputs.append(output)
            features = torch.cat(outputs)
        return self._heads(features, None if mask is None else mask.flatten(0, 1)), self.value(features).squeeze(-1)

    def initial_state(self, batch: int, device: torch.device) -> Tensor | None:
        """Return a zero recurrent state `[batch, 2 * recurrent_size]`, or None without a core."""
        return None if self.core is None else torch.zeros(batch, 2 * self.core.hidden_size, device=device)

    def policy_parameters(self) -> list[nn.Parameter]:
        """Return all parameters but the value trunk's: what the action distribution depends on."""
        return [p for name, p in self.named_parameters() if not name.startswith("value.")]

    def _features(
        self, observation: Observation, state: Tensor | None, start: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        features = self.encoder(observation)
        return (features, state) if self.core is None or state is None else self._recur(features, state, start)

    def _recur(self, features: Tensor, state: Tensor, start: Tensor | None) -> tuple[Tensor, Tensor]:
        if start is not None:
            state = state.masked_fill(start.unsqueeze(-1), 0.0)
        assert self.core is not None
        hidden, cell = state.chunk(2, -1)
        hidden, cell = self.core(features, (hidden, cell))
        return hidden, torch.cat([hidden, cell], -1)

    def _heads(self, features: Tensor, mask: Tensor | None) -> Distribution:
        output = self.policy(features)
        if self.log_std is not None:
            return DiagonalGaussian(output, self.log_std)
        return MultiCategorical(output, self.counts, mask) if self.counts else Categorical(output, mask)
