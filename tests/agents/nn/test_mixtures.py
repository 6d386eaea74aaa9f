"""Mixtures against `torch.distributions`, and their candidates."""

from __future__ import annotations

import math

import pytest
import torch
from gymnasium import spaces
from scipy.integrate import quad
from torch import distributions

from palaestra.agents.nn.candidates import Candidates
from palaestra.agents.nn.critic import CriticBank
from palaestra.agents.nn.distributions import DiagonalGaussian, SquashedGaussian
from palaestra.agents.nn.mixtures import GaussianMixture, MixtureActor, MixtureActorCritic

VECTOR = spaces.Box(-1.0, 1.0, (3,))
BOX = spaces.Box(-1.0, 1.0, (2,))


def parts(experts: int, batch: int = 8, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, experts, generator=generator, dtype=torch.float64)
    mean, log_std = torch.randn(2, batch, experts, 2, generator=generator, dtype=torch.float64)
    return logits, mean, 0.3 * log_std - 0.5


@pytest.mark.parametrize("squashed", [False, True])
def test_log_prob_is_that_of_torch(squashed: bool) -> None:
    logits, mean, log_std = parts(3)
    ours = GaussianMixture(logits, (SquashedGaussian if squashed else DiagonalGaussian)(mean, log_std))
    component: distributions.Distribution = distributions.Independent(distributions.Normal(mean, log_std.exp()), 1)
    if squashed:
        component = distributions.TransformedDistribution(
            distributions.Normal(mean, log_std.exp()), [distributions.TanhTransform()]
        )
        component = distributions.Independent(component, 1)
    theirs = distributions.MixtureSameFamily(distributions.Categorical(logits=logits), component)
    action = ours.sample(torch.Generator().manual_seed(1))
    assert action.shape == (8, 2)
    torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action))


def test_permuting_the_experts_only_permutes_the_weights() -> None:
    logits, mean, log_std = parts(4)
    order = torch.tensor([2, 0, 3, 1])
    ours = GaussianMixture(logits, DiagonalGaussian(mean, log_std))
    permuted = GaussianMixture(logits[:, order], DiagonalGaussian(mean[:, order], log_std[:, order]))
    torch.testing.assert_close(permuted.weights, ours.weights[:, order])
    action = ours.sample(torch.Generator().manual_seed(1))
    torch.testing.assert_close(permuted.log_prob(action), ours.log_prob(action))
    assert torch.equal(permuted.mode(), ours.mode())


@pytest.mark.parametrize("kind", [DiagonalGaussian, SquashedGaussian])
def test_one_expert_is_the_expert_itself(kind: type[DiagonalGaussian | SquashedGaussian]) -> None:
    """The same draws, the same densities, no draw for the choice."""
    logits, mean, log_std = parts(1)
    mixture, alone = GaussianMixture(logits, kind(mean, log_std)), kind(mean[:, 0], log_std[:, 0])
    one, other = (torch.Generator().manual_seed(3) for _ in range(2))
    action = mixture.sample(one)
    assert torch.equal(action, alone.sample(other))
    assert torch.equal(one.get_state(), other.get_state())
    assert torch.equal(mixture.log_prob(action), alone.log_prob(action))
    assert torch.equal(mixture.mode(), alone.mode())
    candidates = mixture.propose(one)
    expected = alone.sample_with_log_prob(other)
    for ours, theirs in zip(candidates.pick(torch.zeros(8, dtype=torch.int64)), expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)


def test_experts_act_as_often_as_the_gate_says() -> None:
    weights = torch.tensor([0.2, 0.5, 0.3])
    mean = torch.tensor([-3.0, 0.0, 3.0])[:, None].expand(20_000, 3, 1)
    policy = GaussianMixture(weights.log().expand(20_000, 3), DiagonalGaussian(mean, torch.full_like(mean, -3.0)))
    sample = policy.sample(torch.Generator().manual_seed(0)).squeeze(-1)
    shares = torch.stack([(sample < -1.5), (sample.abs() < 1.5), (sample > 1.5)]).float().mean(-1)
    torch.testing.assert_close(shares, weights, atol=0.012, rtol=0.0)
    assert torch.equal(policy.mode(), mean[:, 1])


def test_entropy_bound() -> None:
    """Equal for experts that do not overlap, H(w) too large for identical ones, exact for one; never too small."""
    gap, width, logits = 50.0, 0.7, torch.tensor([[0.4, -0.3]], dtype=torch.float64)
    log_std = torch.full((1, 2, 1), math.log(width), dtype=torch.float64)
    single = 0.5 * math.log(2 * math.pi * math.e * width**2)
    choice = distributions.Categorical(logits=logits).entropy().item()

    def bound_and_entropy(distance: float) -> tuple[float, float]:
        mean = torch.tensor([[[0.0], [distance]]], dtype=torch.float64)
        policy = GaussianMixture(logits, DiagonalGaussian(mean, log_std))

        def integrand(a: float) -> float:
            log_prob = policy.log_prob(torch.tensor([[a]], dtype=torch.float64)).item()
            return -log_prob * math.exp(log_prob)

        breaks = [0.0, distance] if distance else None
        entropy = quad(integrand, -8.0, distance + 8.0, points=breaks, limit=400)[0]
        return policy.entropy_bound().item(), entropy

    bound, entropy = bound_and_entropy(gap)
    assert bound == pytest.approx(entropy, abs=1e-6)
    assert bound == pytest.approx(choice + single, abs=1e-9)
    bound, entropy = bound_and_entropy(0.0)
    assert entropy == pytest.approx(single, abs=1e-6)
    assert bound - entropy == pytest.approx(choice, abs=1e-6)
    bound, entropy = bound_and_entropy(1.5)
    assert 0.05 < bound - entropy < choice


def test_entropy_itself_is_refused() -> None:
    logits, mean, log_std = parts(2)
    with pytest.raises(TypeError, match="no closed-form entropy"):
        GaussianMixture(logits, DiagonalGaussian(mean, log_std)).entropy()
    with pytest.raises(TypeError, match="no closed-form entropy"):
        GaussianMixture(logits, SquashedGaussian(mean, log_std)).entropy_bound()


def test_one_candidate_is_what_the_critics_say_of_it() -> None:
    critics = CriticBank(VECTOR, 2, (8,))
    generator = torch.Generator().manual_seed(0)
    observation, action = torch.randn(5, 3, generator=generator), torch.randn(5, 1, 2, generator=generator)
    candidates = Candidates(action, torch.zeros(5, 1))
    values = candidates.values(critics, observation)
    assert values.shape == (2, 5, 1)
    assert torch.equal(values.squeeze(-1), critics(observation, action[:, 0]))
    assert torch.equal(candidates.pick(values.amin(0).argmax(-1))[0], action[:, 0])


def test_candidates_are_valued_and_picked_row_by_row() -> None:
    space = spaces.Dict({"a": VECTOR, "b": BOX})
    critics = CriticBank(space, 2, (8,), 3)
    generator = torch.Generator().manual_seed(0)
    observation = {"a": torch.randn(5, 3, generator=generator), "b": torch.randn(5, 2, generator=generator)}
    candidates = Candidates(torch.randn(5, 4, 2, generator=generator), torch.randn(5, 4, generator=generator))
    values = candidates.values(critics, observation)
    for count in range(4):
        torch.testing.assert_close(values[..., count], critics(observation, candidates.action[:, count]))
    best = values.amin(0).argmax(-1)
    action, log_prob = candidates.pick(best)
    for row, index in enumerate(best.tolist()):
        assert torch.equal(action[row], candidates.action[row, index])
        assert log_prob[row] == candidates.log_prob[row, index]


def test_gradients_reach_the_picked_expert_alone() -> None:
    logits, mean, log_std = parts(3)
    leaves = [leaf.requires_grad_() for leaf in (mean, log_std)]
    policy = GaussianMixture(logits, SquashedGaussian(mean, log_std))
    index = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    action, log_prob = policy.propose(torch.Generator().manual_seed(0)).pick(index)
    gradients = torch.autograd.grad(action.sum() + log_prob.sum(), leaves)
    picked = torch.nn.functional.one_hot(index, 3).bool()
    for gradient in gradients:
        assert torch.equal(gradient.abs().sum(-1) > 0, picked)


def test_networks_have_the_shapes_they_say() -> None:
    observation = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    actor = MixtureActor(VECTOR, 2, 4, (8,))
    candidates = actor(observation).propose(torch.Generator().manual_seed(0))
    assert candidates.action.shape == (6, 4, 2)
    assert float(candidates.action.detach().abs().max()) < 1.0
    network = MixtureActorCritic(VECTOR, BOX, 4, (8,), log_std_init=-1.0)
    policy, value, _ = network(observation)
    assert policy.weights.shape == (6, 4)
    assert value.shape == (6,)
    assert torch.equal(policy.experts.log_std, torch.full((6, 4, 2), -1.0))
    assert torch.equal(network.gate_of(observation).probs, policy.weights)
    apart = policy.experts.mean[:, 0] - policy.experts.mean[:, 1]
    assert float(apart.detach().abs().mean()) > 0.1
