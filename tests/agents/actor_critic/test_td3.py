"""The exact checks of TD3: smoothing noise, delay, exploration."""

from __future__ import annotations

import torch

from palaestra.agents.memory.replay import Batch
from palaestra.agents.registry import make_agent


def agent_and_batch(**config):
    agent = make_agent("td3", "Pendulum-v1", preset_name=None, hidden=(16,), device="cpu", **config)
    generator = torch.Generator().manual_seed(0)
    observation, following = torch.randn(2, 32, 3, generator=generator)
    never = torch.zeros(32, dtype=torch.bool)
    return agent, Batch(observation, torch.zeros(32, 1), torch.ones(32), following, never, never)


def test_actor_and_targets_move_every_second_update() -> None:
    agent, batch = agent_and_batch()
    moved = []
    for _ in range(4):
        before = [p.clone() for p in (*agent.actor.parameters(), *agent.target_critics.parameters())]
        agent.update(batch)
        agent.num_updates += 1
        after = (*agent.actor.parameters(), *agent.target_critics.parameters())
        moved.append(not all(torch.equal(b, a) for b, a in zip(before, after, strict=True)))
    assert moved == [False, True, False, True]


def test_smoothing_noise_stays_in_its_clip_and_in_the_box() -> None:
    agent, batch = agent_and_batch(target_policy_noise=5.0, target_noise_clip=0.5)
    seen = []
    inner = agent.target_critics.forward

    def watch(observation: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        seen.append(action)
        return inner(observation, action)

    agent.target_critics.forward = watch
    agent.update(batch)
    (action,) = seen
    noise = action - agent.target_actor(batch.next_observation)
    assert float(noise.abs().max()) <= 0.5 + 1e-6
    assert float(noise.abs().median()) > 0.4
    assert float(action.abs().max()) <= 1.0


def test_exploration_adds_noise_only_while_collecting() -> None:
    agent, batch = agent_and_batch()
    greedy = agent.act(batch.observation, None)
    noisy = agent.act(batch.observation, torch.Generator().manual_seed(0))
    assert 0.05 < float((noisy - greedy).detach().std()) < 0.15
    for deterministic in (True, False):
        predicted, _ = agent.predict(batch.observation.numpy(), deterministic=deterministic)
        torch.testing.assert_close(torch.as_tensor(predicted), 2.0 * greedy.detach())
