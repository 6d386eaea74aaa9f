"""The exact checks of BRO: quantiles, pessimism, optimism and its adjustment, resets, the replay ratio."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy.stats import norm

from palaestra.agents.actor_critic.bro import joined
from palaestra.agents.losses.quantiles import midpoints, quantile_huber_loss
from palaestra.agents.nn.estimates import QuantileEstimate
from palaestra.agents.registry import make_agent
from palaestra.agents.training.many_seeds import SeedBatch
from tests.agents.batches import pendulum_batch

SMALL = {"hidden": (16,), "critic_hidden": (16,), "num_quantiles": 6, "batch_size": 16, "buffer_size": 500}


def make(**config: Any) -> Any:
    return make_agent("bro", "Pendulum-v1", preset_name=None, device="cpu", **{**SMALL, **config})


def make_seed(seed: int) -> Any:
    return make_agent("bro", "Pendulum-v1", seed=seed, preset_name=None, device="cpu", **SMALL)


def test_quantile_regression_recovers_mid_quantiles_as_the_huber_width_shrinks() -> None:
    count = 9
    levels = midpoints(count)
    samples = torch.as_tensor(norm.ppf(midpoints(1_000).numpy()), dtype=torch.float32).unsqueeze(0)
    exact = torch.as_tensor(norm.ppf(levels.numpy()), dtype=torch.float32)
    errors = []
    for width in (1.0, 0.3, 0.03):
        quantiles = torch.zeros(1, count, requires_grad=True)
        optimizer = torch.optim.Adam([quantiles], lr=0.03)
        for step in range(300):
            optimizer.param_groups[0]["lr"] = 0.03 * (1.0 - step / 300)
            optimizer.zero_grad()
            quantile_huber_loss(quantiles, samples, levels, width).backward()
            optimizer.step()
        errors.append(float((quantiles.detach() - exact).abs().max()))
    assert errors[0] > 0.3
    assert errors[0] > 2.0 * errors[1] > 4.0 * errors[2]
    assert errors[2] < 0.04


def test_pessimism_1_is_the_minimum_of_twins_and_0_their_mean() -> None:
    said = QuantileEstimate(torch.randn(2, 32, 6, generator=torch.Generator().manual_seed(0)), 1.0)
    torch.testing.assert_close(joined(said, -1.0).quantiles, said.quantiles.amin(0))
    torch.testing.assert_close(joined(said, 1.0).quantiles, said.quantiles.amax(0))
    torch.testing.assert_close(joined(said, 0.0).quantiles, said.quantiles.mean(0))


@pytest.mark.parametrize("pessimism", [0.0, 1.0])
def test_critics_step_along_the_gradient_of_the_loss_written_out(pessimism: float) -> None:
    agent, batch = make(pessimism=pessimism, initial_ent_coef=0.5, weight_decay=0.0), pendulum_batch()
    agent.critic_optimizer = torch.optim.SGD(agent.critics.parameters(), lr=1.0)
    before = [p.detach().clone() for p in agent.critics.parameters()]
    state = agent.generator.get_state()
    with torch.no_grad():
        action, log_prob = agent.actor(batch.next_observation).sample_with_log_prob(agent.generator)
        one, other = agent.target_critics(batch.next_observation, action).quantiles
        following = torch.minimum(one, other) if pessimism == 1.0 else 0.5 * (one + other)
        soft = (following - 0.5 * log_prob.unsqueeze(-1)).masked_fill(batch.terminated.unsqueeze(-1), 0.0)
        target = batch.reward.unsqueeze(-1) + 0.99 * soft
    levels = (torch.arange(6) + 0.5) / 6
    loss = torch.zeros(())
    for quantiles in agent.critics(batch.observation, batch.action).quantiles:
        error = target.unsqueeze(1) - quantiles.unsqueeze(2)
        huber = torch.where(error.abs() <= 1.0, 0.5 * error.square(), error.abs() - 0.5)
        loss = loss + ((levels.view(1, -1, 1) - (error < 0).float()).abs() * huber).mean(2).sum(1).mean()
    gradients = torch.autograd.grad(loss, list(agent.critics.parameters()))
    agent.generator.set_state(state)
    metrics = agent.update(batch)
    assert metrics["train/critic_loss"].item() == pytest.approx(loss.item(), rel=1e-5)
    for old, parameter, gradient in zip(before, agent.critics.parameters(), gradients, strict=True):
        torch.testing.assert_close(old - parameter.detach(), gradient, atol=1e-6, rtol=1e-4)


def test_the_exploring_policy_is_narrower_and_near_the_actor_at_first() -> None:
    agent, batch = make(), pendulum_batch()
    policy = agent.actor(batch.observation)
    exploring = agent.optimistic(batch.observation, policy)
    torch.testing.assert_close(exploring.log_std, policy.log_std + math.log(0.75))
    shift = (exploring.mean - policy.mean).detach().abs()
    assert 0.0 < float(shift.mean()) < 0.1 * float(policy.mean.detach().abs().mean())


def test_exploring_uses_the_optimistic_policy_and_evaluation_the_actor() -> None:
    agent, observation = make(), pendulum_batch().observation
    with torch.no_grad():
        for parameter in agent.shift.parameters():
            parameter.zero_()
        agent.shift.trunk.body[1].bias.fill_(1.0)
        agent.shift.trunk.head.weight.fill_(0.5)
        explored = agent.explore(observation)
        acted = agent.act(observation, torch.Generator().manual_seed(0))
        moved = torch.atanh(explored.clamp(-0.999, 0.999)) - agent.actor(observation).mean
    assert float(moved.mean()) > 2.0
    torch.testing.assert_close(agent.act(observation, None), torch.tanh(agent.actor(observation).mean))
    torch.testing.assert_close(acted, agent.actor(observation).sample(torch.Generator().manual_seed(0)))


def test_the_exploring_policy_climbs_the_upper_bound() -> None:
    """It goes where the critics differ, which is away from 0; the actor, held still here, has a std of exp(-4)."""
    agent = make(initial_optimism=5.0, initial_kl_weight=1e-4, learning_rate=1e-2)
    batch = pendulum_batch()
    agent.actor_optimizer.step = lambda: None
    with torch.no_grad():
        agent.actor.trunk.head.weight[1:] = 0.0
    slopes = torch.tensor([1.0, -1.0]).view(2, 1, 1)

    def disagree(observation: torch.Tensor, action: torch.Tensor) -> QuantileEstimate:
        nothing = 0.0 * sum(parameter.sum() for parameter in agent.critics.parameters())
        return QuantileEstimate(slopes * action + torch.zeros(6) + nothing, 1.0)

    agent.critics.forward = disagree
    for _ in range(100):
        agent.update(batch)
    with torch.no_grad():
        policy = agent.actor(batch.observation)
        exploring = agent.optimistic(batch.observation, policy)
    assert float(exploring.mode().abs().mean()) > float(policy.mode().abs().mean()) + 0.2


def test_divergence_is_that_of_the_gaussians_before_narrowing() -> None:
    agent, batch = make(learning_rate=1e-12, adjustment_rate=1e-12, weight_decay=0.0), pendulum_batch()
    with torch.no_grad():
        policy = agent.actor(batch.observation)
        mean = agent.shift(batch.observation, policy.mean)
    normal = torch.distributions.Normal
    exact = torch.distributions.kl_divergence(
        normal(mean, policy.log_std.exp()), normal(policy.mean, policy.log_std.exp())
    )
    found = agent.update(batch)["train/exploration_kl"]
    torch.testing.assert_close(found, exact.sum(-1).mean(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kl_target", "direction"), [(1e6, 1.0), (0.0, -1.0)])
def test_optimism_rises_and_the_weight_of_the_divergence_falls_below_its_target(
    kl_target: float, direction: float
) -> None:
    agent = make(kl_target=kl_target, adjustment_rate=1e-3)
    optimism, weight = (value.item() for value in agent.adjusted())
    assert (optimism, weight) == (pytest.approx(1.0, rel=1e-4), pytest.approx(0.25, rel=1e-4))
    for _ in range(3):
        metrics = agent.update(pendulum_batch())
    assert float(metrics["train/exploration_kl"]) > 0.0
    after = [value.item() for value in agent.adjusted()]
    assert direction * (after[0] - optimism) > 1e-4
    assert direction * (after[1] - weight) < -1e-5


def test_resets_initialise_everything_anew_but_keep_the_replay() -> None:
    agent = make(learning_starts=20, gradient_steps=1, resets=(45,), learning_rate=1e-2, adjustment_rate=1e-2)
    agent.learn(44)
    names = ("actor", "shift", "critics", "target_critics")
    places = {name: [p.data_ptr() for p in getattr(agent, name).parameters()] for name in names}
    trained = {name: [p.detach().clone() for p in getattr(agent, name).parameters()] for name in names}
    assert agent.num_resets == 0
    assert all(float(optimizer.steps) == 24 for optimizer in agent.optimizers())
    assert agent.log_alpha != 0.0
    rows = {name: field[:44].clone() for name, field in agent.replay.fields.items()}
    made = agent.updates.make
    agent.updates.make = lambda: None
    agent.learn(1, reset_num_timesteps=False)
    agent.updates.make = made
    assert agent.num_resets == 1
    assert len(agent.replay) == 45
    for name, field in agent.replay.fields.items():
        assert torch.equal(field[:44], rows[name])
    fresh = make(seed=0)
    for name in names:
        now = list(getattr(agent, name).parameters())
        assert [p.data_ptr() for p in now] == places[name]
        for p, old, initial in zip(now, trained[name], getattr(fresh, name).parameters(), strict=True):
            assert not torch.equal(p, old)
            # Drawn anew: what does not come from the generator is as it was at first, the rest is not.
            assert torch.equal(p, initial) is bool(initial.dim() == 1)
    for online, target in zip(agent.critics.parameters(), agent.target_critics.parameters(), strict=True):
        assert torch.equal(online, target)
    assert agent.log_alpha == 0.0
    torch.testing.assert_close(torch.stack(agent.adjusted()), torch.tensor([1.0, 0.25]))
    for optimizer in agent.optimizers():
        assert float(optimizer.steps) == 0.0
        assert not any(moment.any() for moment in optimizer.moments)
    agent.learn(10, reset_num_timesteps=False)
    assert agent.num_updates == 24 + 1 + 10


def test_every_reset_is_made_once_whatever_the_number_of_rows() -> None:
    """After 12, 20 and 24 steps, the last of them for two at once."""
    agent = make(num_envs=4, learning_starts=8, gradient_steps=1, resets=(10, 20, 22, 23, 500))
    counts = []
    agent.learn(40, lambda agent: counts.append(agent.num_resets))
    assert counts == [0, 0, 1, 1, 2, 3, 3, 3, 3, 3]


def test_resets_reach_the_common_storage_of_seeds_updated_together() -> None:
    alone, together = ([make_seed(seed) for seed in (0, 5)] for _ in range(2))
    batch = SeedBatch(together)
    for agents in (alone, together):
        for step in range(4):
            if step == 2:
                for agent in agents:
                    agent.reset_networks()
            if agents is together:
                batch.update([pendulum_batch(step), pendulum_batch(step + 10)])
            else:
                for offset, agent in zip((0, 10), agents, strict=True):
                    agent.update(pendulum_batch(step + offset))
    for one, other in zip(alone, together, strict=True):
        for name in ("actor", "shift", "critics", "target_critics"):
            for left, right in zip(getattr(one, name).parameters(), getattr(other, name).parameters(), strict=True):
                torch.testing.assert_close(left, right, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(one.log_alpha, other.log_alpha)
        assert one.critic_optimizer.steps == other.critic_optimizer.steps == 2.0
    first, second = (agent.critics.trunks[0].head.weight for agent in together)
    assert not torch.allclose(first, second, atol=1e-2)


def test_ten_updates_are_made_with_every_env_step() -> None:
    agent = make(learning_starts=20)
    agent.learn(25)
    assert agent.num_updates == 50


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match=r"critic_hidden=\(16, 8\); expected equal widths"):
        make(critic_hidden=(16, 8))
    with pytest.raises(ValueError, match=r"initial_optimism=0\.0; expected a number between"):
        make(initial_optimism=0.0)
    with pytest.raises(ValueError, match=r"resets=\(0,\); expected steps of at least 1"):
        make(resets=(0,))
