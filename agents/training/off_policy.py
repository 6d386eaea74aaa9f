"""The off-policy loop: act, store, and update from replay."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import gymnasium as gym
import torch
from gymnasium import spaces
from torch import Generator, Tensor

from palaestra.agents.agent import Agent
from palaestra.agents.memory.replay import Batch, ReplayBuffer
from palaestra.agents.nn.layout import collecting
from palaestra.agents.nn.networks import ACTIVATIONS, Observation
from palaestra.agents.nn.normalization import ObservationNormalizer
from palaestra.agents.nn.spaces import to_tensor
from palaestra.agents.training.acceleration import accelerate
from palaestra.agents.training.collector import Step
from palaestra.agents.training.config import AgentConfig
from palaestra.agents.training.metrics import Metrics
from palaestra.agents.training.optimizer import FlatAdam
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
    capturable: ClassVar[bool] = True
    """Whether `update` works on fixed tensors and never looks at them; see `palaestra.agents.training.acceleration`."""
    unsaved: ClassVar[frozenset[str]] = Agent.unsaved | {"updates"}

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
        self.updates = accelerate(self)

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
            self.replay.add(transitions(step, decision, self.device))
        self.after_step(before)
        if self.num_timesteps <= self.config.learning_starts:
            return
        c = self.config
        rounds = self.num_timesteps // c.train_freq - before // c.train_freq
        self.updates_owed += rounds * (c.train_freq if c.gradient_steps == -1 else c.gradient_steps)
        with self.profiler.phase("update"):
            self.make_updates()

    def after_step(self, before: int) -> None:
        """Do what goes by env steps rather than by updates: nothing, unless a subclass does.

        Args:
            before: Steps before this one; `num_timesteps` are those after it.
        """

    def make_updates(self) -> None:
        """Make the updates that are owed, each on a batch of its own."""
        self.updates.make()

    def make_update(self, number: int | Tensor) -> None:
        """Make the update with the given number on a new batch, without waiting for the device."""
        batch = self.replay.sample(self.config.batch_size, self.replay_generator)
        self.metrics.add(self.learn_from(batch), number)

    def learn_from(self, batch: Batch) -> Metrics:
        """Make an update on a batch as it was stored."""
        return self.update(batch if self.normalizer is None else _normalised_batch(batch, self.normalizer))

    @property
    def update_cycle(self) -> int:
        """Updates after which the branches of `update` repeat: the delay of the policy, where it is updated less."""
        return getattr(self.config, "policy_delay", 1)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Return the optimisers, whose learning rates a captured update holds fixed."""
        return [value for value in vars(self).values() if isinstance(value, torch.optim.Optimizer)]

    def generators(self) -> list[Generator]:
        """Return the generators on the agent's device."""
        found = (value for value in vars(self).values() if isinstance(value, Generator))
        return [generator for generator in found if generator.device.type == self.device.type]

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        super().load_state_dict(state)
        self.updates.forget()

    @torch.no_grad()
    def decide(self) -> dict[str, Any]:
        """Return uniformly random actions at first, and then those of `act` with noise."""
        observation = to_tensor(self.collector.observation, self.device)
        if self.normalizer is not None:
            self.normalizer.update(observation)
        if self.num_timesteps < self.config.learning_starts:
            return {"action": self.random_action()}
        return {"action": self.explore(self.normalised(observation))}

    def random_action(self) -> Tensor:
        """Return actions for all rows, uniform over the action space."""
        shape = (self.num_envs, self.action_dim)
        return 2.0 * torch.rand(shape, generator=self.generator, device=self.device) - 1.0

    def explore(self, observation: Observation) -> Tensor:
        """Return the actions to collect with for all rows."""
        return self.act(observation, self.generator)


def minimise(loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Take one optimiser step on a loss; gradients of nothing but the optimiser's own parameters are computed."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    optimizer.zero_grad()
    with collecting(optimizer.gradient) if isinstance(optimizer, FlatAdam) else nullcontext():
        loss.backward(inputs=parameters)
    optimizer.step()


def transitions(step: Step, decision: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Return what a step did as rows of a replay buffer, without rows that only reset.

    Args:
        step: What happened.
        decision: The agent's actions `[num_envs, ...]` under "action", and whatever else is stored with them.
        device: Where the tensors lie.
    """
    rows = {
        "observation": to_tensor(step.observation, device),
        **decision,
        "reward": torch.as_tensor(step.reward, dtype=torch.float32, device=device),
        "next_observation": to_tensor(step.next_observation, device),
        "terminated": torch.as_tensor(step.terminated, device=device),
        "truncated": torch.as_tensor(step.truncated, device=device),
    }
    if step.next_action_masks is not None:
        rows["next_mask"] = torch.as_tensor(step.next_action_masks, device=device)
    return rows if step.valid.all() else _select(rows, torch.as_tensor(step.valid, device=device))


def _select(rows: dict[str, Any], keep: Tensor) -> dict[str, Any]:
    return {
        name: {key: leaf[keep] for key, leaf in value.items()} if isinstance(value, dict) else value[keep]
        for name, value in rows.items()
    }


def _normalised_batch(batch: Batch, normalizer: ObservationNormalizer) -> Batch:
    observation, following = normalizer(batch.observation), normalizer(batch.next_observation)
    return replace(batch, observation=observation, next_observation=following)
