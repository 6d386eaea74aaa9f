"""Policies of supply networks: feasible flows, the rules they reduce to, and the symmetries of the network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from palaestra.agents.pathwise.graph_network import GraphNetwork
from palaestra.agents.pathwise.network_reader import NetworkReader, network_from_json, network_to_json
from palaestra.agents.pathwise.output_layers import ONE, Quantities, Shares
from palaestra.agents.pathwise.policies import (
    BaseStock,
    CappedBaseStock,
    EchelonBaseStock,
    Perceptron,
    SymmetricPerceptron,
)
from palaestra.envs.inventory.many_warehouses import ManyWarehouses
from palaestra.envs.inventory.network_policies import EchelonBaseStock as EchelonRule
from palaestra.envs.inventory.one_store import BaseStock as BaseStockRule
from palaestra.envs.inventory.one_store_backlog import OneStoreBacklog
from palaestra.envs.inventory.one_store_lost import OneStoreLost
from palaestra.envs.inventory.one_warehouse import OneWarehouse
from palaestra.envs.inventory.retail_network import RetailNetwork
from palaestra.envs.inventory.serial import Serial
from palaestra.envs.inventory.supply_network import SupplyNetwork
from palaestra.envs.inventory.transshipment import Transshipment
from palaestra.envs.noise import CounterKey
from palaestra.envs.rollout import rollout
from palaestra.protocols import OUTSIDE, Network

WORLDS = {
    "store": OneStoreBacklog(),
    "serial": Serial(),
    "transshipment": Transshipment(stores=3),
    "warehouse": OneWarehouse(stores=3),
    "warehouses": ManyWarehouses(),
    "retail": RetailNetwork(products=3),
}


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> Any:
    return WORLDS[request.param]


def states(world: Any, batch: int = 7, steps: int = 8) -> Any:
    """States that the world reaches under random actions."""
    seeds = np.arange(batch)
    return rollout(world, world.reference_policies()["random"], seeds, steps=steps).state


def observed(world: Any, state: Any) -> Tensor:
    return torch.tensor(np.asarray(world.observe(state)))


def flows_of(world: Any, actions: Tensor) -> np.ndarray:
    return 0.5 * world.network.flow_limits * (actions.detach().numpy() + 1.0)


def outputs(network: Network, batch: int = 7, scale: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return scale * torch.randn(batch, len(network.suppliers), generator=generator, dtype=torch.float64)


def sent_by(network: Network, flows: Tensor, node: int) -> Tensor:
    return flows[:, np.flatnonzero(network.suppliers == node)].sum(1)


# Output layers


@pytest.mark.parametrize("layer", [Shares, Quantities])
def test_flows_are_feasible(layer: Any, world: Any) -> None:
    """At least 0, and at most what is on hand; exactly that where a node passes everything on."""
    network, state = world.network, states(world)
    reader = NetworkReader(network)
    observation = observed(world, state)
    on_hand = reader.on_hand(observation)
    flows = layer(reader)(outputs(network), observation)
    assert bool((flows >= 0.0).all())
    for node in np.unique(network.suppliers[network.suppliers != OUTSIDE]):
        sent = sent_by(network, flows, node)
        assert bool((sent <= on_hand[:, node] + 1e-9).all())
        if not network.holds_stock[node]:
            torch.testing.assert_close(sent, on_hand[:, node])


@pytest.mark.parametrize("layer", [Shares, Quantities])
def test_gradients_are_finite_where_nothing_is_on_hand(layer: Any, world: Any) -> None:
    reader = NetworkReader(world.network)
    raw = outputs(world.network).requires_grad_()
    observation = torch.zeros(7, len(world.network.units), dtype=torch.float64, requires_grad=True)
    (layer(reader)(raw, observation).sum() + 0.0 * observation.sum()).backward()
    for gradient in (raw.grad, observation.grad):
        assert gradient is not None
        assert bool(gradient.isfinite().all())


def test_shares_follow_their_formulas() -> None:
    x = torch.tensor([[0.3, -0.2, 0.5, 0.1]], dtype=torch.float64)
    store = NetworkReader(WORLDS["store"].network)
    one = torch.ones(1, 4, dtype=torch.float64)
    expected = 5.0 * torch.nn.functional.softplus(torch.tensor([[1.3]], dtype=torch.float64))
    torch.testing.assert_close(Shares(store)(x[:, :1], one), expected)
    chain = WORLDS["serial"].network
    observation = torch.zeros(1, len(chain.units), dtype=torch.float64)
    observation[:, chain.on_hand] = torch.tensor([1.0, 2.0, 3.0, -1.0], dtype=torch.float64)
    flows = Shares(NetworkReader(chain))(x, observation)
    available = torch.tensor([20.0, 5.0, 10.0, 15.0], dtype=torch.float64)
    torch.testing.assert_close(flows, x.sigmoid() * available)
    shop = WORLDS["warehouse"].network
    observation = torch.zeros(1, len(shop.units), dtype=torch.float64)
    observation[:, shop.on_hand[0]] = 2.0
    flows = Shares(NetworkReader(shop))(x, observation)
    weights = torch.cat((x[0, 1:], torch.ones(1, dtype=torch.float64))).softmax(0)
    torch.testing.assert_close(flows[0, 1:], 2.0 * shop.units[shop.on_hand[0]] * weights[:3])


def test_quantities_stay_where_feasible_and_scale_together() -> None:
    network = WORLDS["warehouse"].network
    reader = NetworkReader(network)
    layer, raw = Quantities(reader), outputs(network, 1, 1.0)
    wanted = torch.nn.functional.softplus(raw + ONE) * layer.demand
    plenty = torch.full((1, len(network.units)), 100.0, dtype=torch.float64)
    torch.testing.assert_close(layer(raw, plenty), wanted)
    scarce = 0.1 * torch.ones_like(plenty)
    available = reader.on_hand(scarce)[:, 0]
    flows = layer(raw, scarce)
    torch.testing.assert_close(flows[:, 1:], wanted[:, 1:] * (available / wanted[:, 1:].sum(1))[:, None])
    kept = torch.zeros(1, len(network.nodes), dtype=torch.float64)
    kept[:, 0] = wanted[:, 1:].sum()
    torch.testing.assert_close(layer(raw, scarce, kept)[:, 1:], 0.5 * flows[:, 1:])
    torch.testing.assert_close(layer(raw, scarce, kept)[:, 0], wanted[:, 0])


# Rules


def test_base_stock_is_the_rule_of_one_store() -> None:
    world = OneStoreBacklog()
    state, policy = states(world), BaseStock(NetworkReader(world.network))
    assert policy.levels.tolist() == [25.0]
    rule = BaseStockRule(world, 25.0)(state, None, CounterKey(range(7)))
    np.testing.assert_allclose(np.clip(policy(observed(world, state)).detach().numpy(), -1.0, 1.0), rule, atol=1e-12)


def test_capped_base_stock_is_the_rule_of_one_store() -> None:
    world = OneStoreLost()
    state, policy = states(world), CappedBaseStock(NetworkReader(world.network))
    assert policy.caps.tolist() == [7.5]
    rule = BaseStockRule(world, 15.0, 7.5)(state, None, CounterKey(range(7)))
    np.testing.assert_allclose(policy(observed(world, state)).detach().numpy(), rule, atol=1e-12)


@pytest.mark.parametrize("name", ["serial", "transshipment", "warehouse", "warehouses"])
def test_echelon_base_stock_is_the_rule_of_networks(name: str) -> None:
    world: Any = WORLDS[name]
    state, policy = states(world), EchelonBaseStock(NetworkReader(world.network))
    rule = EchelonRule(world, policy.levels.detach().numpy())(state, None, CounterKey(range(7)))
    np.testing.assert_allclose(np.clip(policy(observed(world, state)).detach().numpy(), -1.0, 1.0), rule, atol=1e-9)


def test_levels_start_at_the_mean_of_the_demand_they_cover() -> None:
    chain = NetworkReader(Serial(upstream_lead_times=(2, 4, 3), store_lead_time=4).network)
    assert chain.echelon_levels().tolist() == [5.0 * (2 + 4 + 3 + 4 + 1), 5.0 * (4 + 3 + 4 + 1), 5.0 * 8, 5.0 * 5]
    assert chain.base_stock_levels().tolist() == [15.0, 25.0, 20.0, 25.0]
    world = WORLDS["warehouses"]
    reader = NetworkReader(world.network)
    np.testing.assert_array_equal(reader.fastest, world.graph.fastest_links())
    np.testing.assert_allclose(reader.throughput, world.throughput)


def test_equal_shares_add_up_to_what_nodes_need(world: Any) -> None:
    """Into each node flows what it needs; out of a supplier, what its customers ask of it; trees pass all demand on."""
    network, reader = world.network, NetworkReader(world.network)
    for node in range(len(network.nodes)):
        into, out = network.customers == node, network.suppliers == node
        np.testing.assert_allclose(reader.shares[into].sum(), reader.needs[node])
        np.testing.assert_allclose(reader.shares[out].sum() + network.demand_mean[node], reader.needs[node])
        np.testing.assert_allclose(reader.shares[into], reader.shares[into][0])
    if len(network.nodes) == len(network.suppliers):
        np.testing.assert_allclose(reader.needs, reader.throughput)


def test_first_wishes_add_up_to_a_period_of_demand() -> None:
    """Whatever the number of suppliers of a store: three that each sent a period's demand would flood it."""
    network = WORLDS["retail"].network
    reader = NetworkReader(network)
    plenty = torch.full((1, len(network.units)), 100.0, dtype=torch.float64)
    wanted = Quantities(reader)(torch.zeros(1, len(network.suppliers), dtype=torch.float64), plenty)[0]
    for node in np.flatnonzero(network.demand_mean > 0.0):
        into = np.flatnonzero(network.customers == node)
        torch.testing.assert_close(wanted[into].sum().item(), float(network.demand_mean[node]))


# Networks


@pytest.mark.parametrize("kind", ["perceptron", "symmetric", "graph"])
def test_networks_act_in_every_world(kind: str, world: Any) -> None:
    reader = NetworkReader(world.network)
    made: Any = {
        "perceptron": lambda: Perceptron(reader, (8,), "elu", "quantities"),
        "symmetric": lambda: SymmetricPerceptron(reader, "elu", "shares"),
        "graph": lambda: GraphNetwork(reader, (8,), "elu"),
    }[kind]()
    policy = made.double()
    state = states(world)
    actions = policy(observed(world, state))
    assert actions.shape == (7, len(world.network.suppliers))
    assert bool((actions >= -1.0).all())
    actions.sum().backward()
    gradients = [p.grad for p in policy.parameters() if p.grad is not None]
    assert all(bool(g.isfinite().all()) for g in gradients)
    assert any(bool(g.any()) for g in gradients)


def stores_renamed(world: Any, order: Sequence[int]) -> tuple[Any, np.ndarray]:
    """The same world with its stores in another order, and which link of the old one each new link is."""
    network = world.network
    stores = range(1, len(network.nodes))
    names = [network.nodes[1 + place] for place in order]
    links: list[Any] = [(None, "warehouse", 3)]
    links += [("warehouse", name, int(network.lead_times[network.nodes.index(name)])) for name in names]
    by_name = {name: index for index, name in enumerate(network.nodes)}
    renamed = SupplyNetwork(
        links=links,
        holding_cost={name: float(network.holding_costs[by_name[name]]) for name in network.nodes},
        underage_cost={name: float(network.underage_costs[by_name[name]]) for name in names},
        demand_mean={name: float(network.demand_mean[by_name[name]]) for name in names},
        demand_std={name: float(network.demand_std[by_name[name]]) for name in names},
        unmet_demand="lost",
    )
    assert [renamed.network.nodes[store] for store in stores] == names
    return renamed, np.array([0, *(1 + place for place in order)])


def moved(old: Network, new: Network, observation: Tensor) -> Tensor:
    """The observation of the old network, as the new one lays it out."""
    result = torch.zeros_like(observation)
    for node, name in enumerate(new.nodes):
        result[:, new.on_hand[node]] = observation[:, old.on_hand[old.nodes.index(name)]]
    for link, customer in enumerate(new.customers):
        (before,) = np.flatnonzero(old.customers == old.nodes.index(new.nodes[customer]))
        for slot, place in enumerate(new.in_transit[link]):
            if place >= 0:
                result[:, place] = observation[:, old.in_transit[before][slot]]
    return result


def test_graph_network_follows_the_renaming_of_stores() -> None:
    world = OneWarehouse(stores=4)
    renamed, order = stores_renamed(world, (2, 0, 3, 1))
    torch.manual_seed(0)
    one = GraphNetwork(NetworkReader(world.network), (8, 8), "elu").double()
    other = GraphNetwork(NetworkReader(renamed.network), (8, 8), "elu").double()
    other.load_state_dict(one.state_dict())
    observation = observed(world, states(world))
    expected = one(observation)[:, order]
    torch.testing.assert_close(other(moved(world.network, renamed.network, observation)), expected)
    assert float(expected.detach()[:, 1:].std()) > 0.0


def test_graph_network_of_few_stores_fits_many() -> None:
    few, many = (NetworkReader(OneWarehouse(stores=count).network) for count in (3, 10))
    one, other = (GraphNetwork(reader, (8,), "elu") for reader in (few, many))
    other.load_state_dict(one.state_dict())
    assert one.rounds == other.rounds == 1
    assert GraphNetwork(NetworkReader(Serial().network), (8,), "elu").rounds == 3


@pytest.mark.parametrize("kind", [GraphNetwork, SymmetricPerceptron])
def test_networks_read_past_demand_where_it_is_shown(kind: Any) -> None:
    """What a store sold in the past changes what is sent to it."""
    world = WORLDS["retail"]
    reader = NetworkReader(world.network)
    torch.manual_seed(0)
    policy = (kind(reader, (8,), "elu") if kind is GraphNetwork else kind(reader, "elu", "quantities")).double()
    observation = observed(world, states(world))
    observation.requires_grad_()
    store = len(world.network.nodes) - 1
    into = np.flatnonzero(world.network.customers == store)
    (gradient,) = torch.autograd.grad(policy(observation)[:, into].sum(), observation)
    assert bool((gradient[:, world.network.history[store]] != 0.0).any())
    assert bool((gradient[:, world.network.calendar] != 0.0).any())


def test_graph_network_reads_prices_where_there_are_any() -> None:
    priced, free = (ManyWarehouses(supply_costs=costs) for costs in ((0.5, 1.5), (0.0, 0.0)))
    dear = ManyWarehouses(supply_costs=(5.0, 1.5))
    one, other = (GraphNetwork(NetworkReader(world.network), (8,), "elu").double() for world in (priced, dear))
    other.load_state_dict(one.state_dict())
    observation = observed(priced, states(priced))
    assert not torch.equal(one(observation), other(observation))
    plain = GraphNetwork(NetworkReader(free.network), (8,), "elu")
    assert sum(p.numel() for p in one.parameters()) == sum(p.numel() for p in plain.parameters()) + 8


def test_symmetric_network_treats_equal_stores_alike() -> None:
    world = Transshipment(stores=3, demand_mean=5.0, demand_std=1.5)
    policy = SymmetricPerceptron(NetworkReader(world.network), "elu", "shares").double()
    observation = observed(world, states(world))
    network = world.network
    for places in (network.on_hand[1:], *network.in_transit[1:, : world.store_lead_time - 1].T):
        observation[:, places] = observation[:, places[:1]]
    actions = policy(observation)
    torch.testing.assert_close(actions[:, 1], actions[:, 2])
    torch.testing.assert_close(actions[:, 1], actions[:, 3])


def test_network_survives_json(world: Any) -> None:
    network = world.network
    again = network_from_json(json.loads(json.dumps(network_to_json(network))))
    for field in fields(Network):
        ours, theirs = getattr(network, field.name), getattr(again, field.name)
        np.testing.assert_array_equal(ours, theirs)
        if isinstance(ours, np.ndarray):
            assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
    assert network_to_json(again) == network_to_json(network)
    assert network_to_json(replace(again, flow_limits=2.0 * again.flow_limits)) != network_to_json(network)
