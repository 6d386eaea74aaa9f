"""The exact checks of CrossQ: the joint pass, what it equals without normalisation, evaluation, the delay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from palaestra.agents.memory.replay import Batch
from palaestra.agents.nn import distributions
from palaestra.agents.nn.trunks import batch_statistics
from palaestra.agents.registry import make_agent
from tests.agents.batches import pendulum_batch


def make(agent_id: str = "crossq", **config: Any) -> Any:
    if agent_id == "crossq":
        config = {"critic_hidden": (16, 16), **config}
    return make_agent(agent_id, "Pendulum-v1", preset_name=None, device="cpu", **{"hidden": (16, 16), **config})


def random_batch(seed: int = 0) -> Batch:
    return pendulum_batch(seed, following_mean=1.0)


def update(agent: Any, updates: int) -> None:
    for seed in range(updates):
        agent.update(random_batch(seed))
        agent.num_updates += 1


def test_without_batch_norm_it_is_sac_whose_targets_are_the_live_critics(monkeypatch: pytest.MonkeyPatch) -> None:
    crossq = make(trunk="mlp", policy_delay=1, adam_beta1=0.9, learning_rate=1e-3)
    sac = make("sac", tau=1.0, learning_rate=1e-3)
    for ours, theirs in ((sac.actor, crossq.actor), (sac.critics, crossq.critics), (sac.target_critics, sac.critics)):
        ours.load_state_dict(theirs.state_dict())
    # The two draw their noise in different orders.
    noise = torch.randn(32, 1, generator=torch.Generator().manual_seed(5))
    monkeypatch.setattr(distributions, "standard_normal_like", lambda mean, generator: noise)
    for agent in (crossq, sac):
        update(agent, 5)
    for name in ("actor", "critics"):
        for one, other in zip(getattr(crossq, name).parameters(), getattr(sac, name).parameters(), strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(crossq.log_alpha, sac.log_alpha)
    assert not hasattr(crossq, "target_critics")


@pytest.mark.parametrize(("trunk", "equal"), [("batch-renorm", False), ("mlp", True), ("simba", True)])
def test_joint_and_separate_passes_differ_with_batch_norm_alone(trunk: str, equal: bool) -> None:
    agent, batch = make(trunk=trunk), random_batch()
    observations = torch.cat([batch.observation, batch.next_observation])
    actions = torch.cat([batch.action, -batch.action])
    with batch_statistics(agent.critics):
        joint = agent.critics(observations, actions)
        apart = [agent.critics(batch.observation, batch.action), agent.critics(batch.next_observation, -batch.action)]
    assert torch.allclose(joint, torch.cat(apart, -1), atol=1e-5) is equal


def test_evaluation_does_not_depend_on_the_size_of_the_batch() -> None:
    agent, observation = make(), random_batch().observation.numpy()
    update(agent, 6)
    together, _ = agent.predict(observation, deterministic=True)
    apart = np.stack([agent.predict(row, deterministic=True)[0] for row in observation])
    np.testing.assert_allclose(together, apart, atol=1e-5)
    action = torch.zeros(32, 1)
    values = agent.critics(torch.as_tensor(observation), action)
    torch.testing.assert_close(values[:, :1], agent.critics(torch.as_tensor(observation[:1]), action[:1]))


def test_statistics_move_with_updates_and_never_with_acting() -> None:
    agent = make(learning_starts=40, batch_size=16)
    agent.learn(40)
    counts = lambda: (int(agent.critics.trunks[1][0].batches), int(agent.actor.trunk[0].batches))  # noqa: E731
    assert counts() == (0, 0)
    agent.learn(47)
    assert agent.num_updates == 7
    assert counts() == (7, 2)
    mean = agent.actor.trunk[0].mean.clone()
    agent.predict(random_batch().observation.numpy())
    assert counts() == (7, 2)
    assert torch.equal(mean, agent.actor.trunk[0].mean)
    assert not torch.equal(mean, torch.zeros(3))


def test_actor_and_temperature_move_with_every_third_update() -> None:
    agent, moved = make(), []
    for seed in range(7):
        before = [p.detach().clone() for p in (*agent.actor.parameters(), agent.log_alpha)]
        agent.update(random_batch(seed))
        agent.num_updates += 1
        after = (*agent.actor.parameters(), agent.log_alpha)
        moved.append(not all(torch.equal(b, a) for b, a in zip(before, after, strict=True)))
    assert moved == [False, False, True, False, False, True, False]


def test_the_target_is_a_constant() -> None:
    """The gradient is that of the values of (s, a) alone, although (s', a') passed with them."""
    agent, batch = make(ent_coef=0.0, adam_beta1=0.0), random_batch()
    agent.critic_optimizer = torch.optim.SGD(agent.critics.parameters(), lr=1.0)
    before = [p.detach().clone() for p in agent.critics.parameters()]
    state = agent.generator.get_state()
    agent.update(batch)
    moved = [b - p.detach() for b, p in zip(before, agent.critics.parameters(), strict=True)]

    with torch.no_grad():
        for parameter, value in zip(agent.critics.parameters(), before, strict=True):
            parameter.copy_(value)
        agent.generator.set_state(state)
        next_action = agent.actor(batch.next_observation).sample(agent.generator)
    observations = torch.cat([batch.observation, batch.next_observation])
    with batch_statistics(agent.critics):
        values, following = agent.critics(observations, torch.cat([batch.action, next_action])).chunk(2, -1)
    target = batch.reward + 0.99 * following.amin(0).masked_fill(batch.terminated, 0.0)
    loss = 0.5 * (values - target.detach()).square().mean(-1).sum()
    for step, gradient in zip(moved, torch.autograd.grad(loss, list(agent.critics.parameters())), strict=True):
        torch.testing.assert_close(step, gradient, atol=1e-6, rtol=1e-4)


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="trunk='cnn'; expected one of batch-renorm, mlp, simba, bronet"):
        make(trunk="cnn")
    with pytest.raises(ValueError, match=r"critic_hidden=\(16, 8\); expected equal widths"):
        make(trunk="simba", critic_hidden=(16, 8))
    with pytest.raises(ValueError, match=r"adam_beta1=1\.0; expected a number in \[0, 1\)"):
        make(adam_beta1=1.0)
