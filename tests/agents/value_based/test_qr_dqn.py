"""The exact checks of QR-DQN: sb3-contrib's loss and gradients, quantiles that are recovered, mean values."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from palaestra.agents.losses.quantiles import midpoints, quantile_huber_loss
from palaestra.agents.registry import make_agent
from tests.agents.batches import as_samples
from tests.agents.value_based.test_dqn import TOLERANCE, random_batch


def test_one_pair_by_hand() -> None:
    """Quantile 0 at level .25: a sample at 3 costs .25 (3 - .5), one at -.5 costs .75 * .125; the loss is the mean."""
    quantiles, samples = torch.zeros(1, 1), torch.tensor([[3.0, -0.5]])
    loss = quantile_huber_loss(quantiles, samples, torch.tensor([0.25]))
    assert loss.item() == pytest.approx((0.25 * 2.5 + 0.75 * 0.125) / 2)
    plain = quantile_huber_loss(quantiles, samples, torch.tensor([0.25]), width=0.0)
    assert plain.item() == pytest.approx((0.25 * 3.0 + 0.75 * 0.5) / 2)


def test_levels_lie_in_the_middle() -> None:
    np.testing.assert_allclose(midpoints(4).numpy(), [0.125, 0.375, 0.625, 0.875])


@pytest.mark.parametrize("width", [0.0, 0.01])
def test_the_minimum_is_at_the_quantiles(width: float) -> None:
    """Of samples 0..99 the quantiles at 1/8, 3/8, 5/8, 7/8 are 12.5, 37.5, 62.5 and 87.5, give or take a sample."""
    samples = torch.arange(100.0)[None] + 0.5
    quantiles = torch.full((1, 4), 30.0, requires_grad=True)
    optimizer = torch.optim.SGD([quantiles], lr=1.0)
    for step in range(4_000):
        optimizer.param_groups[0]["lr"] = 5.0 / (1 + step / 200)
        optimizer.zero_grad()
        quantile_huber_loss(quantiles, samples, midpoints(4), width).backward()
        optimizer.step()
    np.testing.assert_allclose(quantiles[0].detach().numpy(), [12.5, 37.5, 62.5, 87.5], atol=0.6)


@pytest.mark.parametrize("quantiles", [1, 7, 50])
def test_update_equals_sb3_contrib(quantiles: int) -> None:
    contrib = pytest.importorskip("sb3_contrib")
    from stable_baselines3.common.logger import configure

    theirs = contrib.QRDQN(
        "MlpPolicy",
        "CartPole-v1",
        learning_rate=1.0,
        policy_kwargs={"net_arch": [32, 32], "n_quantiles": quantiles, "optimizer_class": torch.optim.SGD},
        seed=0,
        device="cpu",
    )
    # Its constructor sets Adam's epsilon, which plain steps do not have.
    theirs.policy.optimizer = torch.optim.SGD(theirs.quantile_net.parameters(), lr=1.0)
    theirs.set_logger(configure(None, []))
    ours = make_agent("qr-dqn", "CartPole-v1", preset_name=None, hidden=(32, 32), num_quantiles=quantiles, device="cpu")
    pairs = ((ours.network, theirs.quantile_net), (ours.target_network, theirs.quantile_net_target))
    with torch.no_grad():
        for mine, peer in pairs:
            # Theirs lays the quantiles of all actions out as [quantiles, actions], ours as [actions, quantiles].
            for own, other in zip(mine.parameters(), peer.parameters(), strict=True):
                own.copy_(other)
            for own, other in list(zip(mine.parameters(), peer.parameters(), strict=True))[-2:]:
                own.copy_(swapped(other, quantiles, 2))
    ours.network_optimizer = torch.optim.SGD(ours.network.parameters(), lr=1.0)
    batch = random_batch()
    theirs.replay_buffer.sample = lambda *args, **kwargs: as_samples(batch)
    theirs.train(gradient_steps=1, batch_size=64)
    metrics = ours.update(batch)
    assert metrics["train/loss"].item() == pytest.approx(theirs.logger.name_to_value["train/loss"], rel=TOLERANCE)
    mine, peer = list(ours.network.parameters()), list(theirs.quantile_net.parameters())
    peer[-2:] = [swapped(parameter, quantiles, 2) for parameter in peer[-2:]]
    for own, other in zip(mine, peer, strict=True):
        torch.testing.assert_close(own, other, atol=TOLERANCE, rtol=TOLERANCE)


def swapped(parameter: torch.Tensor, first: int, second: int) -> torch.Tensor:
    """Rows numbered [first, second] renumbered as [second, first]."""
    return parameter.detach().unflatten(0, (first, second)).transpose(0, 1).flatten(0, 1)


def test_values_are_the_means_of_the_quantiles() -> None:
    agent = make_agent("qr-dqn", "CartPole-v1", preset_name=None, num_quantiles=5, device="cpu")
    observation = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
    quantiles = agent.network(observation)
    assert quantiles.shape == (7, 2, 5)
    torch.testing.assert_close(agent.values(observation), quantiles.mean(-1))
    assert torch.equal(agent.act(observation, None), quantiles.mean(-1).argmax(-1))


def test_bad_settings_are_refused() -> None:
    for name, value in (("num_quantiles", 0), ("huber_width", -1.0)):
        with pytest.raises(ValueError, match=f"{name}={value}; expected"):
            make_agent("qr-dqn", "CartPole-v1", **{name: value})
