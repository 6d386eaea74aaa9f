"""Policies in supply networks other than the one they were trained on: which fit, what goes along, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import palaestra
from palaestra.agents.evaluation.claim_files import make_claim, with_registered
from palaestra.agents.pathwise.graph_network import GraphNetwork
from palaestra.agents.pathwise.network_reader import NetworkReader, features
from palaestra.agents.registry import make_agent
from palaestra.envs.registration import make_simulator
from palaestra.envs.rollout import rollout
from palaestra.scripts.claim_run import configuration_hashes, run_arm

WAREHOUSE, RETAIL = "palaestra/OneWarehouse-v0", "palaestra/RetailStore-v0"
SMALL = {"hidden": (8,), "num_paths": 4, "periods": 10, "warm_up": 0}


def make(env: Any, env_kwargs: dict[str, Any] | None = None, **config: Any) -> Any:
    settings = {**SMALL, **config}
    return make_agent("hdpo", env, device="cpu", preset_name=None, env_kwargs=env_kwargs, **settings)


def graph_agent(stores: int = 5, **config: Any) -> Any:
    return make(WAREHOUSE, {"stores": stores}, policy="gnn", **config).learn(120)


def warehouse(stores: int = 10, **arguments: Any) -> Any:
    return make_simulator(WAREHOUSE, stores=stores, **arguments)


def observed(world: Any, batch: int = 6) -> np.ndarray:
    """Observations that the world reaches under random actions."""
    state = rollout(world, world.reference_policies()["random"], range(batch), steps=8).state
    return np.asarray(world.observe(state), np.float32)


# What fits


def test_graph_network_acts_in_ten_stores_as_one_built_there() -> None:
    agent, world = graph_agent(), warehouse()
    built = GraphNetwork(NetworkReader(world.network), (8,), "elu").float()
    built.load_state_dict(agent.policy.state_dict())
    with torch.no_grad():
        expected = built(torch.tensor(observed(world))).clamp(-1.0, 1.0)
    actions, _ = agent.acting_in(world).predict(observed(world))
    assert actions.shape == (6, 11)
    np.testing.assert_allclose(actions, expected.numpy(), atol=1e-6)


def test_the_copy_shares_nothing_with_the_agent() -> None:
    agent, world = graph_agent(), warehouse()
    before = agent.acting_in(world).predict(observed(world))[0]
    copied = agent.acting_in(world)
    with torch.no_grad():
        for parameter in copied.policy.parameters():
            parameter.add_(1.0)
    np.testing.assert_array_equal(agent.acting_in(world).predict(observed(world))[0], before)
    assert len(agent.network.nodes) == 6
    assert agent.acting_in(warehouse(5)) is agent


def test_the_best_policy_goes_along() -> None:
    agent, world = graph_agent(dev_paths=4), warehouse()
    with torch.no_grad():
        for parameter in agent.policy.parameters():
            parameter.zero_()
    built = GraphNetwork(NetworkReader(world.network), (8,), "elu").float()
    built.load_state_dict(agent.best_policy.state_dict())
    with torch.no_grad():
        expected = built(torch.tensor(observed(world))).clamp(-1.0, 1.0)
    np.testing.assert_allclose(agent.acting_in(world).predict(observed(world))[0], expected.numpy(), atol=1e-6)


def test_evaluation_moves_the_policy() -> None:
    agent = graph_agent()
    there = palaestra.evaluate(agent, WAREHOUSE, env_kwargs={"stores": 10}, episodes=4, against_oracle=False)
    copied = palaestra.evaluate(
        agent.acting_in(warehouse()), WAREHOUSE, env_kwargs={"stores": 10}, episodes=4, against_oracle=False
    )
    np.testing.assert_array_equal(there.returns, copied.returns)
    assert there.returns.std() > 0.0


def test_newsvendors_go_by_the_network_at_hand() -> None:
    agent = make(RETAIL, {"products": 4}, policy="transformed-newsvendor", periods=30)
    world = make_simulator(RETAIL, products=4, data_seed=1)
    copied = agent.acting_in(world)
    assert copied is not agent
    assert copied.network.demand_std == world.network.demand_std != agent.network.demand_std
    seen = observed(world)
    np.testing.assert_allclose(copied.predict(seen)[0], agent.predict(seen)[0], atol=1e-6)


def test_other_policies_act_as_they_are_where_spaces_are_the_same() -> None:
    agent = make("palaestra/OneStoreBacklog-v0")
    world = make_simulator("palaestra/OneStoreBacklog-v0", demand_mean=6.0)
    assert agent.acting_in(world) is agent


# Going on


def test_learning_goes_on_in_another_network(tmp_path: Path) -> None:
    agent = graph_agent(dev_paths=4)
    agent.save(tmp_path / "five")
    many = palaestra.make_vec(WAREHOUSE, 1, env_kwargs={"stores": 10})
    loaded = palaestra.load(tmp_path / "five", env=many, device="cpu")
    assert loaded.action_space.shape == (11,)
    assert len(loaded.network.nodes) == 11
    assert loaded.best_reward is None
    for ours, theirs in zip(agent.policy.parameters(), loaded.policy.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    for ours, theirs in zip(agent.policy_optimizer.moments, loaded.policy_optimizer.moments, strict=True):
        assert bool(ours.any())
        torch.testing.assert_close(ours, theirs)
    steps = loaded.num_timesteps
    loaded.learn(80, reset_num_timesteps=False)
    assert loaded.num_timesteps == steps + 80
    assert loaded.best_reward is not None
    assert not torch.equal(next(loaded.policy.parameters()), next(agent.policy.parameters()))
    loaded.save(tmp_path / "ten")
    again = palaestra.load(tmp_path / "ten", device="cpu")
    seen = observed(warehouse())
    np.testing.assert_array_equal(again.predict(seen)[0], loaded.predict(seen)[0])


def test_set_env_takes_the_policy_along() -> None:
    agent = graph_agent()
    expected = agent.acting_in(warehouse()).predict(observed(warehouse()))[0]
    agent.set_env(WAREHOUSE, {"stores": 10})
    np.testing.assert_array_equal(agent.predict(observed(warehouse()))[0], expected)
    assert agent.env_kwargs == {"stores": 10}
    agent.learn(40)


# What is refused


@pytest.mark.parametrize("policy", ["mlp", "symmetric", "base-stock", "echelon-base-stock", "capped-base-stock"])
def test_policies_of_one_network_say_which_fit_others(policy: str) -> None:
    agent = make(WAREHOUSE, {"stores": 3}, policy=policy)
    message = rf"network of OneWarehouse is another than that of policy='{policy}'; expected .*'gnn'"
    with pytest.raises(ValueError, match=message):
        agent.set_env(WAREHOUSE, {"stores": 4})
    with pytest.raises(ValueError, match=message):
        agent.acting_in(warehouse(4))
    assert len(agent.network.nodes) == 4


def test_networks_of_another_kind_are_refused() -> None:
    agent = graph_agent(3)
    with pytest.raises(ValueError, match="which has longest lead time 5; expected longest lead time 3"):
        agent.acting_in(warehouse(3, warehouse_lead_time=5))
    priced = "palaestra/ManyWarehouses-v0"
    with pytest.raises(ValueError, match="which has longest lead time 6, prices 1; expected longest lead time 3"):
        agent.set_env(priced)
    with pytest.raises(ValueError, match="expected the same, or one of"):
        agent.acting_in(make_simulator("palaestra/Newsvendor-v0"))
    with pytest.raises(TypeError, match="Pendulum-v1 has no simulator"):
        agent.set_env("Pendulum-v1")
    assert agent.env_id == WAREHOUSE
    agent.learn(40)


def test_features_do_not_depend_on_the_number_of_stores() -> None:
    assert features(warehouse(3).network) == features(warehouse(10).network)
    chain = features(make_simulator("palaestra/Serial-v0").network)
    assert chain["suppliers in a row"] == 3
    assert features(make_simulator(RETAIL, products=4).network)["periods of past demand"] == 16


# Claims


def test_a_claim_trains_in_one_network_and_evaluates_in_another() -> None:
    """As `training` says it: parameters of the env that differ from those of what is evaluated."""
    two, three = [[1, 2], [2, 1]], [[1, 2], [2, 1], [1, 1]]
    kwargs = {"products": 4, "split": "dev", "warehouse_holding_costs": [0.3, 0.4], "supply_costs": [0.5, 1.5]}
    record = {
        "name": "elsewhere",
        "system": "Deep Reinforcement Learning for Inventory Networks: Toward Reliable Policy Optimization",
        "statement": "A table.",
        "arms": {
            "GNN": {
                "agent": "hdpo",
                "preset": None,
                "config": {**SMALL, "hidden": [8], "policy": "gnn"},
                "budget": 80,
                "eval_every": 80,
                "training": {"env_kwargs": {"split": "train", "store_lead_times": two}},
            }
        },
        "criteria": [],
        "seeds": [1001, 1002],
        "eval_episodes": 2,
        "tuning_budget": "None.",
        "env": "palaestra/RetailNetwork-v0",
        "env_kwargs": {**kwargs, "store_lead_times": three},
    }
    claim = make_claim(with_registered(record, configuration_hashes(make_claim(record))))
    rows = run_arm(claim, claim.arm("GNN"), 1001, "test")
    assert [row.kind for row in rows] == ["curve", "final"]
    assert rows[-1].env_kwargs["store_lead_times"] == three
    assert rows[-1].training["env_kwargs"]["store_lead_times"] == two
    assert rows[0].metric("value") != rows[-1].metric("value")
