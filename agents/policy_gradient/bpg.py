"""Bayesian policy gradient and Bayesian actor-critic: gradients with a posterior variance, by Bayesian quadrature.

Ghavamzadeh, Engel and Valko, JMLR 17(66), 2016. What the paper leaves to the user, and what could not be confirmed, is
chosen here: the variance of the noise, the Gaussian kernel of states, and the Fisher matrix, which is averaged over
actions drawn anew at the states visited. (With the scores of the trajectories themselves, Model 2 would be REINFORCE.)
No trajectory is dropped: batches are small.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from palaestra.agents.losses.bayesian_quadrature import (
    GradientPosterior,
    posterior_of_action_values,
    posterior_of_products,
    posterior_of_returns,
    temporal_differences,
)
from palaestra.agents.losses.trajectories import trajectory_surrogate
from palaestra.agents.nn.flat_parameters import flat_values, row_gradients, set_flat_, twice_differentiable_
from palaestra.agents.registry import register_agent
from palaestra.agents.training.episodic import EpisodicAgent, EpisodicConfig, Trajectories


@dataclass(frozen=True)
class BayesianGradientConfig(EpisodicConfig):
    """What both methods have."""

    hidden: tuple[int, ...] = (16,)
    """Widths of the hidden layers; the Fisher matrix has a row for every parameter."""
    noise_variance: float = 1.0
    """Variance of what the prior cannot explain in returns, above 0; too little overfits, much shrinks the estimate."""
    fisher_samples: int = 8
    """Actions drawn at every state visited, for the Fisher matrix."""
    fisher_decay: float = 0.9
    """Weight of earlier batches in the Fisher matrix, in [0, 1)."""
    fisher_damping: float = 1e-3
    """Added to its diagonal, above 0."""
    natural: bool = False
    """Ascend along the natural gradient."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("noise_variance", "fisher_damping"):
            self.require(name, getattr(self, name) > 0.0, "a number above 0")
        self.require("fisher_samples", self.fisher_samples >= 1, "an integer of at least 1")
        self.require("fisher_decay", 0.0 <= self.fisher_decay < 1.0, "a number in [0, 1)")


@dataclass(frozen=True)
class BPGConfig(BayesianGradientConfig):
    """Bayesian policy gradient."""

    model: Literal["products", "returns"] = "returns"
    """What the prior is on: the paper's Model 1 (products of return and score) or 2 (returns)."""


@dataclass(frozen=True)
class BACConfig(BayesianGradientConfig):
    """Bayesian actor-critic."""

    kernel_width: float = 1.0
    """Width of the Gaussian kernel of states, in units of the (encoded) observations, above 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("kernel_width", self.kernel_width > 0.0, "a number above 0")


class BayesianGradientAgent(EpisodicAgent):
    """An agent that ascends the posterior mean of its gradient; subclasses define `posterior`."""

    config: BayesianGradientConfig

    def build(self) -> None:
        """Create the policy, the baseline and the Fisher matrix."""
        super().build()
        twice_differentiable_(self.network)
        size = len(flat_values(self.parameters))
        self.fisher = torch.zeros(size, size, dtype=torch.float64)

    @abstractmethod
    def posterior(self, batch: Trajectories, scores: Tensor, fisher: Tensor) -> GradientPosterior:
        """Return the posterior of the gradient from scores of steps `[steps, n]` and the Fisher matrix `[n, n]`."""

    @abstractmethod
    def visits(self, batch: Trajectories) -> Tensor:
        """Return the weight of each step `[steps]` in the Fisher matrix of a trajectory."""

    def learn_from(self, batch: Trajectories) -> None:
        """Take one step along the posterior mean, or its natural gradient."""
        c = self.config
        log_probs = self.log_probs(self.network, batch)
        surrogate = trajectory_surrogate(log_probs.detach(), batch.weight, batch.count)
        scores = row_gradients(log_probs, self.parameters).double()
        decay = c.fisher_decay if self.num_updates else 0.0
        self.fisher = decay * self.fisher + (1.0 - decay) * self.fisher_of(batch)
        fisher = self.fisher + c.fisher_damping * torch.eye(len(self.fisher), dtype=torch.float64, device=self.device)
        estimate = self.posterior(batch, scores, fisher)
        direction = torch.linalg.solve(fisher, estimate.mean) if c.natural else estimate.mean
        theta = flat_values(self.parameters)
        set_flat_(self.parameters, theta + self.step_size * direction.to(theta.dtype))
        self.num_updates += 1
        metrics = {
            "train/policy_loss": -surrogate,
            "train/gradient_norm": estimate.mean.norm(),
            "train/posterior_variance": estimate.variance.mean(),
        }
        self.metrics.add(metrics, self.num_updates)

    def fisher_of(self, batch: Trajectories) -> Tensor:
        """Return the mean over trajectories of the weighted sum of s s' over their steps, s at actions drawn anew."""
        weight = self.visits(batch).double() / (batch.count * self.config.fisher_samples)
        total = torch.zeros_like(self.fisher)
        for _ in range(self.config.fisher_samples):
            policy, _ = self.network.act(batch.steps["observation"], batch.steps.get("mask"), None, None)
            actions = policy.sample(self.generator).detach()
            scores = row_gradients(policy.log_prob(actions), self.parameters).double()
            total += scores.T @ (weight.unsqueeze(-1) * scores)
        return total


@register_agent("bpg")
class BPG(BayesianGradientAgent):
    """The gradient from whole trajectories: their scores and their returns (less a baseline of the first state)."""

    config: BPGConfig
    config_class = BPGConfig

    def visits(self, batch: Trajectories) -> Tensor:
        """Return 1 for every step: the scores of a trajectory's steps are uncorrelated."""
        return torch.ones_like(batch.weight)

    def posterior(self, batch: Trajectories, scores: Tensor, fisher: Tensor) -> GradientPosterior:
        """Return the posterior under the chosen model."""
        of_trajectories = torch.zeros(batch.count, scores.shape[1], dtype=scores.dtype, device=self.device)
        of_trajectories.index_add_(0, batch.number, scores)
        returns = batch.weight[batch.first_steps()].double()
        model = posterior_of_products if self.config.model == "products" else posterior_of_returns
        return model(of_trajectories, returns, fisher, self.config.noise_variance)


@register_agent("bac")
class BAC(BayesianGradientAgent):
    """The gradient from a Gaussian-process critic of Q, fitted to the rewards of the batch."""

    config: BACConfig
    config_class = BACConfig

    def visits(self, batch: Trajectories) -> Tensor:
        """Return gamma^h."""
        return batch.discount

    def posterior(self, batch: Trajectories, scores: Tensor, fisher: Tensor) -> GradientPosterior:
        """Return the posterior under a prior on Q."""
        order = torch.argsort(batch.number, stable=True)
        number = batch.number[order]
        ended = torch.cat([number[1:] != number[:-1], torch.ones(1, dtype=torch.bool, device=self.device)])
        with torch.no_grad():
            features = self.network.encoder(batch.steps["observation"])[order].double()
        kernel = torch.exp(-0.5 * (torch.cdist(features, features) / self.config.kernel_width).square())
        # What follows a truncated step was not seen: its reward says nothing about Q without it.
        known = ~batch.steps["truncated"][order]
        differences = temporal_differences(ended, self.config.gamma)[known]
        reward = batch.steps["reward"][order][known].double()
        estimate, _ = posterior_of_action_values(
            scores[order], kernel, reward, differences, fisher, self.config.noise_variance
        )
        return estimate
