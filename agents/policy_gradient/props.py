"""PROPS: proximal robust on-policy sampling.

Corrado and Hanna, "On-policy policy gradient reinforcement learning without on-policy sampling", arXiv 2311.08290. A
batch sampled from the policy only has the policy's shares of actions on average. PROPS collects with a behaviour policy
that prefers what the batch has too little of, so that the batch as a whole looks more like the policy, and batches of
earlier policies may be kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from palaestra.agents.losses.divergences import kl_divergence
from palaestra.agents.losses.surrogates import clipped_surrogate
from palaestra.agents.memory.recent import RecentRollouts
from palaestra.agents.memory.rollout import RolloutBuffer
from palaestra.agents.nn.actor_critic import ActorCritic
from palaestra.agents.nn.spaces import to_tensor
from palaestra.agents.policy_gradient.proximal import ProximalAgent, ProximalConfig
from palaestra.agents.registry import register_agent


@dataclass(frozen=True)
class PROPSConfig(ProximalConfig):
    """Defaults of the authors' code for discrete actions; for continuous ones, theirs stand in brackets.

    How many batches they keep could not be confirmed.
    """

    learning_rate: float = 1e-3
    """Step size of the target policy's Adam, above 0."""
    n_epochs: int = 16
    """Passes of the target policy over the batches [10]."""
    n_batches: int = 2
    """Rollouts that an update learns from: the newest and those before it."""
    behaviour_interval: int = 16
    """Steps of each env between two updates of the behaviour policy [8]."""
    behaviour_epochs: int = 16
    """Passes of the behaviour policy over the batches; 0 is on-policy sampling."""
    behaviour_minibatches: int = 4
    """Minibatches of such a pass [16]."""
    behaviour_learning_rate: float = 1e-3
    """Step size of the behaviour policy's Adam, above 0."""
    behaviour_clip_range: float = 0.3
    """Half-width of the interval of the ratio within which the behaviour policy is pushed, in (0, 1)."""
    behaviour_target_kl: float = 0.01
    """Stop pushing once the mean KL between the policies exceeds this [0.1]."""
    behaviour_kl_coef: float = 0.0
    """Weight of the KL in the behaviour policy's loss, at least 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("n_batches", "behaviour_interval", "behaviour_minibatches"):
            self.require(name, getattr(self, name) >= 1, "an integer of at least 1")
        self.require("behaviour_epochs", self.behaviour_epochs >= 0, "an integer of at least 0")
        for name in ("behaviour_learning_rate", "behaviour_target_kl"):
            self.require(name, getattr(self, name) > 0.0, "a number above 0")
        self.require("behaviour_clip_range", 0.0 < self.behaviour_clip_range < 1.0, "a number in (0, 1)")
        self.require("behaviour_kl_coef", self.behaviour_kl_coef >= 0.0, "a number of at least 0")
        self.require("recurrent_size", self.recurrent_size == 0, "0: this agent takes no recurrent policy")


@register_agent("props")
class PROPS(ProximalAgent):
    """PPO on batches that a behaviour policy keeps close to what the policy would have sampled on average."""

    config: PROPSConfig
    config_class = PROPSConfig

    def build(self) -> None:
        """Create the target policy theta as PPO's, and the behaviour policy phi."""
        super().build()
        c = self.config
        self.sampler = ActorCritic(
            self.observation_space, self.action_space, c.hidden, c.activation, c.log_std_init, encoder=c.encoder
        )
        self.sampler.load_state_dict(self.network.state_dict())
        self.recent = RecentRollouts(c.n_batches - 1, self.device)
        self.behaviour_steps = 0

    @property
    def behaviour(self) -> ActorCritic:
        """The network whose policy collects."""
        return self.sampler

    def training_step(self) -> None:
        """Take one step of every row; update the behaviour policy, and when the rollout is full the target policy."""
        super().training_step()
        if self.rollout.position % self.config.behaviour_interval == 0:
            with self.profiler.phase("update"):
                self.correct_behaviour()

    def improve(self, rollout: RolloutBuffer) -> None:
        """Update the target policy by PPO on the batches kept, all of them judged by the policy of now."""
        for earlier, following in self.recent.kept:
            self._estimate(earlier, following)
        super().improve(self.recent.together_with(rollout))
        self.recent.push(rollout, self.normalised(to_tensor(self.collector.observation, self.device)))

    def correct_behaviour(self) -> None:
        """Start from phi = theta and lower the probability of what the batches hold."""
        c = self.config
        self.sampler.load_state_dict(self.network.state_dict())
        batches = self.recent.together_with(self.rollout)
        if c.behaviour_epochs == 0 or not batches.position:
            return
        size = max(1, batches.fields["valid"].numel() // c.behaviour_minibatches)
        # Moments of an earlier phi would push in its directions.
        optimizer = self.optimizer(*self.sampler.policy_parameters(), learning_rate=c.behaviour_learning_rate)
        for _ in range(c.behaviour_epochs):
            for batch in batches.minibatches(size, self.generator):
                loss, kl = self.behaviour_loss(batch)
                if float(kl) > c.behaviour_target_kl:
                    return
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                self.behaviour_steps += 1

    def behaviour_loss(self, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean max(r, clip(r)) + coefficient KL(theta || phi) with r = phi(a|s) / theta(a|s), and the KL."""
        c = self.config
        with torch.no_grad():
            target, _ = self.network.act(batch["observation"], batch.get("mask"), None, None)
        policy, _ = self.sampler.act(batch["observation"], batch.get("mask"), None, None)
        log_ratio = policy.log_prob(batch["action"]) - target.log_prob(batch["action"])
        kl = kl_divergence(target, policy).mean()
        push = clipped_surrogate(log_ratio, -torch.ones_like(log_ratio), c.behaviour_clip_range)
        return push + c.behaviour_kl_coef * kl, kl.detach()
