"""Q-score matching (Psenka, Escontrela, Abbeel and Ma 2023, arXiv 2312.11752).

The score of a Boltzmann policy, the slope of its log-density, is in proportion to the slope of the values. So the
network that denoises is regressed to the critics' gradient, and no gradient passes through the chain.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from palaestra.agents.memory.replay import Batch
from palaestra.agents.nn.critic import held_fixed, polyak_update
from palaestra.agents.nn.distributions import standard_normal_like
from palaestra.agents.nn.hill_climbing import value_gradient
from palaestra.agents.nn.networks import Observation
from palaestra.agents.registry import register_agent
from palaestra.agents.training.diffusion import DiffusionAgent, DiffusionConfig
from palaestra.agents.training.metrics import Metrics
from palaestra.agents.training.off_policy import minimise


@dataclass(frozen=True)
class QSMConfig(DiffusionConfig):
    """Defaults of the authors' code, but for its Mish activations and the slow decay of the actor's step size."""

    levels: int = 5
    """Levels of noise, which is the number of network evaluations an action takes, at least 1."""
    schedule: str = "vp"
    """How noise grows with the levels: cosine, vp or linear."""
    hidden: tuple[int, ...] = (512, 512)
    """Widths of the hidden layers of actor and critics."""
    score_scale: float = 50.0
    """M_q, what the values' gradient is multiplied by, above 0; the larger, the closer the policy keeps to the best
    actions. It is in inverse units of reward, so that every world needs its own."""
    exploration_noise: float = 0.1
    """Standard deviation of the noise added while collecting, and to the target's actions, at least 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("score_scale", self.score_scale > 0.0, "a number above 0")
        self.require("exploration_noise", self.exploration_noise >= 0.0, "a number of at least 0")


@register_agent("qsm")
class QSM(DiffusionAgent):
    """A diffusion whose predicted noise is -M_q times the gradient of the critics' average, at the noised action.

    The gradient is that at the point x_k which the network sees, not at the action that was noised; critics are asked
    outside the box of actions too. Every level has the same target: the score of the actions stands for that of their
    noised copies. The released code keeps points within the box after each step and adds noise of variance beta; here,
    as for the suite's other diffusions, predicted actions are kept within it and the noise is the posterior's. The last
    step, which decides on the action, is the same. Where values have curvature k it multiplies x_1 by
    (1 - noise_1 M_q k) / signal_1: with the default levels it reaches the top at M_q k = 2.3 and overshoots from 4.3
    on, where actions end at the borders of the box.
    """

    config: QSMConfig
    config_class = QSMConfig

    def explore(self, observation: Observation) -> Tensor:
        """Return actions of the policy with noise."""
        action = self.act(observation, self.generator)
        noise = self.config.exploration_noise * standard_normal_like(action, self.generator)
        return (action + noise).clamp(-1.0, 1.0)

    def score_target(self, observation: Observation, x: Tensor) -> Tensor:
        """Return -M_q times the gradient of the average value at points, both `[batch, action_dim]`."""
        with held_fixed(self.critics):
            gradient = value_gradient(lambda a: self.critics(observation, a).mean(0), x)[1]
        return -self.config.score_scale * gradient

    def update(self, batch: Batch) -> Metrics:
        """Step the critics, the policy and the targets."""
        with torch.no_grad():
            next_action = self.explore(batch.next_observation)
        critic_loss, q_mean = self.step_critics(batch, next_action)

        policy = self.actor(batch.observation)
        level = self.random_levels(len(batch.action))
        x = policy.noised(batch.action, standard_normal_like(batch.action, self.generator), level)
        target = self.score_target(batch.observation, x)
        actor_loss = (policy.noise_prediction(x, level) - target).square().mean()
        minimise(actor_loss, self.actor_optimizer)

        polyak_update(self.critics, self.target_critics, self.config.tau)
        return {
            "train/critic_loss": critic_loss,
            "train/actor_loss": actor_loss.detach(),
            "train/score_target": target.abs().mean(),
            "train/q_mean": q_mean,
        }
