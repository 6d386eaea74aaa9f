"""Actor classes: each fits a known distribution by its supervised loss, and its noise is what it says."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from palaestra.agents.nn.actor_classes import ACTOR_CLASSES, BinsClass, GaussianClass
from palaestra.agents.training.optimizer import FlatAdam

SPACE = spaces.Box(-1.0, 1.0, (3,), np.float32)
OPTIONS: dict[str, dict[str, Any]] = {
    "gaussian": {},
    "bins": {"bins": 16},
    "diffusion": {"levels": 10, "schedule": "vp"},
    "flow": {"steps": 10},
}


def make(name: str, hidden: tuple[int, ...] = (64, 64)) -> Any:
    torch.manual_seed(0)
    return ACTOR_CLASSES[name](SPACE, 2, hidden, "relu", "auto", **OPTIONS[name])


@pytest.mark.parametrize("name", ACTOR_CLASSES)
def test_proposals_of_given_noise_are_the_same_in_every_row_of_equal_observations(name: str) -> None:
    actor, observation = make(name), torch.zeros(5, 3)
    policy = actor(observation)
    with torch.no_grad():
        noise = torch.randn(4, *policy.noise_shape, generator=torch.Generator().manual_seed(1))
        given = policy.propose(4, noise)
        assert given.shape == (5, 4, 2)
        assert (given.abs() <= 1.0).all()
        torch.testing.assert_close(given[0].expand(5, -1, -1), given)
        drawn = policy.propose(4, torch.Generator().manual_seed(2))
        same = policy.propose(4, torch.Generator().manual_seed(2))
        assert torch.equal(drawn, same)
        assert not torch.equal(drawn[0], drawn[1])


@pytest.mark.parametrize("name", ACTOR_CLASSES)
def test_one_proposal_is_what_its_noise_becomes(name: str) -> None:
    policy = make(name)(torch.randn(6, 3, generator=torch.Generator().manual_seed(0)))
    with torch.no_grad():
        noise = torch.empty(6, 1, *policy.noise_shape).normal_(generator=torch.Generator().manual_seed(3))
        assert torch.equal(policy.propose(1, torch.Generator().manual_seed(3))[:, 0], policy.act(noise[:, 0]))


@pytest.mark.parametrize("name", ["bins", "diffusion", "flow"])
def test_two_modes_are_both_learnt(name: str) -> None:
    """Actions near (-.5, -.5) and (.5, .5): both signs alike, seldom one near 0, each side about half of the time.

    Of independent coordinates half had unlike signs, and of a Gaussian of the same spread a third were near 0. (With
    the exact noise prediction, ten levels of a diffusion leave 2.5 % there.)
    """
    actor = make(name)
    generator = torch.Generator().manual_seed(0)
    optimizer = FlatAdam(actor.parameters(), 3e-3)
    observation = torch.zeros(256, 3)
    for _ in range(900):
        side = torch.randint(0, 2, (256, 1), generator=generator).float() - 0.5
        action = side + 0.05 * torch.randn(256, 2, generator=generator)
        optimizer.zero_grad()
        actor(observation).loss(action, generator).mean().backward()
        optimizer.step()
    with torch.no_grad():
        drawn = actor(torch.zeros(500, 3)).propose(1, generator)[:, 0]
    assert float((drawn.prod(-1) > 0.0).float().mean()) > 0.9
    assert float((drawn.abs() < 0.2).float().mean()) < 0.1
    assert float((drawn[:, 0] > 0).float().mean()) == pytest.approx(0.5, abs=0.12)


def test_gaussian_learns_the_mean_between_two_modes() -> None:
    actor = make("gaussian", (16,))
    generator = torch.Generator().manual_seed(0)
    optimizer = FlatAdam(actor.parameters(), 1e-2)
    for _ in range(300):
        side = torch.randint(0, 2, (256, 1), generator=generator).float() - 0.5
        optimizer.zero_grad()
        actor(torch.zeros(256, 3)).loss(side.expand(-1, 2), generator).mean().backward()
        optimizer.step()
    policy = actor(torch.zeros(1, 3))
    torch.testing.assert_close(policy.mean, torch.zeros(1, 2), atol=0.1, rtol=0.0)
    torch.testing.assert_close(policy.log_std.exp(), torch.full((1, 2), 0.5), atol=0.05, rtol=0.0)


def test_gaussian_loss_is_its_negative_log_likelihood() -> None:
    policy = GaussianClass(SPACE, 2, (8,))(torch.zeros(3, 3))
    action = torch.tensor([[0.1, -0.2], [1.0, 1.0], [0.0, 0.4]])
    expected = -torch.distributions.Normal(policy.mean, policy.log_std.exp()).log_prob(action).sum(-1)
    torch.testing.assert_close(policy.loss(action, None), expected)


def test_bins_come_back_from_their_centres() -> None:
    actor = BinsClass(SPACE, 2, (8,), bins=7)
    tokens = torch.arange(7)
    torch.testing.assert_close(actor.centre_of(tokens), torch.linspace(-6 / 7, 6 / 7, 7))
    assert torch.equal(actor.token_of(actor.centre_of(tokens)), tokens)
    assert actor.token_of(torch.tensor([-1.0, 1.0])).tolist() == [0, 6]
    action = torch.linspace(-1.0, 1.0, 101)
    assert (actor.centre_of(actor.token_of(action)) - action).abs().max() <= 1 / 7 + 1e-6


def test_tokens_depend_on_those_before_them_alone_and_their_probabilities_add_up() -> None:
    torch.manual_seed(0)
    actor = BinsClass(SPACE, 2, (16,), bins=5)
    policy = actor(torch.randn(1, 3))
    one, other = (policy.logits(torch.tensor([[0.4, second]])) for second in (-0.8, 0.8))
    assert torch.equal(one, other)
    changed = policy.logits(torch.tensor([[-0.4, 0.8]]))
    assert torch.equal(changed[:, 0], one[:, 0])
    assert not torch.equal(changed[:, 1], one[:, 1])
    centres = actor.centre_of(torch.arange(5))
    every = torch.cartesian_prod(centres, centres)
    with torch.no_grad():
        total = (-policy.repeated(25).loss(every, None)).exp().sum()
    assert float(total) == pytest.approx(1.0, abs=1e-5)


def test_tokens_are_drawn_by_the_inverse_of_their_distribution_function() -> None:
    """Frequencies of 40,000 draws against the probabilities that the loss names, and the median at noise 0."""
    torch.manual_seed(1)
    actor = BinsClass(SPACE, 1, (16,), bins=4)
    policy = actor(torch.randn(1, 3))
    with torch.no_grad():
        probabilities = policy.logits(torch.zeros(1, 1)).softmax(-1)[0, 0]
        drawn = actor.token_of(policy.propose(40_000, torch.Generator().manual_seed(0))[0, :, 0])
        counts = torch.bincount(drawn, minlength=4) / 40_000
        median = actor.token_of(policy.act(torch.zeros(1, 1)))
    torch.testing.assert_close(counts, probabilities, atol=0.01, rtol=0.0)
    assert int(median) == int((probabilities.cumsum(-1) <= 0.5).sum())
    assert math.isclose(float(probabilities.sum()), 1.0, abs_tol=1e-6)
