"""Trust region policy optimisation (Schulman et al. 2015, arXiv 1502.05477)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from palaestra.agents.losses.advantages import standardise
from palaestra.agents.losses.divergences import kl_divergence
from palaestra.agents.memory.rollout import RolloutBuffer
from palaestra.agents.nn.actor_critic import ActorCritic
from palaestra.agents.nn.flat_parameters import twice_differentiable_
from palaestra.agents.registry import register_agent
from palaestra.agents.training.metrics import Metrics
from palaestra.agents.training.on_policy import OnPolicyAgent, OnPolicyConfig
from palaestra.agents.training.trust_region import TrustRegion, trust_region_step
from palaestra.agents.training.value_fitting import fit_value


@dataclass(frozen=True)
class TRPOConfig(OnPolicyConfig):
    """Defaults of the field's common implementations; those of the paper's own code differ by task."""

    learning_rate: float = 1e-3
    """Step size of the value function's Adam, above 0."""
    target_kl: float = 0.01
    """Largest mean KL between the old and the new policy, in nats."""
    cg_iterations: int = 15
    """Conjugate-gradient iterations."""
    cg_damping: float = 0.1
    """Added to the Fisher matrix's diagonal, at least 0."""
    backtrack_shrink: float = 0.8
    """Factor of the step's length at each backtrack, in (0, 1)."""
    max_backtracks: int = 10
    """Lengths of a step that are tried."""
    n_critic_updates: int = 10
    """Passes of the value function over each rollout."""
    batch_size: int = 128
    """Steps per minibatch of the value function."""
    normalize_advantage: bool = True
    """Standardise advantages within each rollout."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("cg_iterations", "max_backtracks", "n_critic_updates", "batch_size"):
            self.require(name, getattr(self, name) >= 1, "an integer of at least 1")
        self.require("target_kl", self.target_kl > 0.0, "a number above 0")
        self.require("cg_damping", self.cg_damping >= 0.0, "a number of at least 0")
        self.require("backtrack_shrink", 0.0 < self.backtrack_shrink < 1.0, "a number in (0, 1)")
        self.require("recurrent_size", self.recurrent_size == 0, "0: this agent takes no recurrent policy")


@register_agent("trpo")
class TRPO(OnPolicyAgent):
    """The natural-gradient step with a hard bound on the KL, for Box, Discrete and MultiDiscrete actions.

    Bounded boxes are acted on in [-1, 1] per dimension, unsquashed and clipped by the env's bounds. An encoder with
    parameters belongs to the policy; the value function only reads it.
    """

    config: TRPOConfig
    config_class = TRPOConfig
    network: ActorCritic
    unsaved = OnPolicyAgent.unsaved | {"policy_parameters", "region"}

    def build(self) -> None:
        """Create the policy and the value function with its optimiser."""
        c = self.config
        self.network = ActorCritic(
            self.observation_space, self.action_space, c.hidden, c.activation, c.log_std_init, encoder=c.encoder
        )
        self.value_optimizer = self.optimizer(self.network.value)
        twice_differentiable_(self.network)
        self.policy_parameters = self.network.policy_parameters()
        self.region = TrustRegion(c.target_kl, c.cg_iterations, c.cg_damping, c.backtrack_shrink, c.max_backtracks)

    def improve(self, rollout: RolloutBuffer) -> None:
        """Take one step of the policy on the whole rollout, then fit the value function to its targets."""
        c = self.config
        if c.learning_rate_schedule == "linear":
            for group in self.value_optimizer.param_groups:
                group["lr"] = c.learning_rate * self.remaining
        (whole,) = rollout.minibatches(rollout.fields["reward"].numel(), self.generator)
        metrics = self.update_policy(whole)
        value_loss = fit_value(
            self.network, self.value_optimizer, rollout, c.n_critic_updates, c.batch_size, self.generator
        )
        self.num_updates += 1
        self.metrics.add({**metrics, "train/value_loss": value_loss}, self.num_updates)

    def update_policy(self, batch: dict[str, Any]) -> Metrics:
        """Maximise the surrogate mean(ratio A) within KL(old || new) <= target_kl."""
        advantage = standardise(batch["advantage"]) if self.config.normalize_advantage else batch["advantage"]
        with torch.no_grad():
            old, _ = self.network.act(batch["observation"], batch.get("mask"), None, None)

        def evaluate() -> tuple[Tensor, Tensor]:
            policy, _ = self.network.act(batch["observation"], batch.get("mask"), None, None)
            ratio = self.ratio.log_ratio(policy, batch).exp()
            return (advantage * ratio).mean(), kl_divergence(old, policy).mean()

        step = trust_region_step(self.policy_parameters, evaluate, self.region)
        return {
            "train/policy_loss": -step.objective,
            "train/kl": step.divergence,
            "train/step_accepted": torch.tensor(float(step.accepted)),
        }
