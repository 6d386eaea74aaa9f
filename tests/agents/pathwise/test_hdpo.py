"""HDPO: its gradient against finite differences and closed forms, and what it reaches on worlds with known optima."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm

import palaestra
from palaestra.agents.pathwise.path_noise import PathNoise
from palaestra.agents.registry import make_agent, preset
from palaestra.agents.training.run import Run, RunConfig
from palaestra.agents.training.seeding import make_generator
from palaestra.envs.inventory.one_store_backlog import OneStoreBacklog
from palaestra.envs.inventory.supply_network import SupplyNetwork
from palaestra.envs.rollout import long_run_reward

STORE, SERIAL = "palaestra/OneStoreBacklog-v0", "palaestra/Serial-v0"


def make(env: Any, env_kwargs: dict[str, Any] | None = None, **config: Any) -> Any:
    return make_agent("hdpo", env, device="cpu", preset_name=None, env_kwargs=env_kwargs, **config)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gradient(agent: Any, paths: int, periods: int, start: int = 0, seed: int = 0) -> torch.Tensor:
    """Gradient of the mean reward from period `start` on, in all parameters."""
    mean = agent.simulate(generator(seed), paths, periods)[start:].mean()
    return torch.cat([g.flatten() for g in torch.autograd.grad(mean, list(agent.policy.parameters()))])


# The gradient


@pytest.mark.parametrize(
    ("env", "env_kwargs", "policy"),
    [
        (STORE, {}, "mlp"),
        (STORE, {}, "base-stock"),
        ("palaestra/OneStoreLost-v0", {}, "capped-base-stock"),
        (SERIAL, {}, "mlp"),
        (SERIAL, {}, "echelon-base-stock"),
        ("palaestra/Transshipment-v0", {"stores": 3}, "symmetric"),
        ("palaestra/OneWarehouse-v0", {"stores": 3}, "gnn"),
        ("palaestra/ManyWarehouses-v0", {}, "gnn"),
        ("palaestra/Newsvendor-v0", {}, "mlp"),
        ("palaestra/RetailStore-v0", {"products": 4}, "mlp"),
        ("palaestra/RetailNetwork-v0", {"products": 4}, "gnn"),
    ],
)
def test_gradient_equals_finite_differences(env: str, env_kwargs: dict[str, Any], policy: str) -> None:
    """Along random directions, in float64.

    Costs have kinks: whole levels meet whole demand on one, so the parameters are first moved off by fractions.
    """
    agent = make(env, env_kwargs, policy=policy, precision="float64", hidden=(8,), periods=12, warm_up=0)
    with torch.no_grad():
        for parameter in agent.policy.parameters():
            parameter += 0.1 * torch.rand(parameter.shape, generator=generator(9), dtype=torch.float64)
    exact = gradient(agent, 4, 12)
    assert exact.abs().max() > 1e-4
    parameters = torch.nn.utils.parameters_to_vector(agent.policy.parameters()).detach().clone()

    def value(vector: torch.Tensor) -> float:
        torch.nn.utils.vector_to_parameters(vector, agent.policy.parameters())
        with torch.no_grad():
            return float(agent.simulate(generator(), 4, 12).mean())

    for seed in range(3):
        direction = torch.randn(len(parameters), generator=generator(seed), dtype=torch.float64)
        step = 1e-6 * direction
        difference = (value(parameters + step) - value(parameters - step)) / 2e-6
        assert difference == pytest.approx(float(exact @ direction), rel=1e-4, abs=1e-6)


def test_gradient_of_the_level_is_that_of_the_newsvendor() -> None:
    """Steady-state cost in the level S has the slope (h + p) F(S) - p, F of the demand of lead time + 1 periods."""
    agent = make(STORE, {"lead_time": 2, "max_order": 1e3}, policy="base-stock", precision="float64")
    sigma, mean = 1.6 * np.sqrt(3), 15.0
    for level in (13.0, 15.0, 18.0, 20.0):
        with torch.no_grad():
            agent.policy.levels[:] = level
        slope = -float(gradient(agent, 4_000, 12, start=4))
        assert slope == pytest.approx(10.0 * norm.cdf((level - mean) / sigma) - 9.0, abs=0.12)


def test_gradient_is_zero_at_the_optimal_level() -> None:
    world = OneStoreBacklog(lead_time=1, max_order=1e3)
    agent = make(STORE, {"lead_time": 1, "max_order": 1e3}, policy="base-stock", precision="float64")
    with torch.no_grad():
        agent.policy.levels[:] = world.optimal_level()
    assert float(gradient(agent, 10_000, 10, start=3)) == pytest.approx(0.0, abs=0.06)


def test_discounted_mean_of_rewards() -> None:
    reward = torch.tensor([[1.0, 3.0], [2.0, 6.0]])
    assert float(make(STORE).mean_reward(reward)) == 3.0
    assert float(make(STORE, gamma=0.5).mean_reward(reward)) == pytest.approx((2.0 + 0.5 * 4.0) / 2)


# What is simulated


@pytest.mark.parametrize("policy", ["mlp", "base-stock"])
def test_acting_equals_what_was_simulated(policy: str) -> None:
    """The rewards of a path are those of the NumPy world under `predict`, on the same noise."""
    agent = make(SERIAL, policy=policy, precision="float64", hidden=(8,))
    with torch.no_grad():
        expected = agent.simulate(generator(3), 5, 20).numpy()
    drawn = generator(3)

    class Same(PathNoise):
        def _draw(self, *address: Any) -> Any:
            return super()._draw(*address).numpy()

    world = agent.simulator
    state = world.initial(Same(drawn, 5, torch.float64))
    for period in range(20):
        action, _ = agent.predict(world.observe(state).astype(np.float32), deterministic=True)
        transition = world.step(state, action.astype(np.float64), Same(drawn, 5, torch.float64))
        np.testing.assert_allclose(transition.reward, expected[period], rtol=2e-5, atol=2e-4)
        state = transition.state


def test_a_moment_draws_each_name_once() -> None:
    key = PathNoise(generator(), 3, torch.float32)
    assert key.batch == 3
    assert torch.equal(key.normal("demand", (2,)), key.normal("demand", (2,)))
    assert not torch.equal(key.normal("demand", (2,)), key.normal("returns", (2,)))
    whole = key.integers("kind", 4, (1000,))
    assert whole.dtype == torch.int64
    assert set(whole.unique().tolist()) == {0, 1, 2, 3}
    shares = key.uniform("share", (1000,))
    assert shares.dtype == torch.float32
    assert 0.0 <= float(shares.min()) < float(shares.max()) < 1.0


def test_a_fixed_set_of_paths_is_visited_whole_each_time_round() -> None:
    agent = make(STORE, num_paths=4, train_paths=12)
    firsts = [float(torch.rand((), generator=agent._next_batch())) for _ in range(9)]
    rounds = [set(firsts[start : start + 3]) for start in (0, 3, 6)]
    assert len(rounds[0]) == 3
    assert rounds[0] == rounds[1] == rounds[2]
    fresh = make(STORE, num_paths=4)
    assert len({float(torch.rand((), generator=fresh._next_batch())) for _ in range(9)}) == 9


def test_chunks_add_up_to_the_whole_batch() -> None:
    """What an update descends is the mean over the paths of all chunks, drawn one after the other."""
    agent = make(STORE, num_paths=10, chunk_paths=4, periods=6, warm_up=0, max_grad_norm=None)
    agent.target_timesteps = 1_000
    state = agent.path_generator.get_state()
    parts = [agent.simulate(agent.path_generator, size, 6) for size in (4, 4, 2)]
    whole = torch.cat(parts, 1).mean()
    expected = torch.autograd.grad(-whole, list(agent.policy.parameters()))
    agent.path_generator.set_state(state)
    agent.training_step()
    for gradient, parameter in zip(expected, agent.policy.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)
    assert agent.metrics.collect()["train/loss"] == pytest.approx(-float(whole.detach()), rel=1e-5)
    assert agent.num_timesteps == 60


def test_the_best_policy_on_the_dev_paths_acts(tmp_path: Path) -> None:
    """With steps far too large the latest policy is worse than the best before it."""
    agent = make(STORE, num_paths=4, periods=8, warm_up=4, dev_paths=16, dev_every=2, learning_rate=0.5)
    tried: list[float] = []
    trial = agent._keep_best

    def keep_best() -> None:
        trial()
        with torch.no_grad():
            noise = make_generator(agent.seed, "dev", agent.device)
            tried.append(float(agent.simulate(noise, 16, 16)[8:].mean()))

    agent._keep_best = keep_best
    agent.learn(4 * 8 * 9)
    del agent._keep_best
    assert len(tried) == 5
    assert agent.best_reward == max(tried) > tried[-1]
    assert agent.metrics.collect()["train/best_dev_reward"] <= agent.best_reward
    observation = np.ones((1, 4), np.float32)
    best, latest = (policy(torch.ones(1, 4)) for policy in (agent.best_policy, agent.policy))
    assert torch.equal(agent.act(torch.ones(1, 4), None), best)
    assert not torch.equal(best, latest)
    agent.save(tmp_path / "agent")
    loaded: Any = palaestra.load(tmp_path / "agent")
    assert loaded.best_reward == agent.best_reward
    np.testing.assert_array_equal(loaded.predict(observation)[0], agent.predict(observation)[0])


def test_env_steps_are_periods_of_paths() -> None:
    agent = make(STORE, num_paths=6, periods=7, warm_up=3).learn(100)
    assert (agent.num_timesteps, agent.num_updates) == (126, 3)
    metrics = agent.metrics.collect()
    optimum = OneStoreBacklog().optimal_cost()
    assert metrics["train/late_gap"] == pytest.approx(-metrics["train/late_reward"] / optimum - 1.0, rel=1e-5)


def test_linear_schedule_ends_at_zero() -> None:
    agent = make(STORE, num_paths=5, periods=6, warm_up=0, learning_rate=0.1, learning_rate_schedule="linear")
    rates: list[float] = []
    agent.learn(120, lambda agent: rates.append(agent.policy_optimizer.param_groups[0]["lr"]))
    assert rates == pytest.approx([0.1, 0.075, 0.05, 0.025])


# What is reached


def test_base_stock_reaches_the_newsvendor_level() -> None:
    agent = make(
        STORE,
        {"lead_time": 1},
        policy="base-stock",
        learning_rate=0.3,
        learning_rate_schedule="linear",
        num_paths=128,
        periods=20,
        warm_up=5,
    )
    agent.learn(128 * 20 * 80)
    assert float(agent.policy.levels.detach()) == pytest.approx(12.9, abs=0.2)


def test_newsvendor_reaches_the_critical_ratio() -> None:
    """On a world that is no network: the order that covers demand with probability p / (p + h)."""
    agent = make(
        "palaestra/Newsvendor-v0",
        {"demand": "normal", "demand_std": 1.0},
        hidden=(8,),
        learning_rate=0.02,
        learning_rate_schedule="linear",
        num_paths=64,
        periods=10,
        warm_up=0,
    )
    agent.learn(64 * 10 * 250)
    oracle = agent.simulator.oracle()

    def actor(state: Any, observation: Any, key: Any) -> Any:
        return agent.predict(observation, deterministic=True)[0]

    cost = -long_run_reward(agent.simulator, actor, range(20), 200).mean()
    assert cost == pytest.approx(-oracle.value, rel=0.05)


def test_echelon_base_stock_comes_near_clark_and_scarf() -> None:
    agent = make(
        SERIAL,
        policy="echelon-base-stock",
        learning_rate=0.5,
        learning_rate_schedule="linear",
        num_paths=64,
    )
    agent.learn(64 * 50 * 150)
    result = palaestra.evaluate(agent, SERIAL, episodes=1, seed=1, long_run_rows=8, periods=3_500)
    assert result.gap.estimate < 0.03


@pytest.mark.slow
@pytest.mark.parametrize("env", ["OneStoreBacklog", "OneStoreLost", "Serial", "Transshipment"])
def test_presets_improve_with_training(env: str) -> None:
    name = f"palaestra/{env}-v0"
    assert preset("hdpo", name)
    agent = make_agent("hdpo", name, device="cpu", seed=3)
    before = palaestra.evaluate(agent, name, episodes=1, seed=1, long_run_rows=4, periods=3_200).gap.estimate
    agent.learn(400_000)
    after = palaestra.evaluate(agent, name, episodes=1, seed=1, long_run_rows=4, periods=3_200).gap.estimate
    assert after < 0.5 * before


# Where it fits


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ("Pendulum-v1", "has no simulator to differentiate"),
        ("CartPole-v1", "action space Discrete"),
        ("palaestra/Kuhn-v0", "action space Discrete"),
    ],
)
def test_unfit_worlds_are_refused(env: str, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make(env)


@pytest.mark.parametrize(
    ("env", "env_kwargs", "periods"),
    [("palaestra/OneStoreLost-v0", {"integer_orders": True}, 50), (STORE, {"lead_time": 4}, 4)],
)
def test_worlds_without_a_gradient_are_refused(env: str, env_kwargs: dict[str, Any], periods: int) -> None:
    """Whole orders have none, and orders that arrive after the last period have no effect."""
    with pytest.raises(TypeError, match=f"do not depend smoothly on actions within periods={periods}"):
        make(env, env_kwargs, periods=periods, warm_up=0)


def test_a_world_without_a_network_takes_the_perceptron_alone() -> None:
    with pytest.raises(TypeError, match=r"policy='gnn' needs a supply network; expected 'mlp'"):
        make("palaestra/Newsvendor-v0", policy="gnn")


def test_another_network_is_refused() -> None:
    agent = make(STORE)
    with pytest.raises(ValueError, match=r"supply network of .* is another"):
        agent.set_env(STORE, {"demand_mean": 6.0})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"warm_up": 50}, "warm_up=50; expected an integer from 0 to periods - 1"),
        ({"num_paths": 64, "train_paths": 100}, "train_paths=100; expected 0, at most num_paths, or a multiple of it"),
        ({"max_grad_norm": 0.0}, "max_grad_norm=0.0; expected None or above 0"),
        ({"normalize_observation": True}, "normalize_observation=True; expected False"),
        ({"hidden": (), "policy": "gnn"}, "at least one width for a gnn"),
    ],
)
def test_bad_settings_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(STORE, **config)


# A network of one's own, saved and loaded


def test_a_world_of_ones_own_is_saved_with_its_network(tmp_path: Path) -> None:
    from palaestra.envs.faces import SimulatorVectorEnv

    world = SupplyNetwork(
        links=[(None, "depot", 2), ("depot", "north", 1), ("depot", "south", 2)],
        holding_cost={"depot": 0.5, "north": 1.0, "south": 1.0},
        underage_cost={"north": 5.0, "south": 9.0},
        demand_mean={"north": 3.0, "south": 4.0},
        demand_std={"north": 1.0, "south": 1.0},
    )
    env = SimulatorVectorEnv(simulator=world, num_envs=2)
    agent = make(env, policy="gnn", hidden=(8,), num_paths=8, periods=10, warm_up=0).learn(160)
    agent.save(tmp_path / "agent")
    loaded = palaestra.load(tmp_path / "agent")
    observation = np.random.default_rng(0).uniform(0.0, 2.0, (6, *world.observation_space.shape)).astype(np.float32)
    np.testing.assert_array_equal(agent.predict(observation)[0], loaded.predict(observation)[0])
    assert loaded.network.nodes == ("depot", "north", "south")


def test_the_gap_is_printed_and_logged_while_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from palaestra.agents.training.logging import read_metrics

    config = RunConfig(
        agent="hdpo",
        env=STORE,
        total_timesteps=1_000,
        config={"num_paths": 10, "hidden": (8,)},
        preset=False,
        eval_freq=1_000,
        eval_episodes=1,
        tensorboard=False,
        threads=1,
    )
    Run.create(tmp_path / "run", config).train()
    printed = [line for line in capsys.readouterr().out.splitlines() if line.endswith("% from the optimum")]
    assert len(printed) == 1
    rows = read_metrics(tmp_path / "run")
    assert any("eval/gap" in row for row in rows)
    assert any("train/late_gap" in row for row in rows)
