"""FastTD3: TD3 for many parallel envs (Seo et al. 2025, arXiv 2505.22642)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn

from palaestra.agents.memory.replay import Batch
from palaestra.agents.nn.actors import DeterministicActor
from palaestra.agents.nn.critic import held_fixed, polyak_update, target_copy
from palaestra.agents.nn.critic_heads import CategoricalHead, HeadedCritics
from palaestra.agents.nn.distributions import standard_normal_like
from palaestra.agents.nn.networks import Observation
from palaestra.agents.registry import register_agent
from palaestra.agents.training.deterministic import SmoothedConfig
from palaestra.agents.training.metrics import Metrics
from palaestra.agents.training.network_config import LargeCriticConfig
from palaestra.agents.training.off_policy import OffPolicyAgent, minimise


@dataclass(frozen=True)
class FastTD3Config(SmoothedConfig, LargeCriticConfig):
    """Defaults of the authors' code for HumanoidBench, made for a GPU; actions are scaled to [-1, 1]."""

    num_envs: int = 128
    """Parallel copies of the env, where the env is given by its id."""
    normalize_observation: bool = True
    """Standardise float vectors by running statistics, frozen at evaluation."""
    hidden: tuple[int, ...] = (512, 256, 128)
    """Widths of the hidden layers of the actor."""
    critic_hidden: tuple[int, ...] = (1024, 512, 256)
    """Widths of the hidden layers of the critics."""
    buffer_size: int = 128 * 51_200
    """Transitions kept for replay, of all rows together."""
    batch_size: int = 32_768
    """Transitions per update."""
    learning_starts: int = 128 * 10
    """Env steps of uniformly random actions before the first update."""
    train_freq: int = 128
    """Env steps (of all rows together) between rounds of updates: one step of every row."""
    gradient_steps: int = 2
    """Updates per round; -1 makes as many as env steps were taken."""
    tau: float = 0.1
    """Rate at which target critics follow, in (0, 1]."""
    target_policy_noise: float = 0.001
    """Standard deviation of the noise on the target action."""
    weight_decay: float = 0.1
    """Share of the networks' parameters, times the step size, that every step takes off, at least 0."""
    noise_min: float = 0.001
    """Smallest standard deviation of a row's exploration noise."""
    noise_max: float = 0.4
    """Largest standard deviation of a row's exploration noise; each draws its own for an episode, uniformly."""
    return_min: float = -250.0
    """Smallest return that critics can tell from others."""
    return_max: float = 250.0
    """Largest return that critics can tell from others."""
    num_atoms: int = 101
    """Returns at equal distances whose probabilities the critics learn, at least 2."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("weight_decay", self.weight_decay >= 0.0, "a number of at least 0")
        self.require("noise_min", 0.0 <= self.noise_min <= self.noise_max, "a number from 0 to noise_max")
        self.require("return_min", self.return_min < self.return_max, "a number below return_max")
        self.require("num_atoms", self.num_atoms >= 2, "an integer of at least 2")


@register_agent("fast-td3")
class FastTD3(OffPolicyAgent):
    """TD3 with categorical critics, huge batches, decayed weights, and noise of its own for every row.

    The target is the whole distribution of the critic with the lower mean, at the live actor's action. The authors'
    mixed precision is left out. Evaluation adds no noise.
    """

    config: FastTD3Config
    config_class = FastTD3Config
    stochastic_modes: ClassVar[bool] = False

    def build(self) -> None:
        """Create the actor, the critics with their targets, and the noise of every row."""
        c = self.config
        space, dim = self.observation_space, self.action_dim
        head = CategoricalHead(c.return_min, c.return_max, c.num_atoms)
        self.actor = DeterministicActor(space, dim, c.hidden, c.activation, c.encoder)
        last = list(self.actor.modules())[-1]
        assert isinstance(last, nn.Linear)
        nn.init.normal_(last.weight, 0.0, 0.01)
        nn.init.zeros_(last.bias)
        self.critics = HeadedCritics(space, dim, c.critic_hidden, head, 2, c.activation, c.encoder)
        self.target_critics = target_copy(self.critics)
        options: dict[str, Any] = {"weight_decay": c.weight_decay, "decoupled": True}
        self.actor_optimizer = self.optimizer(self.actor, **options)
        self.critic_optimizer = self.optimizer(self.critics, **options)
        self.actor_loss = torch.zeros((), device=self.device)
        self.noise_scale = self._scales(None)

    def act(self, observation: Observation, generator: Generator | None) -> Tensor:
        """Return the actor's action; noise belongs to rows, and is added where they are stepped."""
        action: Tensor = self.actor(observation)
        return action

    def explore(self, observation: Observation) -> Tensor:
        """Return the actor's actions with noise, whose scale a row draws anew for every episode."""
        starts = torch.as_tensor(self.collector.episode_start, device=self.device).unsqueeze(-1)
        self.noise_scale.copy_(torch.where(starts, self._scales(self.generator), self.noise_scale))
        action = self.act(observation, None)
        return (action + self.noise_scale * standard_normal_like(action, self.generator)).clamp(-1.0, 1.0)

    def _scales(self, generator: Generator | None) -> Tensor:
        """Return a scale of the noise for every row `[num_envs, 1]`."""
        c = self.config
        share = torch.rand(self.num_envs, 1, generator=generator, device=self.device)
        return c.noise_min + (c.noise_max - c.noise_min) * share

    def update(self, batch: Batch) -> Metrics:
        """Step the critics and their targets and, every `policy_delay` updates, the actor."""
        c = self.config
        with torch.no_grad():
            next_action = c.smoothed(self.actor(batch.next_observation), self.generator)
            following = self.target_critics(batch.next_observation, next_action).lowest()
            discount = torch.full_like(batch.reward, c.gamma).masked_fill(batch.terminated, 0.0)
            target = following.moved(batch.reward, discount)
        said = self.critics(batch.observation, batch.action)
        critic_loss = said.loss(target).mean(-1).sum()
        minimise(critic_loss, self.critic_optimizer)

        if (self.num_updates + 1) % c.policy_delay == 0:
            with held_fixed(self.critics):
                value = self.critics(batch.observation, self.actor(batch.observation)).mean().amin(0)
            actor_loss = -value.mean()
            minimise(actor_loss, self.actor_optimizer)
            self.actor_loss.copy_(actor_loss.detach())
        polyak_update(self.critics, self.target_critics, c.tau)
        return {
            "train/critic_loss": critic_loss.detach(),
            "train/actor_loss": self.actor_loss.clone(),
            "train/q_mean": said.mean().detach().mean(),
        }
