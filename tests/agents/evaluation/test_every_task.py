"""Every task once: against the oracle over all series, and against single runs."""

from __future__ import annotations

import numpy as np
import pytest

from palaestra.agents.evaluation.every_task import every_task
from palaestra.agents.evaluation.measures import measure_all
from palaestra.agents.registry import make_agent
from palaestra.envs.registration import make_simulator
from palaestra.envs.rollout import long_run_reward

RETAIL = "palaestra/RetailStore-v0"
SMALL = {"products": 3, "stores": 2, "split": "test"}


def test_just_in_time_attains_the_bound_over_all_series() -> None:
    """It does so in each week that counts, and the bound is a mean over all series."""
    world = make_simulator(RETAIL, **SMALL)
    measured = every_task("just-in-time", RETAIL, env_kwargs=SMALL, seed=0, ignore=16)
    assert measured["reward"] == pytest.approx(world.oracle().value)
    assert measured == every_task("just-in-time", RETAIL, env_kwargs=SMALL, seed=5, ignore=16)


def test_one_series_is_the_run_of_that_series() -> None:
    alone = {"products": 1, "stores": 1, "split": "test"}
    world = make_simulator(RETAIL, **alone)
    policy = world.reference_policies()["moving-average"]
    measured = every_task("moving-average", RETAIL, env_kwargs=alone, seed=0, ignore=16)
    assert measured["reward"] == pytest.approx(float(long_run_reward(world, policy, [3], world.horizon, 16)[0]))
    whole = every_task("moving-average", RETAIL, env_kwargs=alone, seed=0)
    assert whole["return"] == pytest.approx(world.horizon * whole["reward"])


def test_agents_are_measured_as_they_are() -> None:
    training = {**SMALL, "split": "train"}
    settings = {"num_paths": 4, "periods": 20, "warm_up": 0, "hidden": (8,)}
    agent = make_agent("hdpo", RETAIL, preset_name=None, device="cpu", env_kwargs=training, **settings)
    before = agent.collector.started
    numbers = measure_all({"every-task": {"ignore": 16}}, agent, RETAIL, SMALL, 0)
    assert set(numbers) == {"every-task/return", "every-task/reward"}
    assert all(np.isfinite(list(numbers.values())))
    assert agent.collector.started == before


def test_episodes_of_different_lengths_end_each_for_itself() -> None:
    kwargs = {"num_tasks": 5}
    measured = every_task("random", "palaestra/RecGuide-v0", env_kwargs=kwargs, seed=0)
    assert np.isfinite(list(measured.values())).all()


def test_worlds_without_tasks_and_too_long_starts_are_refused() -> None:
    with pytest.raises(ValueError, match="OneStoreBacklog-v0 has no numbered tasks"):
        every_task("optimal", "palaestra/OneStoreBacklog-v0", env_kwargs={}, seed=0)
    with pytest.raises(ValueError, match="ignore=37; expected fewer steps than the 37 of the longest episode"):
        every_task("moving-average", RETAIL, env_kwargs=SMALL, seed=0, ignore=37)
