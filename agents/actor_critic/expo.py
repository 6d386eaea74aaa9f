"""EXPO: stable reinforcement learning with expressive policies (arXiv 2507.07986).

No gradient of values ever passes through the expressive policy. That one only imitates what was done; a small Gaussian
policy learns to edit its actions; and the policy that acts, and that the critics evaluate, is made on the fly: the best
of some imitated actions and their edits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Generator, Tensor

from palaestra.agents.losses.values import td_target
from palaestra.agents.memory.replay import Batch
from palaestra.agents.nn.actor_classes import ACTOR_CLASSES, ImitableActor
from palaestra.agents.nn.candidates import Choice, Judge, Selector, repeated
from palaestra.agents.nn.critic import held_fixed, polyak_update, target_copy
from palaestra.agents.nn.critic_heads import ScalarHead
from palaestra.agents.nn.edits import EditActor
from palaestra.agents.nn.ensemble import Ensemble
from palaestra.agents.nn.generative.schedules import SCHEDULES
from palaestra.agents.nn.networks import Observation
from palaestra.agents.registry import register_agent
from palaestra.agents.training.maximum_entropy import MaximumEntropyAgent, MaximumEntropyConfig
from palaestra.agents.training.metrics import Metrics
from palaestra.agents.training.network_config import LargeCriticConfig
from palaestra.agents.training.off_policy import minimise
from palaestra.agents.training.prior_data import PriorDataAgent, PriorDataConfig


@dataclass(frozen=True)
class EXPOConfig(PriorDataConfig, MaximumEntropyConfig, LargeCriticConfig):
    """Defaults of the released code, with the scale of its runs on AntMaze and the like; without offline data."""

    hidden: tuple[int, ...] = (256, 256, 256)
    """Widths of the hidden layers of the edit policy."""
    critic_hidden: tuple[int, ...] = (256, 256, 256)
    """Widths of the hidden layers of the critics."""
    base: Literal["diffusion", "flow"] = "diffusion"
    """Class of the base policy."""
    base_hidden: tuple[int, ...] = (256, 256, 256)
    """Widths of the hidden layers or blocks of the base policy."""
    base_trunk: str = "simba"
    """What it is made of: mlp, or residual blocks as simba's."""
    levels: int = 10
    """Levels of noise of a diffusion, or Euler steps of a flow: network evaluations an action takes, at least 1."""
    schedule: str = "vp"
    """How a diffusion's noise grows with the levels: cosine, vp or linear."""
    base_tau: float = 0.001
    """Rate at which the base policy that acts follows the one that learns, in (0, 1]."""
    candidates: Literal["both", "base", "edited"] = "both"
    """What is chosen from: actions of the base policy, their edits, or both."""
    num_samples: int = 8
    """Actions of the base policy for every decision, each with one edit; at least 1."""
    edit_scale: float = 0.05
    """beta, the largest change of each coordinate that an edit makes, above 0."""
    selection_temperature: float = 0.0
    """Of the softmax of values that a candidate is drawn from; 0 takes the best."""
    num_critics: int = 10
    """Number of critics."""
    critic_subset: int = 2
    """Critics drawn for every target and every choice, whose minimum counts."""
    learning_starts: int = 5_000
    """Env steps of uniformly random actions before the first update."""
    gradient_steps: int = 20
    """Updates per round; -1 makes as many as env steps were taken."""
    policy_delay: int = 20
    """Critic updates per update of base policy, edit policy and temperature."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("levels", "num_samples", "policy_delay"):
            self.require(name, getattr(self, name) >= 1, "an integer of at least 1")
        self.require("schedule", self.schedule in SCHEDULES, f"one of {', '.join(SCHEDULES)}")
        self.require("base_trunk", self.base_trunk in ("mlp", "simba"), "one of mlp, simba")
        self.require("base_hidden", all(width >= 1 for width in self.base_hidden), "positive widths")
        self.require("base_tau", 0.0 < self.base_tau <= 1.0, "a number in (0, 1]")
        self.require("edit_scale", self.edit_scale > 0.0, "a number above 0")
        self.require("selection_temperature", self.selection_temperature >= 0.0, "a number of at least 0")
        self.require("critic_subset", 1 <= self.critic_subset <= self.num_critics, "an integer from 1 to num_critics")

    def base_options(self) -> dict[str, Any]:
        """Return what the base policy's class takes beside spaces and widths."""
        if self.base == "flow":
            return {"steps": self.levels, "trunk": self.base_trunk}
        return {"levels": self.levels, "schedule": self.schedule, "trunk": self.base_trunk}


@register_agent("expo")
class EXPO(PriorDataAgent, MaximumEntropyAgent):
    """An imitating base policy, edits of its actions, and the best of both by a random few of ten critics.

    Candidates are judged by the target critics. While acting they come from a slow copy of the base policy, in targets
    from the live one, as in the released code. The temperature holds the entropy of edits before they are scaled, at
    -1/2 nat a dimension: that of scaled edits could not reach any such number where the scale is small. Edited actions
    are cut off at the box. The decay of step sizes, dropout and an entropy bonus in the targets, all off or of no
    consequence by default, are left out.

    Without a generator the base policy's noise is that of a few draws made once (the first of them 0), the same in
    every state, and edits are their modes.
    """

    config: EXPOConfig
    config_class = EXPOConfig
    entropy_per_dimension = -0.5

    def build(self) -> None:
        """Create the base policy with its slow copy, the edit policy, the critics, and the temperature."""
        c = self.config
        space, dim = self.observation_space, self.action_dim
        self.base: ImitableActor = ACTOR_CLASSES[c.base](
            space, dim, c.base_hidden, c.activation, c.encoder, **c.base_options()
        )
        self.acting_base = target_copy(self.base)
        self.editor = EditActor(space, dim, c.hidden, c.edit_scale, c.activation, c.encoder)
        self.critics = Ensemble(space, dim, c.critic_hidden, ScalarHead(), c.num_critics, c.activation, c.encoder)
        self.target_critics = target_copy(self.critics)
        self.base_optimizer = self.optimizer(self.base)
        self.edit_optimizer = self.optimizer(self.editor)
        self.critic_optimizer = self.optimizer(self.critics)
        self.build_temperature()
        self.evaluation_noise = torch.randn(c.num_samples, *self.base.noise_shape)
        self.evaluation_noise[0] = 0.0
        self.policy_losses = torch.zeros(4, device=self.device)
        self.edited_share = torch.zeros((), device=self.device)

    def act(self, observation: Observation, generator: Generator | None) -> Tensor:
        """Return the best candidate of each row."""
        return self.choose(self.acting_base, observation, generator).action

    def explore(self, observation: Observation) -> Tensor:
        """Return the actions to collect with, and note how many of them are edited."""
        choice = self.choose(self.acting_base, observation, self.generator)
        self.edited_share.copy_(self.edited(choice).float().mean())
        return choice.action

    def choose(self, base: ImitableActor, observation: Observation, generator: Generator | None) -> Choice:
        """Return the policy on the fly: of each row's candidates the best by a random few of the target critics."""
        c = self.config
        action = self.propose(base, observation, generator)
        return Selector(temperature=c.selection_temperature).choose(
            self.judge(generator), observation, action, generator
        )

    @torch.no_grad()
    def propose(self, base: ImitableActor, observation: Observation, generator: Generator | None) -> Tensor:
        """Return the candidates `[batch, count, action_dim]`: the base policy's actions, then their edits."""
        c = self.config
        own = base(observation).propose(c.num_samples, self.evaluation_noise if generator is None else generator)
        if c.candidates == "base":
            return own
        edited = self.editor(repeated(observation, c.num_samples), own.flatten(0, 1)).sample(generator).view_as(own)
        return edited if c.candidates == "edited" else torch.cat([own, edited], 1)

    def judge(self, generator: Generator | None) -> Judge:
        """Return the minimum of a few target critics, drawn here, as what says what actions are worth."""
        members = self.target_critics.draw_members(self.config.critic_subset, generator)
        return lambda observation, action: self.target_critics.lowest_of(members, observation, action)

    def edited(self, choice: Choice) -> Tensor:
        """Return which chosen candidates were edited, bools `[batch]`."""
        c = self.config
        return choice.proposal >= {"both": c.num_samples, "base": 2 * c.num_samples, "edited": 0}[c.candidates]

    def update(self, batch: Batch) -> Metrics:
        """Step the critics and their targets and, every `policy_delay` updates, the policies and the temperature."""
        c = self.config
        choice = self.choose(self.base, batch.next_observation, self.generator)
        with torch.no_grad():
            next_value = self.judge(self.generator)(batch.next_observation, choice.action)
            target = td_target(batch.reward, batch.terminated, next_value, c.gamma)
        said = self.critics(batch.observation, batch.action)
        critic_loss = said.loss(target).mean()
        minimise(critic_loss, self.critic_optimizer)
        polyak_update(self.critics, self.target_critics, c.tau)

        if (self.num_updates + 1) % c.policy_delay == 0:
            self.policy_losses.copy_(self.step_policies(batch))
        base_loss, edit_loss, edit_entropy, edit_gain = self.policy_losses.clone()
        return {
            "train/critic_loss": critic_loss.detach(),
            "train/base_loss": base_loss,
            "train/edit_loss": edit_loss,
            "train/edit_entropy": edit_entropy,
            "train/edit_gain": edit_gain,
            "train/ent_coef": self.alpha,
            "train/edited_share_of_targets": self.edited(choice).float().mean(),
            "train/edited_share_of_actions": self.edited_share.clone(),
            "train/q_mean": said.mean().detach().mean(),
        }

    def step_policies(self, batch: Batch) -> Tensor:
        """Step base policy, edit policy and temperature.

        Returns:
            Both losses, the entropy of edits, and by how much edits raise the mean value of the batch's actions `[4]`.
        """
        base_loss = self.base(batch.observation).loss(batch.action, self.generator).mean()
        minimise(base_loss, self.base_optimizer)
        polyak_update(self.base, self.acting_base, self.config.base_tau)

        edits = self.editor(batch.observation, batch.action)
        action, log_prob = edits.sample_with_log_prob(self.generator)
        with held_fixed(self.critics):
            value = self.critics(batch.observation, action).mean().mean(0)
        edit_loss = (self.alpha * log_prob - value).mean()
        minimise(edit_loss, self.edit_optimizer)
        self.step_temperature(log_prob + edits.log_volume)
        with torch.no_grad():
            gain = (value - self.critics(batch.observation, batch.action).mean().mean(0)).mean()
        entropy = -(log_prob + edits.log_volume).mean()
        return torch.stack([base_loss, edit_loss, entropy, gain]).detach()
