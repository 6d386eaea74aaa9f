"""ProRL: centring and baselines as the agent uses them, groups of one task, and the form of its penalty."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import palaestra  # noqa: F401
from palaestra.agents.losses.path_advantages import path_advantages
from palaestra.agents.registry import make_agent
from tests.agents import worlds  # noqa: F401

SMALL: dict[str, Any] = {"hidden": (16,), "num_envs": 8, "group_size": 4}
SIGNALS = (1.0, 1.0, 0.1)


def agent_for(env: str = "palaestra/RecGuide-v0", **options: Any) -> Any:
    env_kwargs = options.pop("env_kwargs", None)
    return make_agent(
        "prorl", env, seed=3, device="cpu", preset_name=None, env_kwargs=env_kwargs, **{**SMALL, **options}
    )


def first_batch(agent: Any) -> dict[str, torch.Tensor]:
    """Play the paths of one batch, and return the rollout's fields `[steps, num_envs, ...]` as they are learnt from."""
    kept: list[dict[str, torch.Tensor]] = []
    improve = agent.improve

    def look(rollout: Any) -> None:
        improve(rollout)
        kept.append(dict(rollout.fields))

    agent.improve = look
    while not kept:
        agent.learn(agent.num_timesteps + 8 if agent.num_timesteps == 0 else None, lambda agent: not kept)
        agent.target_timesteps += 8
    return kept[0]


def test_groups_share_a_task_and_not_its_noise() -> None:
    agent = agent_for()
    fields = first_batch(agent)
    first = fields["observation"][0]
    for group in (first[:4], first[4:]):
        assert torch.equal(group, group[:1].expand(4, -1))
    assert not torch.equal(first[0], first[4])
    starts = fields["observation"][0].clone()
    kept: list[torch.Tensor] = []
    agent.learn(400, lambda agent: kept.append(torch.as_tensor(agent.collector.observation)))
    assert not torch.equal(kept[-1], starts)
    assert agent.batches > 1


def test_advantages_are_those_of_the_centred_signals() -> None:
    agent = agent_for(signal_weights=SIGNALS)
    fields = first_batch(agent)
    counts = fields["valid"] & fields["item"]
    signals = fields["signals"][counts].double()
    deviation = signals.std(0, correction=0).clamp(min=0.1)
    weights = torch.tensor(SIGNALS, dtype=torch.float64)
    reward = ((fields["signals"].double() - signals.mean(0)) / deviation) @ weights
    reward = reward.masked_fill(~counts, 0.0)
    expected = path_advantages(reward, fields["valid"], torch.arange(8) // 4)
    torch.testing.assert_close(fields["advantage"].double(), expected, atol=1e-4, rtol=1e-4)
    # The position's advantages add up to 0 in each group.
    sums = fields["advantage"].unflatten(1, (2, 4)).sum(-1)
    torch.testing.assert_close(sums, torch.zeros_like(sums), atol=1e-4, rtol=0.0)


def test_the_decision_to_end_is_learnt_from_and_brings_nothing() -> None:
    agent = agent_for(env_kwargs={"num_items": 2, "horizon": 3}, signal_weights=SIGNALS, num_envs=64, group_size=16)
    fields = first_batch(agent)
    ends = fields["valid"] & ~fields["item"]
    assert ends.any()
    assert fields["terminated"][ends].all()
    assert fields["advantage"][ends].abs().sum() > 0.0
    reward = agent.rectified(fields["signals"], fields["valid"] & fields["item"])
    assert not reward[ends].any()


def test_a_constant_reward_teaches_nothing_once_it_is_centred() -> None:
    """Every step of the chain brings 1; centred, all advantages are 0, and otherwise they are not."""
    for centre, expected in ((True, 0.0), (False, 1.0)):
        agent = agent_for("TestChain-v0", env_kwargs={"kind": "Discrete"}, centre=centre, group_baseline="none")
        advantage = first_batch(agent)["advantage"]
        assert float(advantage.abs().max() > 1e-6) == expected


def test_without_tasks_the_batch_is_one_group() -> None:
    agent = agent_for("TestIdentity-v0", env_kwargs={"kind": "Discrete"})
    fields = first_batch(agent)
    assert agent.batches == 0
    sums = fields["advantage"].sum(1)
    torch.testing.assert_close(sums, torch.zeros_like(sums), atol=1e-4, rtol=0.0)
    assert fields["advantage"].abs().sum() > 0.0


def test_the_gradient_is_that_of_the_weighted_log_probabilities() -> None:
    agent = agent_for(kl_coef=0.0)
    before = [parameter.detach().clone() for parameter in agent.parameters]
    fields = first_batch(agent)
    policy = agent.make_network()
    for parameter, value in zip(policy.policy_parameters(), before, strict=True):
        parameter.data.copy_(value)
    valid = fields["valid"]
    said, _ = policy.act(fields["observation"][valid], fields["mask"][valid], None, None)
    loss = -(said.log_prob(fields["action"][valid]) @ fields["advantage"][valid]) / agent.num_envs
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, policy.policy_parameters())])
    found = agent.policy_optimizer.gradient
    # The optimiser's gradient has been clipped in place, so that its direction is compared.
    torch.testing.assert_close(found / found.norm(), expected / expected.norm(), atol=1e-4, rtol=1e-3)


def test_both_parts_together_lower_the_variance_of_the_gradient() -> None:
    """At the policy before training, over batches of the same worlds."""
    variance = {}
    for name, parts in (("rectified", {}), ("plain", {"centre": False, "group_baseline": "none"})):
        agent = agent_for(signal_weights=SIGNALS, num_envs=32, group_size=8, **parts)
        gradients: list[torch.Tensor] = []

        def keep(batch: Any, agent: Any = agent, gradients: list[torch.Tensor] = gradients) -> None:
            loss = -agent.surrogate(agent.network, batch)
            gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, agent.parameters)]))

        agent.learn_from = keep
        agent.learn(30 * 320)
        # The first batches meet moments that are still settling.
        variance[name] = float(torch.stack(gradients[5:]).var(0).sum())
    assert variance["rectified"] < 0.8 * variance["plain"]


@pytest.mark.parametrize(("form", "gradient_is_zero"), [("literal", True), ("k3", False)])
def test_the_literal_penalty_has_no_mean_gradient_and_k3_s_is_that_of_a_divergence(
    form: str, gradient_is_zero: bool
) -> None:
    """Exact, by enumeration of the actions under the policy."""
    agent = agent_for(kl_form=form)
    logits = torch.tensor([0.3, -1.0, 0.8], dtype=torch.float64, requires_grad=True)
    reference = torch.log_softmax(torch.tensor([1.0, 0.0, -0.5], dtype=torch.float64), -1)
    log_probs = torch.log_softmax(logits, -1)
    probs = log_probs.exp().detach()
    mean = sum(probs[a] * agent.distance(log_probs[a : a + 1], reference[a : a + 1]) for a in range(3))
    (gradient,) = torch.autograd.grad(mean, logits, retain_graph=True)
    if gradient_is_zero:
        np.testing.assert_allclose(gradient.numpy(), 0.0, atol=1e-12)
    else:
        # Of KL(pi_ref || pi), whose gradient in the logits is pi - pi_ref.
        np.testing.assert_allclose(gradient.numpy(), (probs - reference.exp()).numpy(), atol=1e-12)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_envs": 6}, ValueError, "num_envs=6; expected a multiple of group_size=4"),
        ({"baseline": "value"}, ValueError, "baseline='value'; expected 'none'"),
        ({"group_size": 1}, ValueError, "group_size=1; expected an integer of at least 2"),
        ({"signal_weights": (1.0,) * 4}, ValueError, r"signals'\] of shape \(8, 3\); expected"),
    ],
)
def test_options_are_checked(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        agent_for(**options).learn(10)
