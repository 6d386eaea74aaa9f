"""Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347) with the details of Huang et al. 2022."""

from __future__ import annotations

from dataclasses import dataclass

from palaestra.agents.policy_gradient.proximal import ProximalAgent, ProximalConfig
from palaestra.agents.registry import register_agent


@dataclass(frozen=True)
class PPOConfig(ProximalConfig):
    """Defaults of the paper's continuous-control setting."""


@register_agent("ppo")
class PPO(ProximalAgent):
    """Several epochs of minibatch ascent on the clipped surrogate; the update stands in `ProximalAgent`."""

    config: PPOConfig
    config_class = PPOConfig
