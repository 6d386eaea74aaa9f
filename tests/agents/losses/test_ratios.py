"""The two laws of every ratio provider, what the surrogates on top of it do, and the seam of the on-policy agents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from gymnasium import spaces
from torch import Generator, Tensor

from palaestra.agents.losses.chain_ratio import ChainRatio
from palaestra.agents.losses.divergences import kl_divergence
from palaestra.agents.losses.flow_ratios import FlowMatchingRatio, VelocityRatio
from palaestra.agents.losses.latent_ratio import LatentRatio
from palaestra.agents.losses.ratios import DensityRatio, RatioProvider
from palaestra.agents.losses.surrogates import clipped_surrogate, penalised_surrogate
from palaestra.agents.nn.distributions import Categorical, DiagonalGaussian, MultiCategorical
from palaestra.agents.nn.generative.diffusion import DiffusionHead
from palaestra.agents.nn.generative.fine_tuned import FineTunedDiffusion, FineTunedPolicy
from palaestra.agents.nn.generative.flow import FlowHead, FlowPolicy
from palaestra.agents.nn.generative.noisy_flow import NoisyFlow
from palaestra.agents.nn.mixtures import GaussianMixture
from palaestra.agents.policy_gradient.ppo import PPO
from palaestra.agents.registry import make_agent
from tests.agents.worlds import register_worlds

register_worlds()

BATCH = 12
Policy = Callable[[list[Tensor]], Any]


def mixture(leaves: list[Tensor]) -> GaussianMixture:
    mean, log_std = (leaf.view(BATCH, 3, 2) for leaf in leaves[1:])
    return GaussianMixture(leaves[0], DiagonalGaussian(mean, log_std))


def flow(leaves: list[Tensor]) -> FlowPolicy:
    """What the observations say of a random flow is the leaf."""
    return FlowPolicy(random_head(FlowHead), leaves[0])


def noisy_flow(leaves: list[Tensor]) -> NoisyFlow:
    return NoisyFlow(flow(leaves), leaves[1].mean(0))


def chain(leaves: list[Tensor]) -> FineTunedPolicy:
    """The last three of five steps, of which the two before belong to a base."""
    policy = FineTunedDiffusion(random_head(DiffusionHead, levels=5), 3, 0.1).double()(torch.zeros(BATCH, FEATURES))
    return replace(policy, actor=replace(policy.actor, features=leaves[0]))


def random_head(kind: Callable[..., Any], **options: Any) -> Any:
    torch.manual_seed(0)
    return kind(spaces.Box(-1.0, 1.0, (FEATURES,)), 2, (16,), "tanh", **options).double()


FEATURES = 4
CASES: dict[str, tuple[RatioProvider, Policy, list[int]]] = {
    "gaussian": (DensityRatio(), lambda leaves: DiagonalGaussian(leaves[0], leaves[1]), [2, 2]),
    "categorical": (DensityRatio(), lambda leaves: Categorical(leaves[0]), [4]),
    "several categorical": (DensityRatio(), lambda leaves: MultiCategorical(leaves[0], [2, 3]), [5]),
    "mixture": (DensityRatio(), mixture, [3, 6, 6]),
    "latent": (LatentRatio(), lambda leaves: DiagonalGaussian(leaves[0], leaves[1]), [2, 2]),
    "flow matching": (FlowMatchingRatio(3), flow, [FEATURES]),
    "flow matching, velocity": (FlowMatchingRatio(3, "velocity"), flow, [FEATURES]),
    "flow matching, each draw": (FlowMatchingRatio(3, each_draw=True), flow, [FEATURES]),
    "velocity": (VelocityRatio(1), noisy_flow, [FEATURES, 2]),
    "velocity, several times": (VelocityRatio(5), noisy_flow, [FEATURES, 2]),
    "denoising chain": (ChainRatio(), chain, [FEATURES]),
}
"""A provider, what makes a policy of leaves `[batch, width]`, and their widths."""
WITH_DIVERGENCE = ("gaussian", "categorical", "several categorical", "latent")


@pytest.mark.parametrize("case", CASES)
def test_unchanged_parameters_give_a_log_ratio_of_zero_and_the_policy_gradient(case: str) -> None:
    """The gradient of either surrogate at pi = pi_old is that of -mean(A log_ratio)."""
    provider, make, widths = CASES[case]
    generator = torch.Generator().manual_seed(0)
    leaves = [torch.randn(BATCH, width, generator=generator, dtype=torch.float64) for width in widths]
    advantage = torch.randn(BATCH, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        old = make(leaves)
        drawn = provider.draw(old, generator)
        kept = {**drawn, **provider.old_stats(old, drawn)}

    def gradients(surrogate: Callable[[Any, Tensor], Tensor]) -> tuple[Tensor, ...]:
        inputs = [leaf.clone().requires_grad_() for leaf in leaves]
        policy = make(inputs)
        log_ratio = provider.log_ratio(policy, kept)
        assert log_ratio.shape[0] == BATCH
        assert torch.equal(log_ratio, torch.zeros_like(log_ratio))
        return torch.autograd.grad(surrogate(policy, log_ratio), inputs)

    def penalised(policy: Any, log_ratio: Tensor) -> Tensor:
        divergence = kl_divergence(policy, old) if case in WITH_DIVERGENCE else log_ratio.square()
        return penalised_surrogate(log_ratio, weight(log_ratio), divergence, 0.5)

    def weight(log_ratio: Tensor) -> Tensor:
        return advantage if log_ratio.dim() == 1 else advantage.unsqueeze(-1)

    expected = gradients(lambda _, log_ratio: -(weight(log_ratio) * log_ratio).mean())
    assert max(float(gradient.abs().max()) for gradient in expected) > 1e-3
    for surrogate in (lambda _, log_ratio: clipped_surrogate(log_ratio, weight(log_ratio), 0.2), penalised):
        for ours, theirs in zip(gradients(surrogate), expected, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-9)


class Remembering(DensityRatio):
    """Draws numbers beside every action and refuses to see others later."""

    def __init__(self) -> None:
        self.draws, self.stats, self.ratios = 0, 0, 0

    def draw(self, policy: Any, generator: Generator) -> dict[str, Tensor]:
        drawn = super().draw(policy, generator)
        self.draws += 1
        return {**drawn, "chain": torch.rand(len(drawn["action"]), 5, generator=generator)}

    def old_stats(self, policy: Any, steps: Mapping[str, Any]) -> dict[str, Tensor]:
        self.stats += 1
        return {**super().old_stats(policy, steps), "chain_sum": steps["chain"].sum(-1)}

    def log_ratio(self, policy: Any, batch: Mapping[str, Any]) -> Tensor:
        self.ratios += 1
        assert batch["chain"].std() > 0.1
        torch.testing.assert_close(batch["chain"].sum(-1), batch["chain_sum"])
        return super().log_ratio(policy, batch)


class RememberingPPO(PPO):
    ratio = Remembering()


SMALL: dict[str, Any] = {"device": "cpu", "preset_name": None, "n_steps": 10, "num_envs": 4, "n_epochs": 2}


@pytest.mark.parametrize("recurrent_size", [0, 3])
def test_extras_are_drawn_when_acting_and_found_again_in_every_batch(recurrent_size: int) -> None:
    provider = RememberingPPO.ratio = Remembering()
    name = f"{__name__}:RememberingPPO"
    agent = make_agent(name, "TestMemory-v0", **SMALL, batch_size=20, recurrent_size=recurrent_size).learn(80)
    assert isinstance(agent, RememberingPPO)
    assert (provider.draws, provider.stats, provider.ratios) == (20, 2, 2 * 2 * 2)
    assert agent.num_updates == 8
    assert set(agent.rollout.fields) & {"chain", "chain_sum", "log_prob"} == {"chain"}


def test_extras_of_a_partly_filled_rollout_are_saved() -> None:
    RememberingPPO.ratio = Remembering()
    agent = make_agent(f"{__name__}:RememberingPPO", "TestMemory-v0", **SMALL, batch_size=20).learn(12)
    assert agent.state_dict()["rollout"]["fields"]["chain"].shape == (3, 4, 5)


def test_a_provider_of_its_own_is_not_bypassed_by_the_gradient_by_hand() -> None:
    """The same updates, once by hand and once through the provider, agree up to rounding."""
    agents = []
    for name in ("ppo", f"{__name__}:PlainPPO"):
        agent = make_agent(name, "TestIdentity-v0", env_kwargs={"kind": "Box"}, **SMALL, batch_size=20).learn(120)
        agents.append(agent)
    assert PlainPPO.ratio.calls == agents[1].num_updates == 12
    for ours, theirs in zip(agents[0].network.parameters(), agents[1].network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


class Counting(DensityRatio):
    calls = 0

    def log_ratio(self, policy: Any, batch: Mapping[str, Any]) -> Tensor:
        self.calls += 1
        return super().log_ratio(policy, batch)


class PlainPPO(PPO):
    ratio = Counting()
