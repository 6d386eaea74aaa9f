"""A period of one store as one operation equals the same in plain operations, forwards and backwards."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from palaestra.envs.inventory import fused_store
from palaestra.envs.inventory.one_store_backlog import OneStoreBacklog
from palaestra.envs.inventory.one_store_lost import OneStoreLost
from palaestra.envs.noise import CounterKey


@pytest.mark.parametrize("kind", [OneStoreBacklog, OneStoreLost])
@pytest.mark.parametrize("lead_time", [1, 2, 4])
def test_rewards_states_and_gradients_are_those_of_plain_operations(
    kind: Any, lead_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = kind(lead_time=lead_time)
    key = CounterKey(torch.arange(6))
    actions = torch.tensor(np.random.default_rng(0).uniform(-1.0, 1.0, (8, 6, 1)), requires_grad=True)

    def run() -> tuple[torch.Tensor, list[Any], torch.Tensor]:
        state, rewards, infos = world.initial(key), [], []
        for step in range(8):
            transition = world.step(state, actions[step], key.at(step=step + 1))
            state = transition.state
            rewards.append(transition.reward)
            infos.append({name: array.detach() for name, array in transition.info.items()})
        total = torch.stack(rewards)
        weights = torch.arange(1.0, 49.0, dtype=torch.float64).reshape(8, 6)
        (gradient,) = torch.autograd.grad((total * weights).sum() + state.pipeline.square().sum(), actions)
        return total.detach(), infos, gradient

    fused = run()
    assert fused[2].abs().max() > 1.0
    monkeypatch.setattr(fused_store, "fusable", lambda pipeline: False)
    plain = run()
    assert torch.equal(fused[0], plain[0])
    torch.testing.assert_close(fused[2], plain[2], rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(fused[1], plain[1], strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_gradient_in_demand_is_that_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    pipeline, order, demand = (
        torch.rand(*shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((5, 3), (5,), (5,))
    )
    for lost in (True, False):

        def period(*arrays: torch.Tensor, lost: bool = lost) -> tuple[torch.Tensor, ...]:
            return fused_store.fused_period(*arrays, 1.0, 9.0, lost)[:2]

        assert torch.autograd.gradcheck(period, (pipeline, order, demand))


def test_transforms_take_the_plain_operations() -> None:
    world = OneStoreLost()
    key = CounterKey(torch.arange(3))
    state = world.initial(key)

    def total(action: torch.Tensor) -> torch.Tensor:
        first = world.step(state, action, key.at(step=1)).state
        second = world.step(first, action, key.at(step=2)).state
        return world.step(second, action, key.at(step=3)).reward.sum()

    action = torch.zeros(3, 1, dtype=torch.float64, requires_grad=True)
    expected = torch.autograd.grad(total(action), action)[0]
    torch.testing.assert_close(torch.func.grad(total)(torch.zeros(3, 1, dtype=torch.float64)), expected)
