"""Distributional soft actor-critic, its first version (Duan et al. 2021, arXiv 2001.02811)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from palaestra.agents.losses.gaussian_values import bounded, distributional_loss
from palaestra.agents.nn.estimates import GaussianEstimate
from palaestra.agents.registry import register_agent
from palaestra.agents.training.distributional import DistributionalAgent, DistributionalConfig


@dataclass(frozen=True)
class DSACConfig(DistributionalConfig):
    """Defaults of the authors' code, which takes 20 env steps for every update."""

    bound: float = 1.0
    """Farthest that a return counts from the mean when the spread is learnt, above 0, in units of reward."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("bound", self.bound > 0.0, "a number above 0")


@register_agent("dsac")
class DSAC(DistributionalAgent):
    """One critic that says how the soft return is distributed; where it is noisy, the mean moves in smaller steps.

    y_z is a sample of r + gamma (1 - d) (Z'(s', a') - alpha log pi'(a'|s')), a' and Z' those of the target networks,
    and y_b the same brought to within `bound` of Q. The gradients are -(y_z - Q) / (sigma^2 + bias) on Q and
    -((y_b - Q)^2 - sigma^2) / (sigma^3 + bias) on sigma.
    """

    config: DSACConfig
    config_class = DSACConfig
    num_critics: ClassVar[int] = 1

    def critic_loss(self, estimate: GaussianEstimate, target: GaussianEstimate) -> Tensor:
        """Return the loss of the critic."""
        returns, mean = target.sample(self.generator), estimate.centre.detach()
        square = (bounded(returns, mean, torch.full_like(mean, self.config.bound)) - mean).square()
        return distributional_loss(estimate, returns, square, self.config.bias).mean()
