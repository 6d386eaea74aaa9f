"""The bias of critics against values known in closed form."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

from palaestra.agents.evaluation.measures import measure_all
from palaestra.agents.evaluation.overestimation import overestimation
from palaestra.agents.nn.distributions import SquashedGaussian
from palaestra.agents.nn.spaces import ActionMap
from palaestra.agents.registry import make_agent
from tests.agents import worlds  # noqa: F401  (registers the test worlds)
from tests.agents.test_laws import assert_same

BANDIT = "palaestra/BiasBandit-v0"
MEASURE = "palaestra.agents.evaluation.overestimation:overestimation"


def stub(env_id: str, said: Any, gamma: float = 0.5, log_alpha: float | None = None, **env_kwargs: Any) -> Any:
    """An agent whose critics say what they are told to, and whose policy is a standard normal, squashed."""
    env = gym.make(env_id, **env_kwargs)
    agent = SimpleNamespace(
        config=SimpleNamespace(frame_stack=1, gamma=gamma),
        device=torch.device("cpu"),
        action_map=ActionMap(env.action_space),
        normalised=lambda observation: observation,
        critics=said,
        actor=lambda seen: SquashedGaussian(torch.zeros(len(seen), 1), torch.zeros(len(seen), 1)),
        act=lambda seen, generator: torch.full((len(seen), 1), 0.2),
    )
    if log_alpha is not None:
        agent.log_alpha = torch.tensor(log_alpha)
    return agent


def flat(*values: float) -> Any:
    return lambda seen, action: torch.tensor(values)[:, None].expand(-1, len(seen))


def test_on_a_world_of_known_values() -> None:
    def said(seen: Tensor, action: Tensor) -> Tensor:
        exact = -4.0 * (action - 0.5 - 0.25 * seen).square()[:, 0]
        return torch.stack([exact + 0.5, exact + 1.5])

    measured = overestimation(stub(BANDIT, said), BANDIT, env_kwargs={}, seed=0, episodes=50)
    assert measured["bias"] == pytest.approx(1.0, abs=1e-5)
    assert measured["lowest_bias"] == pytest.approx(0.5, abs=1e-5)
    assert measured["states"] == 50.0
    # The mean of 4 (0.2 - 0.5 - s / 4)^2 over the contexts.
    assert measured["value"] == pytest.approx(-4.0 * (0.3**2 + 0.25**2 / 3.0), abs=0.1)
    scaled = overestimation(stub(BANDIT, flat(0.0)), BANDIT, env_kwargs={}, seed=0, episodes=50, reward_scale=100.0)
    assert scaled["bias"] == pytest.approx(-100.0 * measured["value"], rel=1e-5)


def test_returns_end_with_a_termination() -> None:
    """On the chain of rewards 1 with gamma 1/2: values 1.75, 1.5 and 1."""
    agent = stub("TestChain-v0", flat(1.0, 3.0))
    measured = overestimation(agent, "TestChain-v0", env_kwargs={}, seed=0, episodes=4)
    mean = (1.75 + 1.5 + 1.0) / 3.0
    expected = {"bias": 2.0 - mean, "lowest_bias": 1.0 - mean, "value": mean, "states": 12.0}
    assert measured == pytest.approx(expected)


def test_states_near_a_truncation_are_not_measured() -> None:
    kwargs = {"ending": "truncated"}
    agent = stub("TestChain-v0", flat(0.0), gamma=0.2)
    measured = overestimation(agent, "TestChain-v0", env_kwargs=kwargs, seed=0, episodes=4)
    # 0.2^3 is below 1%, 0.2^2 is not: the first state of each episode alone counts.
    assert measured == pytest.approx({"bias": -1.24, "lowest_bias": -1.24, "value": 1.24, "states": 4.0})
    with pytest.raises(ValueError, match="within 3 steps of a truncation; expected a time_limit beyond the 7 steps"):
        overestimation(stub("TestChain-v0", flat(0.0)), "TestChain-v0", env_kwargs=kwargs, seed=0)


def test_a_time_limit_replaces_that_of_the_env() -> None:
    pendulum = stub("Pendulum-v1", flat(0.0), gamma=0.5)
    measured = overestimation(pendulum, "Pendulum-v1", env_kwargs={}, seed=0, episodes=2, time_limit=10)
    assert measured["states"] == 2 * (10 - 6)
    own = stub("palaestra/Pendulum-v0", flat(0.0), gamma=0.5)
    assert (
        overestimation(own, "palaestra/Pendulum-v0", env_kwargs={}, seed=0, episodes=2, time_limit=10)["states"] == 8.0
    )


def test_the_entropy_of_later_actions_counts_and_that_of_the_given_one_does_not() -> None:
    alpha = 0.3
    agent = stub("TestChain-v0", flat(0.0), log_alpha=float(np.log(alpha)))
    measured = overestimation(agent, "TestChain-v0", env_kwargs={}, seed=0, episodes=4_000)
    # Entropy of tanh of a standard normal, by quadrature.
    u = torch.linspace(-9.0, 9.0, 20_001, dtype=torch.float64)
    density = torch.exp(-0.5 * u.square()) / np.sqrt(2.0 * np.pi)
    log_prob = density.log() - torch.log(1.0 - torch.tanh(u).square())
    entropy = -float(torch.trapezoid(density * log_prob, u))
    plain = (1.75 + 1.5 + 1.0) / 3.0
    assert measured["value"] == pytest.approx(plain + alpha * entropy * (0.75 + 0.5) / 3.0, abs=0.01)


@pytest.mark.parametrize("agent_id", ["sac", "td3", "dsac-t"])
def test_of_agents_and_leaves_them_as_they_are(agent_id: str) -> None:
    agents = [make_agent(agent_id, BANDIT, hidden=(8,), device="cpu", seed=1) for _ in range(2)]
    numbers = measure_all({MEASURE: {"episodes": 20}}, agents[0], BANDIT, {}, 0)
    assert_same(*agents)
    said = agents[0].critics(*(torch.zeros(1, 1), torch.zeros(1, 1)))
    assert (said if isinstance(said, Tensor) else said.mean()).shape[0] == 2
    assert numbers[f"{MEASURE}/lowest_bias"] <= numbers[f"{MEASURE}/bias"]
    assert numbers[f"{MEASURE}/states"] == 20.0
    assert numbers == measure_all({MEASURE: {"episodes": 20}}, agents[0], BANDIT, {}, 0)
    pendulum = make_agent(agent_id, "Pendulum-v1", hidden=(8,), device="cpu", preset_name=None, gamma=0.9)
    along = overestimation(pendulum, "Pendulum-v1", env_kwargs={}, seed=0, episodes=2, time_limit=60)
    assert along["states"] == 2 * (60 - 43)


def test_agents_without_critics_are_refused() -> None:
    with pytest.raises(TypeError, match="expected an agent with an actor and critics"):
        overestimation(make_agent("ppo", BANDIT, device="cpu"), BANDIT, env_kwargs={}, seed=0)
