"""A run goes on with the back end that it began on, is measured on the id's own env, and its rows say both."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

pytest.importorskip("mujoco")

import palaestra
from palaestra.agents.evaluation.evaluate import evaluate
from palaestra.agents.evaluation.provenance import config_hash
from palaestra.agents.evaluation.rows import Row, make_row, pool
from palaestra.agents.registry import make_agent
from palaestra.agents.training.run import Run, RunConfig
from palaestra.agents.training.tree import first_difference
from palaestra.scripts.train import make_run_config, parse
from palaestra.wrappers.vectorize import backend_of

PPO = {"hidden": [8], "n_steps": 8, "batch_size": 16, "n_epochs": 1, "num_envs": 2}
CONFIG = RunConfig(
    "ppo",
    "InvertedPendulum-v5",
    160,
    config=PPO,
    preset=False,
    eval_freq=1_000,
    checkpoint_freq=1_000,
    tensorboard=False,
)


@pytest.mark.parametrize(("backend", "used"), [("auto", "mujoco-pool"), ("sync", "sync")])
def test_a_resumed_run_stays_on_its_back_end(backend: str, used: str, tmp_path: Path) -> None:
    config = replace(CONFIG, backend=backend)
    whole = Run.create(tmp_path / "whole", config).train()
    half = Run.create(tmp_path / "half", replace(config, total_timesteps=80))
    assert half.agent.backend == backend_of(half.agent.collector.env) == used
    half.train()
    resumed = Run.resume(tmp_path / "half", total_timesteps=160)
    assert resumed.agent.backend == backend_of(resumed.agent.collector.env) == used
    assert first_difference(whole.state_dict(), resumed.train().state_dict()) is None


def test_rows_of_the_pool_train_as_those_of_the_own_envs() -> None:
    agents = [
        make_agent("ppo", "Hopper-v5", preset_name=None, backend=backend, seed=3, **PPO).learn(96)
        for backend in ("mujoco-pool", "sync")
    ]
    states = [agent.state_dict() for agent in agents]
    for state in states:
        del state["collector"]["env"]
    assert first_difference(*states) is None


def test_a_saved_agent_remembers_and_older_ones_are_of_the_own_env(tmp_path: Path) -> None:
    agent = make_agent("ppo", "InvertedPendulum-v5", preset_name=None, backend="sync", **PPO).learn(32)
    path = agent.save(tmp_path / "agent")
    assert palaestra.load(path).backend == "sync"
    headers = [file for file in path.rglob("*.json") if '"backend"' in file.read_text()]
    assert headers
    loaded = palaestra.load(path, "InvertedPendulum-v5")
    assert (loaded.backend, backend_of(loaded.collector.env)) == ("sync", "sync")
    given = make_agent("ppo", palaestra.make_vec("InvertedPendulum-v5", 2), preset_name=None, **PPO)
    assert given.backend == "mujoco-pool"
    assert make_agent("ppo", gym.make("CartPole-v1"), preset_name=None, **PPO).backend == "given"
    with pytest.raises(ValueError, match="backend='sync': expected 'auto' where env is an object"):
        make_agent("ppo", gym.make("CartPole-v1"), backend="sync")


def row_of(agent: Any) -> Row:
    evaluation = evaluate(agent, agent.env_id, episodes=2)
    assert evaluation.backend == "gymnasium"
    return make_row(
        evaluation,
        kind="final",
        agent_id=agent.agent_id,
        agent_config=agent.config.to_dict(),
        seed=0,
        budget=32,
        env_steps=32,
        updates=1,
        wall_seconds=1.0,
        idle_cpu=None,
        command="palaestra train",
        train_backend=agent.backend,
    )


def test_rows_name_what_was_trained_on_and_are_not_pooled_across() -> None:
    pooled, sync = (
        row_of(make_agent("ppo", "InvertedPendulum-v5", preset_name=None, backend=backend, **PPO))
        for backend in ("auto", "sync")
    )
    assert (pooled.backend, pooled.train_backend, sync.train_backend) == ("gymnasium", "mujoco-pool", "sync")
    assert Row.from_json(pooled.to_json()) == pooled
    with pytest.raises(ValueError, match="rows differ in train_backend: mujoco-pool and sync"):
        pool([pooled, sync])
    older = json.loads(sync.to_json())
    del older["train_backend"]
    assert Row.from_json(json.dumps(older)) == sync
    peer = {**older, "agent_id": "sb3/ppo", "config_hash": config_hash("sb3/ppo", older["agent_config"])}
    assert Row.from_json(json.dumps(peer)).train_backend is None


def test_the_command_line_names_it() -> None:
    options, config = parse(["--agent", "ppo", "--env", "Hopper-v5", "--backend", "sync"])
    assert make_run_config(options, config, threads=1).backend == "sync"
    options, config = parse(["--agent", "ppo", "--env", "Hopper-v5"])
    assert make_run_config(options, config, threads=1).backend == "auto"
