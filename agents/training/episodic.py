"""The loop of policy gradients by trajectories: play whole episodes, then take one step."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from palaestra.agents.losses.trajectories import discounts_in_episode, trajectory_numbers, trajectory_surrogate
from palaestra.agents.memory.episodes import EpisodeBuffer
from palaestra.agents.memory.fields import nest_fields
from palaestra.agents.memory.rollout import RolloutBuffer
from palaestra.agents.nn.actor_critic import ActorCritic
from palaestra.agents.training.callbacks import CallbackList
from palaestra.agents.training.on_policy import OnPolicyAgent, OnPolicyConfig


@dataclass(frozen=True)
class EpisodicConfig(OnPolicyConfig):
    """What every agent has that learns from whole trajectories."""

    n_steps: int = 1
    """Steps after which a row starts no further episode for a batch; 1 is one trajectory of each env."""
    gae_lambda: float = 1.0
    """Trace decay of the reward-to-go, in [0, 1]; less than 1 only makes sense with a baseline."""
    learning_rate: float = 0.01
    """First step size, above 0: of the gradient, or the step's very length where directions are normalised."""
    step_decay: float = 0.0
    """Exponent p of the size of step t, learning_rate (2 / (t + 2))^p, at least 0."""
    baseline: Literal["none", "value"] = "none"
    """Subtract nothing from the reward-to-go, or a learnt value, which also continues truncated episodes."""
    value_learning_rate: float = 1e-3
    """Step size of the baseline's Adam, above 0."""
    n_critic_updates: int = 10
    """Steps of the baseline on each batch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("step_decay", self.step_decay >= 0.0, "a number of at least 0")
        self.require("value_learning_rate", self.value_learning_rate > 0.0, "a number above 0")
        self.require("n_critic_updates", self.n_critic_updates >= 1, "an integer of at least 1")
        self.require("recurrent_size", self.recurrent_size == 0, "0: this agent takes no recurrent policy")


@dataclass(frozen=True)
class Trajectories:
    """Whole trajectories, their steps one behind the other.

    Attributes:
        steps: Observations, actions, masks and rewards, fields `[steps, ...]`.
        weight: gamma^h (reward-to-go - baseline) of each step `[steps]`.
        discount: gamma^h of each step `[steps]`.
        number: Which trajectory a step belongs to, int64 `[steps]`.
        count: Number of trajectories.
    """

    steps: dict[str, Any]
    weight: Tensor
    discount: Tensor
    number: Tensor
    count: int

    def first_steps(self) -> Tensor:
        """Return where each trajectory's first step stands, int64 `[count]`."""
        places = torch.arange(len(self.number), device=self.number.device)
        unset = torch.full((self.count,), len(self.number), device=self.number.device)
        return unset.scatter_reduce(0, self.number, places, "amin")


class EpisodicAgent(OnPolicyAgent):
    """An agent that learns from batches of whole trajectories; subclasses define `learn_from`.

    Rows whose episodes end before those of others play on, and what they play is not used: with one env, or with
    episodes of equal length, nothing is lost. Without a baseline a truncated episode is worth what it collected, as in
    the papers, which cut trajectories at a horizon; with one it is continued by the value of its final observation.
    """

    config: EpisodicConfig
    config_class = EpisodicConfig
    network: ActorCritic
    rollout: EpisodeBuffer
    unsaved = OnPolicyAgent.unsaved | {"parameters"}

    def _build(self, num_envs: int) -> None:
        super()._build(num_envs)
        self.rollout = EpisodeBuffer(self.config.n_steps, num_envs, self.device)

    def build(self) -> None:
        """Create the policy, and the baseline with its optimiser."""
        self.network = self.make_network()
        self.parameters = self.network.policy_parameters()
        if self.config.baseline == "none":
            last = self.network.value[-1]
            assert isinstance(last, nn.Linear)
            nn.init.zeros_(last.weight)  # Never trained, so that the values stay 0.
        self.value_optimizer = self.optimizer(self.network.value, learning_rate=self.config.value_learning_rate)

    def make_network(self) -> ActorCritic:
        """Return a new policy and value network."""
        c = self.config
        return ActorCritic(
            self.observation_space, self.action_space, c.hidden, c.activation, c.log_std_init, encoder=c.encoder
        )

    @abstractmethod
    def learn_from(self, batch: Trajectories) -> None:
        """Take a step on a batch of trajectories that `behaviour` played."""

    def _learn(self, callback: CallbackList) -> None:
        if not self.collector.started:
            self.rollout.restart()
        super()._learn(callback)

    def _complete(self, rollout: RolloutBuffer) -> None:
        self.rollout.trim()
        super()._complete(rollout)

    def improve(self, rollout: RolloutBuffer) -> None:
        """Learn from the trajectories, then fit the baseline to their returns."""
        fields = rollout.fields
        valid, ended = fields["valid"], fields["terminated"] | fields["truncated"]
        steps = {name: field[valid] for name, field in fields.items()}
        discount = discounts_in_episode(ended, valid, self.config.gamma)[valid]
        number = trajectory_numbers(ended, valid)
        weight = steps["advantage"] * discount
        self.learn_from(Trajectories(nest_fields(steps), weight, discount, number, int(number.max()) + 1))
        if self.config.baseline == "value":
            self._fit_baseline(nest_fields(steps))

    def log_probs(self, network: ActorCritic, batch: Trajectories) -> Tensor:
        """Return log-probabilities of all actions `[steps]` under a network."""
        policy, _ = network.act(batch.steps["observation"], batch.steps.get("mask"), None, None)
        return policy.log_prob(batch.steps["action"])

    def surrogate(self, network: ActorCritic, batch: Trajectories) -> Tensor:
        """Return the scalar whose gradient is the estimate of the gradient of the return."""
        return trajectory_surrogate(self.log_probs(network, batch), batch.weight, batch.count)

    @property
    def step_size(self) -> float:
        """Size of the next step."""
        c = self.config
        annealed = self.remaining if c.learning_rate_schedule == "linear" else 1.0
        return annealed * c.learning_rate * (2.0 / (self.num_updates + 2.0)) ** c.step_decay

    def _fit_baseline(self, steps: dict[str, Any]) -> None:
        with torch.no_grad():
            features = self.network.encoder(steps["observation"])
        for _ in range(self.config.n_critic_updates):
            value = self.network.value(features).squeeze(-1)
            self.value_optimizer.zero_grad()
            torch.nn.functional.mse_loss(value, steps["target"]).backward()
            self.value_optimizer.step()
