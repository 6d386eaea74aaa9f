"""Measures beside the returns: how they are found, and that they say what enumeration and closed forms say."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from palaestra import make_agent
from palaestra.agents.evaluation.evaluate import evaluate, play_episodes, simulator_for
from palaestra.agents.evaluation.goal_visits import goal_visits
from palaestra.agents.evaluation.gradient_error import exact_gradient, gradient_error
from palaestra.agents.evaluation.measures import MEASURES, find_measure, measure_all
from palaestra.agents.evaluation.sampling_error import batch_sampling_error, sampling_error
from palaestra.agents.nn.flat_parameters import flat_values, set_flat_
from palaestra.envs.control.multi_goal_2d import goal_visit_entropy

GOALS, KUHN, LAKE = "palaestra/MultiGoal2D-v0", "palaestra/Kuhn-v0", "palaestra/SlipLake-v0"
SMALL = {"preset_name": None, "device": "cpu", "hidden": [8]}


def constant(policy, env_id, *, env_kwargs, seed, value=1.0):
    return {"value": value, "seed": seed, "kwargs": len(env_kwargs)}


def nothing(policy, env_id, *, env_kwargs, seed):
    return 3.0


@pytest.mark.parametrize("name", MEASURES)
def test_every_measure_that_is_named_exists(name):
    assert callable(find_measure(name))


def test_measures_are_named_and_may_come_from_anywhere():
    place = f"{__name__}:constant"
    found = measure_all({place: {"value": 2.0}, "goal-visits": {"episodes": 4}}, "goal-1", GOALS, {"num_goals": 3}, 5)
    assert (found[f"{place}/value"], found[f"{place}/seed"], found[f"{place}/kwargs"]) == (2.0, 5.0, 1.0)
    assert found["goal-visits/goals"] == 1.0
    for name, message in (
        ("visits", "unknown"),
        ("numpy:visits", "cannot be imported"),
        (f"{__name__}:nothing", "3.0"),
    ):
        with pytest.raises(ValueError, match=message):
            measure_all({name: {}}, "random", GOALS, {}, 0)


# Goal visits


def test_goal_visits_are_those_of_the_worlds_own_definition():
    found = goal_visits("nearest", GOALS, env_kwargs={"num_goals": 5}, seed=3, episodes=64)
    goals = play_episodes("nearest", GOALS, env_kwargs={"num_goals": 5}, episodes=64, seed=3, final_info=["goal"])
    assert found["entropy"] == pytest.approx(goal_visit_entropy(goals.final_info["goal"], 5))
    assert 1.0 < found["entropy"] <= np.log(5)
    assert (found["goals"], found["rate"]) == (5.0, 1.0)


def test_one_goal_has_no_entropy_and_no_goal_has_none_either():
    assert goal_visits("goal-2", GOALS, env_kwargs={}, seed=0, episodes=8) == {
        "entropy": 0.0,
        "goals": 1.0,
        "rate": 1.0,
    }
    nowhere = goal_visits("random", GOALS, env_kwargs={"horizon": 1}, seed=0, episodes=8)
    assert nowhere == {"entropy": 0.0, "goals": 0.0, "rate": 0.0}


def test_measured_episodes_are_those_of_the_evaluation():
    evaluated = evaluate("random", GOALS, episodes=12, seed=4)
    played = play_episodes("random", GOALS, episodes=12, seed=4, final_info=["goal", "success"])
    np.testing.assert_array_equal(played.returns, evaluated.returns)
    np.testing.assert_array_equal(played.final_info["success"], evaluated.success)
    np.testing.assert_array_equal(played.final_info["goal"] >= 0, evaluated.success)
    with pytest.raises(KeyError, match="no 'route'"):
        play_episodes("random", GOALS, episodes=1, final_info=["route"])


def test_measuring_leaves_an_agent_as_it_is():
    agent = make_agent("props", LAKE, seed=1, **SMALL, n_steps=64, behaviour_epochs=1)
    agent.learn(40)
    before = repr(agent.state_dict())
    agent_measures = {"sampling-error": {}}
    measure_all(agent_measures, agent, LAKE, {}, 0)
    agent.predict(agent.collector.observation, deterministic=True)
    assert repr(agent.state_dict()) == before
    learner = make_agent("reinforce", KUHN, seed=1, **SMALL, num_envs=4, gamma=1.0)
    theta, generator = flat_values(learner.parameters), learner.generator.get_state()
    measure_all({"gradient-error": {"estimates": 2}}, learner, KUHN, {}, 0)
    assert torch.equal(flat_values(learner.parameters), theta)
    assert torch.equal(learner.generator.get_state(), generator)


# Sampling error


def test_the_sampling_error_of_a_batch_is_that_of_its_steps():
    agent = make_agent("ppo", LAKE, seed=2, **SMALL, n_steps=64, num_envs=2)
    agent.learn(60)
    found = batch_sampling_error(agent, LAKE, env_kwargs={}, seed=0)
    steps = agent.rollout.fields
    observations = steps["observation"][:30].flatten(0, 1)
    actions = steps["action"][:30].flatten()
    with torch.no_grad():
        log_probs = agent.network.act(observations, None, None, None)[0].log_prob(actions)
    expected = sampling_error(observations.numpy(), actions.numpy(), log_probs.numpy())
    assert found == {"kl": pytest.approx(expected), "steps": 60.0}
    assert found["kl"] > 0.0
    assert batch_sampling_error(agent, LAKE, env_kwargs={}, seed=0, minimum=61) == {}


def test_an_agent_without_a_batch_has_none():
    agent = make_agent("ppo", LAKE, seed=2, **SMALL, n_steps=8)
    assert batch_sampling_error(agent, LAKE, env_kwargs={}, seed=0) == {}
    with pytest.raises(TypeError, match="learns from rollouts"):
        batch_sampling_error("random", LAKE, env_kwargs={}, seed=0)
    continuous = make_agent("ppo", GOALS, seed=2, **SMALL, n_steps=8)
    with pytest.raises(TypeError, match="expected Discrete"):
        batch_sampling_error(continuous, GOALS, env_kwargs={}, seed=0)


# Gradient error


@pytest.mark.parametrize("env_id", [KUHN, LAKE])
def test_the_exact_gradient_is_the_derivative_of_the_exact_return(env_id):
    agent = make_agent("reinforce", env_id, seed=4, **SMALL, gamma=1.0)
    simulator = simulator_for(env_id, {})

    def value(theta):
        set_flat_(agent.parameters, theta)
        states = simulator.enumerate_states()
        masks = simulator.action_masks(states)
        keywords = {} if masks is None else {"action_masks": masks}
        return simulator.exact_return(agent.action_probabilities(simulator.observe(states), **keywords))

    theta = flat_values(agent.parameters)
    gradient = exact_gradient(agent, simulator)
    direction = torch.randn(len(theta), generator=torch.Generator().manual_seed(0))
    step = 1e-2
    slope = (value(theta + step * direction) - value(theta - step * direction)) / (2 * step)
    assert slope == pytest.approx(float(gradient @ direction.double()), rel=2e-2, abs=2e-5)


def test_more_trajectories_have_smaller_errors_without_a_bias():
    found = {
        count: gradient_error(
            make_agent("reinforce", KUHN, seed=5, **SMALL, num_envs=count, gamma=1.0),
            KUHN, env_kwargs={}, seed=1, estimates=48,
        )
        for count in (4, 64)
    }  # fmt: skip
    # Independent trajectories: errors fall as 1 / M, and the mean of 48 estimates has a 48th of them.
    ratio = found[4]["squared_error"] / found[64]["squared_error"]
    assert 8.0 < ratio < 32.0
    for numbers in found.values():
        assert numbers["squared_bias"] < 3.0 * numbers["squared_error"] / 48
        assert numbers["relative"] == pytest.approx(numbers["squared_error"] / numbers["norm"] ** 2)
    assert found[4]["norm"] == found[64]["norm"]


def test_an_average_of_gradients_is_judged_as_it_stands():
    agent = make_agent("n-harpg", KUHN, seed=5, **SMALL, num_envs=4, gamma=1.0)
    agent.direction = exact_gradient(agent, simulator_for(KUHN, {})).float()
    found = gradient_error(agent, KUHN, env_kwargs={}, seed=1)
    assert found["squared_error"] < 1e-10
    assert found["norm"] > 0.01


def test_what_has_no_exact_gradient_is_refused():
    learner = make_agent("reinforce", KUHN, seed=0, **SMALL, gamma=1.0)
    with pytest.raises(TypeError, match="cannot be enumerated"):
        gradient_error(learner, GOALS, env_kwargs={}, seed=0)
    for change in ({"gamma": 0.9}, {"normalize_direction": True}):
        learner.config = dataclasses.replace(learner.config, **change)
        with pytest.raises(TypeError, match="with gamma 1"):
            gradient_error(learner, KUHN, env_kwargs={}, seed=0)
        learner.config = dataclasses.replace(learner.config, gamma=1.0)
    with pytest.raises(TypeError, match="learns from whole trajectories"):
        gradient_error("random", KUHN, env_kwargs={}, seed=0)
