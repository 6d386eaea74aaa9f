"""The exact checks of DIPO: cloning without climbing, climbing to the top, and a memory that really changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import palaestra
from palaestra.agents.nn.distributions import standard_normal_like
from palaestra.agents.registry import make_agent
from tests.agents.test_laws import assert_same

SMALL: dict[str, Any] = {
    "hidden": (16,),
    "levels": 4,
    "batch_size": 16,
    "learning_starts": 20,
    "buffer_size": 60,
    "climbing_steps": 5,
}


def make(**config: Any) -> Any:
    return make_agent("dipo", "Pendulum-v1", preset_name=None, device="cpu", **{**SMALL, **config})


def test_without_climbing_it_is_cloning_of_the_replay() -> None:
    agent = make(climbing_steps=0).learn(30)
    assert torch.equal(agent.improved.actions[:30], agent.replay.fields["action"][:30])
    batch = agent.replay.sample(16, agent.replay_generator)
    agent.actor_optimizer.zero_grad()
    policy, generator = agent.target_actor(batch.next_observation), agent.generator
    states = generator.get_state(), agent.replay_generator.get_state()
    policy.draw_noise(generator)
    drawn = agent.replay.rows(agent.replay.draw(16, agent.replay_generator))
    noise, level = standard_normal_like(drawn.action, generator), agent.random_levels(16)
    expected = agent.actor.loss(drawn.observation, drawn.action, noise, level).mean()
    generator.set_state(states[0]), agent.replay_generator.set_state(states[1])
    metrics = agent.update(batch)
    torch.testing.assert_close(metrics["train/actor_loss"], expected.detach())
    assert metrics["train/moved"].item() == 0.0


def concave(observation: Tensor, action: Tensor) -> Tensor:
    """Two critics of whom the lower one has its top at .4."""
    value = -(action - 0.4).square().sum(-1)
    return torch.stack([value, value + 1.0])


def test_remembered_actions_converge_to_the_top_of_a_concave_value() -> None:
    agent = make(batch_size=60, climbing_steps=20).learn(60)
    agent.critics.forward = concave
    agent.step_critics = lambda batch, action: (torch.zeros(()), torch.zeros(()))
    batch = agent.replay.sample(60, agent.replay_generator)
    before = (agent.improved.actions - 0.4).abs().max().item()
    for _ in range(40):
        agent.update(batch)
    assert before > 0.5
    torch.testing.assert_close(agent.improved.actions, torch.full((60, 1), 0.4), atol=0.02, rtol=0.0)


def test_the_memory_really_changes_and_the_transitions_do_not() -> None:
    agent = make(buffer_size=1_000)
    executed: list[Tensor] = []
    agent.learn(60, lambda a: executed.append(a.replay.fields["action"][a.num_timesteps - 1].clone()))
    assert torch.equal(agent.replay.fields["action"][:60], torch.stack(executed))
    changed = (agent.improved.actions[:60] != agent.replay.fields["action"][:60]).any(-1)
    assert changed.float().mean().item() > 0.5
    observation = agent.replay.fields["observation"][:60]
    with torch.no_grad():
        better, start = (
            agent.critics(observation, actions[:60]).amin(0).mean()
            for actions in (agent.improved.actions, agent.replay.fields["action"])
        )
    assert better > start


def test_a_full_memory_resumes_exactly(tmp_path: Path) -> None:
    """The buffer of 60 rows has wrapped around when it is saved."""
    whole = make().learn(130)
    half = make().learn(130, lambda agent: agent.num_timesteps < 95)
    half.save(tmp_path / "half")
    resumed = palaestra.load(tmp_path / "half", env="Pendulum-v1", device="cpu").learn(None)
    assert_same(whole, resumed)


def test_target_action_is_the_target_policys() -> None:
    agent = make().learn(40)
    batch = agent.replay.sample(16, agent.replay_generator)
    asked: list[Tensor] = []
    agent.step_critics = lambda given, action: (asked.append(action), (torch.zeros(()), torch.zeros(())))[1]
    state = agent.generator.get_state()
    with torch.no_grad():
        expected = agent.target_actor(batch.next_observation).sample(agent.generator)
    agent.generator.set_state(state)
    agent.update(batch)
    torch.testing.assert_close(asked[0], expected)
    assert not torch.equal(expected, agent.actor(batch.next_observation).mode())
