"""Fitting a value function to a rollout's targets apart from the policy, as policy gradients of several kinds do."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from palaestra.agents.losses.values import clipped_value_loss
from palaestra.agents.memory.rollout import RolloutBuffer
from palaestra.agents.nn.actor_critic import ActorCritic


def fit_value(
    network: ActorCritic,
    optimizer: torch.optim.Optimizer,
    rollout: RolloutBuffer,
    epochs: int,
    batch_size: int,
    generator: Generator,
    clip_range: float | None = None,
) -> Tensor:
    """Make passes of minibatch steps on the squared error of V and return its mean over the steps.

    An encoder with parameters belongs to the policy; the value function only reads it.

    Args:
        network: The policy and value networks.
        optimizer: Of `network.value` alone.
        rollout: A full rollout with its targets.
        epochs: Passes over the rollout, at least 1.
        batch_size: Steps per minibatch.
        generator: Shuffles the steps.
        clip_range: Largest change of a prediction from the rollout's, or None for no clipping.
    """
    losses = []
    for _ in range(epochs):
        for batch in rollout.minibatches(batch_size, generator):
            with torch.no_grad():
                features = network.encoder(batch["observation"])
            value = network.value(features).squeeze(-1)
            loss = clipped_value_loss(value, batch["value"], batch["target"], clip_range)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
    return torch.stack(losses).mean()
