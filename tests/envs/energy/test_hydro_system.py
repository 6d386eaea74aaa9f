"""Reservoirs, turbines and merit order: by hand, and against a linear programme."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from palaestra.envs.energy.inflows import SeasonalInflows, TableInflows
from palaestra.envs.energy.system import HydroSystem
from palaestra.envs.noise import CounterKey


def system(**changes: Any) -> HydroSystem:
    """Two plants on one river and one beside it."""
    arguments: dict[str, Any] = {
        "names": ("lake", "weir", "pond"),
        "capacity": (10.0, 2.0, 4.0),
        "turbine_capacity": (5.0, 6.0, 3.0),
        "power": (2.0, 3.0, 1.0),
        "downstream": ("weir", None, None),
        "volume_per_flow": 0.5,
        "load": 40.0,
        "thermal_capacity": (6.0, 4.0),
        "thermal_price": (7.0, 3.0),
        "deficit_price": 20.0,
    }
    return HydroSystem("World", **{**arguments, **changes})


def operate(mode: str, wanted: list[float]) -> list[list[float]]:
    storage, inflow = np.array([[8.0, 1.0, 4.0]]), np.array([[6.0, 2.0, 1.0]])
    return [
        np.round(np.concatenate(part), 9).tolist()
        for part in system().operate(storage, inflow, np.array([wanted]), mode)
    ]


@pytest.mark.parametrize(
    ("mode", "wanted", "end", "turbined", "spilled", "missed"),
    [
        # lake: 11 at hand, 10 kept, 1 (a flow of 2) runs on; weir: 1 + .5 (2 + 2) = 3, empty, a flow of 6.
        ("target", [10.0, 0.0, 4.0], [10.0, 0.0, 4.0], [2.0, 6.0, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
        # Nothing above the capacity or what there is can be kept; a low target spills what turbines do not take.
        ("target", [10.0, 2.0, 0.0], [10.0, 2.0, 0.0], [2.0, 2.0, 3.0], [0.0, 0.0, 6.0], [0.0, 0.0, 0.0]),
        ("target", [11.0, 2.5, 5.0], [10.0, 2.0, 4.0], [2.0, 2.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.5, 1.0]),
        # Everything turbined: lake 11 - 2.5, weir 1 + .5 (2 + 5) = 4.5 of which 3 are turbined and 1.5 stay.
        ("release", [5.0, 6.0, 3.0], [8.5, 1.5, 3.0], [5.0, 6.0, 3.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
        # Nothing turbined on purpose: what does not fit leaves through the turbines.
        ("release", [0.0, 0.0, 0.0], [10.0, 2.0, 4.0], [2.0, 2.0, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
        ("range", [0.0, 0.0, 0.0], [8.5, 1.5, 3.0], [5.0, 6.0, 3.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
        ("range", [0.5, 1.0, 1.0], [9.25, 2.0, 4.0], [3.5, 3.5, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
    ],
)
def test_water_by_hand(
    mode: str, wanted: list[float], end: list[float], turbined: list[float], spilled: list[float], missed: list[float]
) -> None:
    assert operate(mode, wanted) == [end, turbined, spilled, missed]


def test_no_water_is_lost_or_made() -> None:
    world, rng = system(), np.random.default_rng(0)
    storage = rng.uniform(0.0, 1.0, (500, 3)) * world.capacity
    inflow = rng.uniform(0.0, 12.0, (500, 3))
    for mode, scale in (("target", world.capacity), ("range", np.ones(3)), ("release", world.turbine_capacity)):
        wanted = rng.uniform(0.0, 1.0, (500, 3)) * scale
        end, turbined, spilled, missed = (np.stack(x, 1) for x in world.operate(storage, inflow, wanted, mode))
        leaving = turbined + spilled
        from_above = np.stack((0.0 * leaving[:, 0], leaving[:, 0], 0.0 * leaving[:, 0]), 1)
        np.testing.assert_allclose(end, storage + 0.5 * (inflow + from_above - leaving), atol=1e-12)
        for part, most in ((end, world.capacity), (turbined, world.turbine_capacity), (spilled, np.inf)):
            assert (part >= 0.0).all()
            assert (part <= most).all()
        # Spilling is what turbines do not take.
        assert (np.where(spilled > 1e-9, world.turbine_capacity - turbined, 0.0) <= 1e-9).all()
        if mode == "target":
            np.testing.assert_allclose(missed, wanted - end, atol=1e-12)
        else:
            assert not missed.any()
        if mode == "range":
            full = np.isclose(end, world.capacity)
            assert not (spilled > 1e-9)[~full].any()


@pytest.mark.parametrize(
    ("hydro", "thermal", "deficit", "price", "cost"),
    [
        (45.0, 0.0, 0.0, 3.0, 0.0),
        (38.0, 2.0, 0.0, 3.0, 6.0),
        (36.0, 4.0, 0.0, 7.0, 12.0),
        (33.0, 7.0, 0.0, 7.0, 33.0),
        (25.0, 10.0, 5.0, 20.0, 154.0),
    ],
)
def test_merit_order_by_hand(hydro: float, thermal: float, deficit: float, price: float, cost: float) -> None:
    found = system().dispatch(np.array([hydro]))
    assert [found.thermal[0], found.deficit[0], found.price[0], found.cost[0]] == [thermal, deficit, price, cost]
    assert float(system().dispatch(np.array([hydro])).cost[0]) == cost


def test_without_thermal_units_the_load_is_deficit() -> None:
    found = system(thermal_capacity=(), thermal_price=()).dispatch(np.array([30.0]))
    assert [found.thermal[0], found.deficit[0], found.price[0], found.cost[0]] == [0.0, 10.0, 20.0, 200.0]


def test_dispatch_is_the_optimum_of_the_stage_programme() -> None:
    """With the volumes to be kept fixed where the system put them, no other decisions cost less."""
    world, rng = system(), np.random.default_rng(1)
    programme = world.stage_programme(1.0)
    for _ in range(30):
        storage, inflow = rng.uniform(0.0, 1.0, 3) * world.capacity, rng.uniform(0.0, 8.0, 3)
        wanted = rng.uniform(0.0, 1.0, 3) * world.capacity
        end, turbined, _, _ = (
            np.stack(x, 1) for x in world.operate(storage[None], inflow[None], wanted[None], "target")
        )
        cost = world.dispatch(turbined @ world.power).cost[0]
        found = linprog(
            programme.costs,
            A_eq=np.concatenate((programme.effect, programme.balance)),
            b_eq=np.concatenate((end[0] - storage - programme.gain @ inflow, programme.requirement)),
            bounds=[(0.0, None if np.isinf(limit) else limit) for limit in programme.limits],
        )
        assert found.fun == pytest.approx(cost, abs=1e-8)


def test_unit_values_count_all_plants_below() -> None:
    """A unit of volume is a flow of 2; in the lake it is worth 2 + 3 units of power for each."""
    np.testing.assert_allclose(
        system().stage_programme(10.0).unit_values, np.array([5.0, 3.0, 1.0]) * 2.0 * 20.0 / 10.0
    )


def test_gradients_are_marginal_prices() -> None:
    """More kept in the lake is less water for two turbines: both powers, doubled to flows, at the marginal price."""
    world = system()
    wanted = torch.tensor([[9.5, 0.75, 3.5]], dtype=torch.float64, requires_grad=True)
    storage, inflow = (torch.tensor([row], dtype=torch.float64) for row in ([8.0, 1.0, 4.0], [6.0, 2.0, 1.0]))
    _, turbined, _, _ = world.operate(storage, inflow, wanted, "target")
    # 3 * 2 + 5.5 * 3 + 2 * 1 = 24.5 units of power; 15.5 are left, of which thermal units meet 10.
    dispatch = world.dispatch(torch.stack(turbined, 1) @ torch.as_tensor(world.power))
    assert float(dispatch.cost.detach()) == pytest.approx(4 * 3 + 6 * 7 + 5.5 * 20)
    dispatch.cost.sum().backward()
    assert wanted.grad is not None
    assert wanted.grad[0].tolist() == pytest.approx([5.0 * 20.0 * 2.0, 3.0 * 20.0 * 2.0, 1.0 * 20.0 * 2.0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"capacity": (1.0, 2.0)}, "capacity=.*expected 3 numbers"),
        ({"capacity": (1.0, -2.0, 1.0)}, r"capacity\[1\]=-2.0; expected a finite number of at least 0"),
        ({"turbine_capacity": (1.0, 0.0, 1.0)}, r"turbine_capacity\[1\]=0.0; expected a finite number above 0"),
        ({"power": (1.0, np.nan, 1.0)}, r"power\[1\]=nan"),
        ({"volume_per_flow": 0.0}, "volume_per_flow=0.0"),
        ({"names": ("a", "a", "b")}, "names=.*all different"),
        ({"downstream": ("weir", "sea", None)}, "downstream=.*expected None or one of"),
        ({"downstream": ("weir", "lake", None)}, "downstream=.*expected rivers that run in no circle"),
        ({"load": -1.0}, "load=-1.0"),
        ({"thermal_price": (7.0,)}, "thermal_price=.*expected 2 numbers"),
        ({"deficit_price": 5.0}, "deficit_price=5.0; expected at least the highest thermal price, 7.0"),
    ],
)
def test_bad_systems_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"World: {message}"):
        system(**changes)


# Inflows


def test_tabled_inflows_have_their_probabilities() -> None:
    inflows = TableInflows("World", [[1.0, 2.0, 4.0], [0.0, 5.0, 9.0]], [0.2, 0.5, 0.3])
    key = CounterKey(np.arange(40_000))
    climate = inflows.first(key)
    share = [(climate == scenario).mean() for scenario in range(3)]
    np.testing.assert_allclose(share, [0.2, 0.5, 0.3], atol=0.01)
    stage = np.full(40_000, 3)
    np.testing.assert_array_equal(
        inflows.flow(climate, stage)[:, 0], np.array([0.0, 5.0, 9.0])[climate[:, 0].astype(int)]
    )
    np.testing.assert_allclose(inflows.mean(3), [5.2])


def test_seasonal_inflows_have_their_moments() -> None:
    """Mean by stage, variance, memory and correlation of the logarithms."""
    inflows = SeasonalInflows("World", [2.0, 5.0], 0.6, 1.0, 8, 0.4, 0.7, 0.3)
    rows = np.arange(60_000)
    climate = inflows.first(CounterKey(rows))
    for stage in range(1, 4):
        before, climate = climate, inflows.following(climate, np.full(len(rows), stage), CounterKey(rows, step=stage))
    flow = inflows.flow(climate, np.full(len(rows), 3))
    np.testing.assert_allclose(flow.mean(axis=0), inflows.mean(3), rtol=0.01)
    np.testing.assert_allclose(inflows.mean(1), [3.2, 8.0])
    np.testing.assert_allclose(np.mean([inflows.mean(stage) for stage in range(8)], axis=0), [2.0, 5.0])
    np.testing.assert_allclose(np.log(flow).std(axis=0), 0.4, rtol=0.02)
    assert np.corrcoef(np.log(flow).T)[0, 1] == pytest.approx(0.3, abs=0.02)
    assert np.corrcoef(before[:, 0], climate[:, 0])[0, 1] == pytest.approx(0.7, abs=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[1.0, 2.0]], [0.5, 0.4]), "inflow_probabilities=.*expected numbers that add up to 1"),
        (([[1.0, 2.0], [1.0]], [0.5, 0.5]), r"inflow_table\[1\]=\[1.0\]; expected 2 numbers"),
        (([[0.0, 0.0]], [0.5, 0.5]), "inflow_table=.*expected at least one stage, and water in one"),
        (([], [1.0]), "inflow_table=.*expected at least one stage"),
    ],
)
def test_bad_tables_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"World: {message}"):
        TableInflows("World", *arguments)
