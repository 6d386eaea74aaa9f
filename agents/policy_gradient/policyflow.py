"""PolicyFlow: proximal updates of a flow by the change of its velocity.

"PolicyFlow: Policy optimization with continuous normalizing flow in reinforcement learning", arXiv 2602.01156. The
ratio compares velocities on the straight path between what the flow began with and what it reached (`VelocityRatio`),
so that training neither solves nor differentiates a differential equation. Diversity is kept by bending the velocity
against the score of what it flows through, as heat flows: with (t v - x) / (1 - t) the score, minus it is
(x - t v) / (1 - t).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from palaestra.agents.losses.flow_ratios import VelocityRatio, path
from palaestra.agents.nn.generative.flow import FlowHead
from palaestra.agents.nn.generative.noisy_flow import NoisyFlow, NoisyFlowHead
from palaestra.agents.policy_gradient.generative_proximal import GenerativeProximalAgent, GenerativeProximalConfig
from palaestra.agents.registry import register_agent
from palaestra.agents.training.metrics import Metrics


@dataclass(frozen=True)
class PolicyFlowConfig(GenerativeProximalConfig):
    """Defaults of a port of the authors' code; PPO's own where it could not be confirmed (step size, solver steps)."""

    activation: str = "silu"
    """Activation of the hidden layers: relu, tanh, elu, gelu or silu."""
    clip_range_vf: float | None = 0.2
    """Largest change of a value prediction per rollout, or None."""
    max_grad_norm: float = 1.0
    """Largest norm of a gradient."""
    weight_decay: float = 1e-5
    """Decoupled weight decay, at least 0."""
    ent_coef: float = 1e-3
    """Weight of the entropy of the noise around the flow, at least 0."""
    bending_coef: float = 0.25
    """Weight of the squared difference to the velocity bent against the score, at least 0."""
    flow_steps: int = 10
    """Euler steps of a sample, at least 1."""
    times: int = 4
    """Times at which velocities are compared for every action, at least 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("flow_steps", "times"):
            self.require(name, getattr(self, name) >= 1, "an integer of at least 1")
        for name in ("weight_decay", "bending_coef"):
            self.require(name, getattr(self, name) >= 0.0, "a number of at least 0")


@register_agent("policyflow")
class PolicyFlow(GenerativeProximalAgent):
    """PPO on a flow with Gaussian noise around it, whose ratio is of velocities.

    The paper's text averages the ratio over time, and the port draws one time for every action and pass; here `times`
    are drawn when acting and kept for all passes, and the ratio is averaged over them. As it stands, the paper's
    equation of the bending term would have no gradient; as in the port, its target is made of the old velocity.
    """

    config: PolicyFlowConfig
    config_class = PolicyFlowConfig
    ratio: VelocityRatio

    def build(self) -> None:
        """Create the flow, the value function and their common optimiser."""
        c = self.config
        self.ratio = VelocityRatio(c.times)
        super().build()
        self.network_optimizer = self.optimizer(
            self.network, eps=1e-5, max_grad_norm=c.max_grad_norm, weight_decay=c.weight_decay, decoupled=True
        )

    def make_head(self) -> NoisyFlowHead:
        """Return the flow with noise around it."""
        c, dim = self.config, self.action_map.dim
        flow = FlowHead(self.observation_space, dim, c.hidden, c.activation, c.encoder, c.flow_steps)
        return NoisyFlowHead(flow, c.log_std_init)

    def loss(self, batch: dict[str, Any], clip_range: float) -> tuple[Tensor, Metrics]:
        """Return PPO's loss with the weighted bending term, and the metrics."""
        policy, value, _ = self.network(batch["observation"])
        velocity = self.ratio.velocity(policy, batch)
        log_ratio = self.ratio.log_ratio_of(velocity, policy, batch)
        loss, metrics = self.total_loss(log_ratio, self.entropy(policy), value, batch, clip_range)
        bending = bending_loss(velocity, batch)
        return loss + self.config.bending_coef * bending, {**metrics, "train/bending_loss": bending.detach()}

    def entropy(self, policy: NoisyFlow) -> Tensor:
        """Return the entropy of the noise around the flow `[batch]`."""
        return policy.entropy()


def bending_loss(velocity: Tensor, batch: dict[str, Any]) -> Tensor:
    """Return the mean of ||(1 - t) v(x_t, t) - (x_t - t v_old(x_t, t))||^2, a scalar.

    Args:
        velocity: v at the points of the path `[batch, times, action_dim]`.
        batch: What the ratio's provider kept.
    """
    time = batch["time"].unsqueeze(-1)
    against_score = path(batch) - time * batch["old_velocity"]
    return ((1.0 - time) * velocity - against_score).square().sum(-1).mean()
