"""HydroCascade11: its data, its bound, its rules of thumb, and targets as the stage programme sees them."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from palaestra.envs.energy.exact.mean_inflow import perfect_foresight_cost
from palaestra.envs.energy.hydro_cascade_11 import HydroCascade11
from palaestra.envs.energy.pictures import plan
from palaestra.envs.rollout import episode_returns, rollout
from palaestra.seeding import row_seeds


@cache
def world() -> HydroCascade11:
    return HydroCascade11()


def test_hydro_and_thermal_capacity_are_those_published() -> None:
    system = world().system
    assert float(system.turbine_capacity @ system.power) == pytest.approx(427.0, abs=0.5)
    assert float(system.thermal_capacity.sum()) == pytest.approx(507.0)
    assert (len(system.thermal_price), system.thermal_price[0], system.thermal_price[-1]) == (23, 14.0, 42.0)
    assert system.volume_per_flow == pytest.approx(0.6048)
    names = system.names
    rivers = {names[i]: names[below] for i, below in enumerate(system.downstream) if below >= 0}
    assert rivers == {"COR": "SIS", "ZON": "CHU", "TAQ1": "TAQ2"}


def test_bound_holds_for_every_policy_and_is_near_foresight() -> None:
    """On average no policy is better than foresight, and foresight no better than the bound."""
    bound = -world().oracle().value
    run = rollout(world(), world().reference_policies()["mean-flow"], row_seeds(1, "test", 24), steps=48)
    costs = -run.rewards.sum(axis=0)
    flows = np.moveaxis(run.info["inflow"], 1, 0)
    known = np.array([perfect_foresight_cost(world().system, path, world().initial_storage) for path in flows]) / 1000.0
    assert (known <= costs + 1e-6).all()
    assert bound <= known.mean() + 3.0 * known.std(ddof=1) / np.sqrt(len(known))
    assert bound >= 0.9 * known.mean()


def test_storing_water_pays() -> None:
    """Water kept for the dry season, by a constant release, saves deficit that run-of-river has to pay for."""
    seeds = row_seeds(2, "test", 200)
    rules = world().reference_policies()
    mean = {
        name: episode_returns(world(), rules[name], seeds).mean() for name in ("mean-flow", "run-of-river", "random")
    }
    assert mean["mean-flow"] > mean["run-of-river"] > mean["random"]


@pytest.mark.parametrize("mode", ["range", "release"])
def test_rules_of_thumb_do_the_same_in_every_action_mode(mode: Any) -> None:
    seeds, other = row_seeds(5, "test", 16), HydroCascade11(action_mode=mode)
    for name in ("greedy", "mean-flow"):
        ours, theirs = (rollout(one, one.reference_policies()[name], seeds, steps=10).info for one in (other, world()))
        for part in ("storage", "turbined", "spilled"):
            np.testing.assert_allclose(ours[part], theirs[part], atol=1e-7)


def test_water_above_arrives_below_in_the_same_week() -> None:
    run = rollout(world(), world().reference_policies()["random"], row_seeds(3, "test", 50), steps=20)
    info = run.info
    leaving = info["turbined"] + info["spilled"]
    arriving = info["inflow"].copy()
    for plant, below in enumerate(world().system.downstream):
        if below >= 0:
            arriving[..., below] += leaving[..., plant]
    before = np.concatenate((np.broadcast_to(world().initial_storage, (1, 50, 11)), info["storage"][:-1]))
    np.testing.assert_allclose(info["storage"], before + 0.6048 * (arriving - leaving), atol=1e-9)
    np.testing.assert_allclose(info["hydro"], info["turbined"] @ world().system.power, rtol=1e-12)
    assert (info["storage"][..., 9] == 0.0).all()
    served = info["hydro"] + info["thermal"] + info["deficit"]
    assert (served >= world().system.load - 1e-9).all()


def test_plan_has_a_panel_for_each_reservoir() -> None:
    picture = plan(world(), world().reference_policies()["mean-flow"])
    assert picture.shape == (64 * 10 + 2 * 120 + 8, 130 + 14 * 48 + 8, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"initial_fill": 1.5}, "initial_fill=1.5; expected a number from 0 to 1"),
        ({"season": 1.0}, "season=1.0; expected a number from 0 to below 1"),
        ({"persistence": 1.0}, "persistence=1.0; expected a number from 0 to below 1"),
        ({"correlation": 1.1}, "correlation=1.1; expected a number from 0 to 1"),
        ({"variation": -0.1}, "variation=-0.1"),
        ({"deficit_price": 41.0}, "deficit_price=41.0; expected at least the highest thermal price"),
        ({"load": np.inf}, "load=inf"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"HydroCascade11: {message}"):
        HydroCascade11(**arguments)
