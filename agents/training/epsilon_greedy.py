"""What agents have in common that choose among discrete actions by their values."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Generator, Tensor, nn

from palaestra.agents.nn.action_values import admissible
from palaestra.agents.nn.critic import polyak_update
from palaestra.agents.nn.networks import Observation
from palaestra.agents.training.off_policy import OffPolicyAgent, OffPolicyConfig


@dataclass(frozen=True)
class EpsilonGreedyConfig(OffPolicyConfig):
    """Settings of the Nature paper, but for what depends on its 50 million frames and its RMSProp."""

    learning_rate: float = 1e-4
    """Step size of Adam, above 0."""
    batch_size: int = 32
    """Transitions per update."""
    train_freq: int = 4
    """Env steps (of all rows together) between rounds of updates."""
    tau: float = 1.0
    """Share of the way that the target network goes to the online one each time, in (0, 1]; 1 copies it."""
    target_update_interval: int = 10_000
    """Env steps (of all rows together) between those times."""
    exploration_fraction: float = 0.1
    """Share of the training over which epsilon falls linearly, in (0, 1]."""
    exploration_initial_eps: float = 1.0
    """Probability of a random action at the start, in [0, 1]."""
    exploration_final_eps: float = 0.05
    """Probability of a random action from then on, in [0, 1]."""
    max_grad_norm: float | None = 10.0
    """Largest norm of a gradient; none for no limit."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("target_update_interval", self.target_update_interval >= 1, "an integer of at least 1")
        self.require("exploration_fraction", 0.0 < self.exploration_fraction <= 1.0, "a number in (0, 1]")
        for name in ("exploration_initial_eps", "exploration_final_eps"):
            self.require(name, 0.0 <= getattr(self, name) <= 1.0, "a number in [0, 1]")
        self.require(
            "max_grad_norm", self.max_grad_norm is None or self.max_grad_norm > 0.0, "a number above 0, or none"
        )


class EpsilonGreedyAgent(OffPolicyAgent):
    """Takes the admissible action of the highest value, or, with probability epsilon, any admissible one.

    Subclasses define `build` (with `network` and `target_network`), `values` and `update`.
    """

    config: EpsilonGreedyConfig
    config_class = EpsilonGreedyConfig
    action_spaces: ClassVar[tuple[type[gym.Space[Any]], ...]] = (spaces.Discrete,)
    stochastic_modes: ClassVar[bool] = False
    network: nn.Module
    target_network: nn.Module

    @abstractmethod
    def values(self, observation: Observation) -> Tensor:
        """Return the expected return of every action `[batch, num_actions]`."""

    @property
    def num_actions(self) -> int:
        """Number of actions."""
        assert isinstance(self.action_space, spaces.Discrete)
        return int(self.action_space.n)

    @property
    def epsilon(self) -> float:
        """Probability of a random action now: linear in the steps taken, then constant."""
        c = self.config
        ahead = max(0.0, 1.0 - (1.0 - self.remaining) / c.exploration_fraction)
        return c.exploration_final_eps + ahead * (c.exploration_initial_eps - c.exploration_final_eps)

    def act(self, observation: Observation, generator: Generator | None, mask: Tensor | None = None) -> Tensor:
        """Return greedy actions `[batch]`, with a generator random ones in a share epsilon of the rows.

        Args:
            observation: `[batch, ...]`.
            generator: Source of the exploration; None for none.
            mask: Admissible actions `[batch, num_actions]`; None for all.
        """
        greedy = admissible(self.values(observation), mask).argmax(-1)
        if generator is None:
            return greedy
        explores = torch.rand(len(greedy), generator=generator, device=greedy.device) < self.epsilon
        return torch.where(explores, self._uniform(len(greedy), generator, mask), greedy)

    def explore(self, observation: Observation) -> Tensor:
        """Return the actions to collect with for all rows."""
        return self.act(observation, self.generator, self._mask(self.collector.action_masks))

    def random_action(self) -> Tensor:
        """Return actions for all rows, uniform over the admissible ones."""
        return self._uniform(self.num_envs, self.generator, self._mask(self.collector.action_masks))

    def after_step(self, before: int) -> None:
        """Renew the target network whenever its interval is over."""
        c = self.config
        if self.num_timesteps // c.target_update_interval > before // c.target_update_interval:
            polyak_update(self.network, self.target_network, c.tau)

    def _predict(
        self,
        observation: Observation,
        state: Any,
        starts: np.ndarray | None,
        masks: np.ndarray | None,
        noise: Generator | None,
    ) -> tuple[Tensor, Any]:
        return self.act(observation, None, self._mask(masks)), None

    def _uniform(self, rows: int, generator: Generator, mask: Tensor | None) -> Tensor:
        draws = torch.rand(rows, self.num_actions, generator=generator, device=self.device)
        return admissible(draws, mask).argmax(-1)

    def _mask(self, masks: np.ndarray | None) -> Tensor | None:
        return None if masks is None else torch.as_tensor(masks, device=self.device)
