"""ProRL: the rectified policy gradient for paths of items that may end early.

"Effective Reinforcement Learning for Proactive Recommendation via Rectified Policy Gradient Estimation", arXiv
2605.28293. Where every step brings something on average, longer paths look better whatever they lead to; so rewards are
centred, and a step is compared with the same step of other paths from the same start.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import gymnasium as gym
import torch
from gymnasium import spaces
from torch import Tensor, nn

from palaestra.agents.losses.path_advantages import path_advantages
from palaestra.agents.memory.rollout import RolloutBuffer
from palaestra.agents.nn.normalization import RunningMoments
from palaestra.agents.registry import register_agent
from palaestra.agents.training.callbacks import CallbackList
from palaestra.agents.training.collector import Step
from palaestra.agents.training.episodic import EpisodicAgent, EpisodicConfig, Trajectories
from palaestra.protocols import simulator_of


@dataclass(frozen=True)
class ProRLConfig(EpisodicConfig):
    """Defaults of the authors' code for MovieLens, but for its network."""

    gamma: float = 1.0
    """Discount per step, in [0, 1]."""
    num_envs: int = 64
    """Paths of a batch: groups times `group_size`, where the env is given by its id."""
    group_size: int = 16
    """Paths from one start, where the world has numbered tasks; elsewhere a batch is one group."""
    signal_weights: tuple[float, ...] = ()
    """Weights of the first entries of `info["signals"]`, each in units of its deviation; none for the reward alone."""
    centre: bool = True
    """Subtract from every signal its running mean over all steps (stepwise reward centring)."""
    smallest_deviation: float = 0.1
    """Least running deviation that a signal is divided by, above 0."""
    scope: Literal["return-to-go", "path"] = "return-to-go"
    """What a step is credited with: the return from it on, or that of the whole path."""
    group_baseline: Literal["position", "group", "none"] = "position"
    """What is subtracted: the group's mean at the same position, of the whole paths, or nothing."""
    kl_coef: float = 0.0
    """Weight of the distance to the policy before training, at least 0."""
    kl_form: Literal["k3", "literal"] = "k3"
    """Its estimate: r - 1 - log r with r = pi_ref / pi, or the authors' log pi - log pi_ref, of mean gradient 0."""
    learning_rate: float = 1e-3
    """Step size of Adam, above 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("group_size", self.group_size >= 2, "an integer of at least 2")
        self.require("smallest_deviation", self.smallest_deviation > 0.0, "a number above 0")
        self.require("kl_coef", self.kl_coef >= 0.0, "a number of at least 0")
        self.require("baseline", self.baseline == "none", "'none': group_baseline takes its place")
        self.require("n_steps", self.n_steps == 1, "1: a path of each env")
        self.require("step_decay", self.step_decay == 0.0, "0: steps are those of Adam")
        self.require("normalize_reward", not self.normalize_reward, "False: signals have their own scales")


@register_agent("prorl")
class ProRL(EpisodicAgent):
    """REINFORCE on paths that may end early, with rewards centred by the step and a baseline for each position.

    - Stepwise reward centring: r_t = sum_k w_k (x_k - mu_k) / max(sd_k, floor) over the signals x_k of the step, with
      running means and deviations over all steps; a step that only ends the path (`info["item"]` false) brings 0.
    - Position-specific advantage: A_t = G_t - the mean of G_t over the paths of the group that are active at t.

    The loss is -1/paths sum_t A_t log pi(a_t|s_t), the decision to end a path included. `centre=False`,
    `group_baseline="none"` is REINFORCE in units of deviations; `scope="path"`, `group_baseline="group"` is the
    credit of GRPO. Where the world has numbered tasks, each batch begins with `num_envs / group_size` new tasks and
    `group_size` paths of each, which share the start and not the noise. Nothing is kept of an invalid item's rewards
    (-1, the batch's minimum): worlds here know no invalid items.
    """

    config: ProRLConfig
    config_class = ProRLConfig
    action_spaces: ClassVar[tuple[type[gym.Space[Any]], ...]] = (spaces.Discrete,)

    def build(self) -> None:
        """Create the policy, the policy that it is kept near, the signals' moments and the optimiser."""
        c = self.config
        self.network = self.make_network()
        last = self.network.value[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)  # Never trained, so that the values stay 0.
        self.reference = copy.deepcopy(self.network).requires_grad_(False)
        self.parameters = self.network.policy_parameters()
        self.policy_optimizer = self.optimizer(*self.parameters, max_grad_norm=1.0)
        self.moments = RunningMoments((max(1, len(c.signal_weights)),))
        self.batches = 0

    def _learn(self, callback: CallbackList) -> None:
        if not self.collector.started:
            self._begin_groups()
        super()._learn(callback)

    def training_step(self) -> None:
        """Take one step of every row; when all paths are complete, learn from them and begin new groups."""
        super().training_step()
        if self.rollout.position == 0:
            self._begin_groups()

    def _begin_groups(self) -> None:
        """Let every row begin a path, in groups of one task, where the world has numbered tasks."""
        size = self.config.group_size
        simulator = simulator_of(self.collector.env)
        tasks = 0 if simulator is None else getattr(simulator, "tasks", 0)
        if not tasks:
            return
        if self.num_envs % size:
            raise ValueError(f"prorl: num_envs={self.num_envs}; expected a multiple of group_size={size}")
        draws = torch.randint(tasks, (self.num_envs // size,), generator=self.generator, device=self.device)
        rows = range(self.batches * self.num_envs, (self.batches + 1) * self.num_envs)
        self.collector.start({"task_seed": draws.repeat_interleave(size).tolist(), "member": list(rows)})
        self.rollout.restart()
        self.batches += 1

    def interact(self) -> tuple[dict[str, Any], Step]:
        """Step every row, and keep its signals with the decision."""
        decision, step = super().interact()
        weights, found, item = self.config.signal_weights, step.reported("signals"), step.reported("item")
        if weights and (found is None or found.shape[1] < len(weights)):
            shape = None if found is None else found.shape
            raise ValueError(f"prorl: info['signals'] of shape {shape}; expected [num_envs, at least {len(weights)}]")
        signals = found[:, : len(weights)] if weights and found is not None else step.reward[:, None]
        is_item = torch.ones(self.num_envs, dtype=torch.bool) if item is None else torch.as_tensor(item)
        kept = {
            "signals": torch.as_tensor(signals, dtype=torch.float32, device=self.device),
            "item": is_item.to(self.device),
        }
        return {**decision, **kept}, step

    def improve(self, rollout: RolloutBuffer) -> None:
        """Compute the rectified advantages of all paths, and take a step."""
        fields, c = rollout.fields, self.config
        valid = fields["valid"]
        reward = self.rectified(fields["signals"], valid & fields["item"])
        # Rows may wait for an episode to begin, so a step's position in its path is not its place in the rollout.
        position = (valid.long().cumsum(0) - 1).clamp(min=0)
        by_position = torch.zeros_like(reward).scatter_add_(0, position, reward * valid)
        active = torch.zeros_like(position).scatter_add_(0, position, valid.long()) > 0
        rows = torch.arange(self.num_envs, device=self.device)
        grouped = self.batches > 0
        group = rows // c.group_size if grouped else torch.zeros_like(rows)
        advantage = path_advantages(by_position, active, group, c.gamma, c.scope, c.group_baseline)
        rollout.add_computed({"advantage": advantage.gather(0, position).masked_fill(~valid, 0.0)})
        super().improve(rollout)

    def rectified(self, signals: Tensor, counts: Tensor) -> Tensor:
        """Return the rewards `[steps, num_envs]` made of signals `[steps, num_envs, signals]`, 0 where none counts."""
        if bool(counts.any()):
            self.moments.update(signals[counts])
        mean, deviation = self.moments.mean.float(), self.moments.variance.sqrt().float()
        centred = signals - mean if self.config.centre else signals
        weights = torch.tensor(self.config.signal_weights or (1.0,), device=self.device)
        reward = (centred / deviation.clamp(min=self.config.smallest_deviation)) @ weights
        return reward.masked_fill(~counts, 0.0)

    def learn_from(self, batch: Trajectories) -> None:
        """Take a step of Adam on the paths."""
        c = self.config
        log_prob = self.log_probs(self.network, batch)
        policy_loss = -(log_prob @ batch.weight) / batch.count
        with torch.no_grad():
            reference = self.log_probs(self.reference, batch)
        distance = self.distance(log_prob, reference) / batch.count
        self.policy_optimizer.zero_grad()
        (policy_loss + c.kl_coef * distance).backward()
        if c.learning_rate_schedule == "linear":
            self.policy_optimizer.param_groups[0]["lr"] = self.step_size
        self.policy_optimizer.step()
        self.num_updates += 1
        metrics = {
            "train/policy_loss": policy_loss.detach(),
            "train/kl_to_reference": distance.detach(),
            "train/path_length": torch.tensor(len(log_prob) / batch.count),
        }
        self.metrics.add(metrics, self.num_updates)

    def distance(self, log_prob: Tensor, reference: Tensor) -> Tensor:
        """Return the estimated distance to the reference policy, summed over all steps, a scalar.

        Args:
            log_prob: log pi(a|s) of the steps `[steps]`.
            reference: log pi_ref(a|s) `[steps]`.
        """
        difference = log_prob - reference
        if self.config.kl_form == "literal":
            return difference.sum()
        return ((-difference).exp() - 1.0 + difference).sum()
