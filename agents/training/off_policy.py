"""The off-policy loop: act, store, and update from replay."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym
import torch
from gymnasium import spaces
from torch import Tensor

from palaestra.agents.agent import Agent
from palaestra.agents.memory.replay import Batch, ReplayBuffer
from palaestra.agents.nn.networks import ACTIVATIONS
from palaestra.agents.nn.spaces import to_tensor
from palaestra.agents.training.config import AgentConfig
from palaestra.agents.training.metrics import Metrics
from palaestra.agents.training.seeding import make_generator


@dataclass(frozen=True)
class OffPolicyConfig(AgentConfig):
    """What every agent with a replay buffer has."""

    hidden: tuple[int, ...] = (256, 256)
    """Widths of the hidden layers of actor and critics."""
    activation: str = "relu"
    """Activation of the hidden layers: relu, tanh, elu, gelu or silu."""
    buffer_size: int = 1_000_000
    """Transitions kept for replay."""
    batch_size: int = 256
    """Transitions per update."""
    learning_starts: int = 100
    """Env steps of uniformly random actions before the first update."""
    train_freq: int = 1
    """Env steps (of all rows together) between rounds of updates."""
    gradient_steps: int = 1
    """Updates per round; -1 makes as many as env steps were taken."""
    tau: float = 0.005
    """Rate at which target networks follow, in (0, 1]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("hidden", all(width >= 1 for width in self.hidden), "positive widths")
        self.require("activation", self.activation in ACTIVATIONS, f"one of {', '.join(sorted(ACTIVATIONS))}")
        for name in ("buffer_size", "batch_size", "train_freq"):
            self.require(name, getattr(self, name) >= 1, "an integer of at least 1")
        self.require("learning_starts", self.learning_starts >= 0, "an integer of at least 0")
        self.require("gradient_steps", self.gradient_steps >= 1 or self.gradient_steps == -1, "at least 1, or -1")
        self.require("tau", 0.0 < self.tau <= 1.0, "a number in (0, 1]")


class OffPolicyAgent(Agent):
    """An agent that learns from replayed transitions; subclasses define `build`, `act` and `update`."""

    config: OffPolicyConfig
    config_class = OffPolicyConfig
    action_spaces: ClassVar[tuple[type[gym.Space[Any]], ...]] = (spaces.Box,)

    def _check_spaces(self) -> None:
        super()._check_spaces()
        box = self.action_space
        if isinstance(box, spaces.Box) and not box.is_bounded():
            raise TypeError(f"{self.agent_id}: action space {box} is unbounded; expected a Box with finite bounds")

    def _build(self, num_envs: int) -> None:
        self.replay = ReplayBuffer(self.config.buffer_size, self.device)
        self.replay_generator = make_generator(self.seed, "replay", self.device)
        self.updates_owed = 0
        super()._build(num_envs)

    @property
    def action_dim(self) -> int:
        """Dimensions of the flattened action."""
        return self.action_map.dim

    @abstractmethod
    def update(self, batch: Batch) -> Metrics:
        """Make one gradient step of everything that learns, in the paper's order."""

    def training_step(self) -> None:
        """Take one step of every row, store it, and make the updates that are due."""
        before = self.num_timesteps
        decision, step = self.interact()
        with self.profiler.phase("memory"):
            rows = {
                "observation": to_tensor(step.observation, self.device),
                "action": decision["action"],
                "reward": torch.as_tensor(step.reward, dtype=torch.float32, device=self.device),
                "next_observation": to_tensor(step.next_observation, self.device),
                "terminated": torch.as_tensor(step.terminated, device=self.device),
                "truncated": torch.as_tensor(step.truncated, device=self.device),
            }
            if not step.valid.all():
                rows = _select(rows, torch.as_tensor(step.valid, device=self.device))
            self.replay.add(rows)
        if self.num_timesteps <= self.config.learning_starts:
            return
        c = self.config
        rounds = self.num_timesteps // c.train_freq - before // c.train_freq
        self.updates_owed += rounds * (c.train_freq if c.gradient_steps == -1 else c.gradient_steps)
        with self.profiler.phase("update"):
            self.make_updates()

    def make_updates(self) -> None:
        """Make the updates that are owed, each on a batch of its own."""
        while self.updates_owed > 0:
            batch = self.replay.sample(self.config.batch_size, self.replay_generator)
            if self.normalizer is not None:
                batch = _normalised_batch(batch, self.normalizer)
            metrics = self.update(batch)
            self.updates_owed -= 1
            self.num_updates += 1
            self.metrics.add(metrics, self.num_updates)

    @torch.no_grad()
    def decide(self) -> dict[str, Any]:
        """Return uniformly random actions at first, and then those of `act` with noise."""
        observation = to_tensor(self.collector.observation, self.device)
        if self.normalizer is not None:
            self.normalizer.update(observation)
        if self.num_timesteps < self.config.learning_starts:
            shape = (self.num_envs, self.action_dim)
            uniform = torch.rand(shape, generator=self.generator, device=self.device)
            return {"action": 2.0 * uniform - 1.0}
        return {"action": self.act(self.normalised(observation), self.generator)}


def minimise(loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Take one optimiser step on a loss; gradients of nothing but the optimiser's own parameters are computed."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    optimizer.zero_grad()
    loss.backward(inputs=parameters)
    optimizer.step()


def _select(rows: dict[str, Any], keep: Tensor) -> dict[str, Any]:
    return {
        name: {key: leaf[keep] for key, leaf in value.items()} if isinstance(value, dict) else value[keep]
        for name, value in rows.items()
    }


def _normalised_batch(batch: Batch, normalizer: Any) -> Batch:
    return Batch(
        normalizer(batch.observation),
        batch.action,
        batch.reward,
        normalizer(batch.next_observation),
        batch.terminated,
        batch.truncated,
    )
