"""DPPO: diffusion policy policy optimisation.

Ren, Lidard, Ankile, Simeonov, Agrawal, Majumdar, Burchfiel, Dai and Simchowitz, "Diffusion policy policy optimization",
arXiv 2409.00588. Every denoising step is a Gaussian action of an inner decision process within a step of the env, and
PPO learns the last of them, from a policy that imitated something before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from palaestra.agents.losses.chain_ratio import ChainRatio
from palaestra.agents.losses.surrogates import clipped_surrogate
from palaestra.agents.memory.replay import ReplayBuffer
from palaestra.agents.memory.rollout import RolloutBuffer
from palaestra.agents.nn.distributions import standard_normal_like
from palaestra.agents.nn.generative.diffusion import DiffusionHead
from palaestra.agents.nn.generative.fine_tuned import FineTunedDiffusion
from palaestra.agents.policy_gradient.generative_proximal import GenerativeProximalAgent, GenerativeProximalConfig
from palaestra.agents.registry import register_agent
from palaestra.agents.training.behaviour_data import behaviour_data
from palaestra.agents.training.callbacks import CallbackList
from palaestra.agents.training.metrics import Metrics
from palaestra.agents.training.off_policy import minimise
from palaestra.agents.training.optimizer import FlatAdam
from palaestra.agents.training.seeding import make_generator


@dataclass(frozen=True)
class DPPOConfig(GenerativeProximalConfig):
    """Defaults of the authors' code for Hopper, but for chunks of actions, which are single actions here."""

    learning_rate: float = 1e-4
    """Step size of the policy's Adam, above 0."""
    critic_learning_rate: float = 1e-3
    """Step size of the value function's Adam, above 0."""
    num_envs: int = 40
    """Parallel copies of the env, where the env is given by its id."""
    n_steps: int = 500
    """Steps of each env per rollout."""
    batch_size: int = 5000
    """Steps per minibatch, each with all its learnt denoising steps."""
    n_epochs: int = 5
    """Passes over each rollout."""
    hidden: tuple[int, ...] = (512, 512, 512)
    """Widths of the hidden layers of the policy."""
    value_hidden: tuple[int, ...] = (256, 256, 256)
    """Widths of the hidden layers of the value function."""
    activation: str = "relu"
    """Activation of the hidden layers: relu, tanh, elu, gelu or silu."""
    clip_range: float = 0.01
    """Half-width of the trusted interval of the last denoising step's ratio."""
    noisiest_clip_range: float = 0.01
    """The same of the noisiest learnt step; between, it grows exponentially."""
    target_kl: float | None = 1.0
    """Stop the epochs of a rollout once the approximate KL exceeds 1.5 times this."""
    normalize_reward: bool = True
    """Divide rewards by the running deviation of the discounted return."""
    levels: int = 20
    """Denoising steps, at least 1."""
    learnt_steps: int = 10
    """Denoising steps that are learnt, the last ones; those before them stay as the imitation left them."""
    schedule: Literal["cosine", "vp", "linear"] = "cosine"
    """How noise grows with the levels."""
    min_std: float = 0.1
    """Smallest standard deviation of a denoising step, above 0."""
    gamma_denoising: float = 0.99
    """Discount of the advantage for every denoising step that is still to come, in (0, 1]."""
    imitated_policy: str = "random"
    """Whose actions are imitated at first: a reference policy or expert of the world, or random."""
    imitated_steps: int = 5000
    """Transitions of it, made before training; 0 begins from scratch, with an untrained network."""
    imitation_updates: int = 5000
    """Updates of that imitation, at least 1."""
    imitation_batch_size: int = 256
    """Actions in each of them, at least 1."""
    imitation_learning_rate: float = 1e-3
    """Step size of Adam in them, above 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("learnt_steps", 1 <= self.learnt_steps <= self.levels, "an integer from 1 to levels")
        for name in ("critic_learning_rate", "noisiest_clip_range", "min_std", "imitation_learning_rate"):
            self.require(name, getattr(self, name) > 0.0, "a number above 0")
        self.require("gamma_denoising", 0.0 < self.gamma_denoising <= 1.0, "a number in (0, 1]")
        self.require("imitated_steps", self.imitated_steps >= 0, "an integer of at least 0")
        for name in ("imitation_updates", "imitation_batch_size"):
            self.require(name, getattr(self, name) >= 1, "an integer of at least 1")
        self.require("ent_coef", self.ent_coef == 0.0, "0: the entropy of a diffusion has no closed form")


@register_agent("dppo")
class DPPO(GenerativeProximalAgent):
    """PPO on the last denoising steps of a diffusion (see `ChainRatio`), which begins by imitation.

    By default uniformly random actions are imitated, which gives an even policy to begin from. Data of one's own are
    given by `agent.imitated.add(rows)` before training, up to `imitated_steps` rows.
    """

    config: DPPOConfig
    config_class = DPPOConfig
    network_optimizer: FlatAdam

    def build(self) -> None:
        """Create the diffusion, the value function, an optimiser for each, and room for what is imitated."""
        c = self.config
        self.ratio = ChainRatio()
        self.network = self.make_network()
        self.clip_range, self.gradient = c.clip_range, self.backpropagate
        shared: dict[str, Any] = {"eps": 1e-5, "max_grad_norm": c.max_grad_norm}
        self.network_optimizer = self.optimizer(*self.network.policy_parameters(), **shared)
        self.critic_optimizer = self.optimizer(self.network.value, learning_rate=c.critic_learning_rate, **shared)
        self.imitated = ReplayBuffer(max(1, c.imitated_steps), self.device)
        self.has_imitated = c.imitated_steps == 0

    def make_head(self) -> FineTunedDiffusion:
        """Return the diffusion with its learnt and its frozen steps."""
        c, dim = self.config, self.action_map.dim
        actor = DiffusionHead(self.observation_space, dim, c.hidden, c.activation, c.encoder, c.levels, c.schedule)
        return FineTunedDiffusion(actor, c.learnt_steps, c.min_std)

    def _learn(self, callback: CallbackList) -> None:
        if not self.has_imitated:
            if not len(self.imitated):
                self.imitated.add(self._data())
            self.imitate()
        super()._learn(callback)

    def _data(self) -> dict[str, Any]:
        c = self.config
        if self.env_id is None:
            raise ValueError(
                f"{self.agent_id}: imitated_steps={c.imitated_steps} on an env without an id; expected 0, or "
                "agent.imitated filled by add()"
            )
        steps, device = c.imitated_steps, self.device
        return behaviour_data(
            c.imitated_policy, self.env_id, self.env_kwargs, steps, self.seed, self.action_map, device
        )

    def imitate(self) -> None:
        """Minimise the denoising loss on the actions to imitate, and freeze the result as the base."""
        c, head, optimizer = self.config, self.network.head, self.network_optimizer
        assert isinstance(head, FineTunedDiffusion)
        generator = make_generator(self.seed, "imitation", self.device)
        if self.normalizer is not None:
            self.normalizer.update(self.imitated.rows(torch.arange(len(self.imitated), device=self.device)).observation)
        optimizer.param_groups[0]["lr"] = c.imitation_learning_rate
        for _ in range(c.imitation_updates):
            batch = self.imitated.sample(c.imitation_batch_size, generator)
            noise = standard_normal_like(batch.action, generator)
            level = torch.randint(1, c.levels + 1, (len(noise),), generator=generator, device=self.device)
            loss = head.actor.loss(self.normalised(batch.observation), batch.action, noise, level).mean()
            minimise(loss, optimizer)
        head.take_as_base()
        optimizer.restart()
        optimizer.param_groups[0]["lr"] = c.learning_rate
        self.has_imitated = True

    def improve(self, rollout: RolloutBuffer) -> None:
        """Make `n_epochs` passes of minibatch updates over the rollout."""
        if self.config.learning_rate_schedule == "linear":
            for group in self.critic_optimizer.param_groups:
                group["lr"] = self.config.critic_learning_rate * self.remaining
        super().improve(rollout)

    def update(self, batch: dict[str, Any]) -> Metrics:
        """Take one gradient step of the policy and one of the value function."""
        self.critic_optimizer.zero_grad()
        metrics = super().update(batch)
        self.critic_optimizer.step()
        return metrics

    def surrogate(self, log_ratio: Tensor, advantage: Tensor, clip_range: float) -> Tensor:
        """Return the clipped surrogate of all learnt denoising steps, `[batch, steps]`.

        Step i, from the noisiest, i = 0, has the advantage gamma_d^(K' - 1 - i) A and a clip range of its own.
        """
        c = self.config
        remaining = torch.arange(c.learnt_steps - 1, -1, -1, device=log_ratio.device)
        ranges = torch.tensor(clip_ranges(c.noisiest_clip_range, c.clip_range, c.learnt_steps), device=log_ratio.device)
        discounted = advantage.unsqueeze(-1) * c.gamma_denoising**remaining
        return clipped_surrogate(log_ratio, discounted, ranges * (clip_range / c.clip_range))

    def entropy(self, policy: Any) -> Tensor:
        """Return zeros `[batch]`."""
        return super().entropy(policy.actor)


def clip_ranges(first: float, last: float, steps: int) -> list[float]:
    """Return the clip range of every learnt step: first + (last - first) (exp(3 u) - 1) / (exp(3) - 1), u from 0 to 1.

    With one step, it is the last's.
    """
    shares = [math.expm1(3.0 * i / (steps - 1)) / math.expm1(3.0) for i in range(steps)] if steps > 1 else [1.0]
    return [first + (last - first) * share for share in shares]
