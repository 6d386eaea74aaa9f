"""REINFORCE (Williams, "Simple statistical gradient-following algorithms", Machine Learning 8, 1992)."""

from __future__ import annotations

from dataclasses import dataclass

from palaestra.agents.nn.flat_parameters import flat_gradient, flat_values, set_flat_
from palaestra.agents.registry import register_agent
from palaestra.agents.training.episodic import EpisodicAgent, EpisodicConfig, Trajectories


@dataclass(frozen=True)
class REINFORCEConfig(EpisodicConfig):
    """Plain stochastic gradient ascent."""

    normalize_direction: bool = False
    """Take steps of the length given, whatever the norm of the gradient."""


@register_agent("reinforce")
class REINFORCE(EpisodicAgent):
    """Ascend g = mean over trajectories of sum_h gamma^h (reward-to-go) grad log pi(a_h|s_h)."""

    config: REINFORCEConfig
    config_class = REINFORCEConfig

    def learn_from(self, batch: Trajectories) -> None:
        """Take one step along the gradient."""
        surrogate = self.surrogate(self.network, batch)
        gradient = flat_gradient(surrogate, self.parameters)
        norm = gradient.norm()
        direction = gradient / (norm + 1e-12) if self.config.normalize_direction else gradient
        set_flat_(self.parameters, flat_values(self.parameters) + self.step_size * direction)
        self.num_updates += 1
        metrics = {"train/policy_loss": -surrogate.detach(), "train/direction_norm": norm}
        self.metrics.add(metrics, self.num_updates)
