"""Duals and sensitivities of target programmes: by hand, and by finite differences of the optimum."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from palaestra.agents.pathwise.target_programme import TargetProgramme, optimum
from palaestra.envs.energy.system import HydroSystem
from palaestra.envs.registration import make_simulator

NO_WATER = np.zeros((1, 2, 1))


def two_stages() -> TargetProgramme:
    """Demand 10, thermal power at 1 up to 6 and at 5 beyond, a reservoir that holds 20."""
    system = HydroSystem(
        "World",
        names=("lake",),
        capacity=[20.0],
        turbine_capacity=[10.0],
        power=[1.0],
        downstream=[None],
        volume_per_flow=1.0,
        load=10.0,
        thermal_capacity=[6.0],
        thermal_price=[1.0],
        deficit_price=5.0,
    )
    return TargetProgramme(system.stage_programme(1.0), 2)


@pytest.mark.parametrize(("target", "cost", "slope"), [(3.0, 16.0, -4.0), (5.0, 16.0, 4.0), (4.0, 12.0, None)])
def test_two_stages_by_hand(target: float, cost: float, slope: float | None) -> None:
    """From 8 units of water; to end empty is the second target. At 4 the optimum has a kink."""
    found = two_stages().solve(np.array([[8.0]]), NO_WATER, np.array([[[target], [0.0]]]), 20.0)
    assert (found.cost[0], found.penalty[0]) == (pytest.approx(cost), pytest.approx(0.0, abs=1e-9))
    np.testing.assert_allclose(found.kept[0, :, 0], [target, 0.0], atol=1e-9)
    if slope is None:
        assert -4.0 <= found.by_target[0, 0, 0] <= 4.0
    else:
        assert found.by_target[0, 0, 0] == pytest.approx(slope)


def test_out_of_reach_the_slope_is_the_penalty() -> None:
    """A target of 9 with 8 in the lake misses by 1; the penalty is 20 times the most that a unit can save, 5."""
    found = two_stages().solve(np.array([[8.0]]), NO_WATER, np.array([[[9.0], [0.0]]]), 20.0)
    np.testing.assert_allclose(found.missed[0, :, 0], [1.0, 0.0], atol=1e-9)
    assert found.penalty[0] == pytest.approx(100.0)
    assert found.by_target[0, 0, 0] == pytest.approx(100.0)


WORLDS: dict[str, Any] = {
    "one": make_simulator("palaestra/Hydro1R-v0"),
    "cascade": make_simulator("palaestra/HydroCascade11-v0"),
}


def drawn(name: str, stages: int, paths: int, seed: int = 0) -> tuple[Any, Any, Any]:
    world, rng = WORLDS[name], np.random.default_rng(seed)
    capacity = world.system.capacity
    held = rng.uniform(0.2, 0.8, (paths, len(capacity))) * capacity
    arriving = rng.uniform(0.5, 1.5, (paths, stages, len(capacity)))
    arriving *= np.array([world.inflows.mean(stage) for stage in range(stages)])
    return held, arriving, rng.uniform(0.05, 0.95, (paths, stages, len(capacity))) * capacity


@pytest.mark.parametrize("penalty", [0.3, 3.0])
@pytest.mark.parametrize(("name", "stages"), [("one", 1), ("one", 4), ("cascade", 1), ("cascade", 3)])
def test_duals_are_finite_differences_of_the_optimum(name: str, stages: int, penalty: float) -> None:
    """In the targets and in what is held at the start, along random directions, off kinks."""
    programme = TargetProgramme(WORLDS[name].stage_programme, stages)
    held, arriving, targets = drawn(name, stages, 6)
    found, rng = programme.solve(held, arriving, targets, penalty), np.random.default_rng(1)
    assert np.abs(found.by_target).max() > 0.0
    assert np.abs(found.by_held).max() > 0.0
    scale = WORLDS[name].system.capacity.clip(1e-9)
    for _ in range(3):
        first, second = rng.normal(size=held.shape) * scale, rng.normal(size=targets.shape) * scale
        ends = [
            programme.solve(held + sign * first, arriving, targets + sign * second, penalty) for sign in (1e-6, -1e-6)
        ]
        difference = (ends[0].cost + ends[0].penalty - ends[1].cost - ends[1].penalty) / 2e-6
        slope = (found.by_held * first).sum(1) + (found.by_target * second).sum((1, 2))
        np.testing.assert_allclose(slope, difference, rtol=1e-4, atol=1e-4 * np.abs(slope).max())


@pytest.mark.parametrize(("name", "stages"), [("one", 1), ("one", 3), ("cascade", 1), ("cascade", 2)])
def test_sensitivities_are_finite_differences_of_what_is_kept(name: str, stages: int) -> None:
    programme = TargetProgramme(WORLDS[name].stage_programme, stages)
    held, arriving, targets = drawn(name, stages, 6)
    found = programme.solve(held, arriving, targets, 3.0)
    by_held, by_targets = programme.sensitivity(found)
    rng, scale = np.random.default_rng(2), WORLDS[name].system.capacity.clip(1e-9)
    first, second = rng.normal(size=held.shape) * scale, rng.normal(size=targets.shape) * scale
    ends = [programme.solve(held + sign * first, arriving, targets + sign * second, 3.0) for sign in (1e-5, -1e-5)]
    difference = (ends[0].kept[:, -1] - ends[1].kept[:, -1]) / 2e-5
    moved = np.einsum("pij,pj->pi", by_held, first) + np.einsum("pitj,ptj->pi", by_targets, second)
    np.testing.assert_allclose(moved, difference, atol=1e-4 * scale.max())
    assert np.abs(by_targets).max() > 0.5


@pytest.mark.parametrize("name", ["one", "cascade"])
def test_stages_with_a_high_penalty_do_what_the_world_does(name: str) -> None:
    """The world's own projection of targets is the optimum of the programme: volumes, and cost."""
    world = WORLDS[name]
    held, arriving, targets = drawn(name, 1, 40, seed=3)
    found = TargetProgramme(world.stage_programme, 1).solve(held, arriving, targets, 30.0)
    end, turbined, _, missed = (
        np.stack(part, 1) for part in world.system.operate(held, arriving[:, 0], targets[:, 0], "target")
    )
    np.testing.assert_allclose(found.kept[:, 0], end, atol=1e-7)
    np.testing.assert_allclose(found.missed[:, 0], missed, atol=1e-7)
    cost = world.system.dispatch(turbined @ world.system.power).cost / world.cost_unit
    np.testing.assert_allclose(found.cost, cost, rtol=1e-9)
    reached = np.all(np.abs(missed) < 1e-9, axis=1)
    assert 0 < reached.sum() < 40 or name == "cascade"
    np.testing.assert_allclose(found.penalty[reached], 0.0, atol=1e-7)


def test_one_stage_duals_are_marginal_prices() -> None:
    """Where the target is met without spilling, a unit more to be kept costs the price of a unit of load."""
    world = WORLDS["one"]
    held, arriving, targets = drawn("one", 1, 60, seed=4)
    found = TargetProgramme(world.stage_programme, 1).solve(held, arriving, targets, 30.0)
    _, turbined, spilled, missed = (
        np.stack(part, 1) for part in world.system.operate(held, arriving[:, 0], targets[:, 0], "target")
    )
    plain = (np.abs(missed) + spilled)[:, 0] == 0.0
    assert 10 < plain.sum() < 60
    price = world.system.dispatch(turbined[:, 0]).price
    np.testing.assert_allclose(found.by_target[plain, 0, 0], price[plain], rtol=1e-9)
    np.testing.assert_allclose(found.by_held[plain, 0], -price[plain], rtol=1e-9)


def test_paths_are_independent_of_those_beside_them() -> None:
    programme = TargetProgramme(WORLDS["cascade"].stage_programme, 2)
    held, arriving, targets = drawn("cascade", 2, 5)
    together = programme.solve(held, arriving, targets, 1.0)
    for path in range(5):
        part = slice(path, path + 1)
        alone = programme.solve(held[part], arriving[part], targets[part], 1.0)
        np.testing.assert_allclose(alone.cost + alone.penalty, (together.cost + together.penalty)[part], rtol=1e-9)


def test_autograd_chains_value_and_what_is_kept() -> None:
    """Two windows of two stages in float64: the gradient in the first targets passes through what the first kept."""
    programme = TargetProgramme(WORLDS["one"].stage_programme, 2)
    numbers = [torch.as_tensor(array) for array in drawn("one", 4, 5, seed=5)]
    held, arriving, targets = numbers
    targets.requires_grad_()

    def total(targets: torch.Tensor) -> torch.Tensor:
        first, kept, _ = optimum(programme, held, arriving[:, :2], targets[:, :2], 3.0)
        second, _, _ = optimum(programme, kept, arriving[:, 2:], targets[:, 2:], 3.0)
        return (first + second).sum()

    (exact,) = torch.autograd.grad(total(targets), targets)
    direction = torch.randn(targets.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        difference = float(total(targets + 1e-5 * direction) - total(targets - 1e-5 * direction)) / 2e-5
    assert float((exact * direction).sum()) == pytest.approx(difference, rel=1e-5)
    first, _, _ = optimum(programme, held, arriving[:, :2], targets[:, :2], 3.0)
    (alone,) = torch.autograd.grad(first.sum(), targets)
    assert not torch.allclose(alone[:, :2], exact[:, :2])


def test_what_is_not_finite_comes_out_as_such() -> None:
    programme = two_stages()
    targets = torch.full((1, 2, 1), torch.nan, requires_grad=True)
    value, kept, _ = optimum(programme, torch.tensor([[8.0]]), torch.zeros(1, 2, 1), targets, 1.0)
    assert bool(value.isnan().all())
    assert bool(kept.isnan().all())
    value.sum().backward()


def test_a_programme_without_an_optimum_is_named() -> None:
    with pytest.raises(ValueError, match="TargetProgramme: no optimum found"):
        two_stages().solve(np.array([[-30.0]]), NO_WATER, np.zeros((1, 2, 1)), 1.0)
