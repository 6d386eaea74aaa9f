"""Offline data: whose they are, that they are the same again, and that they are shown as agents see them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from palaestra.agents.nn.spaces import ActionMap
from palaestra.agents.training.behaviour_data import behaviour_data
from palaestra.envs.registration import make_simulator
from palaestra.wrappers.vectorize import make_vec

LOCK = "palaestra/CombinationLock-v0"
CPU = torch.device("cpu")


def lock_data(policy: Any = "epsilon-greedy", steps: int = 5000, seed: int = 3, **kwargs: Any) -> dict[str, Any]:
    action_map = ActionMap(make_vec(LOCK, 1).single_action_space)
    return behaviour_data(policy, LOCK, kwargs, steps, seed, action_map, CPU)


def test_data_are_of_the_policy_named() -> None:
    """A fifth of the actions of the lock's epsilon-greedy behaviour is uniform, the others press one button alone."""
    rows = lock_data()
    assert all(len(field) == 5000 for field in rows.values())
    pressed = (rows["action"] == 1.0).sum(-1)
    alone = (pressed == 1) & ((rows["action"] == -1.0).sum(-1) == 9)
    assert float(alone.float().mean()) == pytest.approx(0.8, abs=0.03)
    others = rows["action"][~alone]
    assert float(others.abs().max()) < 1.0
    assert float(others.mean()) == pytest.approx(0.0, abs=0.05)
    assert int(rows["terminated"].sum()) == 1000
    assert not rows["truncated"].any()
    # Open by keeping right five times: .82 each, .1 / .8 of it by chance.
    opened = (rows["reward"] == 1.0).float().sum() / 1000
    assert float(opened) == pytest.approx(0.82**5, abs=0.06)


def test_the_same_seed_makes_the_same_data_and_another_other_ones() -> None:
    one, same, other = (lock_data(steps=300, seed=seed) for seed in (1, 1, 2))
    for name in one:
        assert torch.equal(one[name], same[name])
    assert not torch.equal(one["observation"], other["observation"])
    longer = lock_data(steps=400, seed=1)
    assert all(torch.equal(longer[name][:300], one[name]) for name in one)


def test_successors_follow_within_an_episode() -> None:
    rows = lock_data(policy="optimal", steps=500, horizon=4)
    by_step = {name: field.view(10, 50, *field.shape[1:]) for name, field in rows.items()}
    on = ~by_step["terminated"][:-1]
    assert torch.equal(by_step["next_observation"][:-1][on], by_step["observation"][1:][on])
    assert by_step["terminated"][3].all()
    assert not torch.equal(by_step["next_observation"][3], by_step["observation"][4])


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "CartPole-v1", "palaestra/Kuhn-v0"])
def test_random_data_of_any_env(env_id: str) -> None:
    env = make_vec(env_id, 1)
    rows = behaviour_data("random", env_id, {}, 120, 0, ActionMap(env.single_action_space), CPU)
    assert len(rows["reward"]) == 120
    assert ("next_mask" in rows) == (env_id == "palaestra/Kuhn-v0")
    if env_id == "Pendulum-v1":
        assert -1.0 <= float(rows["action"].min()) < -0.9


def test_actions_come_back_from_the_env() -> None:
    for space in (make_simulator(LOCK).action_space, make_vec("Pendulum-v1", 1).single_action_space):
        action_map = ActionMap(space)
        actions = np.linspace(-1.0, 1.0, 4 * action_map.dim, dtype=np.float32).reshape(4, -1)
        np.testing.assert_allclose(action_map.from_env(action_map.to_env(actions)), actions, atol=1e-6)


def test_unknown_policies_are_refused() -> None:
    with pytest.raises(KeyError, match="policy='nobody' is unknown"):
        lock_data("nobody")
    with pytest.raises(ValueError, match="steps=0; expected at least 1"):
        lock_data(steps=0)
