"""Proximal policy optimisation with a mixture of experts as its policy.

Ren, Li, Ding, Pan and Dong, "Probabilistic mixture-of-experts for efficient deep reinforcement learning", arXiv
2104.09122. The ratio is that of the whole mixture's densities; an action-value network, fitted to the returns, says
which expert's action is the best in a state, and the gate learns how often each is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym
import torch
from gymnasium import spaces
from torch import Tensor
from torch.nn.functional import mse_loss

from palaestra.agents.losses.gates import frequency_loss
from palaestra.agents.memory.rollout import RolloutBuffer
from palaestra.agents.nn.critic import CriticBank
from palaestra.agents.nn.mixtures import MixtureActorCritic
from palaestra.agents.nn.networks import Observation
from palaestra.agents.policy_gradient.proximal import ProximalAgent, ProximalConfig
from palaestra.agents.registry import register_agent
from palaestra.agents.training.metrics import Metrics
from palaestra.agents.training.off_policy import minimise
from palaestra.agents.training.seeding import make_generator


@dataclass(frozen=True)
class PMOEPPOConfig(ProximalConfig):
    """Defaults of an implementation by one of the authors, PPO's own where it says nothing."""

    experts: int = 5
    """Gaussians of the policy, at least 1; with one it is PPO."""
    mean_gain: float = 1.0
    """Gain of the initial layer of means, above 0: how far apart experts begin; PPO's is 0.01."""
    gate_coef: float = 1.0
    """Weight of the gate's frequency loss, at least 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("experts", self.experts >= 1, "an integer of at least 1")
        self.require("mean_gain", self.mean_gain > 0.0, "a number above 0")
        self.require("gate_coef", self.gate_coef >= 0.0, "a number of at least 0")
        self.require("recurrent_size", self.recurrent_size == 0, "0: this agent takes no recurrent policy")


@register_agent("pmoe-ppo")
class PMOEPPO(ProximalAgent):
    """PPO on a mixture of Gaussians with state-independent deviations, for Box actions.

    The gate is linear in the observation's features and receives the surrogate's gradient beside that of its own loss.
    The best expert k* is that whose action, drawn anew, the action-value network values most. What could not be
    confirmed was chosen: that network has an optimiser of its own, so that its gradient is clipped by itself; and the
    entropy bonus counts the closed-form bound on the mixture's entropy, which has no closed form of its own.
    """

    config: PMOEPPOConfig
    config_class = PMOEPPOConfig
    network: MixtureActorCritic
    action_spaces: ClassVar[tuple[type[gym.Space[Any]], ...]] = (spaces.Box,)

    def build(self) -> None:
        """Create policy and value function as PPO's, the action-value network, and the experts' own noise."""
        super().build()
        c = self.config
        self.critic = CriticBank(
            self.observation_space, self.action_map.dim, c.hidden, 1, activation=c.activation, encoder=c.encoder
        )
        self.critic_optimizer = self.optimizer(self.critic, eps=1e-5, max_grad_norm=c.max_grad_norm)
        self.expert_generator = make_generator(self.seed, "experts", self.device)

    def make_network(self) -> MixtureActorCritic:
        """Return the mixture with its value function."""
        c, box = self.config, self.action_space
        assert isinstance(box, spaces.Box)
        return MixtureActorCritic(
            self.observation_space, box, c.experts, c.hidden, c.activation, c.log_std_init, c.mean_gain, c.encoder
        )

    def entropy(self, policy: Any) -> Tensor:
        """Return the bound on the mixture's entropy `[batch]`."""
        bound: Tensor = policy.entropy_bound()
        return bound

    def improve(self, rollout: RolloutBuffer) -> None:
        """Make `n_epochs` passes of minibatch updates over the rollout."""
        if self.config.learning_rate_schedule == "linear":
            for group in self.critic_optimizer.param_groups:
                group["lr"] = self.config.learning_rate * self.remaining
        super().improve(rollout)

    def update(self, batch: dict[str, Any]) -> Metrics:
        """Take one gradient step of the action values, and one of PPO's loss with the gate's."""
        value = self.critic(batch["observation"], batch["action"])[0]
        critic_loss = mse_loss(value, batch["target"])
        minimise(critic_loss, self.critic_optimizer)
        return {**super().update(batch), "train/critic_loss": critic_loss.detach()}

    def loss(self, batch: dict[str, Any], clip_range: float) -> tuple[Tensor, Metrics]:
        """Return PPO's loss and the gate's, and the metrics."""
        loss, metrics = super().loss(batch, clip_range)
        gate = self.network.gate_of(batch["observation"])
        gate_loss = frequency_loss(gate.probs, self.best_expert(batch["observation"]))
        return loss + self.config.gate_coef * gate_loss, {
            **metrics,
            "train/gate_loss": gate_loss.detach(),
            "train/gate_entropy": gate.entropy().detach().mean(),
        }

    @torch.no_grad()
    def best_expert(self, observation: Observation) -> Tensor:
        """Return the expert `[batch]` whose action, drawn here, has the highest value."""
        policy = self.network.mixture(observation)
        candidates = policy.propose(self.expert_generator)
        return candidates.values(self.critic, observation)[0].argmax(-1)
