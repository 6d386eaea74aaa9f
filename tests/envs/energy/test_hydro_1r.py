"""Hydro1R: its optimum, exactly; rules of thumb by enumeration; foresight; gradients; pictures; errors."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from palaestra.envs.energy.exact.mean_inflow import mean_inflow_bound, perfect_foresight_cost
from palaestra.envs.energy.exact.single_reservoir import expected_cost
from palaestra.envs.energy.hydro_1r import INFLOWS, Hydro1R
from palaestra.envs.energy.hydrothermal import ActionMode
from palaestra.envs.energy.pictures import plan
from palaestra.envs.inventory.newsvendor import Newsvendor
from palaestra.envs.rollout import episode_returns, rollout
from palaestra.seeding import row_seeds


@cache
def world() -> Hydro1R:
    return Hydro1R()


@cache
def short(mode: ActionMode = "target", **changes: Any) -> Hydro1R:
    return Hydro1R(horizon=6, action_mode=mode, **changes)


# The optimum


@pytest.mark.parametrize(("storage", "cost"), [(50.0, 14224.26), (0.0, 16638.40), (150.0, 11105.31)])
def test_optimum_from_three_volumes(storage: float, cost: float) -> None:
    assert round(world().optimum.cost_from(0, storage), 2) == cost
    assert round(-Hydro1R(initial_storage=storage).oracle().value, 2) == cost


def test_marginal_water_value_at_the_start() -> None:
    assert round(world().optimum.water_value(0, 50.0), 2) == 45.15


def test_optimum_in_plain_loops_on_an_integer_grid() -> None:
    """A dynamic programme without any of the suite's code, one unit of water at a time."""

    def paid(power: int) -> float:
        left = 100 - power
        return 20.0 * min(left, 40) + 50.0 * max(0, min(left - 40, 40)) + 500.0 * max(0, left - 80)

    following = [0.0] * 151
    for row in reversed(INFLOWS):
        present = []
        for volume in range(151):
            expected = 0.0
            for inflow, chance in zip(row, (0.3, 0.4, 0.3), strict=True):
                at_hand = volume + inflow
                options = (paid(u) + following[min(at_hand - u, 150)] for u in range(min(80, at_hand) + 1))
                expected += chance * min(options)
            present.append(expected)
        following = present
    for volume in range(0, 151, 7):
        assert world().optimum.cost_from(0, float(volume)) == pytest.approx(following[volume], abs=1e-8)


def test_optimal_policy_costs_the_optimum_over_all_inflow_paths() -> None:
    oracle = world().oracle()
    assert expected_cost(world(), world().expert("optimal")) == pytest.approx(-oracle.value, abs=1e-7)


@pytest.mark.parametrize("mode", ["range", "release"])
def test_optimal_policy_is_optimal_in_every_action_mode(mode: ActionMode) -> None:
    actor = short(mode).expert("optimal")
    assert expected_cost(short(mode), actor) == pytest.approx(-short(mode).oracle().value, abs=1e-8)


def test_optimal_policy_is_optimal_between_the_points_of_the_grid() -> None:
    """From a volume that no grid point holds, the same optimum as on a grid that does hold it."""
    coarse = short().optimum
    fine = short(initial_storage=47.5)
    assert fine.optimum.step < coarse.step
    assert coarse.cost_from(0, 47.5) == pytest.approx(-fine.oracle().value, abs=1e-8)
    start = fine.initial_storage

    class Between(Hydro1R):
        optimum = coarse  # type: ignore[assignment]

    between = Between(horizon=6, initial_storage=float(start[0]))
    assert expected_cost(between, between.expert("optimal")) == pytest.approx(-fine.oracle().value, abs=1e-8)


def test_simulation_agrees_with_the_optimum() -> None:
    returns = episode_returns(world(), world().expert("optimal"), row_seeds(7, "test", 4_000)).ravel()
    error = returns.std(ddof=1) / np.sqrt(len(returns))
    assert abs(returns.mean() - world().oracle().value) < 3.0 * error


@pytest.mark.parametrize(
    ("policy", "cost"),
    [("greedy", 18824.15), ("constant", 15651.88), ("run-of-river", 21600.00)],
)
def test_rules_of_thumb_by_enumeration(policy: str, cost: float) -> None:
    assert round(expected_cost(world(), world().reference_policies()[policy]), 2) == cost


def test_enumeration_agrees_with_simulation() -> None:
    actor = short().reference_policies()["constant"]
    returns = episode_returns(short(), actor, row_seeds(3, "test", 5_000)).ravel()
    error = returns.std(ddof=1) / np.sqrt(len(returns))
    assert abs(returns.mean() + expected_cost(short(), actor)) < 3.0 * error


def test_foresight_is_a_bound_path_by_path() -> None:
    run = rollout(world(), world().expert("optimal"), row_seeds(1, "test", 120), steps=12)
    costs = -run.rewards.sum(axis=0)
    flows = np.moveaxis(run.info["inflow"], 1, 0)
    known = np.array([perfect_foresight_cost(world().system, path, world().initial_storage) for path in flows])
    assert (known <= costs + 1e-6).all()
    # About 14165, from an earlier simulation whose standard error was 79.
    error = known.std(ddof=1) / np.sqrt(len(known))
    assert abs(known.mean() - 14165.0) < 3.0 * np.hypot(error, 79.0)
    bound = mean_inflow_bound(world().system, world().inflows, world().initial_storage, 12)
    assert bound < known.mean()


def test_scaling_all_volumes_scales_costs_alone() -> None:
    """Water in other units, power adjusted: the same costs."""
    other = Hydro1R(
        capacity=15.0,
        initial_storage=5.0,
        turbine_capacity=8.0,
        power=10.0,
        inflow_table=[[0.1 * flow for flow in row] for row in INFLOWS],
        cost_unit=1000.0,
    )
    assert other.oracle().value == pytest.approx(world().oracle().value / 1000.0, rel=1e-12)


def test_data_without_a_common_measure_have_no_oracle() -> None:
    odd = Hydro1R(capacity=100.0 * np.pi)
    assert odd.oracle() is None
    assert odd.experts() == {}
    assert Hydro1R(initial_storage=50.0001).oracle() is None


# Steps


def test_gradient_of_the_return_equals_finite_differences() -> None:
    """In float64, in the actions of all stages, off the kinks; the loss of storage carries from stage to stage."""
    generator = torch.Generator().manual_seed(0)
    share = 0.1 + 0.4 * torch.rand((6, 8, 1), generator=generator, dtype=torch.float64)
    seeds = torch.arange(8)

    def total(actions: torch.Tensor) -> torch.Tensor:
        class Tape:
            step = -1

            def __call__(self, state: Any, observation: Any, key: Any) -> torch.Tensor:
                self.step += 1
                return actions[self.step]

        return rollout(short(), Tape(), seeds, steps=6).rewards.sum()

    share.requires_grad_()
    (exact,) = torch.autograd.grad(total(share), share)
    assert float((exact != 0.0).double().mean()) > 0.5
    for seed in range(4):
        direction = torch.randn(share.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        step = 1e-6 * direction
        with torch.no_grad():
            difference = float(total(share + step) - total(share - step)) / 2e-6
        assert difference == pytest.approx(float((exact * direction).sum()), rel=1e-5)


def test_observation_and_info_by_hand() -> None:
    state = world().initial(_Scenario(2))
    np.testing.assert_allclose(world().observe(state), [[50 / 150, 40 / 120, 0.0]])
    transition = world().step(state, np.array([[20.0 / 150.0]]), _Scenario(0))
    expected = {
        "storage": 20.0,
        "inflow": 40.0,
        "turbined": 70.0,
        "spilled": 0.0,
        "missed": 0.0,
        "hydro": 70.0,
        "thermal": 30.0,
        "deficit": 0.0,
        "cost": 600.0,
        "price": 20.0,
    }
    assert {name: float(np.ravel(array)[0]) for name, array in transition.info.items()} == pytest.approx(expected)
    assert transition.reward.tolist() == [-600.0]
    np.testing.assert_allclose(world().observe(transition.state), [[20 / 150, 105 / 120, 1 / 12]])


class _Scenario:
    """A key whose draw falls into one scenario."""

    batch = 1

    def __init__(self, scenario: int) -> None:
        self.scenario = scenario

    def uniform(self, name: str, size: tuple[int, ...] = ()) -> np.ndarray:
        return np.array([(0.1, 0.5, 0.9)[self.scenario]])


def test_the_plan_is_over_after_the_last_stage() -> None:
    run = rollout(short(), short().reference_policies()["greedy"], [0, 1], steps=6)
    assert run.terminated.tolist() == [[False, False]] * 5 + [[True, True]]


def test_stage_programme_needs_targets() -> None:
    with pytest.raises(TypeError, match="Hydro1R: action_mode='range' gives no targets; expected 'target'"):
        _ = short("range").stage_programme


@pytest.mark.parametrize("mode", ["target", "range", "release"])
def test_rules_of_thumb_do_the_same_in_every_action_mode(mode: ActionMode) -> None:
    seeds = row_seeds(5, "test", 64)
    for name in ("greedy", "constant"):
        ours, theirs = (
            rollout(one, one.reference_policies()[name], seeds, steps=6).info for one in (short(mode), short())
        )
        for part in ("storage", "turbined", "spilled"):
            np.testing.assert_allclose(ours[part], theirs[part], atol=1e-9)


# Pictures and errors


def test_plan_shows_storage_power_and_cost() -> None:
    picture = plan(world(), world().expert("optimal"), seed=1)
    colors = {tuple(color) for color in picture.reshape(-1, 3)}
    # Storage and hydro, inflow and cost, prices, and thermal power.
    assert {(33, 113, 181), (35, 139, 69), (217, 95, 14), (150, 150, 150)} <= colors
    other = plan(world(), world().reference_policies()["greedy"], seed=1)
    assert picture.shape == other.shape
    assert (picture != other).any()
    with pytest.raises(TypeError, match="Newsvendor has no reservoirs"):
        plan(Newsvendor(), Newsvendor().reference_policies()["random"])


def test_text_names_what_a_planner_asks_for() -> None:
    state = world().initial(_Scenario(1))
    text = world().render(state, mode="ansi")
    assert "storage 50.0 of 150.0 | inflow 80.0" in text
    with pytest.raises(ValueError, match="mode='film'"):
        world().render(replace(state), mode="film")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"capacity": 0.0}, r"capacity\[0\]=0.0; expected a finite number above 0"),
        ({"initial_storage": 151.0}, r"initial_storage=\[151.0\]; expected at most \[150.0\]"),
        ({"turbine_capacity": -1.0}, r"turbine_capacity\[0\]=-1.0"),
        ({"inflow_probabilities": (0.5, 0.5)}, r"inflow_table\[0\]=.*expected 2 numbers"),
        ({"deficit_price": 10.0}, "deficit_price=10.0; expected at least the highest thermal price"),
        ({"horizon": 0}, "horizon=0; expected an integer of at least 1"),
        ({"action_mode": "wish"}, "action_mode='wish'; expected one of"),
        ({"cost_unit": 0.0}, "cost_unit=0.0"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"Hydro1R: {message}"):
        Hydro1R(**arguments)
