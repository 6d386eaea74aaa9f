"""Generalised newsvendor rules: which level they order up to, what their forecasts learn, and what cost teaches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm

from palaestra.agents.pathwise.network_reader import NetworkReader
from palaestra.agents.pathwise.newsvendor_policies import LEVELS, QuantileNewsvendor, interpolated
from palaestra.agents.registry import make_agent
from palaestra.envs.inventory.retail_store import RetailStore
from palaestra.envs.inventory.serial import Serial
from palaestra.envs.noise import CounterKey
from palaestra.envs.rollout import rollout

STORE = "palaestra/RetailStore-v0"
KINDS = ("quantile-newsvendor", "fixed-quantile", "transformed-newsvendor")


def make(policy: str, env_kwargs: dict[str, Any] | None = None, **config: Any) -> Any:
    kwargs = {"products": 4, **(env_kwargs or {})}
    return make_agent("hdpo", STORE, device="cpu", preset_name=None, env_kwargs=kwargs, policy=policy, **config)


def steady_sales(path: Path, mean: float, std: float) -> str:
    """Sales without seasons: independent normal demand."""
    drawn = np.random.default_rng(0).normal(mean, std, (20, 5, 171))
    np.savez(path, weekly_sales=drawn.astype(np.float32), days_from_christmas=np.zeros(171, int))
    return str(path)


def test_levels_between_quantiles_are_on_the_line() -> None:
    quantiles = torch.arange(1.0, 20.0).square().repeat(5, 1)
    share = torch.tensor([0.5, 0.525, 0.975, 0.02, 0.05])
    expected = torch.tensor([100.0, 110.5, 361.0 + 0.5 * 37.0, 1.0 - 0.6 * 3.0, 1.0])
    torch.testing.assert_close(interpolated(quantiles, share), expected, rtol=1e-4, atol=1e-3)


def test_the_quantile_newsvendor_orders_up_to_its_critical_ratio() -> None:
    world = RetailStore(products=4, max_order=100.0)
    policy = QuantileNewsvendor(NetworkReader(world.network), "quantile-newsvendor").double()
    policy.quantiles = lambda observation: 9.0 + torch.tensor(LEVELS).repeat(len(observation), 1).double()  # type: ignore[method-assign]
    state = rollout(world, world.reference_policies()["moving-average"], range(6), steps=9).state
    actions = policy(torch.tensor(world.observe(state)))
    order = world.decide(state, np.clip(actions.detach().numpy(), -1.0, 1.0)).order
    ratio = (world.underage_costs / (world.underage_costs + 1.0))[state.series]
    level = (9.0 + ratio) * state.scale
    np.testing.assert_allclose(order, np.maximum(level - state.pipeline.sum(1), 0.0), rtol=1e-5, atol=1e-6)
    assert (order > 0.0).any()


def test_more_on_the_way_than_the_level_is_sent_back_where_that_is_allowed() -> None:
    sent = {}
    for returns in (False, True):
        world = RetailStore(products=4, returns=returns, split="dev")
        state = world.initial(CounterKey(range(3)))
        state = type(state)(**{**vars(state), "pipeline": state.pipeline + 40.0 * state.scale[:, None]})
        policy = QuantileNewsvendor(NetworkReader(world.network), "fixed-quantile").double()
        actions = policy(torch.tensor(world.observe(state))).detach().numpy()
        sent[returns] = world.decide(state, np.clip(actions, -1.0, 1.0)).order / state.scale
    np.testing.assert_allclose(sent[False], 0.0, atol=1e-9)
    np.testing.assert_allclose(sent[True], -6.0)


def test_the_forecast_loss_is_the_pinball_loss_of_demand_over_lead_time_plus_one() -> None:
    world = RetailStore(products=4)
    reader = NetworkReader(world.network)
    policy = QuantileNewsvendor(reader, "quantile-newsvendor").double()
    policy.quantiles = lambda observation: torch.full((len(observation), 19), 4.0).double()  # type: ignore[method-assign]
    key, state, seen, demanded = CounterKey(range(3)), None, [], []
    state = world.initial(key)
    for _ in range(20):
        seen.append(torch.tensor(world.observe(state)))
        transition = world.step(state, np.zeros((3, 1)), key)
        demanded.append(transition.info["demand"] / state.scale)
        state = transition.state
    losses = []
    for start in range(19 - 6):
        for row, lead in enumerate(world.lead_times[state.series]):
            total = sum(demand[row] for demand in demanded[start : start + lead + 1])
            losses += [max(level * (total - 4.0), (level - 1.0) * (total - 4.0)) for level in LEVELS]
    assert float(policy.forecast_loss(seen)) == pytest.approx(np.mean(losses))


def test_forecasts_learn_the_quantiles_of_steady_demand(tmp_path: Path) -> None:
    """Of normal demand, those of lead time + 1 independent weeks."""
    path = steady_sales(tmp_path / "sales.npz", 20.0, 5.0)
    world = {"sales": path, "lead_times": (1,)}
    agent = make("quantile-newsvendor", world, num_paths=64, periods=24, warm_up=0, learning_rate=5e-3)
    agent.learn(64 * 24 * 120)
    simulator = agent.simulator
    state = rollout(simulator, simulator.reference_policies()["moving-average"], range(64), steps=5).state
    forecast = agent.policy.quantiles(torch.tensor(simulator.observe(state)).float()).detach().numpy()
    mean = (forecast * state.scale[:, None]).mean(0)
    expected = 40.0 + norm.ppf(LEVELS) * 5.0 * np.sqrt(2.0)
    np.testing.assert_allclose(mean[[1, 9, 17]], expected[[1, 9, 17]], atol=2.0)


@pytest.mark.parametrize("kind", ["fixed-quantile", "transformed-newsvendor"])
def test_the_gradient_of_cost_in_the_quantile_equals_finite_differences(kind: str) -> None:
    """And it never reaches the forecaster."""
    agent = make(kind, precision="float64", periods=14, warm_up=0)
    learned = [p for name, p in agent.policy.named_parameters() if not name.startswith("forecaster")]
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        # So that quantiles rise with their level, and orders are above 0.
        agent.policy.forecaster[-1].bias[:] = torch.linspace(-0.4, 0.6, 19)
        for parameter in learned:
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)

    def value() -> torch.Tensor:
        reward: torch.Tensor = agent.simulate(torch.Generator().manual_seed(0), 6, 14).mean()
        return reward

    total = value()
    forecaster = torch.autograd.grad(total, list(agent.policy.forecaster.parameters()), allow_unused=True)
    assert all(gradient is None for gradient in forecaster)
    exact = torch.cat([g.flatten() for g in torch.autograd.grad(value(), learned)])
    assert exact.abs().max() > 1e-4
    start = torch.nn.utils.parameters_to_vector(learned).detach().clone()
    direction = torch.randn(len(start), generator=generator, dtype=torch.float64)
    ends = []
    with torch.no_grad():
        for sign in (1.0, -1.0):
            torch.nn.utils.vector_to_parameters(start + sign * 1e-7 * direction, learned)
            ends.append(float(value()))
    assert (ends[0] - ends[1]) / 2e-7 == pytest.approx(float(exact @ direction), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_every_rule_trains_saves_and_loads(kind: str, tmp_path: Path) -> None:
    import palaestra

    agent = make(kind, num_paths=8, periods=12, warm_up=0).learn(8 * 12 * 3)
    assert agent.num_updates == 3
    agent.save(tmp_path / "agent")
    loaded = palaestra.load(tmp_path / "agent")
    observation = np.random.default_rng(0).uniform(0.2, 1.0, (5, 25)).astype(np.float32)
    np.testing.assert_array_equal(agent.predict(observation)[0], loaded.predict(observation)[0])
    before = [p.clone() for p in agent.policy.forecaster.parameters()]
    agent.learn(8 * 12)
    assert any(not torch.equal(a, b) for a, b in zip(before, agent.policy.forecaster.parameters(), strict=True))


def test_other_worlds_are_refused() -> None:
    message = "policy='fixed-quantile' needs a world of one store that shows its past demand"
    with pytest.raises(TypeError, match=message):
        QuantileNewsvendor(NetworkReader(Serial().network), "fixed-quantile")
    with pytest.raises(TypeError, match=message):
        make_agent("hdpo", "palaestra/OneStoreBacklog-v0", preset_name=None, device="cpu", policy="fixed-quantile")
