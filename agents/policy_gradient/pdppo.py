"""PDPPO: PPO with a second critic, of the state between a decision and what nature makes of it.

"A Reinforcement Learning Method for Environments with Stochastic Variables: Post-Decision Proximal Policy Optimization
with Dual Critic Networks", arXiv 2504.05150. A step splits into s^x = g(s, a), which is known, and s' = W(s^x, noise).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from palaestra.agents.agent import EnvLike
from palaestra.agents.losses.advantages import standardise
from palaestra.agents.losses.component_ratio import ComponentRatio
from palaestra.agents.losses.ratios import RatioProvider
from palaestra.agents.losses.surrogates import approximate_kl, clip_fraction, clipped_surrogate
from palaestra.agents.losses.values import explained_variance
from palaestra.agents.memory.rollout import RolloutBuffer
from palaestra.agents.nn.actor_critic import ActorCritic
from palaestra.agents.nn.networks import Observation
from palaestra.agents.nn.spaces import to_tensor
from palaestra.agents.nn.state_value import StateValue
from palaestra.agents.policy_gradient.proximal import ProximalAgent, ProximalConfig
from palaestra.agents.registry import register_agent
from palaestra.agents.training.metrics import Metrics
from palaestra.wrappers.post_decision import post_decision_of


@dataclass(frozen=True)
class PDPPOConfig(ProximalConfig):
    """Defaults of the authors' code for lot sizing."""

    critics: Literal["minimum", "separate", "sound"] = "minimum"
    """How the critics are used and fitted: see `PDPPO`."""
    learning_rate: float = 5.5e-4
    """Step size of the policy's Adam, above 0."""
    critic_learning_rate: float = 1e-3
    """Step size of the critics' Adam, above 0."""
    weight_decay: float = 1e-3
    """Share of the parameters added to their gradients, at least 0."""
    n_steps: int = 4000
    """Steps of each env per rollout."""
    batch_size: int = 4000
    """Steps per minibatch."""
    n_epochs: int = 60
    """Passes over each rollout."""
    gae_lambda: float = 1.0
    """Trace decay of the returns, in [0, 1]; 1 is the paper's Monte Carlo."""
    hidden: tuple[int, ...] = (128, 128)
    """Widths of the hidden layers of policy and critics."""
    standardise_returns: bool = True
    """Standardise the returns of each rollout; the critics predict them so."""
    normalize_advantage: bool = False
    """Standardise advantages within each minibatch, too."""
    ent_coef: float = 0.012
    """Weight of the entropy bonus, at least 0."""
    max_grad_norm: float = 1.0
    """Largest norm of the policy's gradient, and of the critics'."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("critic_learning_rate", self.critic_learning_rate > 0.0, "a number above 0")
        self.require("weight_decay", self.weight_decay >= 0.0, "a number of at least 0")
        self.require("recurrent_size", self.recurrent_size == 0, "0: this agent takes no recurrent policy")
        self.require("frame_stack", self.frame_stack == 1, "1: post-decision states are not stacked")
        self.require("normalize_reward", not self.normalize_reward, "False: standardise_returns takes its place")
        self.require("clip_range_vf", self.clip_range_vf is None, "None: the critics are not clipped")


@register_agent("pdppo")
class PDPPO(ProximalAgent):
    """PPO whose advantage is taken over the lower of two values: of the state, V(s), and of its decision, V^x(s^x).

    With R the discounted return, A = max(R - V, R - V^x) = R - min(V, V^x) and a clipped ratio for each component of
    the action. It needs an env that shows its post-decision states (`palaestra.wrappers.post_decision`).

    - `critics="minimum"`: one loss, the square of min(V, V^x) - R, as the authors' code has it: each step trains the
      critic that is lower.
    - `critics="separate"`: the same advantage, but each critic has its own squared error, as their text has it.
    - `critics="sound"`: V^x contains the action, so that A above favours actions that are undervalued. The unbiased
      form fits V^x to what nature adds, r_random + gamma V(s'), and V to R, and takes
      A = r_decided + V^x(s^x) - V(s), the mean of the one-step advantage over nature's noise.

    A truncated episode and the end of a rollout are continued by V; the authors' code ends them. Returns are
    standardised over a rollout, and what the critics predict is turned back by the mean and deviation of the rollout
    before wherever it continues a return.
    """

    config: PDPPOConfig
    config_class = PDPPOConfig
    network: ActorCritic
    ratio: RatioProvider = ComponentRatio()
    unsaved = ProximalAgent.unsaved | {"show_decision"}

    def _build(self, num_envs: int) -> None:
        if hasattr(self, "collector"):
            self.show_decision = post_decision_of(self.collector.env)
        super()._build(num_envs)

    def set_env(self, env: EnvLike, env_kwargs: Mapping[str, Any] | None = None, backend: str = "auto") -> None:
        """Train on another env; see `Agent.set_env`. TypeError if it shows no post-decision states."""
        super().set_env(env, env_kwargs, backend)
        self.show_decision = post_decision_of(self.collector.env)

    def build(self) -> None:
        """Create the policy, the two critics and their optimisers."""
        c = self.config
        network = self.make_network()
        assert isinstance(network, ActorCritic)
        self.network = network
        self.post_critic = StateValue(self.observation_space, c.hidden, c.activation, c.encoder)
        self.clip_range, self.gradient = c.clip_range, self.backpropagate
        shared: dict[str, Any] = {"eps": 1e-5, "max_grad_norm": c.max_grad_norm, "weight_decay": c.weight_decay}
        self.network_optimizer = self.optimizer(*self.network.policy_parameters(), **shared)
        self.critic_optimizer = self.optimizer(
            self.network.value, self.post_critic, learning_rate=c.critic_learning_rate, **shared
        )
        self.return_mean, self.return_deviation = torch.zeros(()), torch.ones(())

    @torch.no_grad()
    def decide(self) -> dict[str, Any]:
        """Return PPO's decision, what it leads to before nature moves, and the reward known by then."""
        decision = super().decide()
        action: np.ndarray = self.action_map.to_env(decision["action"].cpu().numpy())
        shown, reward = self.show_decision(action)
        decision["post_observation"] = self.normalised(to_tensor(shown, self.device))
        decision["decided_reward"] = torch.as_tensor(reward, dtype=torch.float32, device=self.device)
        return decision

    @torch.no_grad()
    def _estimate(self, rollout: RolloutBuffer, now: Observation) -> None:
        """Add the ratio's statistics, the returns and the advantages of a rollout, before `now`."""
        c, steps, shape = self.config, rollout.flat_tree(), rollout.fields["reward"].shape
        policy, value, _ = self.network(steps["observation"], steps.get("mask"))
        value, post_value = value.view(shape), self.post_critic(steps["post_observation"]).view(shape)
        decided, valid = rollout.fields["decided_reward"], rollout.fields["valid"]
        statistics = self.ratio.old_stats(policy, steps)
        computed = {name: field.unflatten(0, shape) for name, field in statistics.items()}

        worth = self.in_units_of_reward(value)
        after = self.in_units_of_reward(self.network.evaluate(now, None, None))
        finals = [
            self.in_units_of_reward(self.network.evaluate(final["observation"], None, None)) for final in rollout.finals
        ]
        rollout.compute_advantages(worth, after, finals, c.gamma, 0.0)
        nature = rollout.fields["target"] - decided
        rollout.compute_advantages(worth, after, finals, c.gamma, c.gae_lambda)
        returns = rollout.fields["target"]
        sound = decided + self.in_units_of_reward(post_value) - worth
        if c.standardise_returns:
            self.return_mean.copy_(returns[valid].mean())
            self.return_deviation.copy_(returns[valid].std(correction=0) + 1e-8)
        computed["target"] = (returns - self.return_mean) / self.return_deviation
        if c.critics == "sound":
            computed["post_target"] = (nature - self.return_mean) / self.return_deviation
            computed["advantage"] = sound / self.return_deviation
        else:
            computed["post_target"] = computed["target"]
            computed["advantage"] = computed["target"] - torch.minimum(value, post_value)
        rollout.add_computed(computed)

    def in_units_of_reward(self, value: Tensor) -> Tensor:
        """Return a prediction of the critics as a return."""
        return self.return_mean + self.return_deviation * value

    def improve(self, rollout: RolloutBuffer) -> None:
        """Make `n_epochs` passes of minibatch updates over the rollout."""
        if self.config.learning_rate_schedule == "linear":
            for group in self.critic_optimizer.param_groups:
                group["lr"] = self.config.critic_learning_rate * self.remaining
        super().improve(rollout)

    def update(self, batch: dict[str, Any]) -> Metrics:
        """Take one gradient step of the policy and one of the critics."""
        metrics = super().update(batch)
        self.critic_optimizer.step()
        return metrics

    def backpropagate(self, batch: dict[str, Any], clip_range: float) -> Metrics:
        """Compute the loss's gradient by autograd and return the metrics."""
        self.critic_optimizer.zero_grad()
        return super().backpropagate(batch, clip_range)

    def loss(self, batch: dict[str, Any], clip_range: float) -> tuple[Tensor, Metrics]:
        """Return the clipped surrogate plus the weighted loss of the critics minus the weighted entropy."""
        c = self.config
        log_ratio, entropy, value = self.evaluate(batch)
        post_value = self.post_critic(batch["post_observation"])
        advantage = standardise(batch["advantage"]) if c.normalize_advantage else batch["advantage"]
        policy_loss = clipped_surrogate(log_ratio, advantage.unsqueeze(-1), clip_range)
        value_loss = self.critic_loss(value, post_value, batch)
        entropy = entropy.mean()
        log_ratio = log_ratio.detach()
        return policy_loss + c.vf_coef * value_loss - c.ent_coef * entropy, {
            "train/policy_loss": policy_loss.detach(),
            "train/value_loss": value_loss.detach(),
            "train/entropy": entropy.detach(),
            "train/approx_kl": approximate_kl(log_ratio.sum(-1)),
            "train/clip_fraction": clip_fraction(log_ratio, clip_range),
            "train/post_critic_share": (post_value < value).float().mean(),
            "train/explained_variance": explained_variance(value, batch["target"]),
            "train/post_explained_variance": explained_variance(post_value, batch["post_target"]),
        }

    def critic_loss(self, value: Tensor, post_value: Tensor, batch: dict[str, Any]) -> Tensor:
        """Return the squared error of the lower critic, or the sum of both critics' own."""
        if self.config.critics == "minimum":
            return mse_loss(torch.minimum(value, post_value), batch["target"])
        return mse_loss(value, batch["target"]) + mse_loss(post_value, batch["post_target"])
