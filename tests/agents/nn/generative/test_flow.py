"""Flows against closed forms: Gaussian data, densities of discretised maps, a known mixture."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces

from palaestra.agents.nn.generative.flow import FlowHead
from palaestra.agents.nn.generative.generative_actor import generate, propose_actions
from palaestra.agents.nn.generative.time_embedding import time_features
from tests.agents.generative_laboratory import NOTHING, Known, distance_to_mixture, gaussian_velocity, trained, zeros

DICT = spaces.Dict({"image": spaces.Box(0, 255, (8, 8, 3), np.uint8), "speed": spaces.Box(-1, 1, (2,), np.float32)})


def gaussian_head(mean: float, std: float, steps: int) -> FlowHead:
    head = FlowHead(NOTHING, 1, (4,), steps=steps).double()
    head.network = Known(gaussian_velocity(mean, std))  # type: ignore[assignment]
    return head


def random_head(action_dim: int = 2, steps: int = 6, activation: str = "tanh", trunk: str = "mlp") -> FlowHead:
    torch.manual_seed(0)
    return FlowHead(NOTHING, action_dim, (16, 16), activation, steps=steps, trunk=trunk).double()


def test_the_exact_field_carries_noise_to_the_gaussian() -> None:
    """Its flow is z -> m + s z, and the error of Euler's method halves with its steps."""
    noise = torch.linspace(-2.0, 2.0, 9, dtype=torch.float64).unsqueeze(-1)
    observation = zeros(9, torch.float64)
    errors = []
    for steps in (200, 400):
        reached = gaussian_head(0.5, 0.3, steps).sample(observation, noise)
        errors.append(float((reached - (0.5 + 0.3 * noise)).abs().max()))
    assert errors[1] < 0.01
    assert errors[1] == pytest.approx(errors[0] / 2.0, rel=0.05)


@pytest.mark.parametrize("t", [0.0, 0.3, 0.8])
def test_loss_of_the_exact_field_is_the_conditional_variance(t: float) -> None:
    """Var(a - z | x_t) = s^2 + 1 - (t s^2 - (1 - t))^2 / D, and no other multiple of the field has less loss."""
    mean, std, count = 0.5, 0.3, 200_000
    generator = torch.Generator().manual_seed(1)
    action = mean + std * torch.randn(count, 1, generator=generator, dtype=torch.float64)
    noise = torch.randn(count, 1, generator=generator, dtype=torch.float64)
    time, observation = torch.full((count,), t, dtype=torch.float64), zeros(count, torch.float64)
    head = gaussian_head(mean, std, 10)
    losses = []
    for scale in (0.8, 1.0, 1.2):
        head.output_scale = scale
        losses.append(float(head.loss(observation, action, noise, time).mean()))
    variance = (1.0 - t) ** 2 + t**2 * std**2
    assert losses[1] == pytest.approx(std**2 + 1.0 - (t * std**2 - (1.0 - t)) ** 2 / variance, rel=0.01)
    assert losses[1] == min(losses)


def test_loss_is_that_of_the_straight_path() -> None:
    head, generator = random_head(), torch.Generator().manual_seed(0)
    action, noise = torch.randn(2, 5, 2, generator=generator, dtype=torch.float64)
    time = torch.rand(5, generator=generator, dtype=torch.float64)
    x = (1.0 - time.unsqueeze(-1)) * noise + time.unsqueeze(-1) * action
    expected = (action - noise - head.velocity(zeros(5, torch.float64), x, time)).square().mean(-1)
    torch.testing.assert_close(head.loss(zeros(5, torch.float64), action, noise, time), expected)


def test_several_draws_of_a_row_are_evaluated_as_rows() -> None:
    head, generator = random_head(), torch.Generator().manual_seed(0)
    action = torch.randn(4, 2, generator=generator, dtype=torch.float64)
    noise = torch.randn(4, 3, 2, generator=generator, dtype=torch.float64)
    time = torch.rand(4, 3, generator=generator, dtype=torch.float64)
    together = head.loss(zeros(4, torch.float64), action, noise, time)
    assert together.shape == (4, 3)
    for draw in range(3):
        alone = head.loss(zeros(4, torch.float64), action, noise[:, draw], time[:, draw])
        torch.testing.assert_close(together[:, draw], alone, atol=1e-12, rtol=1e-12)


def test_log_likelihood_of_an_affine_map_is_exact() -> None:
    """Euler's steps of the linear field are affine: a = A z + B, a normal distribution."""
    head = gaussian_head(0.5, 0.3, 10)
    ends = head.sample(zeros(2, torch.float64), torch.tensor([[0.0], [1.0]], dtype=torch.float64))
    offset, slope = ends[0], ends[1] - ends[0]
    action = torch.linspace(-1.0, 2.0, 7, dtype=torch.float64).unsqueeze(-1)
    expected = torch.distributions.Normal(offset, slope.abs()).log_prob(action).sum(-1)
    found = head.log_likelihood(zeros(7, torch.float64), action)
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("action_dim", [1, 2, 3])
def test_log_likelihood_is_the_change_of_variables_of_samples(action_dim: int) -> None:
    """log p(a) = log N(z) - log |det da/dz| at a = a(z), the whole map differentiated at once."""
    head = random_head(action_dim)
    noise = torch.randn(6, action_dim, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for row in noise:
        jacobian = torch.autograd.functional.jacobian(lambda z: head.sample(zeros(1, torch.float64), z[None])[0], row)
        density = torch.distributions.Normal(0.0, 1.0).log_prob(row).sum() - torch.linalg.slogdet(jacobian)[1]
        action = head.sample(zeros(1, torch.float64), row[None]).detach()
        found = head.log_likelihood(zeros(1, torch.float64), action)
        torch.testing.assert_close(found, density[None], atol=1e-4, rtol=1e-4)


def test_likelihood_of_a_learnt_flow_integrates_to_one() -> None:
    head = random_head(1, steps=8)
    grid = torch.linspace(-8.0, 8.0, 2001, dtype=torch.float64).unsqueeze(-1)
    density = head.log_likelihood(zeros(2001, torch.float64), grid).exp()
    assert float(torch.trapezoid(density, grid[:, 0])) == pytest.approx(1.0, abs=1e-4)


def test_actions_that_no_noise_is_carried_to_have_no_likelihood() -> None:
    """With v = -n x a single step takes everything to 0."""
    head = FlowHead(NOTHING, 1, (4,), steps=1).double()
    head.network = Known(lambda x, t: -x)  # type: ignore[assignment]
    found = head.log_likelihood(zeros(2, torch.float64), torch.tensor([[0.0], [0.5]], dtype=torch.float64))
    assert math.isnan(float(found[1]))


@pytest.mark.parametrize("activation", ["relu", "tanh", "silu"])
@pytest.mark.parametrize("trunk", ["mlp", "simba", "bronet"])
def test_samples_without_gradients_are_those_with(activation: str, trunk: str) -> None:
    """The first layer's share of observation and time, computed once, changes nothing but rounding."""
    head = random_head(activation=activation, trunk=trunk)
    observation = torch.randn(7, 1, dtype=torch.float64)
    noise = torch.randn(7, 2, dtype=torch.float64)
    slow = head.sample(observation, noise)
    with torch.no_grad():
        fast = head.sample(observation, noise)
    assert slow.requires_grad
    torch.testing.assert_close(fast, slow.detach(), atol=1e-12, rtol=1e-12)


def test_encoders_of_all_observations_serve() -> None:
    """A policy of images and vectors: observations matter, and rows do not mix."""
    torch.manual_seed(0)
    head = FlowHead(DICT, 2, (16,), "relu")
    generator = torch.Generator().manual_seed(0)
    observation = {
        "image": torch.randint(0, 10, (3, 8, 8, 3), dtype=torch.uint8, generator=generator),
        "speed": torch.randn(3, 2, generator=generator),
    }
    noise = torch.randn(1, 2, generator=generator).expand(3, 2)
    together = head.sample(observation, noise)
    assert float((together[0] - together[1]).abs().max()) > 1e-4
    alone = head.sample({key: value[1:2] for key, value in observation.items()}, noise[:1])
    torch.testing.assert_close(together[1:2], alone)


def test_one_candidate_is_the_action_and_observations_are_encoded_once() -> None:
    head = FlowHead(NOTHING, 2, (8,))
    observation = torch.randn(5, 1, generator=torch.Generator().manual_seed(0))

    def drawn(count: int) -> torch.Tensor:
        return propose_actions(head, observation, count, torch.Generator().manual_seed(3))

    assert torch.equal(drawn(1)[:, 0], generate(head, observation, torch.Generator().manual_seed(3)))
    encoded: list[int] = []
    head.network.encoder.register_forward_hook(lambda module, given, output: encoded.append(len(output)))
    assert drawn(4).shape == (5, 4, 2)
    assert encoded == [5]
    assert torch.equal(generate(head, observation, None), head.sample(observation, torch.zeros(5, 2)))


def test_a_head_trained_on_a_mixture_yields_the_mixture() -> None:
    torch.manual_seed(0)
    head = trained(FlowHead(NOTHING, 1, (64, 64), steps=20), lambda g: torch.rand(256, generator=g))
    with torch.no_grad():
        samples = head.sample(zeros(4000), torch.randn(4000, 1, generator=torch.Generator().manual_seed(1)))
        untrained = FlowHead(NOTHING, 1, (64, 64)).sample(zeros(4000), torch.randn(4000, 1))
    assert distance_to_mixture(untrained) > 0.3
    assert distance_to_mixture(samples) < 0.06


def test_time_features_are_distinct_and_bounded() -> None:
    features = time_features(torch.linspace(0.0, 1.0, 101, dtype=torch.float64), 16)
    assert features.shape == (101, 16)
    distances = torch.cdist(features, features) + 10.0 * torch.eye(101, dtype=torch.float64)
    assert float(distances.min()) > 0.1
    torch.testing.assert_close(features[:, :8].square() + features[:, 8:].square(), torch.ones(101, 8).double())


def test_bad_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="steps=0; expected an integer of at least 1"):
        FlowHead(NOTHING, 1, (4,), steps=0)
