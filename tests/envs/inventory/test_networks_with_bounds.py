"""Serial, Transshipment, OneWarehouse and ManyWarehouses: parameters, optima and bounds, rules of thumb."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from palaestra.envs.inventory.many_warehouses import PUBLISHED_LEAD_TIMES, ManyWarehouses
from palaestra.envs.inventory.network_policies import EchelonBaseStock, pooled_base_stock
from palaestra.envs.inventory.one_warehouse import OneWarehouse
from palaestra.envs.inventory.parameter_draws import published_stores
from palaestra.envs.inventory.serial import Serial
from palaestra.envs.inventory.transshipment import Transshipment
from palaestra.envs.rollout import long_run_reward, rollout
from palaestra.seeding import row_seeds


def simulated(world: Any, policy: Any, rows: int = 256, periods: int = 1500, ignore: int = 300) -> tuple[float, float]:
    """Mean cost of a period and its standard error."""
    cost = -long_run_reward(world, policy, row_seeds(7, "test", rows), periods, ignore)
    return float(cost.mean()), float(cost.std(ddof=1) / math.sqrt(rows))


# Serial


def test_serial_is_the_published_chain():
    network = Serial().network
    assert network.nodes == ("echelon 0", "echelon 1", "warehouse", "store")
    assert network.lead_times.tolist() == [2, 4, 3, 4]
    assert network.holding_costs.tolist() == [0.1, 0.2, 0.5, 1.0]
    assert network.suppliers.tolist() == [-1, 0, 1, 2]
    assert network.flow_limits.tolist() == [20.0] * 4
    assert Serial().observation_space.shape == (13,)


@pytest.mark.parametrize(("underage", "store_lead"), [(4.0, 1), (9.0, 4), (39.0, 2)])
def test_echelon_base_stock_attains_the_optimum(underage, store_lead):
    world = Serial(store_lead_time=store_lead, underage_cost=underage)
    oracle = world.oracle()
    assert oracle is not None
    assert oracle.kind == "optimum"
    cost, error = simulated(world, world.expert("optimal"))
    assert error < 0.01 * cost
    assert abs(cost + oracle.value) <= 3.0 * error


def test_other_levels_cost_more_on_the_same_demand():
    world = Serial()
    assert world.optimum is not None
    best = np.array(world.optimum.levels)
    seeds = row_seeds(7, "test", 256)
    reward = long_run_reward(world, EchelonBaseStock(world, best), seeds, 1200, 200)
    for stage in range(4):
        for shift in (-3.0, 3.0):
            other = best + shift * (np.arange(4) == stage)
            gain = reward - long_run_reward(world, EchelonBaseStock(world, other), seeds, 1200, 200)
            assert gain.mean() > 2.0 * gain.std(ddof=1) / 16.0


def test_newsvendor_bounds_are_near_the_optimum():
    """The rule of Shang and Song is within 1 % of the optimum, and exact at the store."""
    world = Serial()
    levels = world.newsvendor_levels()
    assert world.optimum is not None
    assert levels[-1] == pytest.approx(world.optimum.levels[-1], abs=0.02)
    np.testing.assert_allclose(levels, world.optimum.levels, rtol=0.01)
    cost, error = simulated(world, world.reference_policies()["newsvendor-bounds"])
    assert cost < 1.01 * world.optimum.cost + 3.0 * error


def test_serial_oracle_says_only_what_holds():
    capped = Serial(max_order=8.0)
    oracle = capped.oracle()
    assert oracle is not None
    assert oracle.kind == "bound"
    assert capped.experts() == {}
    falling = Serial(holding_costs=(0.5, 0.2, 0.5, 1.0))
    assert falling.optimum is None
    oracle = falling.oracle()
    assert oracle is not None
    assert oracle.kind == "bound"
    assert set(falling.reference_policies()) == {"random", "myopic"}
    two = Serial(upstream_lead_times=(2,), holding_costs=(0.5, 1.0), store_lead_time=1)
    assert two.network.nodes == ("warehouse", "store")
    cost, error = simulated(two, two.expert("optimal"))
    assert abs(cost + two.oracle().value) <= 3.0 * error  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"store_lead_time": 0}, "store_lead_time=0; expected an integer of at least 1"),
        ({"upstream_lead_times": (2, 0, 3)}, r"upstream_lead_times\[1\]=0"),
        ({"upstream_lead_times": ()}, "expected at least one stage before the store"),
        ({"holding_costs": (1.0, 2.0)}, r"holding_costs=\(1.0, 2.0\); expected"),
        ({"holding_costs": (0.1, 0.2, -0.5, 1.0)}, r"holding_costs\[2\]=-0.5"),
        ({"underage_cost": 0.0}, "underage_cost=0.0; expected a finite number above 0"),
        ({"demand_mean": 0.0}, "demand_mean=0.0"),
        ({"demand_std": -1.0}, "demand_std=-1.0"),
    ],
)
def test_serial_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=f"Serial: .*{message}"):
        Serial(**arguments)


# Transshipment


@pytest.mark.parametrize(("stores", "underage", "correlation"), [(3, 4.0, 0.0), (5, 9.0, 0.5), (10, 9.0, 0.0)])
def test_balancing_attains_the_bound(stores, underage, correlation):
    world = Transshipment(stores, underage_cost=underage, demand_correlation=correlation)
    cost, error = simulated(world, world.expert("balancing"), rows=512)
    assert error < 0.01 * cost
    assert cost == pytest.approx(-world.oracle().value, abs=3.0 * error + 0.001 * cost)


def test_transshipment_bounds():
    """Per store, from the exact draws; the table of the documentation."""
    costs = {(3, 0.0): 6.4581, (3, 0.5): 7.2132, (5, 0.0): 5.7559, (5, 0.5): 6.6401, (10, 0.0): 5.8589, (10, 0.5): 6.94}
    for (stores, correlation), cost in costs.items():
        world = Transshipment(stores, demand_correlation=correlation)
        assert round(-world.oracle().value, 4) == cost
        assert world.oracle().kind == "bound"


def test_the_centre_keeps_nothing():
    world = Transshipment(stores=4)
    run = rollout(world, world.reference_policies()["random"], row_seeds(0, "test", 20), steps=30)
    np.testing.assert_array_equal(run.info["inventory"][:, :, 0], 0.0)
    # What leaves the centre in a period is what was ordered three periods before.
    np.testing.assert_allclose(run.info["flows"][3:, :, 1:].sum(-1), run.info["flows"][:-3, :, 0], rtol=1e-12)
    assert run.info["demand"].min() < 0.0


def test_equal_parts_where_no_store_weighs_anything():
    world = Transshipment(stores=4)
    run = rollout(world, lambda state, observation, key: np.array([[0.0, -1.0, -1.0, -1.0, -1.0]]), [0], steps=6)
    np.testing.assert_allclose(run.info["flows"][4, 0, 1:], run.info["flows"][1, 0, 0] / 4.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stores": 1}, "stores=1; expected an integer of at least 2"),
        (
            {"demand_mean": [5.0, 5.0]},
            r"demand_mean=\[5.0, 5.0\] of shape \(2,\); expected one number or one for each of 5",
        ),
        ({"demand_std": 0.0}, "demand_std=0.0; expected a finite number above 0"),
        ({"warehouse_lead_time": 0}, "warehouse_lead_time=0"),
        ({"demand_correlation": 2.0}, "demand_correlation=2.0"),
    ],
)
def test_transshipment_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=f"Transshipment: {message}"):
        Transshipment(**arguments)


# Warehouses with stock


REFERENCE = {3: (1.0, -1.6, 5.706), 5: (1.1, -1.9, 5.379), 10: (1.1, -1.9, 5.843)}
"""Safety factors of stores and warehouse, and cost per store, computed by a program of its own with error .01."""


@pytest.mark.parametrize("stores", REFERENCE)
def test_base_stock_costs_what_it_costs_elsewhere(stores):
    own, shared, expected = REFERENCE[stores]
    world = OneWarehouse(stores)
    cost, error = simulated(world, pooled_base_stock(world, own, shared))
    assert error < 0.02
    assert abs(cost - expected) <= 3.0 * math.hypot(error, 0.01)


def test_base_stock_levels_by_hand():
    world = OneWarehouse(
        2, demand_mean=[5.0, 4.0], demand_std=[2.0, 1.0], store_lead_time=[2, 3], demand_correlation=0.5
    )
    policy = pooled_base_stock(world, 1.1, -1.9)
    stores = [3 * 5.0 + 1.1 * 2.0 * math.sqrt(3.0), 4 * 4.0 + 1.1 * 1.0 * 2.0]
    total = math.sqrt(4.0 + 1.0 + 2.0 * 0.5 * 2.0)
    np.testing.assert_allclose(policy.levels.values, [sum(stores) + 4.0 * 9.0 - 1.9 * 2.0 * total, *stores])


def test_tuned_base_stock_is_near_the_best_known():
    world = OneWarehouse(3)
    tuned = world.reference_policies()["base-stock"]
    seeds = row_seeds(7, "test", 64)
    gap = long_run_reward(world, pooled_base_stock(world, 1.0, -1.6), seeds, 1200, 200)
    gap = gap - long_run_reward(world, tuned, seeds, 1200, 200)
    assert gap.mean() < 0.02


def test_one_warehouse_uses_the_published_draws():
    world, drawn = OneWarehouse(10), published_stores(10)
    network = world.network
    np.testing.assert_array_equal(network.lead_times, [3, *drawn.lead_time])
    np.testing.assert_array_equal(network.holding_costs, [0.3, *drawn.holding_cost])
    np.testing.assert_array_equal(network.underage_costs, [0.0, *drawn.underage_cost])
    np.testing.assert_array_equal(network.demand_std[1:], drawn.demand_std)
    assert world.observation_space.shape == (3 + int(drawn.lead_time.sum()),)
    assert OneWarehouse(4, store_lead_time=1).network.lead_times.tolist() == [3, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"store_lead_time": [2, 3]},
            r"store_lead_time=\[2, 3\] of shape \(2,\); expected one integer or one for each",
        ),
        ({"store_lead_time": [2, 3, 0, 2, 2]}, r"store_lead_time\[2\]=.*0.*; expected an integer of at least 1"),
        (
            {"underage_cost": [9.0, 9.0, -9.0, 9.0, 9.0]},
            r"underage_cost\[2\]=.*-9.0.*; expected a finite number above 0",
        ),
        ({"warehouse_holding_cost": -0.3}, "warehouse_holding_cost=-0.3"),
        ({"stores": 2.5}, "stores=2.5; expected an integer"),
    ],
)
def test_one_warehouse_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=f"OneWarehouse: {message}"):
        OneWarehouse(**arguments)


def test_many_warehouses_is_the_published_network():
    world = ManyWarehouses()
    network = world.network
    assert network.nodes == ("warehouse 0", "warehouse 1", *(f"store {store}" for store in range(10)))
    found = {
        (network.nodes[customer], None if supplier < 0 else network.nodes[supplier]): int(lead)
        for supplier, customer, lead in zip(network.suppliers, network.customers, network.lead_times, strict=True)
    }
    expected: dict[tuple[str, str | None], int] = {("warehouse 0", None): 3, ("warehouse 1", None): 3}
    for store, row in enumerate(PUBLISHED_LEAD_TIMES):
        for hub, lead in enumerate(row):
            if lead is not None:
                expected[f"store {store}", f"warehouse {hub}"] = lead
    assert found == expected
    assert len(found) == 17
    np.testing.assert_array_equal(network.unit_costs, [0.5, 1.5] + [0.0] * 15)
    np.testing.assert_array_equal(network.holding_costs[:2], [0.3, 0.4])
    assert world.observation_space.shape == (52,)


def test_routes_of_the_rules_of_thumb():
    world = ManyWarehouses()
    seeds = row_seeds(0, "test", 8)
    used = {}
    for name, links in (("fastest", world.graph.fastest_links()), ("cheapest", world.graph.cheapest_links())):
        run = rollout(world, pooled_base_stock(world, 1.0, 0.0, links), seeds, steps=30)
        used[name] = set(np.flatnonzero(run.info["flows"].max(axis=(0, 1)) > 0.0).tolist())
        # What no store orders from a warehouse, the warehouse does not order either, so only these links are used.
        assert used[name] <= set(links.tolist())
    suppliers = world.network.suppliers
    assert (suppliers[sorted(used["fastest"])] == 0).sum() == 1
    assert (suppliers[sorted(used["cheapest"])] == 0).sum() == 6


def test_stores_may_use_both_warehouses():
    world = ManyWarehouses()
    run = rollout(world, lambda *_: np.full((1, 17), -0.7), [3], steps=40)
    assert (run.info["flows"][10:].min(axis=(0, 1)) > 0.0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"store_lead_times": [(1, None), (None, None)]}, r"store_lead_times\[1\]=\(None, None\); expected an entry"),
        ({"store_lead_times": [(1, 2, 3)]}, r"store_lead_times\[0\]=\(1, 2, 3\); expected an entry for each of 2"),
        ({"store_lead_times": [(1, 0)]}, r"store_lead_times\[0\]\[1\]=0; expected an integer of at least 1"),
        ({"store_lead_times": [(1, None)]}, r"store_lead_times\[:\]\[1\] holds no lead time; expected a store"),
        ({"supply_costs": (0.5,)}, "2 warehouse_holding_costs and 1 supply_costs; expected"),
        ({"supply_costs": (0.5, -1.5)}, r"supply_costs\[1\]=-1.5"),
        ({"warehouse_holding_costs": (0.3, -0.4)}, r"warehouse_holding_costs\[1\]=-0.4"),
    ],
)
def test_many_warehouses_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=f"ManyWarehouses: .*{message}"):
        ManyWarehouses(**arguments)
