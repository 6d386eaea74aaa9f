"""The critic bank: several networks of state and action evaluated together."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import gymnasium as gym
import torch
from torch import Tensor, nn

from palaestra.agents.nn.fused import transformed
from palaestra.agents.nn.layout import flat_view, flatten_, parameters_of
from palaestra.agents.nn.networks import Observation, make_encoder
from palaestra.agents.nn.stacked import StackedMLP

Network = TypeVar("Network", bound=nn.Module)


class Trunks(Protocol):
    """Equal networks evaluated together, as `palaestra.agents.nn.stacked.StackedMLP` is; a module."""

    def __call__(self, features: Tensor) -> Tensor:
        """Return outputs `[count, batch, out]` of features `[batch, in]`, or one set each, `[count, batch, in]`."""
        ...

    def one(self, index: int, features: Tensor) -> Tensor:
        """Return outputs `[batch, out]` of one network alone for features `[batch, in]`."""
        ...


class Critics(nn.Module):
    """Independent networks of (s, a), each with its own encoder and trunk.

    Args:
        observation_space: Space of one observation.
        action_dim: Dimensions of the action.
        hidden: Widths of the hidden layers.
        outputs: Width of the output.
        count: Number of critics.
        activation: Name of the activation.
        encoder: Name of the encoder.
        trunk: Makes the trunks of all critics: given their count, their widths from input to output, and the name of
            the activation.
    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_dim: int,
        hidden: Sequence[int],
        outputs: int = 1,
        count: int = 2,
        activation: str = "relu",
        encoder: str = "auto",
        trunk: Callable[[int, Sequence[int], str], Trunks] = StackedMLP,
    ) -> None:
        super().__init__()
        encoders = [make_encoder(observation_space, encoder) for _ in range(count)]
        self.encoders = nn.ModuleList(encoders)
        self.trunks = trunk(count, [encoders[0].features + action_dim, *hidden, outputs], activation)
        # Encoders without parameters say the same for every critic.
        self.encodes_once = not any(True for _ in self.encoders.parameters())

    def output(self, index: int, observation: Observation, action: Tensor) -> Tensor:
        """Return the outputs `[batch, outputs]` of one critic alone."""
        features = self.encoders[index](observation)
        return self.trunks.one(index, torch.cat([features, action], -1))

    def outputs(self, observation: Observation, action: Tensor) -> Tensor:
        """Return the outputs `[count, batch, outputs]` for actions `[batch, action_dim]`."""
        outputs: Tensor = self.trunks(self.features(observation, action))
        return outputs

    def features(self, observation: Observation, action: Tensor) -> Tensor:
        """Return what the trunks read: `[batch, in]`, or `[count, batch, in]` where each encodes on its own."""
        if self.encodes_once:
            return torch.cat([self.encoders[0](observation), action], -1)
        return torch.stack([torch.cat([encoder(observation), action], -1) for encoder in self.encoders])

    @property
    def learning_trunk(self) -> Trunks | None:
        """The trunks, if nothing else learns."""
        return self.trunks if self.encodes_once else None


class CriticBank(Critics):
    """Critics Q_i(s, a) whose one output is the value; `palaestra.agents.nn.critic_heads` has those that say more."""

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_dim: int,
        hidden: Sequence[int],
        count: int = 2,
        activation: str = "relu",
        encoder: str = "auto",
        trunk: Callable[[int, Sequence[int], str], Trunks] = StackedMLP,
    ) -> None:
        super().__init__(observation_space, action_dim, hidden, 1, count, activation, encoder, trunk)

    def value(self, index: int, observation: Observation, action: Tensor) -> Tensor:
        """Return the values `[batch]` of one critic alone."""
        return self.output(index, observation, action).squeeze(-1)

    def forward(self, observation: Observation, action: Tensor) -> Tensor:
        """Return values `[count, batch]` of actions `[batch, action_dim]`."""
        return self.outputs(observation, action).squeeze(-1)


@contextmanager
def held_fixed(*modules: nn.Module) -> Iterator[None]:
    """Evaluate modules inside without gradients for their parameters; gradients still flow through to their inputs."""
    # Transforms of torch.func refuse the change; they compute gradients of what they are asked for alone.
    parameters = [] if transformed() else [p for m in modules for p in parameters_of(m) if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def target_copy(module: Network) -> Network:
    """Return a copy whose parameters follow the original only through `polyak_update`."""
    target = copy.deepcopy(module).requires_grad_(False)
    flatten_(target.parameters())
    return target


@torch.no_grad()
def polyak_update(online: nn.Module, target: nn.Module, tau: float) -> None:
    """Move target parameters towards online ones: theta' <- tau theta + (1 - tau) theta', in one call."""
    followers: list[Tensor] = list(parameters_of(target))
    leaders: list[Tensor] = list(parameters_of(online))
    flat = None if transformed() else (flat_view(followers), flat_view(leaders))
    if flat is None or flat[0] is None or flat[1] is None:
        torch._foreach_lerp_(followers, leaders, tau)
    else:
        flat[0].lerp_(flat[1], tau)
