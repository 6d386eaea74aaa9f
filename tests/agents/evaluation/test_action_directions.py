"""Directions of actions: sectors of the circle, and what is measured of a policy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from palaestra.agents.evaluation.action_directions import SECTORS, action_directions, direction_shares
from palaestra.agents.registry import make_agent

GOALS = "palaestra/MultiGoal2D-v0"


class Compass:
    """Goes east three times out of four, north otherwise."""

    def predict(self, observation: Any, deterministic: bool, generator: Any) -> tuple[np.ndarray, None]:
        assert not deterministic
        rows = len(observation)
        east = np.arange(rows) % 4 > 0
        return np.where(east[:, None], [[0.5, 0.0]], [[0.0, 0.1]]), None


def test_sectors_are_centred_on_their_directions() -> None:
    angles = 2.0 * np.pi * np.arange(SECTORS) / SECTORS
    half = np.pi / SECTORS
    for offset in (-0.9 * half, 0.0, 0.9 * half):
        actions = np.stack([np.cos(angles + offset), np.sin(angles + offset)], 1)
        np.testing.assert_array_equal(direction_shares(actions), 1.0 / SECTORS)


def test_shares_and_their_entropy() -> None:
    found = action_directions(Compass(), GOALS, env_kwargs={}, seed=0, samples=400)
    assert found["share-00"] == 0.75
    assert found[f"share-{SECTORS // 4:02d}"] == 0.25
    assert found["entropy"] == pytest.approx(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))


def test_an_agent_is_measured_without_drawing_from_it() -> None:
    agent = make_agent("ppo", GOALS, device="cpu", preset_name=None)
    before = agent.predict_generator.get_state()
    first, second = (action_directions(agent, GOALS, env_kwargs={}, seed=3) for _ in range(2))
    assert first == second
    assert bool((agent.predict_generator.get_state() == before).all())
    assert first["entropy"] > 0.9 * np.log(SECTORS)


def test_actions_of_another_kind_are_refused() -> None:
    with pytest.raises(TypeError, match=r"expected a Box of shape \(2,\)"):
        action_directions(Compass(), "Pendulum-v1", env_kwargs={}, seed=0)
