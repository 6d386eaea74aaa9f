"""TS-DDR: its gradient against finite differences, what its modes share, and what it reaches where that is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import palaestra
from palaestra.agents.registry import make_agent, preset
from palaestra.agents.training.run import Run, RunConfig
from palaestra.envs.energy.exact.single_reservoir import expected_cost
from palaestra.envs.registration import make_simulator

ONE, CASCADE = "palaestra/Hydro1R-v0", "palaestra/HydroCascade11-v0"


def make(env: str = ONE, env_kwargs: dict[str, Any] | None = None, **config: Any) -> Any:
    return make_agent("ts-ddr", env, device="cpu", preset_name=None, env_kwargs=env_kwargs, **config)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def moved(agent: Any, share: float = 0.3) -> Any:
    """Take the policy away from where it starts, where many targets may be the same."""
    with torch.no_grad():
        for index, parameter in enumerate(agent.policy.parameters()):
            noise = torch.randn(parameter.shape, generator=generator(index), dtype=parameter.dtype)
            parameter += share * noise / parameter.shape[-1] ** 0.5
    return agent


# The gradient


@pytest.mark.parametrize("window", [0, 1, 4])
@pytest.mark.parametrize("policy", ["mlp", "lstm", "linear"])
def test_gradient_equals_finite_differences(policy: str, window: int) -> None:
    """Of cost and penalty on fixed paths, in all parameters, in float64: whole horizon, windows, stage by stage."""
    settings = {"hidden": (8,), "activation": "tanh", "precision": "float64", "penalty_schedule": (1.0,)}
    agent = moved(make(ONE, {"horizon": 6, "initial_storage": 0.0}, policy=policy, window=window, **settings))
    states, _ = agent.simulate(generator(), 6)
    parameters = list(agent.policy.parameters())
    value, penalty = agent.value(states)
    assert float(penalty.max()) > 0.0
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(value.sum(), parameters)])
    vector = torch.nn.utils.parameters_to_vector(parameters).detach().clone()

    def total(at: torch.Tensor) -> float:
        torch.nn.utils.vector_to_parameters(at, parameters)
        with torch.no_grad():
            return float(agent.value(states)[0].sum())

    for seed in range(3):
        direction = torch.randn(len(vector), generator=generator(seed), dtype=torch.float64)
        difference = (total(vector + 1e-6 * direction) - total(vector - 1e-6 * direction)) / 2e-6
        assert float(gradient @ direction) == pytest.approx(difference, rel=1e-4, abs=1e-4 * float(gradient.norm()))


def test_gradient_of_the_cascade_equals_finite_differences() -> None:
    agent = moved(make(CASCADE, {"horizon": 3}, hidden=(4,), activation="tanh", precision="float64", window=1), 1.0)
    states, _ = agent.simulate(generator(), 3)
    parameters = list(agent.policy.parameters())
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(agent.value(states)[0].sum(), parameters)])
    vector = torch.nn.utils.parameters_to_vector(parameters).detach().clone()
    direction = torch.randn(len(vector), generator=generator(), dtype=torch.float64)
    ends = []
    for sign in (1e-6, -1e-6):
        torch.nn.utils.vector_to_parameters(vector + sign * direction, parameters)
        ends.append(float(agent.value(states)[0].sum().detach()))
    assert float(gradient @ direction) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-3)


def test_targets_that_can_be_met_cost_the_same_in_every_mode() -> None:
    """Then earlier targets are what was kept, nothing is missed, and the world pays the same as the programmes."""
    values = []
    for window in (0, 1, 5):
        agent = make(window=window, precision="float64", hidden=(8,), penalty_schedule=(10.0,))
        with torch.no_grad():
            for parameter in agent.policy.parameters():
                parameter.zero_()
            agent.policy.body[-1].bias.fill_(-3.0)
        states, reward = agent.simulate(generator(), 6)
        value, penalty = agent.value(states)
        assert float(penalty.detach().abs().max()) < 1e-9
        np.testing.assert_allclose(value.detach().numpy(), -reward.numpy(), rtol=1e-9)
        values.append(value.detach())
    assert torch.allclose(values[0], values[1])
    assert torch.allclose(values[0], values[2])


def test_stage_by_stage_a_high_penalty_pays_what_the_world_pays() -> None:
    """Also where targets cannot be met: no programme of one stage then misses one by more than it must."""
    agent = moved(make(precision="float64", window=1, penalty_schedule=(30.0,), hidden=(8,)), 2.0)
    states, reward = agent.simulate(generator(), 20)
    value, penalty = agent.value(states)
    assert float(penalty.detach().max()) > 0.0
    np.testing.assert_allclose((value - penalty).detach().numpy(), -reward.numpy(), rtol=1e-9)


def test_linear_rules_are_affine_in_the_observation() -> None:
    agent = moved(make(policy="linear", precision="float64"))
    observation = torch.rand((5, 3), generator=generator(), dtype=torch.float64)
    share = (agent.act(observation, None) + 1.0) / 2.0
    rule = agent.policy.rule
    torch.testing.assert_close(share, observation @ rule.weight.T + rule.bias)
    assert sum(parameter.numel() for parameter in agent.policy.parameters()) == 4


def test_linear_rules_start_from_half_of_the_capacity() -> None:
    assert make(policy="linear").predict(np.zeros(3, np.float32))[0] == pytest.approx(0.5)


# Training


def test_penalty_follows_its_schedule() -> None:
    agent = make(num_paths=1, hidden=(4,), penalty_schedule=(0.1, 1.0, 10.0, 30.0))
    seen: list[float] = []
    agent.learn(12 * 8, lambda agent: seen.append(agent.penalty))
    assert seen == [0.1, 1.0, 1.0, 10.0, 10.0, 30.0, 30.0, 30.0]


def test_env_steps_are_stages_of_paths() -> None:
    agent = make(num_paths=5, hidden=(4,)).learn(100)
    assert (agent.num_timesteps, agent.num_updates) == (120, 2)
    metrics = agent.metrics.collect()
    optimum = make_simulator(ONE).oracle().value
    assert metrics["train/gap"] == pytest.approx((optimum - metrics["train/reward"]) / -optimum, rel=1e-5)
    assert metrics["train/loss"] > 0.0
    assert 0.0 < metrics["train/penalty_share"] < 1.0


def cost(agent: Any) -> float:
    """Expected cost of an episode, exactly."""
    world = make_simulator(ONE, horizon=6)

    def actor(state: Any, observation: Any, key: Any) -> Any:
        return agent.predict(observation.astype(np.float32), deterministic=True)[0]

    return expected_cost(world, actor)


@pytest.mark.parametrize(("policy", "window"), [("mlp", 0), ("mlp", 1), ("linear", 0)])
def test_training_closes_most_of_the_gap_to_the_optimum(policy: str, window: int) -> None:
    """On half a year, where the optimum is exactly known, as is the cost of what was learnt: to less than a quarter."""
    agent = make(
        ONE,
        {"horizon": 6},
        seed=3,
        policy=policy,
        window=window,
        hidden=(32, 32),
        learning_rate=0.02 if policy == "linear" else 0.01,
        num_paths=16,
    )
    before = cost(agent)
    agent.learn(16 * 6 * 150)
    optimum = -make_simulator(ONE, horizon=6).oracle().value
    after = cost(agent)
    assert optimum <= after < optimum + 0.25 * (before - optimum)
    if policy == "mlp":
        assert after < 1.1 * optimum
    # Targets are met by then, but for a twentieth of the cost, at thirty times the most that water can save.
    states, _ = agent.simulate(generator(), 100)
    with torch.no_grad():
        value, penalty = agent.value(states)
    assert agent.penalty == 30.0
    assert float(penalty.mean()) <= 0.05 * float(value.mean())


def test_the_gap_is_printed_and_logged_while_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from palaestra.agents.training.logging import read_metrics

    config = RunConfig(
        agent="ts-ddr",
        env=ONE,
        total_timesteps=240,
        config={"num_paths": 5, "hidden": (8,)},
        preset=False,
        eval_freq=120,
        eval_episodes=4,
        log_freq=120,
        tensorboard=False,
        threads=1,
    )
    Run.create(tmp_path / "run", config).train()
    printed = [line for line in capsys.readouterr().out.splitlines() if line.endswith("% from the optimum")]
    assert len(printed) == 2
    rows = read_metrics(tmp_path / "run")
    assert any("eval/gap" in row for row in rows)
    assert any("train/gap" in row for row in rows)


@pytest.mark.parametrize("env", [ONE, CASCADE])
def test_presets_train(env: str) -> None:
    agent = make_agent("ts-ddr", env, device="cpu", env_kwargs={"horizon": 2})
    assert preset("ts-ddr", env)
    agent.learn(2)
    assert agent.num_updates == 1


# Acting


def test_an_lstm_remembers_the_path_and_forgets_at_its_start() -> None:
    agent = moved(make(policy="lstm", hidden=(8,)), 1.0)
    observations = np.random.default_rng(0).uniform(0.0, 1.0, (3, 2, 3)).astype(np.float32)
    state, seen = None, []
    for observation in observations:
        action, state = agent.predict(observation, state, deterministic=True)
        seen.append(action)
    fresh, _ = agent.predict(observations[2], deterministic=True)
    assert not np.allclose(seen[2], fresh)
    _, after_two = agent.predict(observations[1], agent.predict(observations[0])[1])
    again, _ = agent.predict(observations[2], after_two, np.array([False, True]), deterministic=True)
    np.testing.assert_array_equal(again[0], seen[2][0])
    np.testing.assert_allclose(again[1], fresh[1], rtol=1e-6)


@pytest.mark.parametrize("policy", ["mlp", "lstm", "linear"])
def test_acting_equals_what_was_simulated(policy: str) -> None:
    """The states of `simulate` are those that `predict` leads to, on the same noise, clipping of targets included."""
    from palaestra.agents.pathwise.path_noise import PathNoise

    agent = moved(make(policy=policy, hidden=(8,), precision="float64"), 2.0)
    states, reward = agent.simulate(generator(3), 5)
    drawn, world, memory, total = generator(3), agent.simulator, None, torch.zeros(5, dtype=torch.float64)
    state = world.initial(PathNoise(drawn, 5, torch.float64))
    for expected in states:
        np.testing.assert_allclose(state.storage, expected.storage, rtol=1e-5, atol=1e-4)
        observation = world.observe(state).numpy().astype(np.float32)
        action, memory = agent.predict(observation, memory, deterministic=True)
        key = PathNoise(drawn, 5, torch.float64)
        transition = world.step(state, torch.as_tensor(action, dtype=torch.float64), key)
        state, total = transition.state, total + transition.reward
    np.testing.assert_allclose(total, reward, rtol=1e-4)


# Where it fits


@pytest.mark.parametrize(
    ("env", "env_kwargs", "message"),
    [
        ("Pendulum-v1", None, "ts-ddr: env Pendulum-v1 has no simulator with stages to solve"),
        ("palaestra/Serial-v0", None, "ts-ddr: the stages of Serial are no linear programmes"),
        ("CartPole-v1", None, "ts-ddr: action space Discrete"),
        (ONE, {"action_mode": "range"}, "Hydro1R: action_mode='range' gives no targets; expected 'target'"),
    ],
)
def test_unfit_worlds_are_refused(env: str, env_kwargs: dict[str, Any] | None, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make(env, env_kwargs)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"gamma": 0.9}, "gamma=0.9; expected 1"),
        ({"policy": "lstm", "hidden": ()}, "at least one width for an lstm"),
        ({"num_paths": 0}, "num_paths=0; expected an integer of at least 1"),
        ({"window": -1}, "window=-1; expected an integer of at least 0"),
        ({"penalty_schedule": ()}, "expected one or more numbers above 0"),
        ({"penalty_schedule": (1.0, 0.0)}, "expected one or more numbers above 0"),
        ({"normalize_observation": True}, "normalize_observation=True; expected False"),
        ({"max_grad_norm": 0.0}, "max_grad_norm=0.0; expected None or above 0"),
        ({"activation": "step"}, "activation='step'; expected one of"),
    ],
)
def test_bad_settings_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**config)


def test_saved_with_a_memory_and_loaded_without_an_env(tmp_path: Path) -> None:
    agent = make(policy="lstm", hidden=(8,), num_paths=2).learn(48)
    agent.save(tmp_path / "agent")
    loaded = palaestra.load(tmp_path / "agent")
    observation = np.random.default_rng(0).uniform(0.0, 1.0, (4, 3)).astype(np.float32)
    first, memory = agent.predict(observation)
    second, other = loaded.predict(observation)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(agent.predict(observation, memory)[0], loaded.predict(observation, other)[0])
