"""The update of proximal policy optimisation, which PPO and the agents that only collect otherwise share.

Schulman et al. 2017, arXiv 1707.06347, with the details of Huang et al. 2022.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from palaestra.agents.losses.advantages import standardise
from palaestra.agents.losses.ratios import DensityRatio
from palaestra.agents.losses.surrogates import approximate_kl, clip_fraction, clipped_surrogate
from palaestra.agents.losses.values import clipped_value_loss
from palaestra.agents.memory.rollout import RolloutBuffer
from palaestra.agents.nn.actor_critic import ActorCritic, PolicyAndValue
from palaestra.agents.policy_gradient.ppo_by_hand import PPOGradient, has_gradient_by_hand
from palaestra.agents.training.metrics import Metrics
from palaestra.agents.training.on_policy import OnPolicyAgent, OnPolicyConfig


@dataclass(frozen=True)
class ProximalConfig(OnPolicyConfig):
    """Defaults of the PPO paper's continuous-control setting."""

    batch_size: int = 64
    """Steps per minibatch (recurrent: rounded down to whole env rows)."""
    n_epochs: int = 10
    """Passes over each rollout."""
    clip_range: float = 0.2
    """Half-width of the trusted interval of the ratio."""
    clip_range_schedule: Literal["constant", "linear"] = "constant"
    """Keep the clip range, or anneal it linearly to 0 over the training."""
    clip_range_vf: float | None = None
    """Largest change of a value prediction per rollout; none by default."""
    normalize_advantage: bool = True
    """Standardise advantages within each minibatch."""
    ent_coef: float = 0.0
    """Weight of the entropy bonus, at least 0."""
    vf_coef: float = 0.5
    """Weight of the value loss, at least 0."""
    max_grad_norm: float = 0.5
    """Largest norm of a gradient."""
    target_kl: float | None = None
    """Stop the epochs of a rollout once the approximate KL exceeds 1.5 times this."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("batch_size", "n_epochs"):
            self.require(name, getattr(self, name) >= 1, "an integer of at least 1")
        for name in ("clip_range", "max_grad_norm"):
            self.require(name, getattr(self, name) > 0.0, "a number above 0")
        for name in ("ent_coef", "vf_coef"):
            self.require(name, getattr(self, name) >= 0.0, "a number of at least 0")


class ProximalAgent(OnPolicyAgent):
    """Several epochs of minibatch ascent on the clipped surrogate, for Box, Discrete and MultiDiscrete actions.

    Bounded boxes are acted on in [-1, 1] per dimension, unsquashed and clipped by the env's bounds. On a CPU, the
    gradient of a feed-forward network is written by `PPOGradient`, derived by hand and several times as fast as the
    autograd of `backpropagate`, which serves every other network.
    """

    config: ProximalConfig
    config_class = ProximalConfig
    unsaved = OnPolicyAgent.unsaved | {"gradient"}

    def build(self) -> None:
        """Create the policy, the value function and their common optimiser."""
        c = self.config
        self.network = self.make_network()
        self.clip_range = c.clip_range
        self.network_optimizer = self.optimizer(self.network, eps=1e-5, max_grad_norm=c.max_grad_norm)
        self.gradient: Callable[[dict[str, Any], float], Metrics] = self.backpropagate
        network, plain = self.network, type(self.ratio) is DensityRatio
        if plain and isinstance(network, ActorCritic) and has_gradient_by_hand(network):
            self.gradient = PPOGradient(network, c.vf_coef, c.ent_coef, c.clip_range_vf, c.normalize_advantage)

    def make_network(self) -> PolicyAndValue:
        """Return the policy with its value function."""
        c = self.config
        return ActorCritic(
            self.observation_space,
            self.action_space,
            c.hidden,
            c.activation,
            c.log_std_init,
            c.recurrent_size,
            c.encoder,
        )

    def improve(self, rollout: RolloutBuffer) -> None:
        """Make `n_epochs` passes of minibatch updates over the rollout."""
        c = self.config
        if c.learning_rate_schedule == "linear":
            for group in self.network_optimizer.param_groups:
                group["lr"] = c.learning_rate * self.remaining
        if c.clip_range_schedule == "linear":
            self.clip_range = c.clip_range * self.remaining
        for _ in range(c.n_epochs):
            if c.recurrent_size:
                minibatches = rollout.sequence_minibatches(max(1, c.batch_size // c.n_steps), self.generator)
            else:
                minibatches = rollout.minibatches(c.batch_size, self.generator)
            for batch in minibatches:
                metrics = self.update(batch)
                self.num_updates += 1
                self.metrics.add(metrics, self.num_updates)
                if c.target_kl is not None and float(metrics["train/approx_kl"]) > 1.5 * c.target_kl:
                    return

    def update(self, batch: dict[str, Any]) -> Metrics:
        """Take one gradient step on the clipped surrogate, the value loss and the entropy bonus."""
        metrics = self.gradient(batch, self.clip_range)
        self.network_optimizer.step()
        return metrics

    def backpropagate(self, batch: dict[str, Any], clip_range: float) -> Metrics:
        """Compute the loss's gradient by autograd and return the metrics."""
        loss, metrics = self.loss(batch, clip_range)
        self.network_optimizer.zero_grad()
        loss.backward()
        return metrics

    def loss(self, batch: dict[str, Any], clip_range: float) -> tuple[Tensor, Metrics]:
        """Return the clipped surrogate plus the weighted value loss minus the weighted entropy, and the metrics."""
        return self.total_loss(*self.evaluate(batch), batch, clip_range)

    def total_loss(
        self, log_ratio: Tensor, entropy: Tensor, value: Tensor, batch: dict[str, Any], clip_range: float
    ) -> tuple[Tensor, Metrics]:
        """Return the loss and the metrics, given what `evaluate` says of the batch."""
        c = self.config
        advantage = standardise(batch["advantage"]) if c.normalize_advantage else batch["advantage"]
        policy_loss = self.surrogate(log_ratio, advantage, clip_range)
        value_loss = clipped_value_loss(value, batch["value"], batch["target"], c.clip_range_vf)
        entropy = entropy.mean()
        return policy_loss + c.vf_coef * value_loss - c.ent_coef * entropy, {
            "train/policy_loss": policy_loss.detach(),
            "train/value_loss": value_loss.detach(),
            "train/entropy": entropy.detach(),
            "train/approx_kl": approximate_kl(log_ratio.detach()),
            "train/clip_fraction": clip_fraction(log_ratio.detach(), clip_range),
        }

    def surrogate(self, log_ratio: Tensor, advantage: Tensor, clip_range: float) -> Tensor:
        """Return the clipped surrogate of log-ratios `[batch]`, or of those of several parts `[batch, parts]`."""
        return clipped_surrogate(log_ratio, advantage if log_ratio.dim() == 1 else advantage.unsqueeze(-1), clip_range)

    def evaluate(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the log-ratios of the batch's actions, the policy's entropies and the values, each `[batch]`."""
        if not self.config.recurrent_size:
            policy, value, _ = self.network(batch["observation"], batch.get("mask"))
            return self.ratio.log_ratio(policy, batch), self.entropy(policy), value
        rows = batch["sequence"]
        policy, value = self.network.unroll(rows["observation"], rows.get("mask"), rows["state"][0], rows["start"])
        valid = rows["valid"].flatten()
        steps = {name: field.flatten(0, 1) for name, field in rows.items() if isinstance(field, Tensor)}
        return self.ratio.log_ratio(policy, steps)[valid], self.entropy(policy)[valid], value[valid]

    def entropy(self, policy: Any) -> Tensor:
        """Return what the bonus counts as the policy's entropies `[batch]`."""
        entropy: Tensor = policy.entropy()
        return entropy
