"""Quantile-regression DQN (Dabney et al. 2018, arXiv 1710.10044)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from palaestra.agents.losses.quantiles import midpoints, quantile_huber_loss
from palaestra.agents.losses.values import td_target
from palaestra.agents.memory.replay import Batch
from palaestra.agents.nn.action_values import ActionValues, admissible, of_actions
from palaestra.agents.nn.critic import target_copy
from palaestra.agents.nn.networks import Observation
from palaestra.agents.registry import register_agent
from palaestra.agents.training.epsilon_greedy import EpsilonGreedyAgent, EpsilonGreedyConfig
from palaestra.agents.training.metrics import Metrics
from palaestra.agents.training.off_policy import minimise


@dataclass(frozen=True)
class QRDQNConfig(EpsilonGreedyConfig):
    """Settings of the paper where they do not depend on its 50 million frames."""

    hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers between encoder and quantiles."""
    learning_rate: float = 5e-5
    """Step size of Adam, above 0."""
    exploration_final_eps: float = 0.01
    """Probability of a random action in the end, in [0, 1]."""
    max_grad_norm: float | None = None
    """Largest norm of a gradient; none for no limit."""
    num_quantiles: int = 200
    """Quantiles of the return per action."""
    huber_width: float = 1.0
    """Where the loss turns from a square into a line, at least 0; 0 is plain quantile regression."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("num_quantiles", self.num_quantiles >= 1, "an integer of at least 1")
        self.require("huber_width", self.huber_width >= 0.0, "a number of at least 0")


@register_agent("qr-dqn")
class QRDQN(EpsilonGreedyAgent):
    """Learns equally weighted quantiles of the return of every action; their mean is its value."""

    config: QRDQNConfig
    config_class = QRDQNConfig

    def build(self) -> None:
        """Create the network, its target and the optimiser."""
        c = self.config
        self.network = ActionValues(
            self.observation_space, self.num_actions, c.hidden, c.activation, c.encoder, atoms=c.num_quantiles
        )
        self.target_network = target_copy(self.network)
        self.network_optimizer = self.optimizer(self.network, eps=0.01 / c.batch_size, max_grad_norm=c.max_grad_norm)
        self.levels = midpoints(c.num_quantiles, self.device)

    def values(self, observation: Observation) -> Tensor:
        """Return the mean return of every action `[batch, num_actions]`."""
        values: Tensor = self.network(observation).mean(-1)
        return values

    def update(self, batch: Batch) -> Metrics:
        """Step the quantiles of (s, a) towards r + gamma Z'(s', a*), a* being the greedy action of the target."""
        c = self.config
        with torch.no_grad():
            next_quantiles = self.target_network(batch.next_observation)
            next_action = admissible(next_quantiles.mean(-1), batch.next_mask).argmax(-1)
            following = of_actions(next_quantiles, next_action)
            target = td_target(batch.reward[:, None], batch.terminated[:, None], following, c.gamma)
        quantiles = of_actions(self.network(batch.observation), batch.action)
        loss = quantile_huber_loss(quantiles, target, self.levels, c.huber_width)
        minimise(loss, self.network_optimizer)
        return {"train/loss": loss.detach(), "train/q_mean": quantiles.detach().mean()}
