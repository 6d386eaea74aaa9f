"""DIPO: policy representation via a diffusion probability model (Yang et al. 2023, arXiv 2305.13122).

Actions of the past are moved uphill on the critics' values and stay where they have come to; the policy imitates them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from palaestra.agents.memory.improvable import ImprovableReplay
from palaestra.agents.memory.replay import Batch
from palaestra.agents.nn.critic import held_fixed, polyak_update, target_copy
from palaestra.agents.nn.generative.generative_actor import generate
from palaestra.agents.nn.hill_climbing import adam_climb
from palaestra.agents.registry import register_agent
from palaestra.agents.training.diffusion import DiffusionAgent, DiffusionConfig
from palaestra.agents.training.metrics import Metrics
from palaestra.agents.training.off_policy import minimise


@dataclass(frozen=True)
class DIPOConfig(DiffusionConfig):
    """Defaults of the authors' code, but for its Mish activations."""

    levels: int = 100
    """Levels of noise, which is the number of network evaluations an action takes, at least 1."""
    hidden: tuple[int, ...] = (256, 256, 256)
    """Widths of the hidden layers of actor and critics."""
    max_grad_norm: float | None = 2.0
    """Largest norm of each gradient, above 0; None for no clipping."""
    adam_eps: float = 1e-5
    """Added to the roots of Adam's second moments, above 0."""
    climbing_steps: int = 20
    """Gradient steps that move a batch of actions in an update, at least 0."""
    climbing_rate: float = 0.03
    """Step size of Adam for actions, above 0."""
    climbing_grad_norm: float = 0.1
    """Largest norm of the gradient by all actions of a batch, for every dimension of an action; above 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("climbing_steps", self.climbing_steps >= 0, "an integer of at least 0")
        for name in ("climbing_rate", "climbing_grad_norm"):
            self.require(name, getattr(self, name) > 0.0, "a number above 0")


@register_agent("dipo")
class DIPO(DiffusionAgent):
    """Hill climbing of remembered actions, and a diffusion that imitates them.

    Every update draws a second batch of states with the improved actions that belong to them, moves these actions, and
    writes them back: actions improve over many updates, whether the policy has learnt them or not. The memory that
    holds them costs a checkpoint 4 bytes for each dimension of each action in the replay, for unlike transitions they
    change and are written anew every time.
    """

    config: DIPOConfig
    config_class = DIPOConfig
    replay: ImprovableReplay

    def build(self) -> None:
        """Create the networks, the target policy, and the memory of improved actions."""
        super().build()
        self.target_actor = target_copy(self.actor)
        self.replay = ImprovableReplay(self.config.buffer_size, self.action_dim, self.device)
        self.improved = self.replay.improved

    def update(self, batch: Batch) -> Metrics:
        """Step the critics, improve actions, and step the policy and the targets."""
        c = self.config
        with torch.no_grad():
            next_action = generate(self.target_actor, batch.next_observation, self.generator)
        critic_loss, q_mean = self.step_critics(batch, next_action)

        place = self.replay.draw(c.batch_size, self.replay_generator)
        observation, start = self.normalised(self.replay.rows(place).observation), self.improved.at(place)
        with held_fixed(self.critics):
            better = adam_climb(
                lambda action: self.critics(observation, action).amin(0),
                start,
                c.climbing_steps,
                c.climbing_rate,
                c.climbing_grad_norm * self.action_dim,
            )
        self.improved.write(place, better)

        actor_loss = self.imitation_losses(self.actor(observation), better).mean()
        minimise(actor_loss, self.actor_optimizer)

        polyak_update(self.critics, self.target_critics, c.tau)
        polyak_update(self.actor, self.target_actor, c.tau)
        return {
            "train/critic_loss": critic_loss,
            "train/actor_loss": actor_loss.detach(),
            "train/moved": (better - start).abs().mean(),
            "train/q_mean": q_mean,
        }
