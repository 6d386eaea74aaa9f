"""Hybrid natural policy gradient.

Zhou, Sekhari, Song and Sun, "Offline data enhanced on-policy policy gradient with provable guarantees", arXiv
2311.08384. The critic is fitted to two sources at once: bootstrapped targets on offline data, which say much where the
data are good, and unbootstrapped returns of fresh trajectories, which hold whatever the data are like.

The step has the trust region of the published code. That code has a network for every step of the horizon and goes
through them once, backwards; here one network sees the observation, which tells the step, and as in the paper's text
policy evaluation is iterated and its last iterates are averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import gymnasium as gym
import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor

from palaestra.agents.losses.values import td_target
from palaestra.agents.memory.replay import Batch, ReplayBuffer
from palaestra.agents.nn.critic import CriticBank, target_copy
from palaestra.agents.nn.distributions import Categorical, Distribution
from palaestra.agents.nn.flat_parameters import twice_differentiable_
from palaestra.agents.nn.networks import Observation
from palaestra.agents.registry import register_agent
from palaestra.agents.training.behaviour_data import behaviour_data
from palaestra.agents.training.callbacks import CallbackList
from palaestra.agents.training.episodic import EpisodicAgent, EpisodicConfig, Trajectories
from palaestra.agents.training.natural_gradient import Source, natural_gradient_step
from palaestra.agents.training.off_policy import minimise
from palaestra.agents.training.trust_region import TrustRegion


@dataclass(frozen=True)
class HNPGConfig(EpisodicConfig):
    """Defaults of the authors' code, but for the numbers of iterations; without offline data it is on-policy."""

    n_steps: int = 1000
    """Steps of each env for an update; the episode at hand is played to its end."""
    learning_rate: float = 3e-4
    """First step size of the critic's Adam, above 0."""
    critic_hidden: tuple[int, ...] = (64, 64)
    """Widths of the critic's hidden layers."""
    evaluation_iterations: int = 5
    """Targets that the critic is fitted to, one after the other, in an update."""
    averaged_iterations: int = 2
    """How many of the last of them make up the critic, on average."""
    critic_steps: int = 30
    """Steps of Adam on each of them."""
    on_policy_weight: float = 1.0
    """Weight of the on-policy errors against the offline ones, at least 0."""
    offline_policy: str = "random"
    """Name of the policy that makes the offline data: a reference policy of the world, or random."""
    offline_steps: int = 0
    """Transitions of it, made before training; 0 for none."""
    action_samples: int = 10
    """Actions drawn to average the critic over the policy, where they are not Discrete."""
    target_kl: float = 0.01
    """Largest mean KL between the old and the new policy, in nats."""
    cg_iterations: int = 10
    """Conjugate-gradient iterations."""
    cg_damping: float = 0.1
    """Added to the Fisher matrix's diagonal, at least 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("critic_hidden", all(width >= 1 for width in self.critic_hidden), "positive widths")
        for name in ("evaluation_iterations", "critic_steps", "action_samples", "cg_iterations"):
            self.require(name, getattr(self, name) >= 1, "an integer of at least 1")
        self.require(
            "averaged_iterations",
            1 <= self.averaged_iterations <= self.evaluation_iterations,
            "an integer from 1 to evaluation_iterations",
        )
        self.require("offline_steps", self.offline_steps >= 0, "an integer of at least 0")
        for name in ("on_policy_weight", "cg_damping"):
            self.require(name, getattr(self, name) >= 0.0, "a number of at least 0")
        self.require("on_policy_weight", self.offline_steps > 0 or self.on_policy_weight > 0.0, "above 0 without data")
        self.require("target_kl", self.target_kl > 0.0, "a number above 0")


@register_agent("hnpg")
class HNPG(EpisodicAgent):
    """The natural policy gradient with a critic of two sources, for Box and Discrete actions.

    Data of one's own are given by `agent.offline.add(rows)` before training, up to `offline_steps` rows. Masks of
    actions are kept to on fresh trajectories alone: offline data are used without.
    """

    config: HNPGConfig
    config_class = HNPGConfig
    action_spaces: ClassVar[tuple[type[gym.Space[Any]], ...]] = (spaces.Box, spaces.Discrete)
    unsaved = EpisodicAgent.unsaved | {"region"}

    def build(self) -> None:
        """Create the policy, the critic with its optimiser, and room for the offline data."""
        super().build()
        c = self.config
        twice_differentiable_(self.network)
        self.critic = CriticBank(
            self.observation_space, self._action_features, c.critic_hidden, 1, c.activation, c.encoder
        )
        self.critic_optimizer = self.optimizer(self.critic)
        self.region = TrustRegion(c.target_kl, c.cg_iterations, c.cg_damping, 0.8, 10)
        self.offline = ReplayBuffer(max(1, c.offline_steps), self.device)

    def _learn(self, callback: CallbackList) -> None:
        if self.config.offline_steps and not len(self.offline):
            self.offline.add(self._offline_data())
        super()._learn(callback)

    def _offline_data(self) -> dict[str, Any]:
        c = self.config
        if self.env_id is None:
            raise ValueError(
                f"{self.agent_id}: offline_steps={c.offline_steps} on an env without an id; expected 0, or "
                "agent.offline filled by add()"
            )
        steps, device = c.offline_steps, self.device
        return behaviour_data(c.offline_policy, self.env_id, self.env_kwargs, steps, self.seed, self.action_map, device)

    def learn_from(self, batch: Trajectories) -> None:
        """Evaluate the policy on both sources, then take a natural-gradient step on the states of both."""
        critics, losses = self.evaluate_policy(batch)
        steps, weight = batch.steps, self.config.on_policy_weight
        sources = [self._source(critics, weight, steps["observation"], steps.get("mask"), steps["action"])]
        if len(self.offline):
            sample = self._offline_sample(len(batch.number))
            with torch.no_grad():
                actions = self._policy(sample.observation, None).sample(self.generator)
            sources.append(self._source(critics, 1.0, sample.observation, None, actions))
        step = natural_gradient_step(self.parameters, self._policy, sources, self.region)
        self.num_updates += 1
        metrics = {
            **losses,
            "train/policy_loss": -step.objective,
            "train/kl": step.divergence,
            "train/step_accepted": torch.tensor(float(step.accepted)),
        }
        self.metrics.add(metrics, self.num_updates)

    def evaluate_policy(self, batch: Trajectories) -> tuple[list[CriticBank], dict[str, Tensor]]:
        """Fit f_k = argmin E_off (f - r - gamma f_{k-1}(s', pi))^2 + lambda E_on (f - y)^2 for k = 1, ..., K2.

        Returns:
            The last iterates, whose mean is the critic, and both losses of the last step.
        """
        c, iterates = self.config, []
        for group in self.critic_optimizer.param_groups:
            group["lr"] = self.step_size
        on_policy = (batch.steps["observation"], self._features(batch.steps["action"]), batch.steps["target"])
        for iteration in range(c.evaluation_iterations):
            offline = self._offline_targets(len(batch.number)) if len(self.offline) else None
            for _ in range(c.critic_steps):
                losses = {"train/on_policy_loss": self._error(*on_policy)}
                if offline is not None:
                    losses["train/offline_loss"] = self._error(*offline)
                on, off = losses["train/on_policy_loss"], losses.get("train/offline_loss", 0.0)
                minimise(c.on_policy_weight * on + off, self.critic_optimizer)
            if iteration >= c.evaluation_iterations - c.averaged_iterations:
                iterates.append(target_copy(self.critic))
        return iterates, {name: loss.detach() for name, loss in losses.items()}

    @torch.no_grad()
    def mean_value(self, critics: Sequence[CriticBank], policy: Distribution, observation: Observation) -> Tensor:
        """Return E f(s, a) over a policy's actions `[batch]`: exact for Discrete ones, else by samples."""
        if isinstance(policy, Categorical):
            counted = torch.arange(policy.probs.shape[-1], device=self.device)
            values = [
                _mean_of(critics, observation, self._features(action.expand(len(policy.probs)))) for action in counted
            ]
            return (policy.probs * torch.stack(values, -1)).sum(-1)
        actions = [policy.sample(self.generator) for _ in range(self.config.action_samples)]
        return torch.stack([_mean_of(critics, observation, self._features(action)) for action in actions]).mean(0)

    @torch.no_grad()
    def _source(
        self,
        critics: Sequence[CriticBank],
        weight: float,
        observation: Observation,
        mask: Tensor | None,
        action: Tensor,
    ) -> Source:
        value = self.mean_value(critics, self._policy(observation, mask), observation)
        return Source(weight, observation, mask, action, _mean_of(critics, observation, self._features(action)) - value)

    @torch.no_grad()
    def _offline_targets(self, rows: int) -> tuple[Observation, Tensor, Tensor]:
        sample = self._offline_sample(rows)
        policy = self._policy(sample.next_observation, None)
        value = self.mean_value([self.critic], policy, sample.next_observation)
        target = td_target(sample.reward, sample.terminated, value, self.config.gamma)
        return sample.observation, self._features(sample.action), target

    def _offline_sample(self, rows: int) -> Batch:
        sample = self.offline.sample(rows, self.generator)
        observation, following = self.normalised(sample.observation), self.normalised(sample.next_observation)
        return replace(sample, observation=observation, next_observation=following)

    def _error(self, observation: Observation, features: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(self.critic(observation, features)[0], target)

    def _policy(self, observation: Observation, mask: Tensor | None) -> Distribution:
        return self.network.act(observation, mask, None, None)[0]

    @property
    def _action_features(self) -> int:
        return int(self.action_space.n) if isinstance(self.action_space, spaces.Discrete) else self.action_map.dim

    def _features(self, action: Tensor) -> Tensor:
        """Return what the critic sees of actions: one-hot, or as the env executes them."""
        if isinstance(self.action_space, spaces.Discrete):
            return F.one_hot(action.long(), self._action_features).float()
        return action.clamp(-1.0, 1.0) if self.action_map.bounded else action


def _mean_of(critics: Sequence[CriticBank], observation: Observation, features: Tensor) -> Tensor:
    return torch.stack([critic(observation, features)[0] for critic in critics]).mean(0)
