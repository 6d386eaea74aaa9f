"""Mirror descent policy optimisation, off-policy.

Tomar, Shani, Efroni and Ghavamzadeh, "Mirror descent policy optimization", arXiv 2005.09814: soft actor-critic whose
actor stays near the policy pi_k of some time ago. With lambda the weight of the entropy and c = 1 / t_k that of the
KL, the mirror-descent step on Q - lambda log pi_k is

    min_pi E_{s ~ replay, a ~ pi} [ c log pi(a|s) + (lambda - c) log pi_k(a|s) - Q(s, a) ],

whose solution is pi_k^{1 - lambda / c} exp(Q / c), normalised. With c = lambda it is the soft actor-critic's loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from palaestra.agents.losses.values import SquaredError, td_target
from palaestra.agents.memory.replay import Batch
from palaestra.agents.nn.actors import SquashedGaussianActor
from palaestra.agents.nn.critic import CriticBank, held_fixed, polyak_update, target_copy
from palaestra.agents.nn.networks import Observation
from palaestra.agents.nn.state_value import StateValue
from palaestra.agents.registry import register_agent
from palaestra.agents.training.metrics import Metrics
from palaestra.agents.training.off_policy import OffPolicyAgent, OffPolicyConfig, minimise
from palaestra.agents.training.regression import regress


@dataclass(frozen=True)
class MDPOOffConfig(OffPolicyConfig):
    """Defaults of the authors' code for Walker2d."""

    learning_starts: int = 10_000
    """Env steps of uniformly random actions before the first update."""
    kl_coef: float = 1.0
    """Weight c = 1 / t_k of the KL to the policy of some time ago, above 0."""
    ent_coef: float = 0.2
    """Weight lambda of the entropy, at least 0."""
    old_policy_interval: int = 1_000
    """Env steps between two renewals of the policy pi_k that the KL is measured from."""
    tsallis: float = 1.0
    """The q of log_q x = (x^(1 - q) - 1) / (1 - q), in place of the logarithms; 1 is the logarithm."""
    policy_regularisation: float = 1e-3
    """Weight of the squared mean and log standard deviation before squashing, at least 0."""
    exploration: Literal["sample", "mode"] = "sample"
    """Collect with samples of the policy, or with its mode, as the authors' stored code does."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("kl_coef", self.kl_coef > 0.0, "a number above 0")
        for name in ("ent_coef", "policy_regularisation"):
            self.require(name, getattr(self, name) >= 0.0, "a number of at least 0")
        self.require("old_policy_interval", self.old_policy_interval >= 1, "an integer of at least 1")


@register_agent("mdpo-off")
class MDPOOff(OffPolicyAgent):
    """SAC with a fixed temperature, a value network as target, and a KL to the policy of some time ago.

    The value network follows min_i Q_i(s, a) - lambda log pi(a|s); the actor follows the first critic alone. Whether
    the paper's runs explored could not be confirmed: here samples are collected with by default. With `tsallis` other
    than 1, log_q stands for every logarithm of the losses, which could not be confirmed in detail either.
    """

    config: MDPOOffConfig
    config_class = MDPOOffConfig

    def build(self) -> None:
        """Create the actor with its old self, the critics, and the value network with its target."""
        c = self.config
        space, dim = self.observation_space, self.action_dim
        self.actor = SquashedGaussianActor(space, 2 * dim, c.hidden, c.activation, c.encoder)
        self.old_actor = target_copy(self.actor)
        self.critics = CriticBank(space, dim, c.hidden, activation=c.activation, encoder=c.encoder)
        self.value = StateValue(space, c.hidden, c.activation, c.encoder)
        self.target_value = target_copy(self.value)
        self.actor_optimizer = self.optimizer(self.actor)
        self.critic_optimizer = self.optimizer(self.critics)
        self.value_optimizer = self.optimizer(self.value)

    def act(self, observation: Observation, generator: Generator | None) -> Tensor:
        """Return a sample of the policy, or tanh of its mean."""
        policy = self.actor(observation)
        return policy.mode() if generator is None else policy.sample(generator)

    def explore(self, observation: Observation) -> Tensor:
        """Return the actions to collect with for all rows."""
        return self.act(observation, self.generator if self.config.exploration == "sample" else None)

    def after_step(self, before: int) -> None:
        """Renew the old policy whenever its interval is over."""
        interval = self.config.old_policy_interval
        if self.num_timesteps // interval > before // interval:
            polyak_update(self.actor, self.old_actor, 1.0)

    def update(self, batch: Batch) -> Metrics:
        """Step the critics, the value network, the actor and the target."""
        c = self.config
        with torch.no_grad():
            target = td_target(batch.reward, batch.terminated, self.target_value(batch.next_observation), c.gamma)
        inputs = batch.observation, batch.action
        values, critic_loss = regress(self.critics, inputs, target, SquaredError(0.5), self.critic_optimizer)

        policy = self.actor(batch.observation)
        u = policy.before_tanh.sample(self.generator)
        log_prob = policy.log_prob_of_tanh(u)
        old_log_prob = self.old_actor(batch.observation).log_prob_of_tanh(u)
        with held_fixed(self.critics):
            value = self.critics(batch.observation, torch.tanh(u))

        soft_value = (value.amin(0) - c.ent_coef * tsallis_log(log_prob, c.tsallis)).detach()
        value_loss = 0.5 * (self.value(batch.observation) - soft_value).square().mean()
        minimise(value_loss, self.value_optimizer)

        mirror_loss = self.mirror_loss(log_prob, old_log_prob, value[0])
        spread = policy.mean.square().mean() + policy.log_std.square().mean()
        minimise(mirror_loss + c.policy_regularisation * spread, self.actor_optimizer)

        polyak_update(self.value, self.target_value, c.tau)
        return {
            "train/critic_loss": critic_loss,
            "train/value_loss": value_loss.detach(),
            "train/actor_loss": mirror_loss.detach(),
            "train/kl": (log_prob - old_log_prob).detach().mean(),
            "train/entropy": -log_prob.detach().mean(),
            "train/q_mean": values.mean(),
        }

    def mirror_loss(self, log_prob: Tensor, old_log_prob: Tensor, value: Tensor) -> Tensor:
        """Return mean(c log_q pi + (lambda - c) log_q pi_k - Q), a scalar, of tensors `[batch]`."""
        c = self.config
        new, old = tsallis_log(log_prob, c.tsallis), tsallis_log(old_log_prob, c.tsallis)
        return (c.kl_coef * new + (c.ent_coef - c.kl_coef) * old - value).mean()


def tsallis_log(log_prob: Tensor, q: float) -> Tensor:
    """Return log_q(x) = (x^(1 - q) - 1) / (1 - q) of x given by its logarithm; the logarithm itself for q = 1."""
    return log_prob if q == 1.0 else torch.expm1((1.0 - q) * log_prob) / (1.0 - q)
