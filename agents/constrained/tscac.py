"""TSCAC: two-stage constrained actor-critic.

Cai et al., "Two-Stage Constrained Actor-Critic for Short Video Recommendation", arXiv 2302.01680. First a policy is
learnt for every auxiliary signal; then the main policy maximises its advantage while it stays near all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Generator, Tensor, nn

from palaestra.agents.losses.constrained import constrained_log_weight
from palaestra.agents.losses.values import td_target
from palaestra.agents.memory.replay import Batch
from palaestra.agents.nn.actor_critic import ActorCritic
from palaestra.agents.nn.critic import polyak_update, target_copy
from palaestra.agents.nn.distributions import Categorical
from palaestra.agents.nn.networks import Observation
from palaestra.agents.nn.spaces import to_tensor
from palaestra.agents.registry import register_agent
from palaestra.agents.training.collector import Step
from palaestra.agents.training.metrics import Metrics
from palaestra.agents.training.off_policy import OffPolicyAgent, OffPolicyConfig, minimise
from palaestra.protocols import simulator_of


@dataclass(frozen=True)
class TSCACConfig(OffPolicyConfig):
    """Defaults of the authors' code, where it has the same parts."""

    constraints: tuple[int, ...] = ()
    """Entries of `info["signals"]` that are auxiliary; without any it is advantage-weighted regression."""
    multipliers: tuple[float, ...] = (1.0,)
    """lambda of each auxiliary signal, above 0, or one for all; their sum is the temperature."""
    bonus: tuple[float, ...] = ()
    """Weights of all entries of `info["signals"]` in an addition to the reward; none leaves the reward as it is."""
    behaviour: Literal["uniform", "world"] = "uniform"
    """Who logs: uniformly random actions, or the world's reference policy "logging", whose probabilities are known."""
    first_stage: float = 0.5
    """Share of the training that the policies of the auxiliary signals are learnt in, in [0, 1)."""
    auxiliary_gamma: float = 0.99
    """Discount of the auxiliary signals, in [0, 1]."""
    importance_cap: float = 10.0
    """Largest ratio pi_i / beta that a sample of the first stage counts with, above 0."""
    weight_cap: float = 20.0
    """Largest weight of a sample of the second stage, above 0."""
    bc_coef: float = 1e-3
    """Weight of the logged actions' likelihood in the first stage, at least 0."""
    learning_rate: float = 1e-4
    """Step size of the policies' Adam, above 0."""
    critic_learning_rate: float = 1e-3
    """Step size of the critics' Adam, above 0."""
    weight_decay: float = 1e-2
    """Share of the critics' parameters added to their gradients, at least 0."""
    hidden: tuple[int, ...] = (32,)
    """Widths of the hidden layers of policies and critics."""
    batch_size: int = 512
    """Transitions per update."""
    tau: float = 1e-3
    """Rate at which target networks follow, in (0, 1]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        count = len(self.constraints)
        self.require("constraints", all(entry >= 0 for entry in self.constraints), "integers of at least 0")
        fits = len(self.multipliers) in (1, count) and all(factor > 0.0 for factor in self.multipliers)
        self.require("multipliers", fits, f"1 or {count} numbers above 0")
        self.require("first_stage", 0.0 <= self.first_stage < 1.0, "a number in [0, 1)")
        self.require("auxiliary_gamma", 0.0 <= self.auxiliary_gamma <= 1.0, "a number in [0, 1]")
        for name in ("importance_cap", "weight_cap", "critic_learning_rate"):
            self.require(name, getattr(self, name) > 0.0, "a number above 0")
        for name in ("bc_coef", "weight_decay"):
            self.require(name, getattr(self, name) >= 0.0, "a number of at least 0")
        self.require("frame_stack", self.frame_stack == 1 or self.behaviour == "uniform", "1 where the world logs")


@register_agent("tscac")
class TSCAC(OffPolicyAgent):
    """A main signal maximised near policies of the auxiliary ones, from a log that a fixed policy makes meanwhile.

    Nothing learnt has any influence on the log. The main signal is the reward; what the env reports as
    `info["signals"]` `[num_envs, signals]`, all with more for better, holds the auxiliary ones. Each signal i has a
    policy, and a critic V_i fitted to r_i + gamma_i V_i(s').

    1. In the first stage each auxiliary policy ascends min(pi_i / beta, cap) A_i log pi_i with A_i the critic's error.
       The paper's own expectation has no ratio; without one it is no policy gradient on logged actions.
    2. In the second they stand still, and the main policy ascends w log pi with the capped weight
       w = prod_i (pi_i / beta)^(lambda_i / Lambda) exp(A / Lambda).

    The variant of the published code, deterministic actors with Gaussians around them, is not offered. `bonus` without
    constraints is the weighted sum of signals, and a very large multiplier without constraints behaviour cloning.
    """

    config: TSCACConfig
    config_class = TSCACConfig
    action_spaces: ClassVar[tuple[type[gym.Space[Any]], ...]] = (spaces.Box, spaces.Discrete)
    capturable = False

    def build(self) -> None:
        """Create a policy and a critic for every signal, target critics, and the optimisers."""
        c = self.config
        pairs = [
            ActorCritic(self.observation_space, self.action_space, c.hidden, c.activation, encoder=c.encoder)
            for _ in range(1 + len(c.constraints))
        ]
        self.pairs, self.targets = nn.ModuleList(pairs), target_copy(nn.ModuleList(pairs))
        self.policy_optimizer = self.optimizer(*pairs[0].policy_parameters())
        auxiliary = [parameter for pair in pairs[1:] for parameter in pair.policy_parameters()]
        self.auxiliary_optimizer = self.optimizer(*auxiliary) if auxiliary else None
        values = [pair.value for pair in pairs]
        self.critic_optimizer = self.optimizer(
            *values, learning_rate=c.critic_learning_rate, weight_decay=c.weight_decay
        )
        shared = len(c.multipliers) < len(c.constraints)
        self.multipliers = torch.tensor(c.multipliers * len(c.constraints) if shared else c.multipliers)

    @property
    def network(self) -> ActorCritic:
        """The main policy and its critic."""
        main = self.pairs[0]
        assert isinstance(main, ActorCritic)
        return main

    def act(self, observation: Observation, generator: Generator | None) -> Tensor:
        """Return actions of the main policy: sampled with a generator, its mode without."""
        return self._predict(observation, None, None, None, generator)[0]

    def _predict(
        self,
        observation: Observation,
        state: Any,
        starts: np.ndarray | None,
        masks: np.ndarray | None,
        noise: Generator | None,
    ) -> tuple[Tensor, Any]:
        mask = None if masks is None else torch.as_tensor(masks, device=self.device)
        policy, _ = self.network.act(observation, mask, None, None)
        return policy.mode() if noise is None else policy.sample(noise), None

    @torch.no_grad()
    def decide(self) -> dict[str, Any]:
        """Return the logging policy's actions and their log-probabilities."""
        if self.normalizer is not None:
            self.normalizer.update(to_tensor(self.collector.observation, self.device))
        if self.config.behaviour == "uniform" and isinstance(self.action_space, spaces.Box):
            density = torch.full((self.num_envs,), 0.5, device=self.device).log() * self.action_dim
            return {"action": self.random_action(), "log_prob": density}
        masks = self.collector.action_masks
        mask = None if masks is None else torch.as_tensor(masks, device=self.device)
        policy = Categorical(self._logging_logits(), mask)
        action = policy.sample(self.generator)
        return {"action": action, "log_prob": policy.log_prob(action)}

    def interact(self) -> tuple[dict[str, Any], Step]:
        """Step every row, and keep the signals with the decision."""
        decision, step = super().interact()
        if not self.config.constraints and not self.config.bonus:
            return decision, step
        reported = step.reported("signals")
        wanted = max((*self.config.constraints, len(self.config.bonus) - 1)) + 1
        if reported is None or reported.shape[1] < wanted:
            found = "none" if reported is None else f"signals of shape {reported.shape}"
            raise ValueError(f"tscac: info['signals']: {found}; expected [num_envs, at least {wanted}]")
        return {**decision, "signals": torch.as_tensor(reported, dtype=torch.float32, device=self.device)}, step

    def update(self, batch: Batch) -> Metrics:
        """Fit all critics; then teach the auxiliary policies, or the main one, by the stage."""
        c = self.config
        advantages = self.fit_critics(batch)
        losses = {"train/auxiliary_loss": torch.zeros(()), "train/policy_loss": torch.zeros(())}
        weight = torch.ones_like(batch.reward)
        if self.auxiliary_optimizer is not None and self.remaining > 1.0 - c.first_stage:
            losses["train/auxiliary_loss"] = self.auxiliary_loss(batch, advantages[1:])
            minimise(losses["train/auxiliary_loss"], self.auxiliary_optimizer)
        else:
            losses["train/policy_loss"], weight = self.policy_loss(batch, advantages[0])
            minimise(losses["train/policy_loss"], self.policy_optimizer)
        return {
            **{name: loss.detach() for name, loss in losses.items()},
            "train/critic_loss": advantages.square().mean(),
            "train/weight": weight.mean(),
            "train/capped_weights": (weight >= c.weight_cap).float().mean(),
        }

    def fit_critics(self, batch: Batch) -> Tensor:
        """Take a step of all critics, and return their errors before it, the advantages `[signals, batch]`."""
        c = self.config
        signals, reward = batch.signals, batch.reward
        if signals is not None and c.bonus:
            reward = reward + signals[:, : len(c.bonus)] @ torch.tensor(c.bonus, device=self.device)
        rewards = [reward, *(signals[:, entry] for entry in c.constraints if signals is not None)]
        errors = []
        for index, (pair, target, received) in enumerate(zip(self.pairs, self.targets, rewards, strict=True)):
            gamma = c.auxiliary_gamma if index else c.gamma
            with torch.no_grad():
                aim = td_target(received, batch.terminated, _value(target, batch.next_observation), gamma)
            errors.append(aim - _value(pair, batch.observation))
        advantages = torch.stack(errors)
        minimise(advantages.square().mean(-1).sum(), self.critic_optimizer)
        polyak_update(self.pairs, self.targets, c.tau)
        return advantages.detach()

    def auxiliary_loss(self, batch: Batch, advantages: Tensor) -> Tensor:
        """Return the first stage's loss: -mean(min(pi_i / beta, cap) A_i log pi_i) - coefficient log pi_i, summed."""
        assert batch.log_prob is not None
        log_probs = self._log_probs(batch)
        ratio = (log_probs.detach() - batch.log_prob).exp().clamp(max=self.config.importance_cap)
        return -((ratio * advantages + self.config.bc_coef) * log_probs).mean(-1).sum()

    def policy_loss(self, batch: Batch, advantage: Tensor) -> tuple[Tensor, Tensor]:
        """Return the second stage's loss, -mean(w log pi), and w `[batch]`."""
        assert batch.log_prob is not None
        with torch.no_grad():
            references = self._log_probs(batch) if self.config.constraints else torch.empty(0, len(advantage))
            log_weight = constrained_log_weight(references, batch.log_prob, advantage, self.multipliers)
            weight = log_weight.exp().clamp(max=self.config.weight_cap)
        policy, _ = self.network.act(batch.observation, None, None, None)
        return -(weight * policy.log_prob(batch.action)).mean(), weight

    def _log_probs(self, batch: Batch) -> Tensor:
        """Return log pi_i(a|s) of the auxiliary policies `[constraints, batch]`."""
        auxiliary = [pair for pair in self.pairs[1:] if isinstance(pair, ActorCritic)]
        policies = [pair.act(batch.observation, None, None, None)[0] for pair in auxiliary]
        return torch.stack([policy.log_prob(batch.action) for policy in policies])

    def _logging_logits(self) -> Tensor:
        """Return the logging policy's logits `[num_envs, num_actions]`, where actions are discrete."""
        if self.config.behaviour == "uniform":
            assert isinstance(self.action_space, spaces.Discrete)
            return torch.zeros(self.num_envs, int(self.action_space.n), device=self.device)
        env: Any = self.collector.env
        simulator = simulator_of(env)
        logging: Any = None if simulator is None else simulator.reference_policies().get("logging")
        if not isinstance(self.action_space, spaces.Discrete) or not hasattr(logging, "log_probabilities"):
            raise ValueError(
                f"tscac: behaviour='world' on {self.env_id or env}; expected a world with Discrete actions whose "
                "reference policy 'logging' gives log_probabilities(state)"
            )
        found = logging.log_probabilities(env.unwrapped.state)
        return torch.as_tensor(found, dtype=torch.float32, device=self.device)


def _value(pair: nn.Module, observation: Observation) -> Tensor:
    assert isinstance(pair, ActorCritic)
    return pair.evaluate(observation, None, None)
