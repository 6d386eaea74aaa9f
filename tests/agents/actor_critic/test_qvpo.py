"""The exact checks of QVPO: its weights, its loss with and without uniform actions, and the best of several."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from palaestra.agents.nn.candidates import candidate_values
from palaestra.agents.nn.distributions import standard_normal_like
from palaestra.agents.registry import make_agent

SMALL: dict[str, Any] = {
    "hidden": (16,),
    "levels": 4,
    "batch_size": 16,
    "learning_starts": 20,
    "buffer_size": 500,
    "own_actions": 8,
    "evaluation_actions": 6,
}
OBSERVATION = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
ACTION = torch.rand(12, 1, generator=torch.Generator().manual_seed(1)) * 2.0 - 1.0
WEIGHT = torch.rand(12, generator=torch.Generator().manual_seed(2))


def make(**config: Any) -> Any:
    return make_agent("qvpo", "Pendulum-v1", preset_name=None, device="cpu", **{**SMALL, **config})


def constant(observation: Tensor, action: Tensor) -> Tensor:
    """Two critics to whom everything is worth the same."""
    return torch.full((2, len(action)), 0.5)


def test_constant_values_teach_nothing() -> None:
    agent = make().learn(30)
    batch = agent.replay.sample(16, agent.replay_generator)
    agent.critics.forward = constant
    agent.step_critics = lambda given, action: (torch.zeros(()), torch.zeros(()))
    metrics = agent.update(batch)
    assert metrics["train/weight"].item() == metrics["train/actor_loss"].item() == 0.0
    assert not agent.actor_optimizer.gradient.any()


def test_without_uniform_actions_it_is_weighted_cloning() -> None:
    for config in ({"entropy_weight": 0.0}, {"uniform_actions": 0}):
        agent = make(**config)
        state = agent.generator.get_state()
        noise, level = standard_normal_like(ACTION, agent.generator), agent.random_levels(12)
        expected = (WEIGHT * agent.actor.loss(OBSERVATION, ACTION, noise, level)).mean()
        agent.generator.set_state(state)
        torch.testing.assert_close(agent.weighted_loss(OBSERVATION, ACTION, WEIGHT), expected)


def test_uniform_actions_count_by_their_share_of_the_same_weight() -> None:
    agent = make(uniform_actions=3, entropy_weight=0.5)
    state = agent.generator.get_state()
    uniform = 2.0 * torch.rand(36, 1, generator=agent.generator) - 1.0
    together = torch.cat([ACTION, uniform])
    noise, level = standard_normal_like(together, agent.generator), agent.random_levels(48)
    states = torch.cat([OBSERVATION, OBSERVATION.repeat_interleave(3, 0)])
    weights = torch.cat([WEIGHT, 0.5 * WEIGHT.repeat_interleave(3)])
    expected = (weights * agent.actor.loss(states, together, noise, level)).sum() / 12
    agent.generator.set_state(state)
    torch.testing.assert_close(agent.weighted_loss(OBSERVATION, ACTION, WEIGHT), expected)


def test_best_of_several_is_the_one_with_the_highest_lower_value() -> None:
    agent = make().learn(60)
    generator = torch.Generator().manual_seed(3)
    state = generator.get_state()
    with torch.no_grad():
        chosen = agent.best_of(agent.actor, agent.critics, OBSERVATION, generator)
        proposed = agent.propose(agent.actor, OBSERVATION, 4, generator.set_state(state))
        values = candidate_values(agent.critics, OBSERVATION, proposed).amin(0)
        value = agent.critics(OBSERVATION, chosen).amin(0)
    torch.testing.assert_close(value, values.amax(-1))
    assert (values.amax(-1) > values.amin(-1)).float().mean().item() > 0.5


def test_best_of_one_is_a_sample() -> None:
    agent = make(behaviour_actions=1)
    generators = torch.Generator().manual_seed(4), torch.Generator().manual_seed(4)
    with torch.no_grad():
        torch.testing.assert_close(
            agent.act(OBSERVATION, generators[0]), agent.actor(OBSERVATION).sample(generators[1])
        )


def test_acting_without_a_generator_is_a_function_of_the_observation() -> None:
    agent = make().learn(60)
    observation = OBSERVATION.numpy()
    together, _ = agent.predict(observation, deterministic=True)
    alone = np.concatenate([agent.predict(row, deterministic=True)[0] for row in observation[:, None]])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert len(np.unique(together)) > 1


def test_weights_are_above_zero_in_training() -> None:
    seen: list[dict[str, float]] = []
    make().learn(60, lambda agent: seen.append(agent.metrics.collect()) if agent.num_timesteps == 60 else None)
    assert seen[0]["train/weighted_share"] > 0.9
    assert seen[0]["train/weight"] > 0.0
