"""The measure of goal visits, on the routes of a maze."""

from __future__ import annotations

import math

import pytest

from palaestra.agents.evaluation.goal_visits import goal_visits

MAZE = "palaestra/PointMaze2D-v0"


def test_goal_visits_measure_the_routes_of_an_episode():
    kwargs = {"horizon": 100}
    both = goal_visits("multimodal", MAZE, env_kwargs=kwargs, seed=0, episodes=128, info="route")
    assert both["goals"] == 2.0
    assert both["entropy"] == pytest.approx(math.log(2.0), abs=0.05)
    assert both["rate"] > 0.98
    one = goal_visits("route-1", MAZE, env_kwargs=kwargs, seed=0, episodes=32, info="route")
    assert (one["entropy"], one["goals"]) == (0.0, 1.0)
