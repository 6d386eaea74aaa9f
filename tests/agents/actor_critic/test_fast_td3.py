"""The exact checks of FastTD3: projection, double Q on distributions, noise of every row, delays, decayed weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from palaestra.agents.losses.categorical import project
from palaestra.agents.nn.estimates import CategoricalEstimate
from palaestra.agents.registry import make_agent
from tests.agents.batches import pendulum_batch

SMALL = {
    "num_envs": 3,
    "train_freq": 3,
    "hidden": (16, 16),
    "critic_hidden": (16, 16),
    "batch_size": 32,
    "buffer_size": 1_000,
    "learning_starts": 30,
    "num_atoms": 11,
    "return_min": -10.0,
    "return_max": 10.0,
}


def make(**config: Any) -> Any:
    return make_agent("fast-td3", "Pendulum-v1", preset_name=None, device="cpu", **{**SMALL, **config})


def test_the_projection_conserves_mass_and_the_mean_inside_the_support() -> None:
    """The mean of the projected target is r + gamma E."""
    generator = torch.Generator().manual_seed(0)
    support = torch.linspace(-10.0, 10.0, 11)
    probs = torch.rand(64, 11, generator=generator).softmax(-1)
    reward = 2.0 * torch.rand(64, generator=generator) - 1.0
    values = reward.unsqueeze(-1) + 0.8 * support
    projected = project(values, probs, support)
    torch.testing.assert_close(projected.sum(-1), torch.ones(64))
    torch.testing.assert_close((projected * support).sum(-1), reward + 0.8 * (probs * support).sum(-1))
    outside = project(values + 50.0, probs, support)
    torch.testing.assert_close(outside.sum(-1), torch.ones(64))
    assert torch.equal(outside.argmax(-1), torch.full((64,), 10))


def test_the_target_is_the_whole_distribution_of_the_lower_critic() -> None:
    agent, batch = make(), pendulum_batch()
    said = agent.target_critics(10.0 * batch.next_observation, batch.action)
    chosen = said.lowest()
    lower = said.mean().argmin(0)
    assert set(lower.tolist()) == {0, 1}
    for row, index in enumerate(lower.tolist()):
        assert torch.equal(chosen.log_probs[row], said.log_probs[index, row])
    torch.testing.assert_close(chosen.mean(), said.mean().amin(0))


def test_critics_step_along_the_gradient_of_the_loss_written_out() -> None:
    """The live actor acts in the target, which a truncation keeps and a termination does not."""
    agent, batch = make(target_policy_noise=0.0, weight_decay=0.0), pendulum_batch()
    agent.critic_optimizer = torch.optim.SGD(agent.critics.parameters(), lr=1.0)
    with torch.no_grad():
        for parameter in agent.target_critics.parameters():
            parameter.mul_(1.5)
        before = [p.detach().clone() for p in agent.critics.parameters()]
        next_action = agent.actor(batch.next_observation)
        logits = agent.target_critics.outputs(batch.next_observation, next_action)
    support = np.linspace(-10.0, 10.0, 11)
    target = np.zeros((32, 11))
    for row in range(32):
        options = logits[:, row].double().softmax(-1).numpy()
        probs = options[np.argmin(options @ support)]
        for atom, prob in zip(support, probs, strict=True):
            moved = float(batch.reward[row]) + (0.0 if batch.terminated[row] else 0.99) * atom
            place = (np.clip(moved, -10.0, 10.0) + 10.0) / 2.0
            low = min(int(place), 9)
            target[row, low] += prob * (low + 1 - place)
            target[row, low + 1] += prob * (place - low)
    log_probs = agent.critics.outputs(batch.observation, batch.action).log_softmax(-1)
    loss = -(torch.as_tensor(target, dtype=torch.float32) * log_probs).sum(-1).mean(-1).sum()
    gradients = torch.autograd.grad(loss, list(agent.critics.parameters()))
    metrics = agent.update(batch)
    assert metrics["train/critic_loss"].item() == pytest.approx(loss.item(), rel=1e-5)
    for old, parameter, gradient in zip(before, agent.critics.parameters(), gradients, strict=True):
        torch.testing.assert_close(old - parameter.detach(), gradient, atol=1e-6, rtol=1e-4)


def test_the_actor_climbs_the_lower_mean() -> None:
    agent, batch = make(policy_delay=1, learning_rate=1e-12), pendulum_batch()
    agent.actor_optimizer = torch.optim.SGD(agent.actor.parameters(), lr=1.0)
    before = [p.detach().clone() for p in agent.actor.parameters()]
    value = agent.critics(batch.observation, agent.actor(batch.observation)).mean().amin(0)
    gradients = torch.autograd.grad(-value.mean(), list(agent.actor.parameters()))
    agent.update(batch)
    for old, parameter, gradient in zip(before, agent.actor.parameters(), gradients, strict=True):
        torch.testing.assert_close(old - parameter.detach(), gradient, atol=1e-6, rtol=1e-4)


def test_every_row_draws_its_noise_anew_for_every_episode() -> None:
    agent = make(num_envs=4, train_freq=4, learning_starts=0, noise_min=0.1, noise_max=0.5)
    agent.update = lambda batch: {"train/none": torch.zeros(())}
    scales = []
    agent.learn(4 * 450, lambda agent: scales.append(agent.noise_scale.squeeze(-1).clone()))
    drawn = torch.stack(scales)
    assert torch.equal(drawn[0], drawn[199])
    assert torch.equal(drawn[200], drawn[399])
    # The pendulum's episodes of all rows end together; rows draw apart, and every episode differs.
    episodes = torch.stack([drawn[0], drawn[200], drawn[400]])
    assert len(episodes.flatten().unique()) == 12
    assert 0.1 <= float(drawn.min()) <= float(drawn.max()) <= 0.5


def test_exploration_has_the_scale_of_its_row() -> None:
    agent = make(num_envs=3)
    agent.learn(0)
    agent.collector.start()
    agent.collector.episode_start[:] = False
    agent.noise_scale.copy_(torch.tensor([[0.0], [0.05], [0.2]]))
    observation = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        action = agent.actor(observation)
        draws = torch.stack([agent.explore(observation) - action for _ in range(400)])
    torch.testing.assert_close(draws.std(0), agent.noise_scale, rtol=0.15, atol=1e-6)
    assert torch.equal(agent.act(observation, torch.Generator()), agent.actor(observation))


def test_the_actor_moves_with_every_second_update_and_targets_with_each() -> None:
    agent, moved = make(), []
    parts = (agent.actor, agent.target_critics)
    for seed in range(4):
        before = [[p.detach().clone() for p in part.parameters()] for part in parts]
        agent.update(pendulum_batch(seed))
        agent.num_updates += 1
        moved.append(
            tuple(
                any(not torch.equal(old, new) for old, new in zip(group, part.parameters(), strict=True))
                for group, part in zip(before, parts, strict=True)
            )
        )
    assert moved == [(False, True), (True, True), (False, True), (True, True)]
    assert not hasattr(agent, "target_actor")


def test_two_updates_are_made_with_every_step_of_all_rows() -> None:
    agent = make()
    agent.learn(30 + 5 * 3)
    assert agent.num_updates == 10


def test_the_actor_starts_near_zero() -> None:
    assert float(make().actor(pendulum_batch().observation).detach().abs().max()) < 0.1


def test_weights_decay_towards_zero() -> None:
    decayed, plain = make(weight_decay=0.5, learning_rate=1e-2), make(weight_decay=0.0, learning_rate=1e-2)
    for agent in (decayed, plain):
        before = agent.critics.trunks[0][0].weight.detach().clone()
        agent.update(pendulum_batch())
    # A step of both is Adam's; decay takes 0.5 * 0.01 of the weight off besides.
    difference = plain.critics.trunks[0][0].weight - decayed.critics.trunks[0][0].weight
    torch.testing.assert_close(difference.detach(), 0.005 * before, atol=1e-6, rtol=1e-3)


def test_an_estimate_outside_the_support_counts_as_its_end() -> None:
    support = torch.linspace(-1.0, 1.0, 5)
    said = CategoricalEstimate(torch.zeros(1, 5).log_softmax(-1), support)
    far = said.moved(torch.tensor([100.0]), torch.tensor([1.0]))
    torch.testing.assert_close(said.loss(far), -said.log_probs[:, -1])


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match=r"return_min=20\.0; expected a number below return_max"):
        make(return_min=20.0)
    with pytest.raises(ValueError, match=r"noise_min=0\.6; expected a number from 0 to noise_max"):
        make(noise_min=0.6)
    with pytest.raises(ValueError, match="num_atoms=1; expected an integer of at least 2"):
        make(num_atoms=1)
