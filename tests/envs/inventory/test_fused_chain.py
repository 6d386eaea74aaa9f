"""A period of a chain as one operation equals the same in plain operations, forwards and backwards."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from palaestra.envs.inventory import fused_store
from palaestra.envs.inventory.one_warehouse import OneWarehouse
from palaestra.envs.inventory.serial import Serial
from palaestra.envs.inventory.supply_network import SupplyNetwork
from palaestra.envs.noise import CounterKey

PARALLEL: dict[str, Any] = {
    "links": [(None, "a", 1, 0.5), (None, "b", 3), ("a", "north", 2, 0.25), ("b", "south", 1)],
    "holding_cost": {"a": 0.2, "b": 0.3, "north": 1.0, "south": 2.0},
    "underage_cost": {"north": 5.0, "south": 9.0},
    "demand_mean": {"north": 3.0, "south": 4.0},
    "demand_std": {"north": 1.0, "south": 2.0},
}
CHAINS: dict[str, Any] = {
    "serial": lambda: Serial(),
    "short": lambda: Serial(upstream_lead_times=(1,), holding_costs=(0.5, 1.0), store_lead_time=1),
    "parallel, backlog": lambda: SupplyNetwork(**PARALLEL),
    "parallel, lost": lambda: SupplyNetwork(**PARALLEL, unmet_demand="lost", demand_correlation=0.5),
}


@pytest.mark.parametrize("name", CHAINS)
def test_rewards_states_and_gradients_are_those_of_plain_operations(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world = CHAINS[name]()
    assert world._chain is not None
    key = CounterKey(torch.arange(6))
    periods, links = 25, len(world.graph.links)
    actions = torch.tensor(np.random.default_rng(0).uniform(-1.0, 0.5, (periods, 6, links)), requires_grad=True)

    def run() -> tuple[torch.Tensor, torch.Tensor, list[Any], torch.Tensor]:
        state, rewards, infos = world.initial(key), [], []
        for step in range(periods):
            transition = world.step(state, actions[step], key.at(step=step + 1))
            state = transition.state
            rewards.append(transition.reward)
            infos.append({name: array.detach() for name, array in transition.info.items()})
        total = torch.stack(rewards)
        weights = torch.arange(1.0, 6.0 * periods + 1.0, dtype=torch.float64).reshape(periods, 6)
        (gradient,) = torch.autograd.grad((total * weights).sum() + state.stock.square().sum(), actions)
        return total.detach(), state.stock.detach(), infos, gradient

    fused = run()
    assert (fused[3] != 0.0).any()
    assert any(bool((info["rationed"] > 0.0).any()) for info in fused[2])
    assert any(bool((info["underage"] > 0.0).any()) for info in fused[2])
    monkeypatch.setattr(fused_store, "fusable", lambda stock: False)
    plain = run()
    for place in (0, 1, 3):
        torch.testing.assert_close(fused[place], plain[place], rtol=1e-12, atol=1e-10)
    for ours, theirs in zip(fused[2], plain[2], strict=True):
        assert set(ours) == set(theirs)
        for entry, expected in theirs.items():
            torch.testing.assert_close(ours[entry], expected, rtol=1e-12, atol=1e-12)


def test_the_gradient_in_demand_is_that_of_finite_differences() -> None:
    from palaestra.envs.inventory.fused_chain import fused_chain

    generator = torch.Generator().manual_seed(0)
    for name in ("serial", "parallel, lost"):
        world = CHAINS[name]()
        sizes = len(world.network.units), len(world.graph.links), len(world.graph.stores)
        arrays = [
            (4.0 * torch.rand(5, size, generator=generator, dtype=torch.float64)).requires_grad_() for size in sizes
        ]
        assert torch.autograd.gradcheck(lambda *given, w=world: fused_chain(*given, w._chain)[:2], arrays)


def test_other_networks_have_no_such_tables() -> None:
    assert OneWarehouse(stores=2)._chain is None
    assert SupplyNetwork(**{**PARALLEL, "links": [*PARALLEL["links"], ("a", "south", 2)]})._chain is None
