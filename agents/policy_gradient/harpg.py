"""Variance-reduced policy gradients that need one or two trajectories a step: N-PG-IGT, HARPG and N-HARPG.

Fatkhullin, Barakat, Kireeva and He, "Stochastic policy gradient methods: improved sample complexity for
Fisher-non-degenerate policies", ICML 2023, arXiv 2302.01734. The constants of the paper's schedules could not be
confirmed: momentum eta_t = (2 / (t + 2))^p with p = 4/5 (N-PG-IGT) and 1 (HARPG), and steps of length
learning_rate (2 / (t + 2))^step_decay. Steps must shrink faster than the momentum's weight, as the paper's do: else
N-PG-IGT plays ever farther from its policy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from palaestra.agents.losses.trajectories import trajectory_surrogate
from palaestra.agents.nn.actor_critic import ActorCritic
from palaestra.agents.nn.flat_parameters import (
    Parameters,
    directional_derivative,
    flat_gradient,
    flat_values,
    hessian_vector_product,
    set_flat_,
    twice_differentiable_,
)
from palaestra.agents.registry import register_agent
from palaestra.agents.training.episodic import EpisodicAgent, EpisodicConfig, Trajectories


@dataclass(frozen=True)
class MomentumConfig(EpisodicConfig):
    """What the momentum methods have in common."""

    step_decay: float = 1.0
    """Exponent p of the size of step t, learning_rate (2 / (t + 2))^p, at least 0; 1 is the paper's order."""
    momentum_decay: float = 0.8
    """Exponent p of the weight of the newest gradient, (2 / (t + 2))^p, at least 0; 0 is no momentum."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("momentum_decay", self.momentum_decay >= 0.0, "a number of at least 0")


@dataclass(frozen=True)
class NPGIGTConfig(MomentumConfig):
    """N-PG-IGT, and normalised momentum without its extrapolation."""

    learning_rate: float = 0.1
    """Length of the first step, above 0."""
    extrapolate: bool = True
    """Play at the extrapolated parameters; False is plain normalised momentum."""


@dataclass(frozen=True)
class HARPGConfig(MomentumConfig):
    """HARPG."""

    momentum_decay: float = 1.0
    """Exponent p of the weight of the newest gradient, (2 / (t + 2))^p, at least 0; 0 is no momentum."""


@dataclass(frozen=True)
class NHARPGConfig(HARPGConfig):
    """N-HARPG."""

    learning_rate: float = 0.1
    """Length of the first step, above 0."""


def extrapolated(theta: Tensor, previous: Tensor, eta: float) -> Tensor:
    """Return x = theta + (1 - eta) / eta (theta - previous): (1 - eta) previous + eta x = theta, all `[n]`."""
    return theta + (1.0 - eta) / eta * (theta - previous)


def transported(
    log_probs: Tensor, weight: Tensor, number: Tensor, count: int, parameters: Parameters, vector: Tensor
) -> Tensor:
    """Return B v `[n]`, whose mean over trajectories of the policy is (Hessian of the return) v.

    B v = grad <grad Phi, v> + <grad log p(tau), v> grad Phi for each trajectory, averaged; a baseline in the weights
    keeps the mean.

    Args:
        log_probs: log pi(a|s) of all steps `[steps]`, of a graph that can be differentiated twice.
        weight: Weights of the steps in Phi `[steps]`.
        number: Which trajectory a step belongs to `[steps]`.
        count: Number of trajectories.
        parameters: The policy's parameters.
        vector: v `[n]`.
    """
    surrogate = trajectory_surrogate(log_probs, weight, count)
    curvature = hessian_vector_product(flat_gradient(surrogate, parameters, create_graph=True), parameters, vector)
    of_steps = directional_derivative(log_probs, parameters, vector)
    of_trajectories = torch.zeros(count, dtype=of_steps.dtype, device=of_steps.device).index_add(0, number, of_steps)
    reweighted = trajectory_surrogate(log_probs, weight * of_trajectories[number], count)
    return curvature + flat_gradient(reweighted, parameters)


class MomentumAgent(EpisodicAgent):
    """An agent that plays at other parameters than those it has learnt, and moves along an averaged direction."""

    config: MomentumConfig
    unsaved = EpisodicAgent.unsaved | {"sampler_parameters"}
    normalises: ClassVar[bool] = True

    def build(self) -> None:
        """Create the policy theta, the policy that plays, and the direction d."""
        super().build()
        self.sampler = self.make_network()
        twice_differentiable_(self.sampler)
        self.sampler_parameters = self.sampler.policy_parameters()
        self.previous = flat_values(self.parameters)
        self.direction = torch.zeros_like(self.previous)
        set_flat_(self.sampler_parameters, self.previous)

    @property
    def behaviour(self) -> ActorCritic:
        """The network whose policy plays."""
        return self.sampler

    def momentum_weight(self, update: int) -> float:
        """Return eta_t, the weight of the newest gradient in the direction."""
        return float((2.0 / (update + 2.0)) ** self.config.momentum_decay)

    def move(self) -> Tensor:
        """Take a step along the direction, keep the parameters before it, and return those after it `[n]`."""
        norm = self.direction.norm()
        step = self.direction / (norm + 1e-12) if self.normalises else self.direction
        self.previous = flat_values(self.parameters)
        theta = self.previous + self.step_size * step
        set_flat_(self.parameters, theta)
        self.num_updates += 1
        return theta

    def record(self, surrogate: Tensor) -> None:
        """Add the metrics of an update."""
        metrics = {"train/policy_loss": -surrogate.detach(), "train/direction_norm": self.direction.norm()}
        self.metrics.add(metrics, self.num_updates)


@register_agent("n-pg-igt")
class NPGIGT(MomentumAgent):
    """Normalised momentum whose gradients are taken where the average of their points is the policy itself."""

    config: NPGIGTConfig
    config_class = NPGIGTConfig

    def learn_from(self, batch: Trajectories) -> None:
        """Update d = (1 - eta) d + eta g(x); theta += step d / |d|; then play at the extrapolated x."""
        eta = self.momentum_weight(self.num_updates)
        surrogate = self.surrogate(self.sampler, batch)
        gradient = flat_gradient(surrogate, self.sampler_parameters)
        self.direction = (1.0 - eta) * self.direction + eta * gradient
        theta = self.move()
        self.record(surrogate)
        eta = self.momentum_weight(self.num_updates)
        played = extrapolated(theta, self.previous, eta) if self.config.extrapolate else theta
        set_flat_(self.sampler_parameters, played)


@register_agent("harpg")
class HARPG(MomentumAgent):
    """Momentum whose past is transported to the present policy by a Hessian-vector product.

    Two batches of trajectories a step: one at a random point between the last two policies, for the transport, and
    one at the present policy, for the gradient.
    """

    config: HARPGConfig
    config_class = HARPGConfig
    normalises = False

    def build(self) -> None:
        """Create the policies, the direction and the transport."""
        super().build()
        self.transport = torch.zeros_like(self.direction)
        self.playing: Literal["gradient", "transport"] = "gradient"

    def learn_from(self, batch: Trajectories) -> None:
        """Take v = B(tau', between) (theta - previous), then d = (1 - eta)(d + v) + eta g(tau, theta) and a step."""
        theta = flat_values(self.parameters)
        if self.playing == "transport":
            log_probs = self.log_probs(self.sampler, batch)
            change = theta - self.previous
            self.transport = transported(
                log_probs, batch.weight, batch.number, batch.count, self.sampler_parameters, change
            )
            set_flat_(self.sampler_parameters, theta)
            self.playing = "gradient"
            return
        eta = self.momentum_weight(self.num_updates)
        surrogate = self.surrogate(self.sampler, batch)
        gradient = flat_gradient(surrogate, self.sampler_parameters)
        self.direction = (1.0 - eta) * (self.direction + self.transport) + eta * gradient
        theta = self.move()
        self.record(surrogate)
        share = torch.rand((), generator=self.generator, device=self.device)
        set_flat_(self.sampler_parameters, share * theta + (1.0 - share) * self.previous)
        self.playing = "transport"


@register_agent("n-harpg")
class NHARPG(HARPG):
    """HARPG with steps of a length that does not depend on the direction's norm."""

    config: NHARPGConfig
    config_class = NHARPGConfig
    normalises = True
