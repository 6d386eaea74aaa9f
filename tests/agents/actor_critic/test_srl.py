"""SRL: what it reduces to, what its actor's loss adds up, and how it acts for longer than a step."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from palaestra.agents.actor_critic.sac import SAC
from palaestra.agents.actor_critic.srl import SRL
from palaestra.agents.evaluation.evaluate import evaluate
from palaestra.agents.evaluation.open_loop import OpenLoop
from palaestra.agents.memory.replay import Batch
from palaestra.agents.nn.distributions import SquashedGaussian
from palaestra.agents.nn.sequence_actor import SequenceActor
from palaestra.agents.registry import make_agent
from palaestra.envs.control.pendulum import PendulumState
from palaestra.envs.noise import CounterKey
from palaestra.envs.registration import make_simulator

SMALL: dict[str, Any] = {"hidden": (16, 16), "device": "cpu", "preset_name": None, "learning_starts": 20}


def make(sequence_length: int = 3, env: str = "Pendulum-v1", **config: Any) -> SRL:
    agent = make_agent("srl", env, sequence_length=sequence_length, model_hidden=(8,), **{**SMALL, **config})
    assert isinstance(agent, SRL)
    return agent


def random_batch(size: int, rows: int = 32) -> Batch:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    ended = torch.arange(rows) % 5 == 0
    action, before = torch.tanh(normal(rows, 1)), torch.tanh(normal(rows, 1))
    return Batch(normal(rows, size), action, normal(rows), normal(rows, size), ended, ~ended, previous_action=before)


class CellActor(nn.Module):
    """What SAC calls an actor, of SRL's networks: one step of the cell after an action of 0."""

    def __init__(self, inner: SequenceActor) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, observation: Tensor) -> SquashedGaussian:
        inner = self.inner
        hidden = inner.trunk(inner.encoder(observation))
        mean, log_std = inner.head(inner.cell(torch.zeros(len(observation), 1), hidden)).chunk(2, -1)
        return SquashedGaussian(mean, log_std.clamp(-20.0, 2.0))


def test_one_action_after_no_action_is_sac_with_a_recurrent_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    """J = 1 with the previous action held at 0: the same parameters after several updates, bit for bit."""
    ours = make(1)
    theirs = make_agent("sac", "Pendulum-v1", hidden=(16, 16), device="cpu", preset_name=None)
    assert isinstance(theirs, SAC)
    theirs.actor = CellActor(SequenceActor(ours.observation_space, 1, (16, 16)))  # type: ignore[assignment]
    theirs.actor.inner.load_state_dict(ours.actor.state_dict())  # type: ignore[union-attr]
    theirs.actor_optimizer = theirs.optimizer(theirs.actor)
    for mine, other in ((ours.critics, theirs.critics), (ours.target_critics, theirs.target_critics)):
        other.load_state_dict(mine.state_dict())
    forward = SequenceActor.forward
    monkeypatch.setattr(
        SequenceActor, "forward", lambda self, seen, before, *rest: forward(self, seen, 0.0 * before, *rest)
    )
    batch = random_batch(3)
    for _ in range(4):
        metrics, expected = ours.update(batch), theirs.update(batch)
        for name, value in expected.items():
            assert torch.equal(metrics[name], value), name
    for mine, other in ((ours.actor, theirs.actor.inner), (ours.critics, theirs.critics)):  # type: ignore[union-attr]
        for a, b in zip(mine.parameters(), other.parameters(), strict=True):
            assert torch.equal(a, b)
    assert torch.equal(ours.log_alpha, theirs.log_alpha)


def test_loss_of_the_actor_has_no_gradient_on_the_model_or_the_critics() -> None:
    agent = make(4)
    batch = random_batch(3)
    agent.target_model.requires_grad_(True)
    assert batch.previous_action is not None
    assert isinstance(batch.observation, Tensor)
    actions, log_probs = agent.actor(batch.observation, batch.previous_action, 4, agent.generator)
    loss = agent.actor_loss(batch.observation, actions, log_probs, agent.alpha)
    others = [*agent.model.parameters(), *agent.target_model.parameters(), *agent.critics.parameters()]
    gradients = torch.autograd.grad(loss, others, retain_graph=True, allow_unused=True)
    assert all(gradient is None for gradient in gradients)
    first = next(agent.actor.parameters())
    assert float(torch.autograd.grad(loss, first)[0].abs().sum()) > 0.0


class TruePendulum(nn.Module):
    """The world's own dynamics as a model of observations and actions in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.world = make_simulator("palaestra/Pendulum-v0")

    def forward(self, inputs: Tensor) -> Tensor:
        cos, sin, velocity, action = inputs.double().unbind(-1)
        angle = torch.atan2(sin, cos)
        step = self.world.step(PendulumState(angle, velocity, 0.0 * angle), action.unsqueeze(-1), CounterKey([0]))
        shown: Tensor = self.world.observe(step.state)
        return shown.float()


def test_with_the_true_model_the_inner_sum_is_the_soft_value_along_true_states() -> None:
    agent = make(5, "palaestra/Pendulum-v0", ent_coef=0.3)
    agent.target_model = TruePendulum()  # type: ignore[assignment]
    env = gym.make_vec("palaestra/Pendulum-v0", 16)
    seen, _ = env.reset(seed=list(range(16)))  # type: ignore[arg-type]
    first = torch.as_tensor(seen)
    actions, log_probs = agent.actor(first, torch.zeros(16, 1), 5, agent.generator)
    loss = agent.actor_loss(first, actions, log_probs, agent.alpha)
    expected = torch.zeros(16)
    for action, log_prob in zip(actions.detach(), log_probs.detach(), strict=True):
        observation = torch.as_tensor(seen)
        expected += agent.alpha * log_prob - agent.critics(observation, action).detach().amin(0)
        seen = env.step(agent.action_map.to_env(action.numpy()))[0]
    assert float(loss.detach()) == pytest.approx(float(expected.mean()), rel=1e-4)


def test_actions_are_stored_with_those_before_them_and_none_across_episodes() -> None:
    agent = make(2, learning_starts=1000, num_envs=2)
    agent.learn(2 * 450)
    rows = agent.replay.read_rows(0, agent.replay.rows_written)
    action, before = (rows[name].view(-1, 2) for name in ("action", "previous_action"))
    starts = torch.zeros(450, dtype=torch.bool)
    starts[[0, 200, 400]] = True
    assert torch.equal(before[~starts], action[:-1][~starts[1:]])
    assert not before[starts].any()


def test_the_model_learns_the_dynamics() -> None:
    agent = make(2, learning_starts=100, learning_rate=3e-3)
    agent.learn(102)
    batch = agent.replay.sample(256, torch.Generator().manual_seed(0))
    assert isinstance(batch.observation, Tensor)

    def error() -> float:
        with torch.no_grad():
            predicted = agent.target_model(torch.cat([batch.observation, batch.action], -1))
        return float((predicted - batch.next_observation).square().mean())

    before = error()
    agent.learn(300, reset_num_timesteps=False)
    assert error() < 0.2 * before


def test_sequences_begin_with_the_action_of_predict_and_go_on_where_they_ended() -> None:
    agent = make(3)
    observation = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, -2.0]], np.float32)
    previous = np.array([[0.3], [-0.9]], np.float32)
    starts = np.array([False, True])
    single, state = agent.predict(observation, previous, starts, deterministic=True)
    many, after = agent.predict_sequence(observation, 6, previous, starts, deterministic=True)
    assert many.shape == (2, 6, 1)
    np.testing.assert_array_equal(many[:, 0], single)
    np.testing.assert_array_equal(agent.predict_sequence(observation, 2, previous, starts, True)[0], many[:, :2])
    np.testing.assert_allclose(agent.action_map.to_env(after), many[:, -1], rtol=1e-6)
    np.testing.assert_allclose(agent.action_map.to_env(state), single, rtol=1e-6)
    # The row that starts forgets what was executed; the other does not.
    fresh = agent.predict(observation, deterministic=True)[0]
    assert fresh[1] == single[1]
    assert fresh[0] != single[0]


def test_open_loop_it_plays_its_sequence_and_repeats_nothing() -> None:
    agent = make(3, "palaestra/Pendulum-v0")
    asked: list[int] = []
    predict_sequence = agent.predict_sequence

    def watched(observation: Any, length: int, **keywords: Any) -> Any:
        asked.append(length)
        return predict_sequence(observation, length, **keywords)

    agent.predict_sequence = watched  # type: ignore[method-assign, assignment]
    evaluate(OpenLoop(agent, 25), "palaestra/Pendulum-v0", episodes=2)
    assert asked == [25] * 8


def test_observations_that_no_model_can_predict_are_refused() -> None:
    class Tokens(gym.Env[Any, Any]):
        observation_space = gym.spaces.Discrete(4)
        action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    with pytest.raises(TypeError, match=r"srl: observation space Discrete.*expected a Box of floats in one dimension"):
        make_agent("srl", Tokens())
