"""What makes a generative head an actor: one action per state, or several to choose from."""

from __future__ import annotations

from torch import Generator, Tensor

from palaestra.agents.nn.generative.diffusion import DiffusionHead
from palaestra.agents.nn.generative.flow import FlowHead
from palaestra.agents.nn.networks import Observation

GenerativeHead = FlowHead | DiffusionHead


def generate(head: GenerativeHead, observation: Observation, generator: Generator | None) -> Tensor:
    """Return one action `[batch, action_dim]` per observation; without a generator, what no noise turns into."""
    return head(observation).sample(generator)


def propose_actions(head: GenerativeHead, observation: Observation, count: int, generator: Generator | None) -> Tensor:
    """Return `count` actions for every observation, `[batch, count, action_dim]`; observations are encoded once.

    With one, these are the draws of `generate`.
    """
    policy = head(observation)
    return policy.repeated(count).sample(generator).view(len(policy.features), count, head.action_dim)
