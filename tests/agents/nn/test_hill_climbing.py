"""Hill climbing against closed forms and torch's own Adam."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from palaestra.agents.nn.hill_climbing import EPS, adam_climb, hill_climb, value_gradient

TOP = torch.tensor([0.3, -0.6])


def parabola(action: Tensor) -> Tensor:
    """A concave value with its top at `TOP`."""
    return -(action - TOP).square().sum(-1)


def starts(rows: int = 32) -> Tensor:
    return 2.0 * torch.rand(rows, 2, generator=torch.Generator().manual_seed(0)) - 1.0


def test_value_gradient_is_that_of_every_row_alone() -> None:
    values, gradient = value_gradient(parabola, starts())
    torch.testing.assert_close(values, parabola(starts()))
    torch.testing.assert_close(gradient, -2.0 * (starts() - TOP))
    assert not gradient.requires_grad
    assert not values.requires_grad


def test_linear_value_moves_exactly_steps_times_step_size_times_slope() -> None:
    slope = torch.tensor([0.5, -0.25])
    start = torch.zeros(3, 2)
    action, value = hill_climb(lambda a: a @ slope, start, steps=10, step_size=0.1)
    torch.testing.assert_close(action, (10 * 0.1 * slope).expand(3, 2))
    torch.testing.assert_close(value, action @ slope)


def test_steps_are_clipped_to_the_box() -> None:
    action, _ = hill_climb(lambda a: a.sum(-1), starts(), steps=50, step_size=0.1)
    assert torch.equal(action, torch.ones(32, 2))


def test_no_steps_return_the_start() -> None:
    action, value = hill_climb(parabola, starts(), 0, 0.1)
    assert torch.equal(action, starts())
    assert torch.equal(value, parabola(starts()))
    assert torch.equal(adam_climb(parabola, starts(), 0, 0.03, 0.2), starts())


@pytest.mark.parametrize("step_size", [0.1, 1.5])
def test_value_of_the_result_is_at_least_that_of_the_start(step_size: float) -> None:
    """Steps of 1.5 overshoot a parabola of curvature 2: the start is then the best place."""
    action, value = hill_climb(parabola, starts(), 5, step_size)
    assert (value >= parabola(starts())).all()
    torch.testing.assert_close(value, parabola(action))


def test_adam_climb_converges_to_the_argmax_of_a_concave_value() -> None:
    action = starts()
    for _ in range(10):
        action = adam_climb(parabola, action, 20, 0.03, 0.2)
    torch.testing.assert_close(action, TOP.expand(32, 2), atol=0.03, rtol=0.0)


def test_adam_climb_equals_torchs_adam_with_clipped_gradients() -> None:
    expected = starts().clone().requires_grad_()
    optimizer = torch.optim.Adam([expected], lr=0.03, eps=EPS)
    for _ in range(20):
        optimizer.zero_grad()
        (-parabola(expected)).sum().backward()
        torch.nn.utils.clip_grad_norm_([expected], 0.2)
        optimizer.step()
        with torch.no_grad():
            expected.clamp_(-1.0, 1.0)
    torch.testing.assert_close(adam_climb(parabola, starts(), 20, 0.03, 0.2), expected.detach())


def test_the_memory_layout_of_the_gradient_does_not_matter() -> None:
    """Critics return gradients by (s, a) of which those by a are a strided view."""
    observation = torch.randn(32, 3, generator=torch.Generator().manual_seed(1))

    def value(action: Tensor) -> Tensor:
        both = torch.cat([observation, action], -1)
        return parabola(both.t()[3:].t())

    torch.testing.assert_close(
        adam_climb(value, starts(), 20, 0.03, 0.2), adam_climb(parabola, starts(), 20, 0.03, 0.2)
    )


def test_the_start_is_left_alone() -> None:
    action = starts()
    adam_climb(parabola, action, 3, 0.03, 0.2)
    hill_climb(parabola, action, 3, 0.1)
    assert torch.equal(action, starts())
