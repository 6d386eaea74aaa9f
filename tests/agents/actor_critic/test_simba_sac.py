"""The exact checks of SimBa's SAC: its normalised observations, decayed weights, smooth spread and trunks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from palaestra.agents.memory.replay import Batch
from palaestra.agents.nn.actors import SmoothGaussianActor
from palaestra.agents.nn.trunks import BroNet, SimBa
from palaestra.agents.registry import make_agent
from palaestra.agents.training.optimizer import FlatAdam

SMALL = {"hidden": (8,), "critic_hidden": (8, 8), "batch_size": 16, "buffer_size": 500, "learning_starts": 40}


def make(**config: Any) -> Any:
    return make_agent("simba-sac", "Pendulum-v1", preset_name=None, device="cpu", **{**SMALL, **config})


def random_batch(seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    observation, following = torch.randn(2, 32, 3, generator=generator)
    terminated = torch.arange(32) < 8
    return Batch(observation, torch.zeros(32, 1), torch.ones(32), following, terminated, ~terminated)


def test_the_normaliser_has_the_statistics_of_all_observations_acted_on() -> None:
    agent = make()
    agent.learn(60)
    seen = agent.replay.fields["observation"][:60].double()
    (moments,) = agent.normalizer.moments.values()
    torch.testing.assert_close(moments.mean, seen.mean(0))
    torch.testing.assert_close(moments.variance, seen.var(0, correction=0))
    standard = agent.normalizer(seen.float())
    torch.testing.assert_close(standard.mean(0), torch.zeros(3), atol=1e-5, rtol=0.0)
    torch.testing.assert_close(standard.std(0, correction=0), torch.ones(3), atol=1e-4, rtol=0.0)


def test_networks_are_those_asked_for() -> None:
    agent = make(num_critics=1)
    assert isinstance(agent.actor.trunk, SimBa)
    assert len(agent.critics.trunks) == 1
    assert agent.target_entropy == -0.5
    assert float(agent.log_alpha.exp()) == pytest.approx(0.01)
    agent.update(random_batch())
    assert isinstance(make(trunk="bronet").critics.trunks[1], BroNet)
    mlp = make(trunk="mlp", hidden=(8, 4), critic_hidden=(16,))
    assert [tuple(p.shape) for p in mlp.critics.trunks[0].parameters()] == [(16, 4), (16,), (1, 16), (1,)]
    with pytest.raises(ValueError, match="trunk='batch-renorm'; expected one of mlp, simba, bronet"):
        make(trunk="batch-renorm")


def test_the_log_standard_deviation_is_kept_in_its_range_smoothly() -> None:
    actor = SmoothGaussianActor(make().observation_space, 2, (8,))
    outputs = torch.tensor([[0.0, -40.0], [0.0, 0.0], [0.0, 40.0]])
    actor.output = lambda observation: outputs
    np.testing.assert_allclose(actor(torch.zeros(3, 3)).log_std.squeeze(-1).numpy(), [-10.0, -4.0, 2.0], atol=1e-5)


def test_decay_is_decoupled_and_spares_the_temperature() -> None:
    agent = make(weight_decay=0.1)
    for name, decay in (("actor", 0.1), ("critic", 0.1), ("alpha", 0.0)):
        optimizer = getattr(agent, f"{name}_optimizer")
        assert (optimizer.weight_decay, optimizer.decoupled) == (decay, decay > 0.0)


def test_decoupled_decay_is_adamw() -> None:
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(4, 3)), torch.nn.Parameter(torch.randn(3))]
    theirs = [torch.nn.Parameter(parameter.detach().clone()) for parameter in ours]
    options = {"betas": (0.5, 0.99), "weight_decay": 0.3}
    flat = FlatAdam(ours, 1e-2, decoupled=True, **options)
    peer = torch.optim.AdamW(theirs, lr=1e-2, **options)
    for _ in range(5):
        for optimizer, parameters in ((flat, ours), (peer, theirs)):
            optimizer.zero_grad()
            sum((parameter.square().sum() - parameter.sin().sum()) for parameter in parameters).backward()
            optimizer.step()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)
    flat.restart()
    assert float(flat.steps) == 0.0
    assert not any(moment.any() for moment in flat.moments)
