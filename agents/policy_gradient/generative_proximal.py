"""What proximal agents share whose policy is a flow or a diffusion."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym
from gymnasium import spaces
from torch import Tensor, nn

from palaestra.agents.nn.generative.actor_critic import GenerativeActorCritic
from palaestra.agents.nn.state_value import StateValue
from palaestra.agents.policy_gradient.proximal import ProximalAgent, ProximalConfig


@dataclass(frozen=True)
class GenerativeProximalConfig(ProximalConfig):
    """A value function with widths of its own; `hidden` is the policy's."""

    value_hidden: tuple[int, ...] = (256, 256)
    """Widths of the hidden layers of the value function; `hidden` holds the policy's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("value_hidden", all(width >= 1 for width in self.value_hidden), "positive widths")
        self.require("recurrent_size", self.recurrent_size == 0, "0: this agent takes no recurrent policy")


class GenerativeProximalAgent(ProximalAgent):
    """PPO's update on a policy without a density, by the ratio that a subclass gives it, for Box actions.

    Bounded boxes are acted on in [-1, 1] per dimension, unsquashed and clipped by the env's bounds, as PPO does: what
    is learnt from is the action as it was drawn. Without a generator, acting takes all noise as 0.
    """

    config: GenerativeProximalConfig
    config_class = GenerativeProximalConfig
    network: GenerativeActorCritic
    action_spaces: ClassVar[tuple[type[gym.Space[Any]], ...]] = (spaces.Box,)
    unsaved = ProximalAgent.unsaved | {"ratio"}

    @abstractmethod
    def make_head(self) -> nn.Module:
        """Return what says for observations what the policy is there."""

    def make_network(self) -> GenerativeActorCritic:
        """Return the policy with its value function."""
        c = self.config
        value = StateValue(self.observation_space, c.value_hidden, c.activation, c.encoder)
        return GenerativeActorCritic(self.make_head(), value)

    def entropy(self, policy: Any) -> Tensor:
        """Return zeros `[batch]`: there is no entropy to be had of such a policy."""
        features: Tensor = policy.features
        return features.new_zeros(len(features))
