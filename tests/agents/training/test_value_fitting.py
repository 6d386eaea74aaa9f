"""Fitting a value function apart from the policy: what moves, how far clipping lets it, and how often it steps."""

from __future__ import annotations

import pytest
import torch
from gymnasium import spaces

from palaestra.agents.memory.rollout import RolloutBuffer
from palaestra.agents.nn.actor_critic import ActorCritic
from palaestra.agents.training.optimizer import FlatAdam
from palaestra.agents.training.value_fitting import fit_value

STEPS, ENVS, TARGET = 8, 4, 5.0


def fitted(clip_range: float | None, epochs: int) -> tuple[ActorCritic, torch.Tensor, torch.Tensor, FlatAdam]:
    """Fit a fresh network to targets far away; return it with the values before and after, and its optimiser."""
    torch.manual_seed(0)
    network = ActorCritic(spaces.Box(-1.0, 1.0, (2,)), spaces.Discrete(2), (16,))
    optimizer = FlatAdam(network.value.parameters(), 3e-3)
    observation = torch.randn(STEPS, ENVS, 2, generator=torch.Generator().manual_seed(0))
    rollout = RolloutBuffer(STEPS, torch.device("cpu"))
    for step in observation:
        rollout.add(observation=step, reward=torch.zeros(ENVS), valid=torch.ones(ENVS, dtype=torch.bool))
    with torch.no_grad():
        before = network.evaluate(observation.flatten(0, 1), None, None)
    rollout.add_computed({"value": before.view(STEPS, ENVS), "target": torch.full((STEPS, ENVS), TARGET)})
    fit_value(network, optimizer, rollout, epochs, 8, torch.Generator().manual_seed(1), clip_range)
    with torch.no_grad():
        after = network.evaluate(observation.flatten(0, 1), None, None)
    return network, before, after, optimizer


def test_values_reach_their_targets_unless_they_are_clipped() -> None:
    _, before, after, _ = fitted(None, 300)
    assert float((after - TARGET).abs().max()) < 0.2
    _, before, after, _ = fitted(0.2, 300)
    moved = after - before
    assert float(moved.min()) > 0.15
    # Steps of the others carry a value on a little after it has left the range.
    assert float(moved.max()) < 0.6


def test_the_policy_stays_and_every_epoch_covers_the_rollout() -> None:
    policy = ActorCritic.policy_parameters
    torch.manual_seed(0)
    fresh = ActorCritic(spaces.Box(-1.0, 1.0, (2,)), spaces.Discrete(2), (16,))
    network, before, after, optimizer = fitted(None, 3)
    assert all(torch.equal(one, other) for one, other in zip(policy(fresh), policy(network), strict=True))
    assert not torch.equal(before, after)
    assert optimizer.state_dict()["steps"].item() == 3 * STEPS * ENVS / 8


def test_the_mean_loss_of_the_steps_is_returned() -> None:
    torch.manual_seed(0)
    network = ActorCritic(spaces.Box(-1.0, 1.0, (1,)), spaces.Discrete(2), ())
    optimizer = torch.optim.SGD(network.value.parameters(), lr=0.0)
    rollout = RolloutBuffer(2, torch.device("cpu"))
    for _ in range(2):
        rollout.add(observation=torch.zeros(2, 1), reward=torch.zeros(2), valid=torch.ones(2, dtype=torch.bool))
    rollout.add_computed({"value": torch.zeros(2, 2), "target": torch.tensor([[1.0, 2.0], [3.0, 0.0]])})
    loss = fit_value(network, optimizer, rollout, 2, 2, torch.Generator().manual_seed(0))
    assert loss.item() == pytest.approx((1.0 + 4.0 + 9.0) / 4)
