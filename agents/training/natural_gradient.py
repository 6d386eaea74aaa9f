"""The natural policy gradient by compatible features, on rows of several sources, within a trust region.

With scores phi = grad log pi(a|s), the direction w = argmin sum_i weight_i E_i (w . phi - A)^2 solves F w = g for the
Fisher matrix F and the gradient g of the rows themselves (Kakade, "A natural policy gradient", NIPS 2001). Rows of a
tabular softmax policy that show every action give w = A, whatever their number: the step is one of exponential weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from palaestra.agents.losses.divergences import kl_divergence
from palaestra.agents.nn.distributions import Distribution
from palaestra.agents.nn.flat_parameters import Parameters, fisher_vector_product
from palaestra.agents.nn.networks import Observation
from palaestra.agents.training.trust_region import TrustRegion, TrustRegionStep, trust_region_step


@dataclass(frozen=True)
class Source:
    """Rows that a policy is improved on.

    Attributes:
        weight: Of the mean over its rows, at least 0.
        observation: `[rows, ...]`.
        mask: Admissible actions `[rows, num_actions]`, or None.
        action: `[rows, ...]`.
        advantage: A(s, a) `[rows]`.
    """

    weight: float
    observation: Observation
    mask: Tensor | None
    action: Tensor
    advantage: Tensor


def natural_gradient_step(
    parameters: Parameters,
    policy_of: Callable[[Observation, Tensor | None], Distribution],
    sources: Sequence[Source],
    region: TrustRegion,
) -> TrustRegionStep:
    """Move parameters along w as far as the region allows, where the surrogate sum_i weight_i E_i (ratio A) grows.

    Args:
        parameters: The policy's parameters, changed in place.
        policy_of: Returns the policy at observations with masks, of a graph that can be differentiated twice.
        sources: The rows; weights are taken in proportion.
        region: Bounds of the step.
    """
    total = sum(source.weight for source in sources)
    shares = [source.weight / total for source in sources]
    with torch.no_grad():
        old = [policy_of(source.observation, source.mask) for source in sources]
        old_log_probs = [policy.log_prob(source.action) for policy, source in zip(old, sources, strict=True)]
    with torch.enable_grad():
        log_probs = [policy_of(source.observation, source.mask).log_prob(source.action) for source in sources]

    def evaluate() -> tuple[Tensor, Tensor]:
        objective, divergence = [], []
        for share, source, before, old_log_prob in zip(shares, sources, old, old_log_probs, strict=True):
            policy = policy_of(source.observation, source.mask)
            ratio = (policy.log_prob(source.action) - old_log_prob).exp()
            objective.append(share * (source.advantage * ratio).mean())
            divergence.append(share * kl_divergence(before, policy).mean())
        return torch.stack(objective).sum(), torch.stack(divergence).sum()

    def fisher(vector: Tensor) -> Tensor:
        products = [fisher_vector_product(rows, parameters, vector) for rows in log_probs]
        return torch.stack([share * product for share, product in zip(shares, products, strict=True)]).sum(0)

    return trust_region_step(parameters, evaluate, region, fisher)
