"""Mirror descent policy optimisation, on-policy.

Tomar, Shani, Efroni and Ghavamzadeh, "Mirror descent policy optimization", arXiv 2005.09814. Every iteration solves
approximately, by a few gradient steps from pi_k, for

    pi_{k+1} = argmax_pi E_{s ~ rho_k} [ E_{a ~ pi} A_k(s, a) - KL(pi(.|s) || pi_k(.|s)) / t_k ],

whose solution in a table is pi_k exp(t_k A_k), normalised. There is no line search and no clipping.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from palaestra.agents.losses.advantages import standardise
from palaestra.agents.losses.divergences import kl_divergence
from palaestra.agents.losses.surrogates import approximate_kl, penalised_surrogate
from palaestra.agents.memory.rollout import RolloutBuffer
from palaestra.agents.nn.actor_critic import ActorCritic
from palaestra.agents.registry import register_agent
from palaestra.agents.training.metrics import Metrics
from palaestra.agents.training.on_policy import OnPolicyAgent, OnPolicyConfig
from palaestra.agents.training.value_fitting import fit_value


@dataclass(frozen=True)
class MDPOConfig(OnPolicyConfig):
    """Defaults of the authors' code for MuJoCo."""

    learning_rate_schedule: Literal["constant", "linear"] = "linear"
    """Keep the learning rates, or anneal them linearly to 0 over the training."""
    normalize_observation: bool = True
    """Standardise float vectors by running statistics, frozen at evaluation."""
    normalize_reward: bool = True
    """Divide rewards by the running deviation of the discounted return."""
    policy_updates: int = 10
    """Gradient steps of the policy on each whole rollout, the paper's m."""
    step_size: float = 1.0
    """The mirror-descent step t_0; the KL weighs 1 / t_k."""
    step_size_schedule: Literal["constant", "linear"] = "linear"
    """Keep t_k, or anneal it linearly towards 0 over the training, so that the KL weighs ever more."""
    n_critic_updates: int = 5
    """Passes of the value function over each rollout."""
    batch_size: int = 128
    """Steps per minibatch of the value function."""
    clip_range_vf: float | None = 0.2
    """Largest change of a value prediction per rollout, or none."""
    normalize_advantage: bool = True
    """Standardise advantages within each rollout."""
    max_grad_norm: float = 0.5
    """Largest norm of a gradient, of the policy's and of the value function's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("policy_updates", "n_critic_updates", "batch_size"):
            self.require(name, getattr(self, name) >= 1, "an integer of at least 1")
        for name in ("step_size", "max_grad_norm"):
            self.require(name, getattr(self, name) > 0.0, "a number above 0")
        self.require("recurrent_size", self.recurrent_size == 0, "0: this agent takes no recurrent policy")


@register_agent("mdpo")
class MDPO(OnPolicyAgent):
    """Several gradient steps on -mean(ratio A) + mean KL(pi || pi_k) / t_k, for Box and (Multi)Discrete actions.

    At pi_k the KL has no gradient: a single step (`policy_updates=1`) is the plain policy gradient, whatever t_k. The
    schedule is the authors' t_k = 1 - k / K, which never reaches 0 before training ends. Bounded boxes are acted on in
    [-1, 1] per dimension, unsquashed and clipped by the env's bounds. An encoder with parameters belongs to the
    policy; the value function only reads it.
    """

    config: MDPOConfig
    config_class = MDPOConfig
    network: ActorCritic

    def build(self) -> None:
        """Create the policy and the value function, each with its optimiser."""
        c = self.config
        self.network = ActorCritic(
            self.observation_space, self.action_space, c.hidden, c.activation, c.log_std_init, encoder=c.encoder
        )
        policy = self.network.policy_parameters()
        self.policy_optimizer = self.optimizer(*policy, eps=1e-5, max_grad_norm=c.max_grad_norm)
        self.value_optimizer = self.optimizer(self.network.value, eps=1e-5, max_grad_norm=c.max_grad_norm)
        self.step_size = c.step_size

    def improve(self, rollout: RolloutBuffer) -> None:
        """Take the steps of the policy on the whole rollout, then fit the value function to its targets."""
        c = self.config
        if c.learning_rate_schedule == "linear":
            for group in (*self.policy_optimizer.param_groups, *self.value_optimizer.param_groups):
                group["lr"] = c.learning_rate * self.remaining
        if c.step_size_schedule == "linear":
            begun = self.num_timesteps - int(rollout.fields["valid"].sum())
            self.step_size = c.step_size * min(1.0, 1.0 - begun / self.target_timesteps)
        (whole,) = rollout.minibatches(rollout.fields["reward"].numel(), self.generator)
        metrics = self.update_policy(whole)
        value_loss = fit_value(
            self.network,
            self.value_optimizer,
            rollout,
            c.n_critic_updates,
            c.batch_size,
            self.generator,
            c.clip_range_vf,
        )
        self.num_updates += 1
        self.metrics.add({**metrics, "train/value_loss": value_loss}, self.num_updates)

    def update_policy(self, batch: dict[str, Any]) -> Metrics:
        """Take `policy_updates` steps from pi_k on the penalised surrogate; metrics are those of the last step."""
        c = self.config
        observation, mask = batch["observation"], batch.get("mask")
        advantage = standardise(batch["advantage"]) if c.normalize_advantage else batch["advantage"]
        with torch.no_grad():
            old, _ = self.network.act(observation, mask, None, None)
        for _ in range(c.policy_updates):
            policy, _ = self.network.act(observation, mask, None, None)
            log_ratio = self.ratio.log_ratio(policy, batch)
            kl = kl_divergence(policy, old)
            loss = penalised_surrogate(log_ratio, advantage, kl, self.step_size)
            self.policy_optimizer.zero_grad()
            loss.backward()
            self.policy_optimizer.step()
        return {
            "train/policy_loss": loss.detach(),
            "train/kl": kl.detach().mean(),
            "train/entropy": policy.entropy().detach().mean(),
            "train/approx_kl": approximate_kl(log_ratio.detach()),
            "train/kl_weight": torch.tensor(1.0 / self.step_size, device=self.device),
        }
