"""Distributional soft actor-critic with three refinements (Duan et al. 2023, arXiv 2310.05858)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from palaestra.agents.losses.gaussian_values import bounded, distributional_loss, follow_spread
from palaestra.agents.nn.estimates import GaussianEstimate
from palaestra.agents.registry import register_agent
from palaestra.agents.training.distributional import DistributionalAgent, DistributionalConfig

WIDTH = 3.0
"""Farthest that a return counts from the mean when the spread is learnt, in average standard deviations."""
HUBER = 50.0
"""Where the squares of the released code turn into lines."""
RATIOS = (0.1, 10.0)
"""Range of the weights of the released code."""


@dataclass(frozen=True)
class DSACTConfig(DistributionalConfig):
    """Defaults of the authors' code, which takes 20 env steps for every update."""

    gradient: Literal["paper", "released"] = "paper"
    """The paper's gradients, or those of the released code with its Huber function and its bounds on weights."""
    spread: Literal["square", "half"] = "square"
    """What sigma^2 is drawn to: the squared deviation of returns, or half of it as in the released code."""
    weight: Literal["mean_variance", "squared_mean"] = "mean_variance"
    """The weight of a critic: the running mean of its variance, or the square of that of its standard deviation."""


@register_agent("dsac-t")
class DSACT(DistributionalAgent):
    """DSAC with an expected target for the mean, twin critics, and gradients in proportion to the critic's own spread.

    1. Of y = r + gamma (1 - d) (Z'(s', a') - alpha log pi'(a'|s')), the mean of a critic is drawn to the expectation
       y_q; a sample y_z serves the spread alone.
    2. Z' is the whole distribution of the one of two target critics that has the lower mean at (s', a').
    3. With m the running mean of sigma (from the first batch's on, at the rate tau), y_z counts as at most 3 m from Q,
       y_b; and the gradients -(y_q - Q) / (sigma^2 + bias) on Q and -((y_b - Q)^2 - sigma^2) / (sigma^3 + bias) on
       sigma are weighed by w, so that scaled rewards leave the steps nearly as they are.

    Two points could not be confirmed and are options. Whether w is the running mean of sigma^2 (the paper, the
    default) or m^2 (the code): `weight`. And what the spread settles at: the code draws sigma^2 to *half* the squared
    deviation, for its Huber function is half the square, so that sigma ends at sqrt(1/2) of the true spread; a copy of
    it by some of the same authors draws it to the whole, as the paper does and the default here: `spread`. The
    `gradient` of the released code weighs by w / (sigma^2 + bias) within [0.1, 10], turns squares into lines beyond 50,
    and divides the spread's part by sigma + bias. That code as a whole is "released", "half" and "squared_mean".
    """

    config: DSACTConfig
    config_class = DSACTConfig
    num_critics: ClassVar[int] = 2

    def build(self) -> None:
        """Create the networks, and the running means of each critic's spread."""
        super().build()
        self.mean_std = torch.zeros(self.num_critics, device=self.device)
        self.mean_variance = torch.zeros(self.num_critics, device=self.device)

    def critic_loss(self, estimate: GaussianEstimate, target: GaussianEstimate) -> Tensor:
        """Return the sum of both critics' losses."""
        c = self.config
        returns, mean, std = target.sample(self.generator), estimate.centre.detach(), estimate.std.detach()
        follow_spread(self.mean_std, std.mean(-1), c.tau)
        follow_spread(self.mean_variance, std.square().mean(-1), c.tau)
        deviation = bounded(returns, mean, WIDTH * self.mean_std.unsqueeze(-1)) - mean
        weight = self.mean_variance if c.weight == "mean_variance" else self.mean_std.square()
        half = 0.5 if c.spread == "half" else 1.0
        if c.gradient == "paper":
            losses = distributional_loss(estimate, target.centre, half * deviation.square(), c.bias)
            return (weight * losses.mean(-1)).sum()
        ratio = (weight.unsqueeze(-1) / (std.square() + c.bias)).clamp(*RATIOS)
        slope = (std.square() - 2.0 * half * _huber(deviation)) / (std + c.bias)
        losses = ratio * (_huber(estimate.centre - target.centre) + estimate.std * slope)
        return losses.mean(-1).sum()


def _huber(errors: Tensor) -> Tensor:
    """Return half the squares of errors, beyond a width in proportion to the errors."""
    return F.huber_loss(errors, torch.zeros_like(errors), reduction="none", delta=HUBER)
