"""The error of approximate ratios: what is compared, with what, and that the agent is left as it is."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from palaestra.agents.evaluation.measures import measure_all
from palaestra.agents.evaluation.ratio_error import compare_log_ratios, next_update, ratio_error
from palaestra.agents.registry import make_agent
from palaestra.agents.training.tree import pack

GOALS = "palaestra/MultiGoal2D-v0"
SMALL: dict[str, Any] = {
    "device": "cpu",
    "preset_name": None,
    "hidden": (16,),
    "value_hidden": (16,),
    "num_envs": 8,
    "n_steps": 16,
    "batch_size": 64,
    "n_epochs": 4,
    "flow_steps": 5,
    "learning_rate": 1e-3,
}


def trained(agent_id: str, steps: int = 600) -> Any:
    return make_agent(agent_id, GOALS, **SMALL).learn(steps)


def test_equal_ratios_have_no_error_and_a_ratio_of_one_has_all_of_it() -> None:
    exact = np.array([0.3, -0.2, 0.1, -0.4])
    same = compare_log_ratios(exact, exact)
    assert same["rmse"] == same["bias"] == same["relative"] == 0.0
    assert same["correlation"] == pytest.approx(1.0)
    assert same["agreement"] == 1.0
    blind = compare_log_ratios(np.zeros(4), exact)
    assert blind["relative"] == 1.0
    assert blind["correlation"] == 0.0
    assert blind["bias"] == pytest.approx(0.05)
    half = compare_log_ratios(0.5 * exact, exact)
    assert half["relative"] == pytest.approx(0.5)
    assert half["approximate_rms"] == pytest.approx(0.5 * half["exact_rms"])
    assert compare_log_ratios(-exact, exact)["agreement"] == 0.0


@pytest.mark.parametrize("agent_id", ["fpo", "policyflow"])
@pytest.mark.parametrize("target", [600, 2_000])
def test_the_update_looked_at_is_the_agent_s_own_next_one(agent_id: str, target: int) -> None:
    """Whether the agent is in the midst of its training or at its end, and whether its rollout is partly full."""
    agent = make_agent(agent_id, GOALS, **SMALL)
    agent.learn(target, callback=lambda learner: learner.num_timesteps < 600)
    before = copy.deepcopy(pack(agent.state_dict()))
    batch, old, new = next_update(agent, GOALS, {})
    after = pack(agent.state_dict())
    assert after[0] == before[0]
    assert all(torch.equal(value, before[1][name]) for name, value in after[1].items())
    for ours, theirs in zip(old.parameters(), agent.network.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert batch["action"].shape == (128, 2)
    agent.learn(128 - agent.num_timesteps % 128, reset_num_timesteps=False)
    for ours, theirs in zip(new.parameters(), agent.network.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("agent_id", ["fpo", "policyflow"])
def test_ratios_of_an_agent_say_something_of_the_exact_ones(agent_id: str) -> None:
    found = ratio_error(trained(agent_id), GOALS, env_kwargs={}, seed=0, rows=64)
    assert found["undefined"] == 0.0
    assert found["exact_rms"] > 1e-3
    assert 0.0 < found["relative"] < 2.0
    assert found["correlation"] > 0.2
    assert measure_all({"ratio-error": {"rows": 64}}, trained(agent_id), GOALS, {}, 0) == {
        f"ratio-error/{key}": value for key, value in found.items()
    }


def test_an_agent_with_exact_ratios_is_refused() -> None:
    agent = make_agent("ppo", GOALS, device="cpu", preset_name=None)
    with pytest.raises(TypeError, match="expected an agent with a ratio of flows"):
        ratio_error(agent, GOALS, env_kwargs={}, seed=0)
