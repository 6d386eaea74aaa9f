"""FPO: flow matching policy gradients.

McAllister, Ge, Yi, Kim, Weber, Choi, Feng and Kanazawa, "Flow matching policy gradients", arXiv 2507.21053. Where PPO
has a ratio of densities, FPO has the exponential of how much the flow-matching loss on an action has dropped: no
density is ever computed, and the sampler is never differentiated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from palaestra.agents.losses.flow_ratios import FlowMatchingRatio
from palaestra.agents.nn.generative.flow import FlowHead
from palaestra.agents.policy_gradient.generative_proximal import GenerativeProximalAgent, GenerativeProximalConfig
from palaestra.agents.registry import register_agent


@dataclass(frozen=True)
class FPOConfig(GenerativeProximalConfig):
    """Defaults of the authors' code, but for `num_envs`, theirs being 2,048, and their rewards, which are times 10."""

    gamma: float = 0.995
    """Discount per step, in [0, 1]."""
    num_envs: int = 64
    """Parallel copies of the env, where the env is given by its id."""
    n_steps: int = 30
    """Steps of each env per rollout."""
    batch_size: int = 1024
    """Steps per minibatch."""
    n_epochs: int = 16
    """Passes over each rollout."""
    clip_range: float = 0.05
    """Half-width of the trusted interval of the ratio."""
    hidden: tuple[int, ...] = (32, 32, 32, 32)
    """Widths of the hidden layers of the policy."""
    value_hidden: tuple[int, ...] = (256, 256, 256, 256, 256)
    """Widths of the hidden layers of the value function."""
    activation: str = "silu"
    """Activation of the hidden layers: relu, tanh, elu, gelu or silu."""
    draws: int = 8
    """Draws of noise and time for every action, at least 1."""
    flow_steps: int = 10
    """Euler steps of a sample, at least 1."""
    supervision: Literal["noise", "velocity"] = "noise"
    """Whose error the loss counts."""
    each_draw: bool = False
    """Whether every draw has a ratio of its own, instead of their mean loss having one."""
    output_scale: float = 0.25
    """Multiplies the network's output, above 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("draws", "flow_steps"):
            self.require(name, getattr(self, name) >= 1, "an integer of at least 1")
        self.require("output_scale", self.output_scale > 0.0, "a number above 0")
        self.require("ent_coef", self.ent_coef == 0.0, "0: the entropy of a flow has no closed form")


@register_agent("fpo")
class FPO(GenerativeProximalAgent):
    """PPO on a flow, with the drop of the flow-matching loss for a log-ratio (see `FlowMatchingRatio`)."""

    config: FPOConfig
    config_class = FPOConfig

    def build(self) -> None:
        """Create the flow, the value function and their common optimiser."""
        c = self.config
        self.ratio = FlowMatchingRatio(c.draws, c.supervision, c.each_draw)
        super().build()

    def make_head(self) -> FlowHead:
        """Return the flow."""
        c, dim = self.config, self.action_map.dim
        return FlowHead(self.observation_space, dim, c.hidden, c.activation, c.encoder, c.flow_steps, c.output_scale)
