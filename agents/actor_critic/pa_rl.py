"""PA-RL: policy-agnostic reinforcement learning (Mark et al. 2024, arXiv 2412.06685).

No gradient of values reaches the policy's parameters: its actions are improved by the critics alone, the best ones kept
and moved uphill, and the policy imitates them. So it can be of any class that has a sampler and a supervised loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Generator, Tensor

from palaestra.agents.memory.replay import Batch
from palaestra.agents.nn.actor_classes import ACTOR_CLASSES, ImitableActor
from palaestra.agents.nn.candidates import Judge, Selector
from palaestra.agents.nn.critic import held_fixed, polyak_update, target_copy
from palaestra.agents.nn.critic_heads import CategoricalHead
from palaestra.agents.nn.ensemble import Ensemble
from palaestra.agents.nn.generative.schedules import SCHEDULES
from palaestra.agents.nn.networks import Observation
from palaestra.agents.registry import register_agent
from palaestra.agents.training.metrics import Metrics
from palaestra.agents.training.network_config import LargeCriticConfig
from palaestra.agents.training.off_policy import minimise
from palaestra.agents.training.prior_data import PriorDataAgent, PriorDataConfig


@dataclass(frozen=True)
class PARLConfig(PriorDataConfig, LargeCriticConfig):
    """Defaults of the released code, with one update per env step; without offline data."""

    actor_class: Literal["gaussian", "bins", "diffusion", "flow"] = "diffusion"
    """Class of the actor: a Gaussian, tokens one dimension after the other, a diffusion or a flow."""
    learning_rate: float = 5e-5
    """Step size of Adam for the actor, above 0."""
    critic_learning_rate: float = 3e-4
    """Step size of Adam for the critics, above 0."""
    offline_learning_rate: float = 3e-4
    """Step size of Adam for the actor while it imitates offline data, above 0."""
    levels: int = 5
    """Levels of noise of a diffusion, or Euler steps of a flow, at least 1."""
    schedule: str = "cosine"
    """How a diffusion's noise grows with the levels: cosine, vp or linear."""
    num_bins: int = 32
    """Bins of a dimension for tokens, at least 2."""
    num_samples: int = 32
    """Actions of the actor for every decision, at least 1."""
    kept_samples: int = 10
    """How many of them, the best by the critics' average, are moved uphill, at least 1."""
    climbing_steps: int = 10
    """Gradient steps that these take, at least 0."""
    climbing_rate: float = 3e-4
    """What the gradients are multiplied by, at least 0."""
    selection_temperature: float = 1.0
    """Of the softmax of values by which an improved action is drawn to be imitated; 0 takes the best."""
    num_critics: int = 10
    """Number of critics."""
    critic_subset: int = 2
    """Critics drawn for every target, of which the lower one counts."""
    return_min: float = -100.0
    """Smallest return that critics can tell from others."""
    return_max: float = 0.0
    """Largest return that critics can tell from others."""
    num_atoms: int = 128
    """Returns at equal distances whose probabilities the critics learn, at least 2."""
    conservative_weight: float = 0.005
    """Weight of the term that holds improved actions below those of the data, at least 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("critic_learning_rate", "offline_learning_rate"):
            self.require(name, getattr(self, name) > 0.0, "a number above 0")
        for name in ("levels", "num_samples", "kept_samples"):
            self.require(name, getattr(self, name) >= 1, "an integer of at least 1")
        for name in ("num_bins", "num_atoms"):
            self.require(name, getattr(self, name) >= 2, "an integer of at least 2")
        self.require("schedule", self.schedule in SCHEDULES, f"one of {', '.join(SCHEDULES)}")
        self.require("climbing_steps", self.climbing_steps >= 0, "an integer of at least 0")
        for name in ("climbing_rate", "selection_temperature", "conservative_weight"):
            self.require(name, getattr(self, name) >= 0.0, "a number of at least 0")
        self.require("critic_subset", 1 <= self.critic_subset <= self.num_critics, "an integer from 1 to num_critics")
        self.require("return_min", self.return_min < self.return_max, "a number below return_max")

    def actor_options(self) -> dict[str, Any]:
        """Return what the actor's class takes beside spaces and widths."""
        options: dict[str, dict[str, Any]] = {
            "gaussian": {},
            "bins": {"bins": self.num_bins},
            "diffusion": {"levels": self.levels, "schedule": self.schedule},
            "flow": {"steps": self.levels},
        }
        return options[self.actor_class]


@register_agent("pa-rl")
class PARL(PriorDataAgent):
    """An actor of any class that imitates its own actions, improved by ten categorical critics.

    The policy that acts, and that the critics evaluate, is the best of the improved actions; the live critics' average
    improves them, also in targets, where the target critics then say what they are worth. While there are offline
    data alone, the actor imitates these, and the critics learn on it as it is; the released code fits the actor first,
    by itself. From then on it imitates improved actions, the data's own among them.

    The conservative term, max(Q(s, improved), collected return) - Q(s, a), is taken on offline data, whose returns are
    known (Cal-QL, Nakamoto et al. 2023, arXiv 2303.05479); the released code takes it on the agent's own finished
    episodes too. It counts the action that would be executed, of which the data's own is a candidate.

    Without a generator the noise is that of a few draws made once (the first of them 0), the same in every state.
    """

    config: PARLConfig
    config_class = PARLConfig

    def build(self) -> None:
        """Create the actor, the critics with their targets, and the noise to evaluate with."""
        c = self.config
        space, dim = self.observation_space, self.action_dim
        self.actor: ImitableActor = ACTOR_CLASSES[c.actor_class](
            space, dim, c.hidden, c.activation, c.encoder, **c.actor_options()
        )
        head = CategoricalHead(c.return_min, c.return_max, c.num_atoms)
        self.critics = Ensemble(space, dim, c.critic_hidden, head, c.num_critics, c.activation, c.encoder)
        self.target_critics = target_copy(self.critics)
        self.actor_optimizer = self.optimizer(self.actor)
        self.critic_optimizer = self.optimizer(self.critics, learning_rate=c.critic_learning_rate)
        self.evaluation_noise = torch.randn(c.num_samples, *self.actor.noise_shape)
        self.evaluation_noise[0] = 0.0

    def act(self, observation: Observation, generator: Generator | None) -> Tensor:
        """Return the best improved action of each row."""
        return self.selector.choose(self.judge, observation, self.propose(observation, generator), generator).action

    @torch.no_grad()
    def propose(self, observation: Observation, generator: Generator | None) -> Tensor:
        """Return the actor's actions `[batch, num_samples, action_dim]`."""
        return self.actor(observation).propose(
            self.config.num_samples, self.evaluation_noise if generator is None else generator
        )

    @property
    def selector(self) -> Selector:
        """How the best improved action is found: the best few are kept and climb, and the best place of all wins."""
        c = self.config
        return Selector(c.kept_samples, c.climbing_steps, c.climbing_rate)

    @property
    def judge(self) -> Judge:
        """The critics' average, as what says what actions are worth."""

        def average(observation: Observation, action: Tensor) -> Tensor:
            with held_fixed(self.critics):
                return self.critics(observation, action).mean().mean(0)

        return average

    def update(self, batch: Batch) -> Metrics:
        """Step the critics and their targets, and let the actor imitate improved actions, or the data at first."""
        c = self.config
        next_action = self.act(batch.next_observation, self.generator)
        with torch.no_grad():
            members = self.target_critics.draw_members(c.critic_subset, self.generator)
            following = self.target_critics.asked(members, batch.next_observation, next_action).lowest()
            discount = torch.full_like(batch.reward, c.gamma).masked_fill(batch.terminated, 0.0)
            target = following.moved(batch.reward, discount)

        proposed = self.propose(batch.observation, self.generator)
        ranked = self.selector.rank(self.judge, batch.observation, proposed, beside=batch.action)
        best = ranked.drawn(0.0, None)
        said = self.critics(batch.observation, batch.action)
        critic_loss = said.loss(target).mean()
        conservative = self.conservative_term(batch, said.mean(), best.action)
        minimise(critic_loss + c.conservative_weight * conservative, self.critic_optimizer)
        polyak_update(self.critics, self.target_critics, c.tau)

        imitated = batch.action if self.pretraining else ranked.drawn(c.selection_temperature, self.generator).action
        for group in self.actor_optimizer.param_groups:
            group["lr"] = c.offline_learning_rate if self.pretraining else c.learning_rate
        actor_loss = self.actor(batch.observation).loss(imitated, self.generator).mean()
        minimise(actor_loss, self.actor_optimizer)
        return {
            "train/critic_loss": critic_loss.detach(),
            "train/conservative_term": conservative.detach(),
            "train/actor_loss": actor_loss.detach(),
            "train/climbed_share": best.moved.float().mean(),
            "train/data_chosen_share": (best.proposal < 0).float().mean(),
            "train/q_mean": said.mean().detach().mean(),
        }

    def conservative_term(self, batch: Batch, value: Tensor, improved: Tensor) -> Tensor:
        """Return the mean of max(Q(s, improved), collected return) - Q(s, a) where that return is known, a scalar.

        Args:
            batch: Transitions.
            value: Q(s, a) `[critics, batch]`.
            improved: Improved actions `[batch, action_dim]`.
        """
        if batch.collected_return is None or self.config.conservative_weight == 0.0:
            return torch.zeros((), device=self.device)
        known = ~batch.collected_return.isnan()
        reference = torch.where(known, batch.collected_return, 0.0)
        excess = torch.maximum(self.critics(batch.observation, improved).mean(), reference) - value
        return (excess * known).mean(0).sum() / known.sum().clamp_min(1)
