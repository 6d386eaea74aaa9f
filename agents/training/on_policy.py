"""The on-policy loop: fill a rollout with the current policy, then learn from it and throw it away."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Generator, Tensor

from palaestra.agents.agent import Agent
from palaestra.agents.losses.ratios import DensityRatio, RatioProvider
from palaestra.agents.memory.rollout import RolloutBuffer
from palaestra.agents.nn.actor_critic import PolicyAndValue
from palaestra.agents.nn.distributions import Categorical
from palaestra.agents.nn.networks import ACTIVATIONS, Observation
from palaestra.agents.nn.normalization import RewardNormalizer
from palaestra.agents.nn.spaces import take_rows, to_tensor
from palaestra.agents.training.collector import Step
from palaestra.agents.training.config import AgentConfig


@dataclass(frozen=True)
class OnPolicyConfig(AgentConfig):
    """What every agent with a rollout buffer has."""

    n_steps: int = 2048
    """Steps of each env per rollout."""
    gae_lambda: float = 0.95
    """Trace decay of the advantage estimator, in [0, 1]."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers of policy and value."""
    activation: str = "tanh"
    """Activation of the hidden layers: relu, tanh, elu, gelu or silu."""
    log_std_init: float = 0.0
    """Initial log standard deviation of Box actions, in the [-1, 1] scale."""
    recurrent_size: int = 0
    """Width of an LSTM between encoder and trunks; 0 for none."""
    normalize_reward: bool = False
    """Divide rewards by the running deviation of the discounted return."""
    learning_rate_schedule: Literal["constant", "linear"] = "constant"
    """Keep the learning rate, or anneal it linearly to 0 over the training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("n_steps", self.n_steps >= 1, "an integer of at least 1")
        self.require("gae_lambda", 0.0 <= self.gae_lambda <= 1.0, "a number in [0, 1]")
        self.require("hidden", all(width >= 1 for width in self.hidden), "positive widths")
        self.require("activation", self.activation in ACTIVATIONS, f"one of {', '.join(sorted(ACTIVATIONS))}")
        self.require("recurrent_size", self.recurrent_size >= 0, "an integer of at least 0")


class OnPolicyAgent(Agent):
    """An agent that learns from fresh rollouts; subclasses define `build` (with `self.network`) and `improve`."""

    config: OnPolicyConfig
    config_class = OnPolicyConfig
    action_spaces: ClassVar[tuple[type[gym.Space[Any]], ...]] = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete)
    ratio: RatioProvider = DensityRatio()
    """How actions are drawn while collecting, and what is kept of that for the ratio of new to old policy."""
    network: PolicyAndValue

    def _build(self, num_envs: int) -> None:
        c = self.config
        self.rollout = RolloutBuffer(c.n_steps, self.device)
        normalizes = c.normalize_reward
        self.reward_normalizer = RewardNormalizer(num_envs, c.gamma).to(self.device) if normalizes else None
        super()._build(num_envs)
        self.recurrent_state = self.network.initial_state(num_envs, self.device)

    @property
    def behaviour(self) -> PolicyAndValue:
        """The network whose policy collects: the learnt one, unless a subclass plays another."""
        return self.network

    @abstractmethod
    def improve(self, rollout: RolloutBuffer) -> None:
        """Learn from a full rollout whose advantages and targets stand."""

    def act(self, observation: Observation, generator: Generator | None) -> Tensor:
        """Return a sample of the policy, or its mode; recurrent policies start from the zero state."""
        return self._predict(observation, None, None, None, generator)[0]

    def training_step(self) -> None:
        """Take one step of every row; when the rollout is full, learn from it."""
        decision, step = self.interact()
        with self.profiler.phase("memory"):
            self._store(decision, step)
        if self.rollout.full:
            with self.profiler.phase("update"):
                self._complete(self.rollout)
                self.improve(self.rollout)
                self.rollout.clear()

    @torch.no_grad()
    def decide(self) -> dict[str, Any]:
        """Return sampled actions with the extras of their ratio, what they were chosen from, and recurrent states."""
        observation = to_tensor(self.collector.observation, self.device)
        if self.normalizer is not None:
            self.normalizer.update(observation)
            observation = self.normalizer(observation)
        start = torch.as_tensor(self.collector.episode_start, device=self.device)
        mask = self._mask(self.collector.action_masks)
        policy, next_state = self.behaviour.act(observation, mask, self.recurrent_state, start)
        decision: dict[str, Any] = {"observation": observation, **self.ratio.draw(policy, self.generator)}
        if mask is not None:
            decision["mask"] = mask
        if next_state is not None:
            decision |= {"state": self.recurrent_state, "next_state": next_state, "start": start}
        return decision

    @torch.no_grad()
    def _store(self, decision: dict[str, Any], step: Step) -> None:
        decision = dict(decision)
        next_state = decision.pop("next_state", None)
        terminated, truncated, valid = (
            torch.as_tensor(flags, device=self.device) for flags in (step.terminated, step.truncated, step.valid)
        )
        reward = torch.as_tensor(step.reward, dtype=torch.float32, device=self.device)
        self.rollout.add(**decision, reward=reward, terminated=terminated, truncated=truncated, valid=valid)
        if step.truncated.any():
            (rows,) = np.nonzero(step.truncated)
            final = self.normalised(to_tensor(take_rows(step.next_observation, rows), self.device))
            index = torch.as_tensor(rows, device=self.device)
            self.rollout.add_final(index, final, None if next_state is None else next_state[index])
        self.recurrent_state = next_state

    @torch.no_grad()
    def _complete(self, rollout: RolloutBuffer) -> None:
        """Scale the rewards of a full rollout, where asked to, and add its estimates."""
        fields = rollout.fields
        if self.reward_normalizer is not None:
            self.reward_normalizer.update(fields["reward"], fields["terminated"] | fields["truncated"])
            fields["reward"] = self.reward_normalizer(fields["reward"])
        self._estimate(rollout, self.normalised(to_tensor(self.collector.observation, self.device)))

    @torch.no_grad()
    def _estimate(self, rollout: RolloutBuffer, now: Observation) -> None:
        """Add the values, the ratio's statistics and the advantages of a rollout under the network, before `now`."""
        steps = rollout.tree()
        shape = rollout.fields["reward"].shape
        state = steps["state"][0] if "state" in steps else None
        start = torch.as_tensor(self.collector.episode_start, device=self.device)
        policy, value = self.network.unroll(steps["observation"], steps.get("mask"), state, steps.get("start"))
        statistics = self.ratio.old_stats(policy, rollout.flat_tree())
        rollout.add_computed({name: field.unflatten(0, shape) for name, field in statistics.items()})
        rollout.compute_advantages(
            value.view(shape),
            self.network.evaluate(now, self.recurrent_state, start),
            [self.network.evaluate(final["observation"], final["state"], None) for final in rollout.finals],
            self.config.gamma,
            self.config.gae_lambda,
        )

    def _mask(self, masks: np.ndarray | None) -> Tensor | None:
        return None if masks is None else torch.as_tensor(masks, device=self.device)

    def _predict(
        self,
        observation: Observation,
        state: Any,
        starts: np.ndarray | None,
        masks: np.ndarray | None,
        noise: Generator | None,
    ) -> tuple[Tensor, Any]:
        batch = len(next(iter(observation.values())) if isinstance(observation, dict) else observation)
        before = self.network.initial_state(batch, self.device)
        if before is not None and state is not None:
            before = torch.as_tensor(state, device=self.device)
        start = None if starts is None else torch.as_tensor(starts, device=self.device)
        policy, after = self.network.act(observation, self._mask(masks), before, start)
        action = policy.mode() if noise is None else policy.sample(noise)
        return action, None if after is None else after.cpu().numpy()

    @torch.no_grad()
    def action_probabilities(self, observation: Any, action_masks: np.ndarray | None = None) -> np.ndarray:
        """Return the policy's probabilities `[batch, num_actions]` for a batch of observations.

        Raises:
            TypeError: If the actions are not Discrete.
        """
        batch, _ = self._as_batch(observation)
        observations = self.normalised(to_tensor(batch, self.device))
        policy, _ = self.network.act(observations, self._mask(action_masks), None, None)
        if not isinstance(policy, Categorical):
            raise TypeError(f"action_probabilities: action space {self.action_space}; expected Discrete")
        return policy.probs.double().cpu().numpy()
