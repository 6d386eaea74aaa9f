"""Flow policies' ratios and a denoising chain's, against densities that are known exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from palaestra.agents.losses.chain_ratio import ChainRatio
from palaestra.agents.losses.flow_ratios import FlowMatchingRatio, VelocityRatio, path
from palaestra.agents.losses.surrogates import clipped_surrogate
from palaestra.agents.nn.distributions import DiagonalGaussian
from palaestra.agents.nn.generative.diffusion import DiffusionHead
from palaestra.agents.nn.generative.fine_tuned import FineTunedDiffusion
from palaestra.agents.nn.generative.flow import FlowHead, FlowPolicy
from palaestra.agents.nn.generative.noisy_flow import NoisyFlow
from tests.agents.generative_laboratory import NOTHING, Known, gaussian_velocity, zeros

BATCH = 40
DOUBLE = torch.float64


def gaussian_flow(mean: float, std: float, batch: int = BATCH, steps: int = 10) -> FlowPolicy:
    head = FlowHead(NOTHING, 1, (4,), steps=steps).double()
    head.network = Known(gaussian_velocity(mean, std))  # type: ignore[assignment]
    return head(zeros(batch, DOUBLE))


def random_flow(seed: int = 0) -> FlowPolicy:
    torch.manual_seed(seed)
    return FlowHead(NOTHING, 2, (16,), "tanh").double()(zeros(BATCH, DOUBLE))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_flow_matching_ratio_is_one_only_with_the_draws_that_were_kept() -> None:
    provider, policy = FlowMatchingRatio(4), random_flow()
    drawn = provider.draw(policy, generator())
    kept = {**drawn, **provider.old_stats(policy, drawn)}
    assert not provider.log_ratio(policy, kept).any()
    anew = provider.draw(policy, generator(1))
    assert float(provider.log_ratio(policy, {**kept, "noise": anew["noise"]}).detach().abs().min()) > 1e-4


def test_noise_supervision_is_the_error_of_the_noise_that_the_velocity_predicts() -> None:
    """In the paper's time u = 1 - t with velocity w = -v: eps - (x - u w + w), squared, is t^2 times the velocity's."""
    policy = random_flow()
    drawn = FlowMatchingRatio(4).draw(policy, generator())
    noise, u = drawn["noise"], 1.0 - drawn["time"].unsqueeze(-1)
    action = drawn["action"].unsqueeze(1)
    x = u * noise + (1.0 - u) * action
    w = -policy.velocity(x, drawn["time"])
    clean = x - u * w
    expected = (noise - (clean + w)).square().mean(-1)
    torch.testing.assert_close(FlowMatchingRatio(4).losses(policy, drawn), expected)


def test_flow_matching_draws_lie_on_the_grid_of_the_sampler() -> None:
    time = FlowMatchingRatio(50).draw(random_flow(), generator())["time"]
    assert sorted(set((10 * time).flatten().tolist())) == list(range(10))


def test_an_advantage_of_one_everywhere_is_flow_matching_descent() -> None:
    """At unchanged parameters the surrogate's gradient is the loss's own."""
    provider, policy = FlowMatchingRatio(4, "velocity"), random_flow()
    drawn = provider.draw(policy, generator())
    kept = {name: value.detach() for name, value in {**drawn, **provider.old_stats(policy, drawn)}.items()}
    weights = list(policy.head.parameters())
    surrogate = clipped_surrogate(provider.log_ratio(policy, kept), torch.ones(BATCH, dtype=DOUBLE), 0.05)
    ours = torch.autograd.grad(surrogate, weights)
    for gradient, expected in zip(
        ours, torch.autograd.grad(provider.losses(policy, kept).mean(), weights), strict=True
    ):
        torch.testing.assert_close(gradient, expected)


def test_differences_of_single_draws_are_kept_within_three() -> None:
    policy = random_flow()
    provider = FlowMatchingRatio(4, "velocity", each_draw=True)
    drawn = provider.draw(policy, generator())
    kept = {**drawn, "flow_loss": provider.losses(policy, drawn) + torch.tensor([10.0, 1.0, 0.0, -10.0])}
    log_ratio = provider.log_ratio(policy, kept).detach()
    expected = torch.tensor([3.0, 1.0, 0.0, -3.0], dtype=DOUBLE).expand(BATCH, 4)
    torch.testing.assert_close(log_ratio, expected)


def expected_loss(action: np.ndarray, mean: float, std: float, steps: int, noise_supervision: bool) -> np.ndarray:
    """E over z and the grid of times of the loss at an action, for the exact field of N(mean, std^2)."""
    total = np.zeros_like(action)
    for t in np.arange(steps) / steps:
        variance = (1.0 - t) ** 2 + t**2 * std**2
        slope = (t * std**2 - (1.0 - t)) / variance
        # a - z - v((1 - t) z + t a) = constant + of_noise z.
        constant = action - mean - slope * (t * action - t * mean)
        of_noise = -1.0 - slope * (1.0 - t)
        total += (constant**2 + of_noise**2) * (t**2 if noise_supervision else 1.0)
    return total / steps


@pytest.mark.parametrize("supervision", ["noise", "velocity"])
def test_gap_of_the_flow_matching_ratio_to_the_densities_of_gaussians(supervision: str) -> None:
    """From N(0.2, 0.5^2) to N(0.3, 0.5^2) the expected ratio has its closed form, which is not that of the densities.

    The gap to log N'(a) - log N(a) is what bounds of likelihoods leave: the ratio has the right sign, where the
    densities differ, but another slope.
    """
    actions = np.array([-0.8, -0.3, 0.2, 0.7, 1.2])
    old, new = (0.2, 0.5), (0.3, 0.5)
    draws = 40_000
    provider = FlowMatchingRatio(draws, supervision)  # type: ignore[arg-type]
    policies = [gaussian_flow(*moments, batch=5, steps=20) for moments in (old, new)]
    drawn = {**provider.draw(policies[0], generator()), "action": torch.as_tensor(actions).unsqueeze(-1)}
    kept = {**drawn, **provider.old_stats(policies[0], drawn)}
    found = provider.log_ratio(policies[1], kept).numpy()
    noise = supervision == "noise"
    expected = expected_loss(actions, *old, 20, noise) - expected_loss(actions, *new, 20, noise)
    np.testing.assert_allclose(found, expected, atol=0.01)
    exact = ((actions - old[0]) ** 2 - (actions - new[0]) ** 2) / (2.0 * 0.5**2)
    decided = np.abs(exact) > 0.05
    assert np.array_equal(np.sign(expected[decided]), np.sign(exact[decided]))
    assert np.abs(expected - exact).max() > 0.05


def noisy(flow: FlowPolicy, log_std: float = -1.0) -> NoisyFlow:
    return NoisyFlow(flow, torch.full((flow.head.action_dim,), log_std, dtype=DOUBLE))


def exact_log_ratio(new: NoisyFlow, old: NoisyFlow, batch: dict[str, Tensor]) -> Tensor:
    latent, action = batch["latent"], batch["action"]
    return new.log_prob_given(latent, action) - old.log_prob_given(latent, action)


def drawn_with(provider: VelocityRatio, old: NoisyFlow) -> dict[str, Tensor]:
    drawn = provider.draw(old, generator())
    return {**drawn, **provider.old_stats(old, drawn)}


@pytest.mark.parametrize("times", [1, 4])
def test_velocity_ratio_of_constant_velocities_is_exact_given_the_latent(times: int) -> None:
    """Whatever the deviations are."""

    def constant(velocity: float, log_std: float) -> NoisyFlow:
        head = FlowHead(NOTHING, 1, (4,)).double()
        head.network = Known(lambda x, t: torch.full_like(x, velocity))  # type: ignore[assignment]
        return noisy(head(zeros(BATCH, DOUBLE)), log_std)

    old, new, provider = constant(0.3, -1.0), constant(0.55, -0.8), VelocityRatio(times)
    kept = drawn_with(provider, old)
    torch.testing.assert_close(provider.log_ratio(new, kept), exact_log_ratio(new, old, kept))
    assert float(provider.log_ratio(new, kept).abs().max()) > 0.1


def test_error_of_the_velocity_ratio_shrinks_linearly_with_the_update() -> None:
    errors = []
    old, provider = noisy(gaussian_flow(0.2, 0.5)), VelocityRatio(1)
    kept = drawn_with(provider, old)
    for size in (0.02, 0.01):
        new = noisy(gaussian_flow(0.2 + size, 0.5 + size))
        errors.append(float((provider.log_ratio(new, kept) - exact_log_ratio(new, old, kept)).abs().mean()))
    assert errors[0] > 1e-3
    assert errors[0] / errors[1] == pytest.approx(2.0, rel=0.1)


def test_velocity_times_lie_on_half_steps_and_points_on_the_straight_path() -> None:
    provider = VelocityRatio(60)
    drawn = provider.draw(noisy(random_flow()), generator())
    assert sorted(set((20 * drawn["time"]).round(decimals=6).flatten().tolist())) == list(range(21))
    time = drawn["time"].unsqueeze(-1)
    expected = (1.0 - time) * drawn["latent"].unsqueeze(1) + time * drawn["reached"].unsqueeze(1)
    torch.testing.assert_close(path(drawn), expected)


def test_exact_field_and_score_agree() -> None:
    """(t v - x) / (1 - t) = -(x - t m) / D: what the velocity is bent towards is minus the score."""
    mean, std = 0.4, 0.3
    velocity = gaussian_velocity(mean, std)
    x, t = torch.linspace(-1.0, 1.0, 9, dtype=DOUBLE), torch.linspace(0.0, 0.9, 9, dtype=DOUBLE)
    variance = (1.0 - t) ** 2 + t**2 * std**2
    torch.testing.assert_close((t * velocity(x, t) - x) / (1.0 - t), -(x - t * mean) / variance)


def test_one_denoising_step_is_a_gaussian_policy() -> None:
    """In one dimension: the ratio of N(mean of the last step, min_std^2), given the point before it."""
    torch.manual_seed(0)
    head = FineTunedDiffusion(DiffusionHead(NOTHING, 1, (16,), "tanh", levels=1, clip=None), 1, 0.1).double()
    observation, provider = torch.linspace(-1.0, 1.0, BATCH, dtype=DOUBLE).unsqueeze(-1), ChainRatio()
    with torch.no_grad():
        old = head(observation)
        drawn = provider.draw(old, generator())
        kept = {**drawn, **provider.old_stats(old, drawn)}
        before = old.actor.steps(drawn["chain"], 1, 1, 0.1)[0][:, 0]
        for parameter in head.parameters():
            parameter.add_(5e-4)
        new = head(observation)
        after = new.actor.steps(drawn["chain"], 1, 1, 0.1)[0][:, 0]
        log_std = torch.tensor([0.1], dtype=DOUBLE).log()
        densities = [DiagonalGaussian(mean, log_std).log_prob(drawn["action"]) for mean in (after, before)]
        inside = (densities[0] > -5.0) & (densities[1] > -5.0)
        log_ratio = provider.log_ratio(new, kept)[:, 0]
    assert int(inside.sum()) > BATCH // 2
    torch.testing.assert_close(log_ratio[inside], (densities[0] - densities[1])[inside])
    assert float(log_ratio.abs().max()) > 0.1


def test_noisiest_steps_are_those_of_the_frozen_base() -> None:
    """The point that learnt steps start from does not change with the actor, and no gradient reaches the base."""
    torch.manual_seed(0)
    head = FineTunedDiffusion(DiffusionHead(NOTHING, 2, (16,), "tanh", levels=6), 2, 0.1)
    observation, provider = zeros(BATCH), ChainRatio()
    first = head(observation).chain(generator())
    whole = head.actor(observation).chain(head(observation).actor.draw_noise(generator()), min_std=0.1)
    torch.testing.assert_close(first, whole[:, -3:])
    for parameter in head.actor.parameters():
        parameter.data.add_(0.1)
    second = head(observation).chain(generator())
    assert torch.equal(first[:, 0], second[:, 0])
    assert not torch.equal(first[:, -1], second[:, -1])
    kept = {"chain": first.detach(), "log_prob": torch.zeros(BATCH, 2)}
    provider.log_ratio(head(observation), kept).sum().backward()
    assert head.base is not None
    assert all(parameter.grad is None for parameter in head.base.parameters())
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in head.actor.parameters())
    head.take_as_base()
    torch.testing.assert_close(head(observation).chain(generator())[:, 0], whole_after(head, observation)[:, -3])


def whole_after(head: FineTunedDiffusion, observation: Tensor) -> Tensor:
    policy = head.actor(observation)
    return policy.chain(policy.draw_noise(generator()), min_std=0.1)


def test_log_densities_of_a_chain_are_bounded_and_averaged_over_coordinates() -> None:
    torch.manual_seed(0)
    head = FineTunedDiffusion(DiffusionHead(NOTHING, 2, (16,), "tanh", levels=4), 4, 0.1)
    policy = head(zeros(3))
    chain = policy.chain(generator())
    chain = torch.cat([chain[:, :-1], chain[:, -1:] + torch.tensor([5.0, 0.0])], 1)
    terms = policy.log_prob_per_dimension(chain)
    assert float(terms.detach().min()) < -100.0
    found = ChainRatio().log_probs(policy, {"chain": chain})
    torch.testing.assert_close(found, terms.clamp(-5.0, 2.0).mean(-1))
    assert replace(policy).mode().shape == (3, 2)
