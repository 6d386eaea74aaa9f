"""Deep Q-network (Mnih et al. 2015, Nature 518), and its double form (van Hasselt et al. 2016, arXiv 1509.06461)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from palaestra.agents.losses.values import HuberError, td_target
from palaestra.agents.memory.replay import Batch
from palaestra.agents.nn.action_values import ActionValues, admissible, of_actions
from palaestra.agents.nn.critic import target_copy
from palaestra.agents.nn.networks import Observation
from palaestra.agents.registry import register_agent
from palaestra.agents.training.epsilon_greedy import EpsilonGreedyAgent, EpsilonGreedyConfig
from palaestra.agents.training.metrics import Metrics
from palaestra.agents.training.regression import regress


@dataclass(frozen=True)
class DQNConfig(EpsilonGreedyConfig):
    """Settings of the Nature paper, but for what depends on its 50 million frames and its RMSProp."""

    hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers between encoder and action values."""
    double: bool = False
    """Choose the action of the target by the online network, which overestimates less."""


@register_agent("dqn")
class DQN(EpsilonGreedyAgent):
    """Q-learning on replayed transitions towards a target network that stands still between its updates.

    The error is clipped to [-1, 1] in the gradient, as in the paper: the Huber loss of width 1.
    """

    config: DQNConfig
    config_class = DQNConfig
    network: ActionValues

    def build(self) -> None:
        """Create the network, its target and the optimiser."""
        c = self.config
        self.network = ActionValues(self.observation_space, self.num_actions, c.hidden, c.activation, c.encoder)
        self.target_network = target_copy(self.network)
        self.network_optimizer = self.optimizer(self.network, max_grad_norm=c.max_grad_norm)

    def values(self, observation: Observation) -> Tensor:
        """Return the value of every action `[batch, num_actions]`."""
        values: Tensor = self.network(observation)
        return values

    def update(self, batch: Batch) -> Metrics:
        """Step the network towards r + gamma max_a' Q'(s', a')."""
        c = self.config
        with torch.no_grad():
            next_values = admissible(self.target_network(batch.next_observation), batch.next_mask)
            if c.double:
                choosing = admissible(self.values(batch.next_observation), batch.next_mask)
                next_value = of_actions(next_values, choosing.argmax(-1))
            else:
                next_value = next_values.amax(-1)
            target = td_target(batch.reward, batch.terminated, next_value, c.gamma)
        inputs = (batch.observation,)
        value, loss = regress(self.network, inputs, target, HuberError(), self.network_optimizer, batch.action)
        return {"train/loss": loss, "train/q_mean": value.mean()}
