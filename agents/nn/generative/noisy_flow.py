"""A flow with Gaussian noise around where it leads, so that an action has a density given what the flow began with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from palaestra.agents.nn.distributions import DiagonalGaussian, standard_normal_like
from palaestra.agents.nn.generative.flow import FlowHead, FlowPolicy
from palaestra.agents.nn.networks import Observation


class NoisyFlowHead(nn.Module):
    """A flow whose weights begin by Glorot's rule and whose velocity begins at 0, and a state-independent deviation.

    Args:
        flow: The flow; it is initialised anew.
        log_std_init: Initial log standard deviation of the noise around it.
    """

    def __init__(self, flow: FlowHead, log_std_init: float) -> None:
        super().__init__()
        self.flow = flow
        self.log_std = nn.Parameter(torch.full((flow.action_dim,), float(log_std_init)))
        linear = [layer for layer in flow.network.trunk.modules() if isinstance(layer, nn.Linear)]
        for layer in linear:
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(linear[-1].weight)

    def forward(self, observation: Observation) -> NoisyFlow:
        """Return the policy in a batch of observations."""
        return NoisyFlow(self.flow(observation), self.log_std)


@dataclass(frozen=True)
class NoisyFlow:
    """a = p(z) + n with z ~ N(0, 1), p the flow and n ~ N(0, std^2).

    Attributes:
        flow: Where noise is carried.
        log_std: Log standard deviation of n, `[action_dim]`.
    """

    flow: FlowPolicy
    log_std: Tensor

    def draw_noise(self, generator: Generator | None) -> Tensor:
        """Return n `[batch, action_dim]`."""
        features = self.flow.features
        return self.log_std.exp() * standard_normal_like(
            features.new_empty(len(features), len(self.log_std)), generator
        )

    def sample(self, generator: Generator | None) -> Tensor:
        """Return one action per row."""
        return self.flow.sample(generator) + self.draw_noise(generator)

    def mode(self) -> Tensor:
        """Return the actions that z = 0 is carried to, without noise around them."""
        return self.flow.mode()

    def log_prob_given(self, latent: Tensor, action: Tensor) -> Tensor:
        """Return log p(a | z) `[batch]` of actions `[batch, action_dim]` and latents z `[batch, action_dim]`."""
        return DiagonalGaussian(self.flow.transport(latent), self.log_std).log_prob(action)

    def entropy(self) -> Tensor:
        """Return the entropies `[batch]` of the noise around the flow, which is not the action's."""
        features = self.flow.features
        return DiagonalGaussian(features.new_zeros(len(features), len(self.log_std)), self.log_std).entropy()
