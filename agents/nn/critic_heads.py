"""Critics whose heads read a whole estimate of the return off the outputs of their trunks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import gymnasium as gym
import torch
import torch.nn.functional as F
from torch import Tensor

from palaestra.agents.nn.critic import Critics, Trunks
from palaestra.agents.nn.estimates import (
    CategoricalEstimate,
    Estimate,
    GaussianEstimate,
    QuantileEstimate,
    ScalarEstimate,
    SigmoidEstimate,
)
from palaestra.agents.nn.networks import Observation
from palaestra.agents.nn.stacked import StackedMLP

E = TypeVar("E", bound=Estimate)
E_co = TypeVar("E_co", bound=Estimate, covariant=True)


class Head(Protocol[E_co]):
    """Reads an estimate off outputs; a frozen dataclass that holds the settings."""

    @property
    def outputs(self) -> int:
        """Width of the trunk's output."""
        ...

    def __call__(self, output: Tensor) -> E_co:
        """Return the estimate of outputs `[..., batch, outputs]`."""
        ...


class HeadedCritics(Critics, Generic[E]):
    """Independent critics of (s, a) that say what their head can read off their outputs.

    An update of any of them, with the clipped double estimate of the successor:

        following = target_critics(next_observation, next_action).lowest()
        target = following.moved(reward, gamma * ~terminated)
        loss = critics(observation, action).loss(target).mean(-1).sum()

    Args:
        observation_space: Space of one observation.
        action_dim: Dimensions of the action.
        hidden: Widths of the hidden layers.
        head: What the outputs mean.
        count: Number of critics.
        activation: Name of the activation.
        encoder: Name of the encoder.
        trunk: Makes the trunks of all critics; see `palaestra.agents.nn.critic.Trunks`.
    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_dim: int,
        hidden: Sequence[int],
        head: Head[E],
        count: int = 2,
        activation: str = "relu",
        encoder: str = "auto",
        trunk: Callable[[int, Sequence[int], str], Trunks] = StackedMLP,
    ) -> None:
        super().__init__(observation_space, action_dim, hidden, head.outputs, count, activation, encoder, trunk)
        self.head = head

    def estimate(self, index: int, observation: Observation, action: Tensor) -> E:
        """Return what one critic alone says of actions `[batch, action_dim]`."""
        return self.head(self.output(index, observation, action))

    def forward(self, observation: Observation, action: Tensor) -> E:
        """Return what all critics say of actions `[batch, action_dim]`, critics first."""
        return self.head(self.outputs(observation, action))


@dataclass(frozen=True)
class ScalarHead:
    """Reads one number."""

    @property
    def outputs(self) -> int:
        """Width of the trunk's output."""
        return 1

    def __call__(self, output: Tensor) -> ScalarEstimate:
        """Return the value of outputs `[..., batch, 1]`."""
        return ScalarEstimate(output.squeeze(-1))


@dataclass(frozen=True)
class GaussianHead:
    """Reads a mean and, through a softplus, a standard deviation.

    Args:
        noise_clip: Largest magnitude of the standard normal noise in samples.
    """

    noise_clip: float = math.inf

    @property
    def outputs(self) -> int:
        """Width of the trunk's output."""
        return 2

    def __call__(self, output: Tensor) -> GaussianEstimate:
        """Return the distribution of outputs `[..., batch, 2]`."""
        centre, spread = output.unbind(-1)
        return GaussianEstimate(centre, F.softplus(spread), self.noise_clip)


@dataclass(frozen=True)
class QuantileHead:
    """Reads quantiles at the levels (i + 1/2) / count.

    Args:
        count: Number of quantiles, at least 1.
        huber_width: Where the loss turns from a square into a line, at least 0.
    """

    count: int = 100
    huber_width: float = 1.0

    @property
    def outputs(self) -> int:
        """Width of the trunk's output."""
        return self.count

    def __call__(self, output: Tensor) -> QuantileEstimate:
        """Return the quantiles, which are the outputs `[..., batch, count]`."""
        return QuantileEstimate(output, self.huber_width)


@dataclass(frozen=True)
class CategoricalHead:
    """Reads the logits of atoms at equal distances.

    Args:
        low: First atom.
        high: Last atom, above the first.
        atoms: Number of atoms, at least 2.

    Raises:
        ValueError: If the atoms are not at least two in ascending order.
    """

    low: float
    high: float
    atoms: int = 101

    def __post_init__(self) -> None:
        if not (self.atoms >= 2 and self.low < self.high):
            raise ValueError(
                f"CategoricalHead: low={self.low}, high={self.high}, atoms={self.atoms}; expected low < high and at "
                "least 2 atoms"
            )

    @property
    def outputs(self) -> int:
        """Width of the trunk's output."""
        return self.atoms

    def __call__(self, output: Tensor) -> CategoricalEstimate:
        """Return the distribution of outputs `[..., batch, atoms]`."""
        support = torch.linspace(self.low, self.high, self.atoms, dtype=output.dtype, device=output.device)
        return CategoricalEstimate(output.log_softmax(-1), support)


@dataclass(frozen=True)
class SigmoidHead:
    """Reads the logit of a probability."""

    @property
    def outputs(self) -> int:
        """Width of the trunk's output."""
        return 1

    def __call__(self, output: Tensor) -> SigmoidEstimate:
        """Return the probability of outputs `[..., batch, 1]`."""
        return SigmoidEstimate(output.squeeze(-1))
