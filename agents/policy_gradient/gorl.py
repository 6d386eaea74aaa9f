"""GoRL: online reinforcement learning with generative policies, by any algorithm that knows only Gaussians.

"GoRL: An algorithm-agnostic framework for online reinforcement learning with generative policies", arXiv 2512.02581. A
Gaussian policy of latents decides, and a flow decodes latents to actions: a = g(s, e), e ~ pi(e|s). The two are trained
in turn, on slow stages, so that PPO never sees anything but a tractable policy in a world that stands still.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Generator, Tensor, nn

from palaestra.agents.losses.latent_ratio import LatentRatio
from palaestra.agents.memory.rollout import RolloutBuffer
from palaestra.agents.nn.actor_critic import ActorCritic
from palaestra.agents.nn.distributions import DiagonalGaussian
from palaestra.agents.nn.generative.flow import FlowHead
from palaestra.agents.nn.networks import Observation
from palaestra.agents.policy_gradient.proximal import ProximalAgent, ProximalConfig
from palaestra.agents.registry import register_agent
from palaestra.agents.training.collector import Step
from palaestra.agents.training.metrics import Metrics
from palaestra.agents.training.off_policy import minimise
from palaestra.agents.training.optimizer import FlatAdam
from palaestra.agents.training.seeding import make_generator, seeded_initialisation


@dataclass(frozen=True)
class GoRLConfig(ProximalConfig):
    """Defaults of the authors' code, where it differs from PPO's; a stage there is of some 60 million steps."""

    vf_coef: float = 0.25
    """Weight of the value loss, at least 0."""
    clip_range: float = 0.15
    """Half-width of the trusted interval of the ratio in the first stage."""
    later_clip_range: float = 0.3
    """The same in later stages."""
    later_max_grad_norm: float = 1.0
    """Largest norm of a gradient in later stages; `max_grad_norm` is the first's."""
    prior_coef: float = 5e-4
    """Weight in the first stage of mean mu^2 + mean sigma^2, which holds latents near their prior, at least 0."""
    later_prior_coef: float = 1e-3
    """The same in later stages."""
    stages: int = 4
    """Stages of the encoder, at least 1; the decoder is refitted between them."""
    stage_steps: int = 500_000
    """Env steps of PPO in a stage; the last goes on to the end of training."""
    collection_steps: int = 100
    """Steps of each env, after a stage, whose actions the decoder is refitted to, at least 1."""
    decoder_hidden: tuple[int, ...] = (64, 64, 64, 64)
    """Widths of the decoder's hidden layers."""
    decoder_activation: str = "silu"
    """Activation of the decoder's hidden layers."""
    decoder_learning_rate: float = 3e-4
    """Step size of the decoder's Adam, above 0."""
    decoder_batch_size: int = 8192
    """Actions in a minibatch of the refit, at least 1."""
    decoder_epochs: int = 50
    """Passes of the refit over the actions, at least 1."""
    decoder_draws: int = 8
    """Draws of noise and time for each action in a pass, at least 1."""
    flow_steps: int = 10
    """Euler steps of decoding, at least 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("stages", "stage_steps", "collection_steps", "flow_steps"):
            self.require(name, getattr(self, name) >= 1, "an integer of at least 1")
        for name in ("decoder_batch_size", "decoder_epochs", "decoder_draws"):
            self.require(name, getattr(self, name) >= 1, "an integer of at least 1")
        for name in ("later_clip_range", "later_max_grad_norm", "decoder_learning_rate"):
            self.require(name, getattr(self, name) > 0.0, "a number above 0")
        for name in ("prior_coef", "later_prior_coef"):
            self.require(name, getattr(self, name) >= 0.0, "a number of at least 0")
        self.require("recurrent_size", self.recurrent_size == 0, "0: this agent takes no recurrent policy")


@register_agent("gorl")
class GoRL(ProximalAgent):
    """PPO on latents, and a flow from latents to actions that is refitted between stages, for Box actions.

    The decoder begins as the identity, so that the first stage is PPO. After a stage the policy is played on, and the
    decoder is fitted to its actions from the *prior* N(0, I), not from the latents that made them: then prior samples
    are good actions, and a new encoder, near the prior, begins from there. Actions are unsquashed, as PPO's, and the
    decoder learns them as they were drawn. What could not be confirmed was chosen: the decoder keeps its weights from
    refit to refit, and the value function from stage to stage.
    """

    config: GoRLConfig
    config_class = GoRLConfig
    network: ActorCritic
    network_optimizer: FlatAdam
    action_spaces: ClassVar[tuple[type[gym.Space[Any]], ...]] = (spaces.Box,)
    ratio = LatentRatio()

    def build(self) -> None:
        """Create encoder and value function as PPO's policy and value, and the decoder, which is the identity."""
        super().build()
        c = self.config
        self.decoder = FlowHead(
            self.observation_space, self.action_map.dim, c.decoder_hidden, c.decoder_activation, c.encoder, c.flow_steps
        )
        last = [layer for layer in self.decoder.network.trunk.modules() if isinstance(layer, nn.Linear)][-1]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.decoder_optimizer = self.optimizer(self.decoder, learning_rate=c.decoder_learning_rate)
        self.decoder_generator = make_generator(self.seed, "decoder", self.device)
        self.collected = RolloutBuffer(c.collection_steps, self.device)
        self.stage, self.stage_start = 0, 0

    @torch.no_grad()
    def decide(self) -> dict[str, Any]:
        """Return latents and the actions they are decoded to, and what they were chosen from."""
        decision = super().decide()
        decision["action"] = self.decoder.sample(decision["observation"], decision["latent"])
        return decision

    def _predict(
        self, observation: Observation, state: Any, starts: Any, masks: np.ndarray | None, noise: Generator | None
    ) -> tuple[Tensor, Any]:
        latent, state = super()._predict(observation, state, starts, masks, noise)
        return self.decoder.sample(observation, latent), state

    def training_step(self) -> None:
        """Take one step of every row: of PPO, or between stages of what the decoder is refitted to."""
        c = self.config
        ends = self.stage < c.stages - 1 and self.num_timesteps - self.stage_start >= c.stage_steps
        if not ends or self.rollout.position:
            super().training_step()
            return
        decision, step = self.interact()
        with self.profiler.phase("memory"):
            self._collect(decision, step)
        if self.collected.full:
            with self.profiler.phase("update"):
                self.refit_decoder()
                self.begin_stage()

    def _collect(self, decision: dict[str, Any], step: Step) -> None:
        valid = torch.as_tensor(step.valid, device=self.device)
        reward = torch.zeros(len(valid), device=self.device)
        self.collected.add(observation=decision["observation"], action=decision["action"], valid=valid, reward=reward)

    def refit_decoder(self) -> None:
        """Fit the flow from the prior to the collected actions: mean ||a - z - v(x_t, t; s)||^2, z ~ N(0, I)."""
        c, generator = self.config, self.decoder_generator
        for _ in range(c.decoder_epochs):
            for batch in self.collected.minibatches(c.decoder_batch_size, generator):
                action = batch["action"]
                noise = action.new_empty(len(action), c.decoder_draws, action.shape[-1]).normal_(generator=generator)
                time = torch.rand(noise.shape[:2], generator=generator, device=self.device)
                loss = self.decoder.loss(batch["observation"], action, noise, time).mean()
                minimise(loss, self.decoder_optimizer)
                self.metrics.add({"train/decoder_loss": loss.detach()}, self.num_updates)
        self.collected.clear()

    def begin_stage(self) -> None:
        """Put a fresh encoder, near the prior, in the place of the old one."""
        c = self.config
        self.stage, self.stage_start = self.stage + 1, self.num_timesteps
        with torch.device(self.device), seeded_initialisation(self.seed, f"stage-{self.stage}"):
            fresh = self.make_network()
        for ours, new in zip(self.network.policy_parameters(), fresh.policy_parameters(), strict=True):
            ours.data.copy_(new)
        self.network_optimizer.restart()
        self.network_optimizer.max_grad_norm = c.later_max_grad_norm

    def loss(self, batch: dict[str, Any], clip_range: float) -> tuple[Tensor, Metrics]:
        """Return PPO's loss on latents, at the stage's clip range, with the weighted distance to the prior."""
        c, later = self.config, self.stage > 0
        policy, value, _ = self.network(batch["observation"])
        clip_range *= c.later_clip_range / c.clip_range if later else 1.0
        log_ratio = self.ratio.log_ratio(policy, batch)
        loss, metrics = self.total_loss(log_ratio, policy.entropy(), value, batch, clip_range)
        distance = prior_distance(policy)
        metrics["train/prior_distance"] = distance.detach()
        return loss + (c.later_prior_coef if later else c.prior_coef) * distance, metrics


def prior_distance(policy: DiagonalGaussian) -> Tensor:
    """Return mean mu^2 + mean sigma^2, a scalar, over states and dimensions."""
    return policy.mean.square().mean() + (2.0 * policy.log_std).exp().mean()
