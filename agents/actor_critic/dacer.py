"""Diffusion actor-critic with entropy regulator (Wang et al. 2024, arXiv 2405.15177).

The policy is a short diffusion that gradients of the values pass through whole. Its entropy is not known, but estimated
now and then by Gaussian mixtures fitted to its actions, and held at a target by the noise that is added to them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from palaestra.agents.losses.gaussian_values import bounded, distributional_loss, follow_spread
from palaestra.agents.losses.mixture_entropy import fit_mixtures
from palaestra.agents.memory.replay import Batch
from palaestra.agents.nn.critic import held_fixed, polyak_update, target_copy
from palaestra.agents.nn.critic_heads import GaussianHead, HeadedCritics
from palaestra.agents.nn.distributions import standard_normal_like
from palaestra.agents.nn.estimates import GaussianEstimate
from palaestra.agents.nn.networks import Observation
from palaestra.agents.registry import register_agent
from palaestra.agents.training.diffusion import DenoisingConfig, diffusion_head
from palaestra.agents.training.metrics import Metrics
from palaestra.agents.training.off_policy import OffPolicyAgent, minimise

WIDTH = 3.0
"""Farthest that a return counts from the mean when the spread is learnt, in average standard deviations."""
ENTROPY_PER_DIMENSION = -0.9
"""Entropy to hold by default, in nats for every action dimension."""


@dataclass(frozen=True)
class DACERConfig(DenoisingConfig):
    """Defaults of the authors' code, which takes 20 env steps for every update; its policy's activation is Mish."""

    schedule: str = "vp"
    """How noise grows with the levels: cosine, vp or linear."""
    hidden: tuple[int, ...] = (256, 256, 256)
    """Widths of the hidden layers of actor and critics."""
    activation: str = "gelu"
    """Activation of the hidden layers: relu, tanh, elu, gelu or silu."""
    learning_rate: float = 1e-4
    """Step size of Adam for actor and critics, above 0."""
    learning_starts: int = 30_000
    """Env steps of uniformly random actions before the first update."""
    train_freq: int = 20
    """Env steps (of all rows together) between rounds of updates."""
    policy_delay: int = 2
    """Critic updates per update of the actor and the targets."""
    reward_scale: float = 0.2
    """What rewards are multiplied by, above 0."""
    noise_scale: float = 0.1
    """Standard deviation of the noise added to actions, for each unit of the temperature; at least 0."""
    initial_temperature: float = 3.0
    """Where the temperature starts, above 0."""
    temperature_learning_rate: float = 3e-2
    """Step size of Adam for the logarithm of the temperature, above 0."""
    target_entropy: Literal["auto"] | float = "auto"
    """Entropy to hold, in nats; auto is -0.9 for every action dimension."""
    entropy_interval: int = 10_000
    """Updates between steps of the temperature, each with an estimate of the entropy."""
    entropy_states: int = 256
    """States of which the entropy is estimated."""
    entropy_samples: int = 200
    """Actions drawn in each of them."""
    components: int = 3
    """Gaussians of the mixture fitted to them."""
    noise_clip: float = 3.0
    """Largest deviation of a target's sample from its mean, in standard deviations."""
    bias: float = 0.1
    """Added to powers of the standard deviation in denominators, at least 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("reward_scale", "initial_temperature", "temperature_learning_rate", "noise_clip"):
            self.require(name, getattr(self, name) > 0.0, "a number above 0")
        for name in ("noise_scale", "bias"):
            self.require(name, getattr(self, name) >= 0.0, "a number of at least 0")
        for name in ("policy_delay", "entropy_interval", "entropy_states", "components"):
            self.require(name, getattr(self, name) >= 1, "an integer of at least 1")
        self.require("entropy_samples", self.entropy_samples > self.components, "more than the components")


@register_agent("dacer")
class DACER(OffPolicyAgent):
    """A diffusion trained by the gradient of the values through all its steps, with noise that regulates its entropy.

    Wherever the policy acts, in the env, in targets and under its own gradient, its action is clip(a + c alpha xi) with
    a the chain's end, xi standard normal and alpha the temperature. The critics are DSAC-T's twins, without entropy in
    the return; as in the authors' code their losses are weighed by m^2 + bias with m the running mean of sigma. The
    first estimate of the entropy comes before the first update, the others every `entropy_interval` updates: with the
    default, few budgets see the temperature move far.

    No gradient comes back where the chain predicts actions beyond the box or the noise leads out of it. A policy that
    has run into a corner by too large steps therefore stays there, whatever its critics say; step sizes are smaller
    than those of agents that squash.

    Without a generator every noise is 0, that of the chain too; the authors draw the chain's from a hash of the
    observation.
    """

    config: DACERConfig
    config_class = DACERConfig

    def build(self) -> None:
        """Create the policy, the critics with their targets, and the temperature."""
        c = self.config
        self.actor = diffusion_head(self, c)
        space, dim, head = self.observation_space, self.action_dim, GaussianHead(c.noise_clip)
        self.critics = HeadedCritics(space, dim, c.hidden, head, 2, c.activation, c.encoder)
        self.target_critics = target_copy(self.critics)
        self.actor_optimizer = self.optimizer(self.actor)
        self.critic_optimizer = self.optimizer(self.critics)
        self.mean_std = torch.zeros(2, device=self.device)
        self.actor_loss = torch.zeros((), device=self.device)
        self.log_alpha = nn.Parameter(torch.tensor(c.initial_temperature, device=self.device).log())
        self.alpha_optimizer = self.optimizer(self.log_alpha, learning_rate=c.temperature_learning_rate)
        automatic = c.target_entropy == "auto"
        self.target_entropy = ENTROPY_PER_DIMENSION * dim if automatic else float(c.target_entropy)
        self.entropy = torch.zeros((), device=self.device)
        self.regulations = 0

    def act(self, observation: Observation, generator: Generator | None) -> Tensor:
        """Return actions with the noise of the temperature, or what no noise at all turns into."""
        policy = self.actor(observation)
        return policy.mode() if generator is None else self.noisy(policy.sample(generator), generator)

    def noisy(self, action: Tensor, generator: Generator) -> Tensor:
        """Return actions `[rows, action_dim]` with the noise of the temperature, in [-1, 1]."""
        std = self.config.noise_scale * self.log_alpha.detach().exp()
        return (action + std * standard_normal_like(action, generator)).clamp(-1.0, 1.0)

    def make_updates(self) -> None:
        """Make the updates that are owed, and before them a step of the temperature if it is due."""
        # Not within an update, so that updates can be captured whole.
        if self.updates_owed > 0 and self.num_updates >= self.regulations * self.config.entropy_interval:
            states = self.replay.sample(self.config.entropy_states, self.replay_generator).observation
            self.regulate(self.normalised(states))
        super().make_updates()

    def regulate(self, observation: Observation) -> None:
        """Estimate the policy's entropy in some states, and step the temperature towards its target."""
        c = self.config
        with torch.no_grad():
            policy = self.actor(observation)
            action = self.noisy(policy.repeated(c.entropy_samples).sample(self.generator), self.generator)
            samples = action.view(-1, c.entropy_samples, self.action_dim)
            self.entropy.copy_(fit_mixtures(samples, c.components, self.generator).entropy_bound().mean())
        minimise(self.log_alpha * (self.entropy - self.target_entropy), self.alpha_optimizer)
        self.regulations += 1

    def critic_loss(self, estimate: GaussianEstimate, target: GaussianEstimate) -> Tensor:
        """Return the sum of both critics' losses; `[2, batch]` against `[batch]`."""
        mean, std = estimate.centre.detach(), estimate.std.detach()
        follow_spread(self.mean_std, std.mean(-1), self.config.tau)
        returns = target.sample(self.generator)
        deviation = bounded(returns, mean, WIDTH * self.mean_std.unsqueeze(-1)) - mean
        losses = distributional_loss(estimate, target.centre, deviation.square(), self.config.bias)
        return ((self.mean_std.square() + self.config.bias) * losses.mean(-1)).sum()

    def update(self, batch: Batch) -> Metrics:
        """Step the critics and, every `policy_delay` updates, the policy and the targets."""
        c = self.config
        with torch.no_grad():
            next_action = self.act(batch.next_observation, self.generator)
            following = self.target_critics(batch.next_observation, next_action).lowest()
            target = following.moved(c.reward_scale * batch.reward, c.gamma * ~batch.terminated)
        estimate = self.critics(batch.observation, batch.action)
        critic_loss = self.critic_loss(estimate, target)
        minimise(critic_loss, self.critic_optimizer)

        if (self.num_updates + 1) % c.policy_delay == 0:
            action = self.act(batch.observation, self.generator)
            with held_fixed(self.critics):
                actor_loss = -self.critics(batch.observation, action).mean().amin(0).mean()
            minimise(actor_loss, self.actor_optimizer)
            polyak_update(self.critics, self.target_critics, c.tau)
            self.actor_loss.copy_(actor_loss.detach())
        return {
            "train/critic_loss": critic_loss.detach(),
            "train/actor_loss": self.actor_loss.clone(),
            "train/temperature": self.log_alpha.detach().exp(),
            "train/entropy": self.entropy.clone(),
            "train/q_mean": estimate.centre.detach().mean(),
            "train/q_std": estimate.std.detach().mean(),
        }
