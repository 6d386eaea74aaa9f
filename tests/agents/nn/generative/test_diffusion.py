"""Diffusions against closed forms: schedules, posteriors, chains of Gaussians, warm starts, a known mixture."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from palaestra.agents.nn.generative.diffusion import DiffusionHead
from palaestra.agents.nn.generative.generative_actor import generate, propose_actions
from palaestra.agents.nn.generative.schedules import SCHEDULES, Schedule
from tests.agents.generative_laboratory import (
    NOTHING,
    Known,
    distance_to_mixture,
    gaussian_noise_prediction,
    trained,
    zeros,
)

LEVELS = 8


@pytest.fixture(autouse=True)
def _double_precision() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def random_head(**options: object) -> DiffusionHead:
    torch.manual_seed(0)
    return DiffusionHead(NOTHING, 2, (16, 16), "tanh", levels=LEVELS, **options)  # type: ignore[arg-type]


def observations(count: int) -> torch.Tensor:
    return torch.linspace(-1.0, 1.0, count).unsqueeze(-1)


def chain_noise(count: int, levels: int = LEVELS, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, levels + 1, 2, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("levels", [1, 5, 20, 1000])
def test_schedules_end_in_noise_and_preserve_variance(name: str, levels: int) -> None:
    schedule = Schedule(name, levels)
    np.testing.assert_allclose(schedule.signal**2 + schedule.noise**2, 1.0, atol=1e-12)
    assert schedule.signal[0] == 1.0
    assert np.all(np.diff(schedule.signal) < 0.0)
    if levels > 1:
        assert schedule.signal[-1] < 0.1


def test_schedules_have_their_closed_forms() -> None:
    """VP: alpha_bar_K = exp(-0.1 - 9.9 / 2) for every K; linear: DDPM's at 1,000 levels; cosine: half at about half."""
    for levels in (1, 7, 50):
        assert Schedule("vp", levels).signal[-1] ** 2 == pytest.approx(math.exp(-5.05), rel=1e-12)
    ddpm = np.cumprod(1.0 - np.linspace(1e-4, 0.02, 1000))
    np.testing.assert_allclose(Schedule("linear", 1000).signal[1:] ** 2, ddpm, rtol=1e-12)
    expected = (math.cos(0.508 / 1.008 * math.pi / 2.0) / math.cos(0.008 / 1.008 * math.pi / 2.0)) ** 2
    assert Schedule("cosine", 10).signal[5] ** 2 == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
def test_ddim_with_eta_1_on_all_steps_has_the_ddpm_posterior(name: str) -> None:
    """beta_tilde = (1 - ab') / (1 - ab) beta, and the mean's two weights; without noise in the last step."""
    schedule = Schedule(name, 20)
    share = schedule.signal**2
    now, after = share[1:], share[:-1]
    beta = 1.0 - now / after
    np.testing.assert_allclose(schedule.std[1:] ** 2, (1.0 - after) / (1.0 - now) * beta, atol=1e-12)
    np.testing.assert_allclose(schedule.of_action[1:], np.sqrt(after) * beta / (1.0 - now), atol=1e-10)
    np.testing.assert_allclose(schedule.of_point[1:], np.sqrt(now / after) * (1.0 - after) / (1.0 - now), atol=1e-10)
    assert schedule.std[1] == 0.0
    assert not Schedule(name, 20, eta=0.0).std.any()


def test_forward_marginals_have_their_moments() -> None:
    policy = random_head()(observations(1).expand(100_000, 1))
    generator = torch.Generator().manual_seed(0)
    action, noise = torch.full((100_000, 2), 0.7), torch.randn(100_000, 2, generator=generator)
    for level in (1, 4, LEVELS):
        x = policy.noised(action, noise, torch.full((100_000,), level))
        signal, std = policy.head.schedule.signal[level], policy.head.schedule.noise[level]
        assert float(x.mean()) == pytest.approx(0.7 * signal, abs=0.01)
        assert float(x.std()) == pytest.approx(std, rel=0.01)


def test_loss_is_the_error_of_the_predicted_noise() -> None:
    head, level = random_head(), torch.tensor([1, 4, 8])
    action, noise = torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(0))
    x = head.signal[level, None] * action + head.noise[level, None] * noise
    expected = (noise - head.noise_prediction(observations(3), x, level)).square().mean(-1)
    torch.testing.assert_close(head.loss(observations(3), action, noise, level), expected)


@pytest.mark.parametrize("min_std", [0.0, 0.1])
def test_log_probs_of_a_chain_are_those_of_its_noise(min_std: float) -> None:
    """A step adds std eps to its mean, so that its log-density is that of eps less log std per dimension."""
    head, noise = random_head(), chain_noise(5)
    chain = head.chain(observations(5), noise, min_std=min_std)
    assert chain.shape == (5, LEVELS + 1, 2)
    last = 1 if min_std else 2
    std = np.maximum(head.schedule.std[LEVELS : last - 1 : -1], min_std)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(noise[:, 1 : LEVELS - last + 2]).sum(-1)
    expected = expected - 2.0 * torch.as_tensor(std).log()
    found = head.chain_log_prob(observations(5), chain, LEVELS, last, min_std)
    torch.testing.assert_close(found, expected)
    middle = head.chain_log_prob(observations(5), chain, 5, 3, min_std)
    torch.testing.assert_close(middle, found[:, LEVELS - 5 : LEVELS - 2])
    assert middle.requires_grad


def test_samples_without_gradients_are_those_with() -> None:
    head, noise = random_head(), chain_noise(5)
    slow = head.sample(observations(5), noise)
    with torch.no_grad():
        fast = head.sample(observations(5), noise)
    assert slow.requires_grad
    torch.testing.assert_close(fast, slow.detach(), atol=1e-12, rtol=1e-12)


def test_gradients_flow_through_the_whole_chain() -> None:
    """Finite differences in the noise that a chain starts from."""
    head, noise = random_head(clip=None), chain_noise(1).requires_grad_()
    (gradient,) = torch.autograd.grad(head.sample(observations(1), noise).sum(), noise)
    step = torch.zeros_like(noise)
    step[0, 0, 0] = 1e-6
    with torch.no_grad():
        ends = [head.sample(observations(1), noise + sign * step).sum() for sign in (1.0, -1.0)]
    assert float(gradient[0, 0, 0]) == pytest.approx(float(ends[0] - ends[1]) / 2e-6, rel=1e-5)
    assert float(gradient[0, 0, 0].abs()) > 1e-4


def test_a_warm_start_from_a_chain_s_own_point_ends_where_the_chain_does() -> None:
    head, noise = random_head(), chain_noise(5)
    chain = head.chain(observations(5), noise)
    for level in range(LEVELS + 1):
        reached = head.sample(observations(5), noise, init=chain[:, LEVELS - level], from_level=level)
        torch.testing.assert_close(reached, chain[:, -1])
    with pytest.raises(ValueError, match="from_level=3, init=none; expected a level from 0 to 8, and an init below 8"):
        head.sample(observations(5), noise, from_level=3)
    with pytest.raises(ValueError, match="from_level=9"):
        head.sample(observations(5), noise, init=noise[:, 0], from_level=9)


def test_two_guesses_approach_each_other_by_the_factor_of_a_gaussian_denoiser() -> None:
    """In DDIM's form and in units of the signal: q + (1 - q) s^2 / (s^2 + sigma^2), q = sigma' / sigma."""
    std, level = 0.3, 5
    head = random_head(clip=None, eta=0.0)
    head.network = Known(gaussian_noise_prediction(0.5, std, head.signal, head.noise))  # type: ignore[assignment]
    guesses = torch.tensor([[0.2, -1.0], [0.9, 2.0]])
    chain = head.chain(observations(2), chain_noise(2), init=guesses, from_level=level)
    for step, now in enumerate(range(level, 0, -1)):
        signal, sigma = head.schedule.signal, head.schedule.noise / head.schedule.signal
        q = sigma[now - 1] / sigma[now]
        factor = q + (1.0 - q) * std**2 / (std**2 + sigma[now] ** 2)
        before = (chain[0, step] - chain[1, step]) / signal[now]
        after = (chain[0, step + 1] - chain[1, step + 1]) / signal[now - 1]
        torch.testing.assert_close(after, factor * before)


def test_an_exact_denoiser_of_a_gaussian_samples_it() -> None:
    """The ancestral chain's variance follows a linear recursion, and tends to the data's as one over the levels."""
    mean, std, errors = 0.4, 0.25, []
    for levels in (50, 100):
        head = DiffusionHead(NOTHING, 1, (4,), levels=levels, clip=None)
        predict = gaussian_noise_prediction(mean, std, head.signal, head.noise)
        head.network = Known(predict)  # type: ignore[assignment]
        variance = 1.0
        for level in range(levels, 0, -1):
            points = torch.tensor([[0.0], [1.0]])
            ends = head.next_mean(points, predict(points, torch.tensor(level / levels)), level)
            variance = float(ends[1] - ends[0]) ** 2 * variance + head.schedule.std[level] ** 2
        errors.append(abs(math.sqrt(variance) / std - 1.0))
        noise = torch.randn(20_000, levels + 1, 1, generator=torch.Generator().manual_seed(0))
        samples = head.sample(zeros(20_000, torch.float64), noise)
        assert float(samples.std()) == pytest.approx(math.sqrt(variance), rel=0.02)
        assert float(samples.mean()) == pytest.approx(mean, abs=0.02)
    assert errors[1] == pytest.approx(errors[0] / 2.0, rel=0.15)


def test_clipped_samples_stay_in_the_box() -> None:
    head = random_head()
    for parameter in head.parameters():
        parameter.data.mul_(5.0)
    samples = head.sample(observations(200), chain_noise(200))
    assert samples.detach().abs().max() == 1.0


def test_one_candidate_is_the_action() -> None:
    head = random_head()
    one = propose_actions(head, observations(5), 1, torch.Generator().manual_seed(3))
    assert torch.equal(one[:, 0], generate(head, observations(5), torch.Generator().manual_seed(3)))
    assert propose_actions(head, observations(5), 3, torch.Generator().manual_seed(3)).shape == (5, 3, 2)
    assert torch.equal(generate(head, observations(5), None), head.sample(observations(5), torch.zeros(5, 9, 2)))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_head_trained_on_a_mixture_yields_the_mixture(schedule: str) -> None:
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    head = DiffusionHead(NOTHING, 1, (64, 64), levels=50, schedule=schedule)
    head = trained(head, lambda g: torch.randint(1, 51, (256,), generator=g))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        samples = head.sample(zeros(4000), torch.randn(4000, 51, 1, generator=generator))
    assert distance_to_mixture(samples) < 0.06


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("square", 5), "name='square'; expected one of cosine, vp, linear"),
        (("vp", 0), "levels=0; expected an integer of at least 1"),
        (("vp", 5, 2.0), r"eta=2.0; expected a number in \[0, 1\]"),
    ],
)
def test_bad_schedules_are_refused(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Schedule(*arguments)  # type: ignore[arg-type]
