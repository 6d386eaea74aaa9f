"""Gaussian mixtures with a gate: the distributions, and the policy networks that yield them.

Ren et al. 2021, "Probabilistic mixture-of-experts for efficient deep reinforcement learning", arXiv 2104.09122.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import torch
from gymnasium import spaces
from torch import Generator, Tensor, nn

from palaestra.agents.nn.actor_critic import ActorCritic
from palaestra.agents.nn.actors import LOG_STD_RANGE, Actor
from palaestra.agents.nn.candidates import Candidates, picked
from palaestra.agents.nn.distributions import Categorical, DiagonalGaussian, SquashedGaussian
from palaestra.agents.nn.fused import fused_mlp
from palaestra.agents.nn.networks import Observation, orthogonal_


class GaussianMixture:
    """sum_k w_k N_k: several Gaussian experts, squashed or not, and a gate that says how often each of them acts.

    Args:
        logits: The gate's scores of the experts `[batch, experts]`, unnormalised.
        experts: Distributions whose mean and log standard deviation are `[batch, experts, action_dim]`.
    """

    def __init__(self, logits: Tensor, experts: DiagonalGaussian | SquashedGaussian) -> None:
        self.gate, self.experts = Categorical(logits), experts

    @property
    def weights(self) -> Tensor:
        """Probabilities of the experts `[batch, experts]`."""
        return self.gate.probs

    def propose(self, generator: Generator | None) -> Candidates:
        """Return one reparameterised sample of every expert, with its log-density under that expert."""
        return Candidates(*self.experts.sample_with_log_prob(generator))

    def draw_expert(self, generator: Generator | None) -> Tensor:
        """Return indices of experts `[batch]` by the gate's probabilities; one expert alone takes no draw."""
        if self.weights.shape[-1] == 1:
            return torch.zeros_like(self.weights[:, 0], dtype=torch.int64)
        return self.gate.sample(generator)

    def expert(self, index: Tensor) -> DiagonalGaussian | SquashedGaussian:
        """Return the distributions of one expert a row, given by their indices `[batch]`."""
        return type(self.experts)(picked(self.experts.mean, index), picked(self.experts.log_std, index))

    def sample(self, generator: Generator | None) -> Tensor:
        """Return samples `[batch, action_dim]`, each of an expert drawn by the gate."""
        return self.expert(self.draw_expert(generator)).sample(generator)

    def mode(self) -> Tensor:
        """Return the mode `[batch, action_dim]` of the likeliest expert, which need not be that of the mixture."""
        return self.expert(self.gate.mode()).mode()

    def log_prob(self, action: Tensor) -> Tensor:
        """Return log-densities log sum_k w_k N_k(a) `[batch]` of actions `[batch, action_dim]`."""
        return torch.logsumexp(self.gate.log_probs + self.experts.log_prob(action.unsqueeze(1)), -1)

    def entropy(self) -> Tensor:
        """Raise, because a mixture has no closed-form entropy; estimate it by -log_prob of samples."""
        raise TypeError("GaussianMixture has no closed-form entropy; use entropy_bound or -log_prob of samples")

    def entropy_bound(self) -> Tensor:
        """Return H(w) + sum_k w_k H(N_k) `[batch]`, above the entropy by H(w) at most; of unsquashed experts alone."""
        return self.gate.entropy() + (self.weights * self.experts.entropy()).sum(-1)


class MixtureActor(Actor):
    """State-dependent means and log standard deviations of several experts, and a gate linear in the features.

    Args:
        observation_space: Space of one observation.
        action_dim: Dimensions of the action.
        experts: Number of experts, at least 1.
        hidden: Widths of the hidden layers of the experts' common trunk.
        activation: Name of the activation.
        encoder: Name of the encoder.
    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_dim: int,
        experts: int,
        hidden: Sequence[int],
        activation: str = "relu",
        encoder: str = "auto",
    ) -> None:
        super().__init__(observation_space, 2 * experts * action_dim, hidden, activation, encoder)
        self.gate = nn.Linear(self.encoder.features, experts)

    def forward(self, observation: Observation) -> GaussianMixture:
        """Return the action distribution of a batch of observations."""
        features = self.encoder(observation)
        logits = self.gate(features)
        output = self.trunk(features).unflatten(-1, (logits.shape[-1], -1))
        mean, log_std = output.chunk(2, -1)
        return GaussianMixture(logits, SquashedGaussian(mean, log_std.clamp(*LOG_STD_RANGE)))


class MixtureActorCritic(ActorCritic):
    """A feed-forward `ActorCritic` whose policy is a mixture of Gaussians with state-independent deviations.

    Args:
        observation_space: Space of one observation.
        action_space: Box.
        experts: Number of experts, at least 1.
        hidden: Widths of the hidden layers of the experts' common trunk, and of the value's.
        activation: Name of the activation.
        log_std_init: Initial log standard deviation of every expert, in the [-1, 1] scale.
        mean_gain: Gain of the orthogonal initialisation of the layer of means: how far apart experts begin.
        encoder: Name of the encoder.
    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_space: spaces.Box,
        experts: int,
        hidden: Sequence[int],
        activation: str = "tanh",
        log_std_init: float = 0.0,
        mean_gain: float = 1.0,
        encoder: str = "auto",
    ) -> None:
        super().__init__(observation_space, action_space, hidden, activation, log_std_init, encoder=encoder)
        features, dim = self.encoder.features, math.prod(action_space.shape)
        self.log_std = nn.Parameter(torch.full((experts, dim), float(log_std_init)))
        self.policy = fused_mlp([features, *hidden, experts * dim], activation)
        orthogonal_(self.policy, math.sqrt(2.0))
        orthogonal_(self.policy[-1], mean_gain)
        self.gate = nn.Linear(features, experts)
        orthogonal_(self.gate, 0.01)

    def mixture(self, observation: Observation) -> GaussianMixture:
        """Return the policy alone."""
        return self._heads(self.encoder(observation), None)

    def gate_of(self, observation: Observation) -> Categorical:
        """Return the gate's distribution over experts alone."""
        return Categorical(self.gate(self.encoder(observation)))

    def _heads(self, features: Tensor, mask: Tensor | None) -> GaussianMixture:
        assert self.log_std is not None
        mean = self.policy(features).unflatten(-1, self.log_std.shape)
        return GaussianMixture(self.gate(features), DiagonalGaussian(mean, self.log_std))
