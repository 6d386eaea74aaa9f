"""Soft actor-critic with a mixture of experts as its policy.

Ren, Li, Ding, Pan and Dong, "Probabilistic mixture-of-experts for efficient deep reinforcement learning", arXiv
2104.09122. The choice of an expert has no gradient. Here none is needed: each expert learns through its own
reparameterised action where the critics find that action the best of all experts', and the gate learns how often that
is so.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from palaestra.agents.losses.advantages import standardise
from palaestra.agents.losses.gates import frequency_loss
from palaestra.agents.losses.values import SquaredError, td_target
from palaestra.agents.memory.replay import Batch
from palaestra.agents.nn.critic import CriticBank, held_fixed, polyak_update, target_copy
from palaestra.agents.nn.mixtures import MixtureActor
from palaestra.agents.registry import register_agent
from palaestra.agents.training.maximum_entropy import MaximumEntropyAgent, MaximumEntropyConfig
from palaestra.agents.training.metrics import Metrics
from palaestra.agents.training.off_policy import minimise
from palaestra.agents.training.regression import regress


@dataclass(frozen=True)
class PMOEConfig(MaximumEntropyConfig):
    """Defaults of an implementation by one of the authors; those of the paper's own could not be read."""

    experts: int = 2
    """Gaussians of the policy, at least 1; with one it is SAC."""
    hidden: tuple[int, ...] = (512, 512, 512, 512)
    """Widths of the hidden layers of actor and critics."""
    batch_size: int = 300
    """Transitions per update."""
    tau: float = 0.01
    """Rate at which target networks follow, in (0, 1]."""
    standardise_reward: bool = True
    """Standardise the rewards of each batch."""
    reward_scale: float = 10.0
    """What rewards, standardised or not, are multiplied by, above 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("experts", self.experts >= 1, "an integer of at least 1")
        self.require("reward_scale", self.reward_scale > 0.0, "a number above 0")


@register_agent("pmoe")
class PMOE(MaximumEntropyAgent):
    """SAC whose policy is a mixture of squashed Gaussians under a gate that is linear in the observation's features.

    Whether the paper sums the actor's loss over all experts could not be confirmed; here, as in the implementation
    read, the best one of each state alone learns. Log-densities are those of the expert that acts, not of the mixture.
    Without noise, the likeliest expert acts by its mode.
    """

    config: PMOEConfig
    config_class = PMOEConfig
    actor: MixtureActor  # type: ignore[assignment]

    def build(self) -> None:
        """Create the actor, the critics with their targets, and the temperature."""
        c = self.config
        space, dim = self.observation_space, self.action_dim
        self.actor = MixtureActor(space, dim, c.experts, c.hidden, c.activation, c.encoder)
        self.critics = CriticBank(space, dim, c.hidden, activation=c.activation, encoder=c.encoder)
        self.target_critics = target_copy(self.critics)
        self.actor_optimizer = self.optimizer(self.actor)
        self.critic_optimizer = self.optimizer(self.critics)
        self.build_temperature()

    def update(self, batch: Batch) -> Metrics:
        """Step the critics, the experts with the gate, the temperature and the targets."""
        c, alpha = self.config, self.alpha
        policy = self.actor(batch.observation)
        candidates = policy.propose(self.generator)

        with torch.no_grad():
            following = self.actor(batch.next_observation)
            expert = following.expert(following.draw_expert(self.generator))
            next_action, next_log_prob = expert.sample_with_log_prob(self.generator)
            next_value = self.target_critics(batch.next_observation, next_action).amin(0) - alpha * next_log_prob
            reward = standardise(batch.reward) if c.standardise_reward else batch.reward
            target = td_target(c.reward_scale * reward, batch.terminated, next_value, c.gamma)
        inputs = batch.observation, batch.action
        values, critic_loss = regress(self.critics, inputs, target, SquaredError(0.5), self.critic_optimizer)

        with torch.no_grad():
            best = candidates.values(self.critics, batch.observation).amin(0).argmax(-1)
        action, log_prob = candidates.pick(best)
        with held_fixed(self.critics):
            value = self.critics(batch.observation, action).amin(0)
        actor_loss = (alpha * log_prob - value).mean()
        gate_loss = frequency_loss(policy.weights, best)
        minimise(actor_loss + gate_loss, self.actor_optimizer)

        self.step_temperature(log_prob)
        polyak_update(self.critics, self.target_critics, c.tau)
        return {
            "train/critic_loss": critic_loss,
            "train/actor_loss": actor_loss.detach(),
            "train/gate_loss": gate_loss.detach(),
            "train/gate_entropy": policy.gate.entropy().detach().mean(),
            "train/ent_coef": alpha,
            "train/entropy": -log_prob.detach().mean(),
            "train/q_mean": values.mean(),
        }
