"""The natural-gradient step within a trust region that several policy gradients take."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from palaestra.agents.nn.flat_parameters import (
    LinearMap,
    Parameters,
    conjugate_gradient,
    flat_gradient,
    flat_values,
    hessian_vector_product,
    set_flat_,
)


@dataclass(frozen=True)
class TrustRegion:
    """How far a step may go and how it is found.

    Attributes:
        radius: Largest mean KL(old || new), above 0.
        iterations: Most conjugate-gradient iterations.
        damping: Added to the Fisher matrix's diagonal, at least 0.
        shrink: Factor of the step's length at each backtrack, in (0, 1).
        backtracks: Lengths tried.
    """

    radius: float
    iterations: int
    damping: float
    shrink: float
    backtracks: int


@dataclass(frozen=True)
class TrustRegionStep:
    """What a step did: the objective and the divergence before or after it, and whether it was taken."""

    objective: Tensor
    divergence: Tensor
    accepted: bool


def trust_region_step(
    parameters: Parameters,
    evaluate: Callable[[], tuple[Tensor, Tensor]],
    region: TrustRegion,
    fisher: LinearMap | None = None,
) -> TrustRegionStep:
    """Maximise g.x subject to x'Fx/2 <= radius, then backtrack (Schulman et al. 2015, appendix C).

    The step is sqrt(2 radius / x'Fx) x with F x = g by conjugate gradients on the damped Fisher matrix F. The first
    length whose divergence is within the radius and whose objective is above the old one is taken; where there is none
    the parameters stay.

    Args:
        parameters: The policy's parameters, changed in place.
        evaluate: Returns the objective to maximise and the mean divergence from the old policy, scalars of a graph
            that can be differentiated twice.
        region: Bounds of the step.
        fisher: The map v -> F v; by default F is the Hessian of the divergence.
    """
    with torch.enable_grad():
        objective, divergence = evaluate()
        gradient = flat_gradient(objective, parameters, retain_graph=True)
        product = fisher if fisher is not None else _hessian(divergence, parameters)

    def damped(vector: Tensor) -> Tensor:
        return product(vector) + region.damping * vector

    direction = conjugate_gradient(damped, gradient, region.iterations)
    curvature = float(direction @ damped(direction))
    old, before = flat_values(parameters), objective.detach()
    if curvature > 0.0:
        step = math.sqrt(2.0 * region.radius / curvature) * direction
        with torch.no_grad():
            for backtrack in range(region.backtracks):
                set_flat_(parameters, old + region.shrink**backtrack * step)
                objective, divergence = evaluate()
                if bool((divergence <= region.radius) & (objective > before)):
                    return TrustRegionStep(objective, divergence, True)
        set_flat_(parameters, old)
    return TrustRegionStep(before, torch.zeros_like(before), False)


def _hessian(divergence: Tensor, parameters: Parameters) -> LinearMap:
    return partial(hessian_vector_product, flat_gradient(divergence, parameters, create_graph=True), parameters)
