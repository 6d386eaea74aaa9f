"""Edits: the density of an edited action, its support, and its mode."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces

from palaestra.agents.nn.edits import EditActor

SPACE = spaces.Box(-1.0, 1.0, (3,), np.float32)


def editor(scale: float, dim: int = 1) -> EditActor:
    torch.manual_seed(0)
    return EditActor(SPACE, dim, (16,), scale)


@pytest.mark.parametrize("scale", [0.05, 0.7, 2.0])
def test_density_of_edited_actions_integrates_to_one(scale: float) -> None:
    """Only with the term -action_dim log(scale), over a - scale to a + scale."""
    action = torch.tensor([[0.3]])
    edits = editor(scale)(torch.zeros(1, 3), action)
    cells = 20_000
    place = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells * 2.0 - 1.0
    density = edits.log_prob(action.double() + scale * place[:, None]).exp()
    assert float(density.detach().sum() * 2.0 * scale / cells) == pytest.approx(1.0, abs=1e-3)


def test_log_density_of_samples_is_that_of_what_was_sampled() -> None:
    actor = editor(0.1, 2)
    action = torch.rand(50, 2) - 0.5
    edits = actor(torch.randn(50, 3), action)
    edited, log_prob = edits.sample_with_log_prob(torch.Generator().manual_seed(0))
    torch.testing.assert_close(edits.log_prob(edited), log_prob, atol=2e-3, rtol=2e-3)
    assert ((edited - action).abs() <= 0.1 + 1e-6).all()
    assert edits.log_volume == pytest.approx(2 * math.log(0.1))


def test_edited_actions_stay_in_the_box_and_the_mode_is_the_edit_of_no_noise() -> None:
    actor = editor(2.0, 2)
    action = torch.tensor([[0.9, -0.9]]).expand(100, -1)
    edits = actor(torch.randn(100, 3), action)
    drawn = edits.sample(torch.Generator().manual_seed(0))
    assert (drawn.abs() <= 1.0).all()
    assert (drawn.abs() == 1.0).any()
    torch.testing.assert_close(edits.sample(None), (action + 2.0 * torch.tanh(edits.edit.mean)).clamp(-1.0, 1.0))


def test_edits_depend_on_the_action_that_is_edited() -> None:
    actor = editor(0.5, 2)
    one, other = (actor(torch.zeros(1, 3), torch.full((1, 2), side)).edit.mean for side in (-0.5, 0.5))
    assert not torch.allclose(one, other)
