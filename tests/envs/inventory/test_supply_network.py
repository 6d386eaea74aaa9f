"""Supply networks of any shape, and what all network worlds share."""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from palaestra.envs.inventory.many_warehouses import ManyWarehouses
from palaestra.envs.inventory.network_policies import EchelonBaseStock, pooled_base_stock
from palaestra.envs.inventory.one_warehouse import OneWarehouse
from palaestra.envs.inventory.serial import Serial
from palaestra.envs.inventory.supply_network import NetworkState, SupplyNetwork
from palaestra.envs.inventory.transshipment import Transshipment
from palaestra.envs.noise import Tape, TapeBlock, draw_tape
from palaestra.envs.registration import register_simulator
from palaestra.envs.rollout import long_run_reward, rollout
from palaestra.protocols import Networked, PostDecisionSimulator
from palaestra.seeding import row_seeds

DIAMOND: dict[str, Any] = {
    "links": [
        (None, "plant", 2, 1.0),
        ("plant", "north", 1),
        ("plant", "south", 3, 0.25),
        ("north", "shop", 2),
        ("south", "shop", 1),
        ("south", "kiosk", 4),
    ],
    "holding_cost": {"plant": 0.1, "north": 0.4, "south": 0.3, "shop": 1.0, "kiosk": 2.0},
    "underage_cost": {"shop": 9.0, "kiosk": 5.0},
    "demand_mean": {"shop": 5.0, "kiosk": 3.0},
    "demand_std": {"shop": 2.0, "kiosk": 1.0},
    "demand_correlation": 0.3,
}


def diamond(**changes: Any) -> SupplyNetwork:
    return SupplyNetwork(**{**DIAMOND, **changes})


WORLDS = {
    "diamond": diamond,
    "diamond-lost": lambda: diamond(unmet_demand="lost", action_mode="orders"),
    "diamond-passing": lambda: diamond(pass_through=("south",), clip_demand=False),
    "serial": Serial,
    "transshipment": lambda: Transshipment(stores=3, store_lead_time=6),
    "one-warehouse": OneWarehouse,
    "many-warehouses": ManyWarehouses,
}


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> SupplyNetwork:
    return WORLDS[request.param]()


def random_run(world: SupplyNetwork, rows: int = 8, steps: int = 30) -> list[tuple[NetworkState, Any, Any, Any]]:
    """States, actions, transitions and noise of a random policy."""
    tape, random = draw_tape(np.arange(rows), steps), world.reference_policies()["random"]
    state, run = world.initial(tape.at(0)), []
    for step in range(1, steps + 1):
        action = random(state, None, tape.at(step))
        # Wishes of a tenth, so that suppliers are sometimes empty and sometimes not.
        action = 0.2 * (action + 1.0) - 1.0 if world.action_space.low[0] < 0.0 else 0.2 * action
        transition = world.step(state, action, tape.at(step))
        run.append((state, action, transition, tape.at(step)))
        state = transition.state
    return run


def test_stock_is_conserved(world):
    """At every node: what it has next is what it had, less what it sent and sold, plus what arrived in time."""
    network, nodes = world.network, len(world.network.nodes)
    run = random_run(world)
    start = run[0][0].stock
    sent: list[np.ndarray] = []
    rationed = 0
    for step, (state, _, transition, _) in enumerate(run):
        flows, demand = transition.info["flows"], transition.info["demand"]
        sent.append(flows)
        assert (flows >= 0.0).all()
        expected = state.stock[:, :nodes].copy()
        for link, (supplier, customer) in enumerate(zip(network.suppliers, network.customers, strict=True)):
            if supplier >= 0:
                expected[:, supplier] -= flows[:, link]
            lead = network.lead_times[link]
            if step + 1 >= lead:
                expected[:, customer] += sent[step + 1 - lead][:, link]
            else:
                expected[:, customer] += start[:, network.in_transit[link, step]]
        left = transition.info["inventory"][:, : world.graph.num_suppliers]
        assert (left >= 0.0).all()
        stores = state.stock[:, world.graph.num_suppliers : nodes]
        sold = np.minimum(demand, stores) if world.loses_sales else demand
        expected[:, world.graph.num_suppliers :] -= sold
        np.testing.assert_allclose(transition.state.stock[:, :nodes], expected, atol=1e-9)
        np.testing.assert_allclose(transition.info["inventory"][:, world.graph.num_suppliers :], stores - demand)
        rationed += int((transition.info["rationed"] > 1e-9).sum())
    # Rationing happens, and not always.
    assert 0 < rationed < 8 * len(run)


def test_costs_are_those_of_the_specification(world):
    network, count = world.network, len(world.graph.stores)
    for _, _, transition, _ in random_run(world):
        info = transition.info
        left = np.maximum(info["inventory"], 0.0)
        short = np.maximum(-info["inventory"], 0.0)
        holding = (left * network.holding_costs).sum(1) / count
        underage = (short * network.underage_costs).sum(1) / count
        supply = (info["flows"] * network.unit_costs).sum(1) / count
        np.testing.assert_allclose(info["holding"], holding, rtol=1e-12)
        np.testing.assert_allclose(info["underage"], underage, rtol=1e-12)
        np.testing.assert_allclose(info["supply"], supply, rtol=1e-12)
        np.testing.assert_allclose(transition.reward, -(holding + underage + supply), rtol=1e-12)


def test_suppliers_ship_what_is_wanted_or_all_they_have(world):
    network = world.network
    for state, action, transition, _ in random_run(world):
        wanted, flows = world.flows_of(action), transition.info["flows"]
        outside = network.suppliers < 0
        np.testing.assert_array_equal(flows[:, outside], wanted[:, outside])
        for supplier in range(world.graph.num_suppliers):
            links = network.suppliers == supplier
            on_hand, total = state.stock[:, supplier], wanted[:, links].sum(1)
            share = flows[:, links].sum(1)
            if network.holds_stock[supplier]:
                np.testing.assert_allclose(share, np.minimum(total, on_hand), atol=1e-9)
            else:
                np.testing.assert_allclose(share, on_hand, atol=1e-9)
            # All customers get the same share of what they want.
            ratio = flows[:, links] / wanted[:, links]
            np.testing.assert_allclose(ratio, ratio[:, :1] * np.ones(int(links.sum())), rtol=1e-5, atol=1e-9)


def test_two_halves_make_a_step(world):
    assert isinstance(world, PostDecisionSimulator)
    state, action, transition, key = random_run(world, steps=12)[-1]
    post = world.decide(state, action)
    half = world.realise(post, key)
    np.testing.assert_array_equal(post.reward + half.reward, transition.reward)
    np.testing.assert_array_equal(half.state.stock, transition.state.stock)
    np.testing.assert_array_equal(-post.reward, post.holding + post.supply)


def test_network_finds_stock_in_the_observation(world):
    assert isinstance(world, Networked)
    network = world.network
    assert network.units.shape == world.observation_space.shape
    assert len(network.suppliers) == world.action_space.shape[0]
    state = random_run(world)[-1][0]
    units = world.observe(state) * network.units
    nodes = len(network.nodes)
    np.testing.assert_allclose(units[:, network.on_hand], state.stock[:, :nodes], rtol=1e-12)
    coming = np.concatenate((units, np.zeros((len(units), 1))), axis=1)[:, network.in_transit].sum(-1)
    totals = np.zeros((len(units), nodes))
    np.add.at(totals.T, network.customers, coming.T)
    np.testing.assert_allclose(totals, world.positions(state) - state.stock[:, :nodes], atol=1e-9)
    places = np.concatenate((network.on_hand, network.in_transit[network.in_transit >= 0]))
    assert sorted(places.tolist()) == list(range(len(network.units)))
    for lead, slots in zip(network.lead_times, network.in_transit, strict=True):
        assert (slots >= 0).sum() == lead - 1
    assert (network.underage_costs > 0).tolist() == (network.demand_mean > 0).tolist()
    assert (network.suppliers[: world.graph.num_outside] == -1).all()


def test_only_stores_have_stock_at_the_start(world):
    state = world.initial(draw_tape(np.arange(3000), 1).at(0))
    network, nodes = world.network, len(world.network.nodes)
    for node in range(nodes):
        links = np.flatnonzero(network.customers == node)
        filled = state.stock[:, [node, *(slot for slot in network.in_transit[links].ravel() if slot >= 0)]]
        if node < world.graph.num_suppliers:
            assert filled.max(initial=0.0) == 0.0
            continue
        longest = int(network.lead_times[links].max())
        in_use = filled[:, filled.max(0) > 0.0]
        assert in_use.shape[1] == longest
        assert 0.98 * network.demand_mean[node] < in_use.max() <= network.demand_mean[node]
        np.testing.assert_allclose(in_use.mean(0), 0.5 * network.demand_mean[node], rtol=0.05)


def test_two_periods_by_hand():
    """A hub (holding .5, lead 1) with two shops (leads 1 and 2, holding 1 and 2, underage 10): 4 units, wishes 3, 5."""
    world = SupplyNetwork(
        [(None, "hub", 1, 0.25), ("hub", "a", 1), ("hub", "b", 2)],
        {"hub": 0.5, "a": 1.0, "b": 2.0},
        {"a": 10.0, "b": 10.0},
        {"a": 5.0, "b": 5.0},
        {"a": 1.0, "b": 1.0},
        action_mode="orders",
    )
    # Columns: hub, a, b, and what reaches b in one period.
    state = NetworkState(np.array([[4.0, 2.0, 6.0, 1.0]]), np.zeros((1, 3)), np.zeros((1, 2)))
    first = world.step(state, np.array([[7.0, 3.0, 5.0]]), Tape({"demand": np.array([[-2.0, 0.0]])}))
    np.testing.assert_allclose(first.info["flows"], [[7.0, 1.5, 2.5]])
    np.testing.assert_allclose(first.info["demand"], [[3.0, 5.0]])
    np.testing.assert_allclose(first.info["inventory"], [[0.0, -1.0, 1.0]])
    np.testing.assert_allclose(first.info["rationed"], [4.0])
    np.testing.assert_allclose(first.state.stock, [[7.0, -1.0 + 1.5, 1.0 + 1.0, 2.5]])
    # Holding 2 at b, underage 10 at a, supply 7 / 4, over two shops.
    np.testing.assert_allclose(first.reward, [-(2.0 + 10.0 + 1.75) / 2.0])
    second = world.step(first.state, np.array([[0.0, 1.0, 2.0]]), Tape({"demand": np.array([[0.0, -4.0]])}))
    np.testing.assert_allclose(second.info["flows"], [[0.0, 1.0, 2.0]])
    np.testing.assert_allclose(second.info["inventory"], [[4.0, -4.5, 1.0]])
    np.testing.assert_allclose(second.state.stock, [[4.0, -3.5, 1.0 + 2.5, 2.0]])
    np.testing.assert_allclose(second.reward, [-(0.5 * 4.0 + 45.0 + 2.0) / 2.0])
    lost = SupplyNetwork(
        [(None, "a", 1)], {"a": 1.0}, {"a": 9.0}, {"a": 5.0}, {"a": 1.0}, unmet_demand="lost", action_mode="orders"
    )
    state = NetworkState(np.array([[2.0]]), np.zeros((1, 1)), np.zeros((1, 1)))
    step = lost.step(state, np.array([[3.0]]), Tape({"demand": np.array([[0.0]])}))
    np.testing.assert_array_equal(step.state.stock, [[3.0]])
    np.testing.assert_array_equal(step.reward, [-27.0])


def test_a_network_of_one_store_is_the_store():
    """Without suppliers in between it is OneStoreBacklog, on the same demand."""
    from palaestra.envs.inventory.one_store import BaseStock
    from palaestra.envs.inventory.one_store_backlog import OneStoreBacklog

    alone = OneStoreBacklog(lead_time=3, max_order=20.0, action_mode="orders")
    network = SupplyNetwork(
        [(None, "a", 3)], {"a": 1.0}, {"a": 9.0}, {"a": 5.0}, {"a": 1.6}, max_order=20.0, action_mode="orders"
    )
    rng = np.random.default_rng(0)
    noise, slots = rng.standard_normal((40, 6)), rng.random((6, 3))
    ours = rollout(
        network,
        EchelonBaseStock(network, [23.0]),
        steps=40,
        noise=TapeBlock({"demand": noise[..., None]}, {"slots": slots}),
    )
    theirs = rollout(alone, BaseStock(alone, 23.0), steps=40, noise=TapeBlock({"demand": noise}, {"slots": slots}))
    np.testing.assert_allclose(ours.rewards, theirs.rewards, atol=1e-12)


def smooth_actor(weights: torch.Tensor) -> Any:
    def actor(state: Any, observation: Any, key: Any) -> Any:
        return torch.tanh(observation @ weights[:-1] + weights[-1]) * 0.9

    return actor


def test_autograd_of_a_rollout_equals_finite_differences(world):
    """Float64, 16 paths of 12 periods, in some weights of a smooth policy of the whole observation."""
    if not world.action_space.low[0] < 0.0:
        world = diamond(unmet_demand="lost")
    tape = draw_tape(torch.tensor(row_seeds(3, "test", 16)), 12)
    size, links = world.observation_space.shape[0], world.action_space.shape[0]
    rng = np.random.default_rng(0)
    start = torch.tensor(0.05 * rng.standard_normal((size + 1, links)) - 0.05, dtype=torch.float64)
    start[-1] -= 0.6

    def mean_cost(weights: torch.Tensor) -> torch.Tensor:
        return -rollout(world, smooth_actor(weights), noise=tape, steps=12).rewards.mean()

    weights = start.requires_grad_()
    (gradient,) = torch.autograd.grad(mean_cost(weights), weights)
    assert float(gradient.abs().max()) > 1e-3
    width = 1e-6
    for row, column in [(0, 0), (1, links - 1), (size - 1, 1 % links), (size, 0), (size, links - 1)]:
        step = torch.zeros_like(weights)
        step[row, column] = width
        with torch.no_grad():
            difference = (mean_cost(weights + step) - mean_cost(weights - step)) / (2.0 * width)
        assert float(gradient[row, column]) == pytest.approx(float(difference), rel=1e-5, abs=1e-7)


def test_numpy_and_torch_agree(world):
    policy = world.reference_policies()["random"]
    seeds = np.array(row_seeds(4, "test", 32))
    ours = rollout(world, policy, seeds, steps=50)
    theirs = rollout(world, policy, torch.as_tensor(seeds), steps=50)
    np.testing.assert_allclose(theirs.state.stock.numpy(), ours.state.stock, rtol=1e-12, atol=1e-10)
    np.testing.assert_allclose(theirs.rewards.numpy(), ours.rewards, rtol=1e-12)


def test_single_precision_stays_single(world):
    policy = EchelonBaseStock(world, world.throughput * 6.0)
    size = (len(world.graph.stores) + (world.demand.correlation > 0.0 and len(world.graph.stores) > 0),)
    normal = torch.randn((20, 4, *size), generator=torch.Generator().manual_seed(0))
    slots = torch.rand((4, int((world._start[1].values > 0).sum())), generator=torch.Generator().manual_seed(1))
    run = rollout(world, policy, steps=20, noise=TapeBlock({"demand": normal}, {"slots": slots}))
    double = rollout(world, policy, steps=20, noise=TapeBlock({"demand": normal.double()}, {"slots": slots.double()}))
    assert run.rewards.dtype == torch.float32
    assert run.state.stock.dtype == torch.float32
    np.testing.assert_allclose(run.rewards.numpy(), double.rewards.numpy(), rtol=1e-3, atol=1e-3)


def test_states_are_values(world):
    run = random_run(world, steps=6)
    kept = [{f.name: np.array(getattr(state, f.name)) for f in dataclasses.fields(state)} for state, *_ in run]
    random_run(world, steps=6)
    for (state, *_), copied in zip(run, kept, strict=True):
        for name, array in copied.items():
            np.testing.assert_array_equal(getattr(state, name), array)


def test_no_policy_beats_the_bound(world):
    oracle = world.oracle()
    if oracle is None:
        assert world.loses_sales
        assert not world.demand.clipped
        return
    for name, policy in world.reference_policies().items():
        reward = long_run_reward(world, policy, row_seeds(0, "test", 32), 600, 200)
        assert reward.mean() <= oracle.value + 3.0 * reward.std(ddof=1) / np.sqrt(32.0), name


def test_bounds_count_the_cheapest_way():
    plain, dear = diamond(), diamond(links=[(None, "plant", 2, 3.0), *DIAMOND["links"][1:]])
    # All demand is bought in the end, at 2 more for each unit: 2 * (5 + 3) / 2 stores, but for clipping.
    difference = plain.oracle().value - dear.oracle().value  # type: ignore[union-attr]
    assert difference == pytest.approx(8.0, rel=1e-3)
    assert diamond(unmet_demand="lost", clip_demand=False).oracle() is None


def test_echelon_base_stock_orders_what_was_sold():
    world = Serial(max_order=60.0)
    policy = EchelonBaseStock(world, [90.0, 80.0, 55.0, 35.0])
    run = rollout(world, policy, row_seeds(0, "test", 20), steps=60)
    np.testing.assert_allclose(run.info["flows"][30:, :, 0], run.info["demand"][29:-1, :, 0], atol=1e-9)


def test_levels_of_each_row():
    world = OneWarehouse(stores=3)
    seeds = row_seeds(0, "test", 4)
    safety = np.array([0.5, 1.0, 0.5, 1.0])
    rows = long_run_reward(world, pooled_base_stock(world, safety, -safety), seeds, 60, 10)
    for index, factor in enumerate(safety):
        one = long_run_reward(world, pooled_base_stock(world, factor, -factor), seeds, 60, 10)
        assert rows[index] == pytest.approx(one[index], abs=1e-12)


def test_a_network_of_ones_own():
    register_simulator("mine/Diamond-v0", "palaestra.envs.inventory.supply_network:SupplyNetwork", **DIAMOND)
    try:
        env = gym.make_vec("mine/Diamond-v0", 4, horizon=20)
        observation, _ = env.reset(seed=[1, 2, 3, 4])
        assert observation.shape == (4, 5 + 1 + 0 + 2 + 1 + 0 + 3)
        assert env.single_action_space.shape == (6,)
        assert env.simulator.network.nodes == ("plant", "north", "south", "shop", "kiosk")
    finally:
        del gym.registry["mine/Diamond-v0"]
        from palaestra.envs import registration

        del registration._registered["mine/Diamond-v0"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"holding_cost": {"plant": 0.1}}, r"holding_cost of \['plant'\]; expected one for each of"),
        ({"holding_cost": 1.0}, "holding_cost of 1.0; expected one for each"),
        (
            {"holding_cost": {**DIAMOND["holding_cost"], "shop": -1.0}},
            r"holding_cost\['shop'\]=-1.0; expected a finite",
        ),
        (
            {"underage_cost": {"shop": 9.0}},
            r"underage_cost of \['shop'\]; expected one for each of \['kiosk', 'shop'\]",
        ),
        (
            {"underage_cost": {"shop": 9.0, "kiosk": 0.0}},
            r"underage_cost\['kiosk'\]=0.0; expected a finite number above",
        ),
        ({"demand_mean": {"shop": 5.0, "kiosk": -3.0}}, r"demand_mean\['kiosk'\]=-3.0"),
        ({"demand_std": {"shop": 5.0, "kiosk": float("nan")}}, r"demand_std\['kiosk'\]=nan"),
        ({"demand_correlation": 1.5}, "demand_correlation=1.5; expected a number from 0 to 1"),
        ({"demand_correlation": -0.5}, "demand_correlation=-0.5"),
        ({"unmet_demand": "forgotten"}, "unmet_demand='forgotten'; expected 'backlog' or 'lost'"),
        ({"pass_through": ("shop",)}, "pass_through names 'shop'; expected nodes that supply others"),
        ({"horizon": 0}, "horizon=0"),
        ({"max_order": 0.0}, "max_order=0.0"),
        ({"max_order": [1.0, 2.0]}, r"max_order of shape \(2,\); expected one for each of 6 links"),
        ({"max_order": [1.0, 2.0, 3.0, 4.0, -5.0, 6.0]}, r"max_order\[4\]=-5.0"),
        ({"action_mode": "units"}, "action_mode='units'"),
        ({"links": [(None, "plant", 2), ("shop", "kiosk", 1)]}, "node 'shop' is disconnected"),
    ],
)
def test_bad_arguments_are_refused(changes, message):
    with pytest.raises(ValueError, match=f"SupplyNetwork: {message}"):
        diamond(**changes)


def test_limits_follow_the_links_as_given():
    links = [("plant", "shop", 1), (None, "plant", 1)]
    world = SupplyNetwork(
        links, {"plant": 0.5, "shop": 1.0}, {"shop": 9.0}, {"shop": 5.0}, {"shop": 1.0}, max_order=[11.0, 22.0]
    )
    assert world.network.suppliers.tolist() == [-1, 0]
    assert world.flow_limits.tolist() == [22.0, 11.0]
    np.testing.assert_array_equal(world.flows_of(np.zeros((1, 2))), [[11.0, 5.5]])
