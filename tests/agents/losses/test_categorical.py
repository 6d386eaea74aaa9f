"""The projection onto fixed atoms conserves mass and mean."""

from __future__ import annotations

import torch

from palaestra.agents.losses.categorical import project

SUPPORT = torch.linspace(-2.0, 3.0, 11, dtype=torch.float64)


def given(rows: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    values = 5.0 * torch.rand(rows, 7, generator=generator, dtype=torch.float64) - 2.0
    return values, torch.randn(rows, 7, generator=generator, dtype=torch.float64).softmax(-1)


def test_mass_and_inside_the_support_the_mean_are_conserved() -> None:
    values, probs = given()
    projected = project(values, probs, SUPPORT)
    assert projected.shape == (64, 11)
    assert bool((projected >= 0.0).all())
    torch.testing.assert_close(projected.sum(-1), torch.ones(64, dtype=torch.float64))
    torch.testing.assert_close((projected * SUPPORT).sum(-1), (probs * values).sum(-1))


def test_equals_the_triangular_kernel_of_every_atom() -> None:
    values, probs = given()
    values = 2.0 * values
    distance = (values.clamp(-2.0, 3.0).unsqueeze(-1) - SUPPORT).abs() / 0.5
    expected = (probs.unsqueeze(-1) * (1.0 - distance).clamp(min=0.0)).sum(-2)
    torch.testing.assert_close(project(values, probs, SUPPORT), expected)


def test_atoms_stay_and_what_lies_outside_counts_as_the_ends() -> None:
    for atom in range(11):
        hot = project(SUPPORT[atom : atom + 1], torch.ones(1, dtype=torch.float64), SUPPORT)
        torch.testing.assert_close(hot, torch.eye(11, dtype=torch.float64)[atom], atol=1e-12, rtol=0.0)
    outside = project(torch.tensor([[-9.0, 40.0]]), torch.tensor([[0.25, 0.75]]), SUPPORT.float())
    assert outside[0].tolist() == [0.25, *[0.0] * 9, 0.75]


def test_a_number_becomes_two_hot() -> None:
    hot = project(torch.tensor([0.1]), torch.ones(1), SUPPORT.float())
    assert int((hot > 0.0).sum()) == 2
    torch.testing.assert_close(hot[4:6], torch.tensor([0.8, 0.2]))
