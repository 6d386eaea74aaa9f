"""The natural-gradient step: exponential weights where the policy is a table, and shares of its sources."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from palaestra.agents.nn.distributions import Categorical
from palaestra.agents.nn.flat_parameters import flat_values
from palaestra.agents.training.natural_gradient import Source, natural_gradient_step
from palaestra.agents.training.trust_region import TrustRegion, TrustRegionStep

EXACT = TrustRegion(radius=0.01, iterations=50, damping=0.0, shrink=0.8, backtracks=10)
ADVANTAGE = torch.tensor([[1.0, -0.5, 0.25], [0.2, 0.1, -0.4]], dtype=torch.float64)


def table() -> nn.Parameter:
    """Logits of two states and three actions."""
    return nn.Parameter(torch.tensor([[0.4, -0.2, 0.0], [0.3, 1.0, -0.5]], dtype=torch.float64))


def step(logits: nn.Parameter, sources: list[Source]) -> TrustRegionStep:
    def policy_of(observation: Any, mask: Tensor | None) -> Categorical:
        return Categorical(logits[observation], mask)

    return natural_gradient_step([logits], policy_of, sources, EXACT)


def rows(logits: nn.Parameter, weight: float, pairs: list[tuple[int, int]], scale: float = 1.0) -> Source:
    """Rows of (state, action), with exact advantages against the policy as it is."""
    states, actions = (torch.tensor(column) for column in zip(*pairs, strict=True))
    probs = logits.detach().softmax(-1)
    centred = ADVANTAGE - (probs * ADVANTAGE).sum(-1, keepdim=True)
    return Source(weight, states, None, actions, scale * centred[states, actions])


EVERY = [(state, action) for state in range(2) for action in range(3)]


@pytest.mark.parametrize("repeats", [[], [(0, 0), (0, 0), (1, 2)]])
def test_step_of_a_table_is_one_of_exponential_weights(repeats: list[tuple[int, int]]) -> None:
    """log pi' - log pi = eta A + a constant of each state, however often each action was drawn."""
    logits = table()
    before = logits.detach().log_softmax(-1)
    taken = step(logits, [rows(logits, 1.0, EVERY + repeats)])
    assert taken.accepted
    change = logits.detach().log_softmax(-1) - before
    eta = (change[0, 0] - change[0, 1]) / (ADVANTAGE[0, 0] - ADVANTAGE[0, 1])
    assert float(eta) > 0.0
    weighted = change - eta * ADVANTAGE
    torch.testing.assert_close(weighted, weighted[:, :1].expand(2, 3), atol=1e-8, rtol=0.0)


def test_sources_count_by_their_weights_and_not_by_their_rows() -> None:
    """Splitting rows into two sources of equal means changes nothing; a weight of 0 takes a source away."""
    moved = []
    for split in (
        lambda logits: [rows(logits, 1.0, EVERY)],
        lambda logits: [rows(logits, 0.5, EVERY), rows(logits, 0.5, EVERY * 3)],
        lambda logits: [rows(logits, 2.0, EVERY), rows(logits, 0.0, EVERY, scale=-7.0)],
    ):
        logits = table()
        step(logits, split(logits))
        moved.append(flat_values([logits]))
    torch.testing.assert_close(moved[1], moved[0], atol=1e-9, rtol=0.0)
    torch.testing.assert_close(moved[2], moved[0], atol=1e-9, rtol=0.0)


def test_divergence_stays_within_the_radius() -> None:
    logits = table()
    source = rows(logits, 1.0, EVERY)
    taken = step(logits, [source])
    assert 0.005 < float(taken.divergence) <= 0.01
    assert float(taken.objective) > float(source.advantage.mean())
