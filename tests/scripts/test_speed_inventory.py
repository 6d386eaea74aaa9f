"""The peer of training through supply worlds does the very same as ours, and every period is counted."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from palaestra.agents.registry import make_agent
from palaestra.scripts import speed_inventory
from palaestra.scripts.speed import SUITES
from palaestra.scripts.speed_inventory import CHAIN, HIDDEN, PEER, STORE, PlainSerial, plain_training
from palaestra.scripts.timing import OURS, interleaved


@pytest.mark.parametrize("env_id", [STORE, CHAIN])
def test_costs_and_gradients_of_the_peer_are_ours(env_id: str) -> None:
    """With the same weights, from the same start, on the same demand."""
    agent: Any = make_agent("hdpo", env_id, preset_name=None, device="cpu", hidden=HIDDEN)
    peer = plain_training(env_id)
    world = agent.simulator
    start: list[Any] = []
    demands: list[torch.Tensor] = []
    initial, step = world.initial, world.step

    def recorded_initial(key: Any) -> Any:
        start.append(initial(key))
        return start[-1]

    def recorded_step(state: Any, action: Any, key: Any) -> Any:
        transition = step(state, action, key)
        demands.append(transition.info["demand"].reshape(-1).detach())
        return transition

    world.initial, world.step = recorded_initial, recorded_step
    cost = -agent.simulate(torch.Generator().manual_seed(0), 20, 30).mean()
    ours = torch.autograd.grad(cost, list(agent.policy.parameters()))
    state = _state_of(peer, start[-1], world)
    weights = [parameter.detach().clone() for parameter in agent.policy.parameters()]
    if isinstance(peer, PlainSerial):
        weights[0] = weights[0][:, _places(world)]
    with torch.no_grad():
        for parameter, weight in zip(peer.network.parameters(), weights, strict=True):
            parameter.copy_(weight)
    theirs_cost = peer.cost(state, torch.stack(demands[-30:]))
    torch.testing.assert_close(theirs_cost, cost, rtol=1e-5, atol=1e-5)
    theirs = list(torch.autograd.grad(theirs_cost, list(peer.network.parameters())))
    if isinstance(peer, PlainSerial):
        theirs[0] = theirs[0][:, torch.argsort(torch.tensor(_places(world)))]
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def _places(world: Any) -> list[int]:
    """Where the peer's observation, stage by stage, stands in ours."""
    network = world.network
    return [
        place
        for node in range(len(network.nodes))
        for place in (int(network.on_hand[node]), *(int(slot) for slot in network.in_transit[node] if slot >= 0))
    ]


def _state_of(peer: Any, state: Any, world: Any) -> dict[str, torch.Tensor]:
    if not isinstance(peer, PlainSerial):
        return {"pipeline": state.pipeline.detach()}
    parts = state.stock.detach()[:, _places(world)].split([peer.leads[name] for name in peer.names], 1)
    return dict(zip(peer.names, parts, strict=True))


def test_the_peer_draws_what_the_worlds_draw() -> None:
    for env_id, mean, std in ((STORE, 5.0, 5.0**0.5), (CHAIN, 5.0, 2.0)):
        peer = plain_training(env_id)
        demand = peer.demand(50, 2000)
        assert float(demand.mean()) == pytest.approx(mean, abs=0.05)
        assert float(demand.std()) == pytest.approx(std, abs=0.05)
        before = [parameter.clone() for parameter in peer.network.parameters()]
        peer.update(8, 10)
        assert any(not torch.equal(a, b) for a, b in zip(before, peer.network.parameters(), strict=True))


def test_every_part_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed_inventory, "PATHS", 16)
    monkeypatch.setattr(speed_inventory, "interleaved", partial(interleaved, turn_seconds=0.0))
    for time_it in (speed_inventory.train_store, speed_inventory.train_serial):
        timing = time_it(3, threads=1)
        assert list(timing.sides) == [OURS, PEER]
        assert all(rate > 0.0 for rates in timing.sides.values() for rate in rates)
    timing = speed_inventory.step_store(3, num_envs=4)
    assert list(timing.sides) == [OURS, "SyncVectorEnv"]
    for part in SUITES["inventory"]:
        assert hasattr(speed_inventory, part.function.partition(":")[2])


def test_memory_is_measured_in_a_process_of_its_own() -> None:
    """Of a small update; the whole one takes hundreds of megabytes."""
    assert speed_inventory.alone(speed_inventory.peak_bytes, OURS, STORE) > 10**7
