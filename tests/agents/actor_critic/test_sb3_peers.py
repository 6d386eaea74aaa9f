"""On the same weights, batch and noise, updates of DDPG and CrossQ are stable-baselines3's.

Both sides take plain gradient steps of size 1. CrossQ differs on purpose in two points, which are taken away here: the
authors and we normalise by the biased variance of the batch, sb3-contrib by the unbiased one; and it adds 1e-6 inside
the logarithm of the squashing term.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from palaestra.agents.registry import make_agent
from tests.agents.test_sb3_oracle import BATCH, TOLERANCE, assert_linear_equal, copy_linear, logged, random_batch

sb3 = pytest.importorskip("stable_baselines3")
contrib = pytest.importorskip("sb3_contrib")
from stable_baselines3.common.logger import configure  # noqa: E402

LAYERS = (0, 2, 4)
CLOSE = {"abs": TOLERANCE, "rel": TOLERANCE}


def peer(kind: Any, **config: Any) -> Any:
    theirs = kind("MlpPolicy", "Pendulum-v1", learning_rate=1.0, seed=0, device="cpu", **config)
    theirs.set_logger(configure(None, []))
    return theirs


def by_plain_steps(ours: Any) -> None:
    for name in ("actor_optimizer", "critic_optimizer", "alpha_optimizer"):
        if hasattr(ours, name):
            setattr(ours, name, torch.optim.SGD(getattr(ours, name).param_groups[0]["params"], lr=1.0))
    ours.generator = None  # torch's global generator, which SB3 draws from


def test_ddpg_updates_equal_sb3() -> None:
    theirs = peer(sb3.DDPG, policy_kwargs={"net_arch": [32, 32], "optimizer_class": torch.optim.SGD})
    ours = make_agent("ddpg", "Pendulum-v1", preset_name=None, hidden=(32, 32), device="cpu")
    by_plain_steps(ours)
    pairs = [
        (mine.trunk[layer], other.mu[layer])
        for mine, other in ((ours.actor, theirs.actor), (ours.target_actor, theirs.actor_target))
        for layer in LAYERS
    ]
    pairs += [
        (mine.trunks[0][layer], other.qf0[layer])
        for mine, other in ((ours.critics, theirs.critic), (ours.target_critics, theirs.critic_target))
        for layer in LAYERS
    ]
    for mine, other in pairs:
        copy_linear(mine, other)
    batch, samples = random_batch()
    theirs.replay_buffer.sample = lambda *args, **kwargs: samples
    assert not hasattr(theirs.critic, "qf1")
    for _ in range(3):
        theirs.train(gradient_steps=1, batch_size=BATCH)
        metrics = ours.update(batch)
        for name in ("critic_loss", "actor_loss"):
            assert metrics[f"train/{name}"].item() == pytest.approx(logged(theirs)[f"train/{name}"], **CLOSE)
        for mine, other in pairs:
            assert_linear_equal(mine, other)


def copy_renorm(mine: torch.nn.Module, other: torch.nn.Module) -> None:
    with torch.no_grad():
        mine.weight.copy_(other.scale)
        mine.bias.copy_(other.bias)
        mine.mean.copy_(other.ra_mean)
        mine.variance.copy_(other.ra_var)
        mine.batches.copy_(other.steps)


@pytest.mark.parametrize("warmed_up", [False, True])
def test_crossq_updates_equal_sb3(warmed_up: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    arch = {"pi": [32, 32], "qf": [24, 24]}
    theirs = peer(contrib.CrossQ, policy_kwargs={"net_arch": arch, "optimizer_class": torch.optim.SGD})
    theirs.ent_coef_optimizer = torch.optim.SGD([theirs.log_ent_coef], lr=1.0)
    theirs.actor.action_dist.epsilon = 0.0
    with torch.no_grad():
        # Where the tanh saturates, their logarithm of 1 - tanh^2 loses digits.
        for layer in (theirs.actor.mu, theirs.actor.log_std):
            layer.weight.mul_(0.1)
    ours = make_agent("crossq", "Pendulum-v1", preset_name=None, hidden=(32, 32), critic_hidden=(24, 24), device="cpu")
    by_plain_steps(ours)
    # Theirs and ours alike: renorm, linear and ReLU in turn, and a last renorm before the outputs.
    networks = [(ours.actor.trunk, theirs.actor.latent_pi)]
    networks += [(ours.critics.trunks[i], getattr(theirs.critic, f"qf{i}")) for i in (0, 1)]
    renorms, linears = [], []
    for mine, other in networks:
        for index, layer in enumerate(other):
            if hasattr(layer, "scale"):
                renorms.append((mine[index], layer))
            elif isinstance(layer, torch.nn.Linear):
                linears.append((mine[index], (layer,)))
    linears.append((ours.actor.trunk[7], (theirs.actor.mu, theirs.actor.log_std)))
    assert (len(renorms), len(linears)) == (9, 9)
    if warmed_up:
        # They renormalise when more batches than that have passed, we from that number on.
        for _, other in renorms:
            other.steps.fill_(100_001)
    batch, samples = random_batch()
    theirs.replay_buffer.sample = lambda *args, **kwargs: samples
    unbiased = torch.Tensor.var

    for _ in range(3):
        for mine, others in linears:
            copy_linear(mine, *others)
        for mine, other in renorms:
            copy_renorm(mine, other)
        torch.manual_seed(7)
        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "var", lambda values, dim: unbiased(values, dim, correction=0))
            theirs.train(gradient_steps=1, batch_size=BATCH)
        torch.manual_seed(7)
        metrics = ours.update(batch)
        ours.num_updates += 1
        assert metrics["train/critic_loss"].item() == pytest.approx(logged(theirs)["train/critic_loss"], **CLOSE)
        for mine, others in linears:
            assert_linear_equal(mine, *others)
        for mine, other in renorms:
            close = {"atol": TOLERANCE, "rtol": TOLERANCE}
            torch.testing.assert_close(mine.weight, other.scale, **close)
            torch.testing.assert_close(mine.bias, other.bias, **close)
            torch.testing.assert_close(mine.mean, other.ra_mean, **close)
            torch.testing.assert_close(mine.variance, other.ra_var, **close)
    # The third update was one of the actor's.
    assert metrics["train/actor_loss"].item() == pytest.approx(logged(theirs)["train/actor_loss"], **CLOSE)
    assert ours.log_alpha.item() == pytest.approx(theirs.log_ent_coef.item(), **CLOSE)
    assert ours.log_alpha.item() != 0.0
