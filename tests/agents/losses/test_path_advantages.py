"""Advantages of paths: a worked example, what the baselines and the centring cancel, and the known special cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from palaestra.agents.losses.path_advantages import path_advantages

REWARDS = torch.tensor([[1.0, 1.0, 0.5], [0.0, -1.0, 0.5], [0.0, 0.0, 0.5], [0.0, 0.0, 0.0]], dtype=torch.float64)
ACTIVE = torch.tensor([[1, 1, 1], [1, 1, 1], [0, 1, 1], [0, 0, 1]], dtype=torch.bool)
"""Paths with the rewards (1), (1, -1) and (.5, .5, .5), and the decision to end after each."""
GROUP = torch.zeros(3, dtype=torch.int64)


def test_the_worked_example() -> None:
    found = path_advantages(REWARDS, ACTIVE, GROUP).T
    expected = [[1 / 6, 0.0, 0.0, 0.0], [-5 / 6, -1.0, -0.25, 0.0], [2 / 3, 1.0, 0.25, 0.0]]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


def test_advantages_of_a_position_add_up_to_0_in_every_group() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 8, (30,), generator=generator)
    active = torch.arange(8)[:, None] < lengths
    group = torch.arange(30) // 6
    advantage = path_advantages(torch.randn(8, 30, generator=generator), active, group, 0.9)
    sums = torch.zeros(8, 5).index_add_(1, group, advantage)
    torch.testing.assert_close(sums, torch.zeros(8, 5), atol=1e-5, rtol=0.0)
    assert float(advantage.abs().sum()) > 1.0
    assert not advantage[~active].any()


def test_groups_do_not_see_each_other() -> None:
    twice = path_advantages(
        torch.cat([REWARDS, 5.0 * REWARDS], 1), torch.cat([ACTIVE] * 2, 1), torch.tensor([0] * 3 + [1] * 3)
    )
    alone = path_advantages(REWARDS, ACTIVE, GROUP)
    torch.testing.assert_close(twice, torch.cat([alone, 5.0 * alone], 1))


def test_a_return_of_the_path_against_the_group_is_the_credit_of_grpo() -> None:
    found = path_advantages(REWARDS, ACTIVE, GROUP, scope="path", baseline="group")
    returns = torch.tensor([1.0, 0.0, 1.5], dtype=torch.float64)
    torch.testing.assert_close(found, (returns - returns.mean()).expand(4, 3).masked_fill(~ACTIVE, 0.0))


def test_without_a_baseline_it_is_the_discounted_reward_to_go() -> None:
    found = path_advantages(REWARDS, ACTIVE, GROUP, gamma=0.5, baseline="none")
    np.testing.assert_allclose(found[:, 2].numpy(), [0.875, 0.75, 0.5, 0.0])


@pytest.mark.parametrize("centred", [True, False])
def test_a_constant_reward_says_nothing_about_ending_once_it_is_centred(centred: bool) -> None:
    """The expected gradient on the probability to end, exactly: all paths of a two-step problem, by enumeration."""
    end = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    reward = 0.0 if centred else 0.7
    total = torch.zeros((), dtype=torch.float64)
    # A path ends at once, after one item, or is cut after two.
    paths = [([True], [0.0]), ([False, True], [reward, 0.0]), ([False, False], [reward, reward])]
    for choices, rewards in paths:
        log_probs = torch.stack([end.log() if ends else (1.0 - end).log() for ends in choices])
        column = torch.tensor(rewards, dtype=torch.float64)[:, None]
        advantage = path_advantages(column, torch.ones_like(column, dtype=torch.bool), GROUP[:1], baseline="none")
        total = total + log_probs.sum().exp().detach() * (log_probs * advantage[:, 0]).sum()
    (gradient,) = torch.autograd.grad(total, end)
    if centred:
        assert gradient == 0.0
    else:
        # Returns grow with length: 0, .7, 1.4, so that ending is discouraged, by d/de of .7 (1 - e) + .7 (1 - e)^2.
        assert float(gradient) == pytest.approx(-0.7 - 1.4 * 0.7)
