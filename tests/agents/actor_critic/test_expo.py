"""EXPO: what its policy on the fly reduces to, which critics judge it, and what its parts learn."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from palaestra.agents.memory.replay import Batch
from palaestra.agents.registry import make_agent
from tests.agents.batches import pendulum_batch

SMALL: dict[str, Any] = {
    "hidden": (16, 16),
    "critic_hidden": (16, 16),
    "base_hidden": (16, 16),
    "base_trunk": "mlp",
    "levels": 3,
    "num_critics": 4,
    "num_samples": 4,
    "batch_size": 32,
    "policy_delay": 1,
    "edit_scale": 0.5,
}


def expo(**options: Any) -> Any:
    return make_agent("expo", "Pendulum-v1", seed=0, device="cpu", preset_name=None, **{**SMALL, **options})


def observations(count: int = 6) -> Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("base", ["diffusion", "flow"])
def test_one_sample_without_edits_is_the_base_policy_bit_for_bit(base: str) -> None:
    """When acting, at evaluation and in the target alike."""
    agent = expo(base=base, num_samples=1, candidates="base")
    seen = observations()
    with torch.no_grad():
        alone = agent.acting_base(seen)
        drawn = alone.propose(1, torch.Generator().manual_seed(2))[:, 0]
        assert torch.equal(agent.act(seen, torch.Generator().manual_seed(2)), drawn)
        assert torch.equal(agent.act(seen, None), alone.act(torch.zeros(6, *alone.noise_shape)))
        live = agent.base(seen).propose(1, torch.Generator().manual_seed(3))[:, 0]
        assert torch.equal(agent.choose(agent.base, seen, torch.Generator().manual_seed(3)).action, live)


def test_one_sample_without_edits_learns_the_value_of_the_base_policy() -> None:
    """Its targets are r + gamma min of two Q'(s', a') with a' from the base policy: policy evaluation, no maximum."""
    agent, same = (expo(num_samples=1, candidates="base", critic_subset=2, num_critics=2) for _ in range(2))
    batch = pendulum_batch()
    with torch.no_grad():
        following = same.base(batch.next_observation).propose(1, same.generator)[:, 0]
        value = same.target_critics(batch.next_observation, following).mean().amin(0)
        target = batch.reward + 0.99 * value * ~batch.terminated
        expected = (same.critics(batch.observation, batch.action).mean() - target).square().mean()
    torch.testing.assert_close(agent.update(batch)["train/critic_loss"], expected)


def test_without_edits_it_is_the_best_of_several_base_actions() -> None:
    agent = expo(candidates="base", critic_subset=4)
    seen = observations()
    with torch.no_grad():
        proposals = agent.acting_base(seen).propose(4, torch.Generator().manual_seed(2))
        values = torch.stack([agent.target_critics(seen, proposals[:, k]).mean().amin(0) for k in range(4)], -1)
        best = proposals[torch.arange(6), values.argmax(-1)]
        torch.testing.assert_close(agent.act(seen, torch.Generator().manual_seed(2)), best)


def test_a_change_of_the_critics_reaches_acting_evaluation_and_target_alike() -> None:
    """Critics that like large actions, then small ones: the chosen one is the largest or smallest candidate of each."""
    agent, seen = expo(), observations(20)
    for sign in (1.0, -1.0):
        agent.judge = lambda generator, sign=sign: lambda observation, action: sign * action.sum(-1)
        for base, seed in ((agent.acting_base, None), (agent.acting_base, 1), (agent.base, 2)):
            first, second = (None if seed is None else torch.Generator().manual_seed(seed) for _ in range(2))
            with torch.no_grad():
                candidates = sign * agent.propose(base, seen, first)
                chosen = sign * agent.choose(base, seen, second).action
            assert torch.equal(chosen, candidates.amax(1))


@pytest.mark.parametrize("generator", [None, 4])
def test_policy_on_the_fly_is_worth_at_least_every_candidate_under_the_scoring_critics(generator: int | None) -> None:
    agent = expo(critic_subset=4)
    seen = observations(50)

    def fresh() -> torch.Generator | None:
        return None if generator is None else torch.Generator().manual_seed(generator)

    def value(action: Tensor) -> Tensor:
        return agent.target_critics(seen, action).mean().amin(0)

    with torch.no_grad():
        candidates = agent.propose(agent.acting_base, seen, fresh())
        chosen = value(agent.act(seen, fresh()))
        for column in candidates.unbind(1):
            assert (chosen >= value(column) - 1e-6).all()
    assert candidates.shape == (50, 8, 1)


def test_edits_are_of_the_base_actions_beside_them_and_no_larger_than_the_scale() -> None:
    agent = expo(edit_scale=0.1)
    with torch.no_grad():
        candidates = agent.propose(agent.base, observations(100), torch.Generator().manual_seed(0))
    own, edited = candidates.split(4, 1)
    assert ((edited - own).abs() <= 0.1 + 1e-6).all()
    assert float((edited - own).abs().mean()) > 0.01
    only = expo(candidates="edited", num_samples=1, edit_scale=0.1)
    assert only.propose(only.base, observations(3), None).shape == (3, 1, 1)


def test_shares_of_edited_candidates_are_counted() -> None:
    batch = pendulum_batch()
    shares = {name: expo(candidates=name).update(batch)["train/edited_share_of_targets"] for name in ("base", "edited")}
    assert float(shares["base"]) == 0.0
    assert float(shares["edited"]) == 1.0
    agent = expo()
    with torch.no_grad():
        choice = agent.choose(agent.base, batch.next_observation, torch.Generator().manual_seed(0))
    assert torch.equal(agent.edited(choice), choice.proposal >= 4)
    trained = make_agent(
        "expo", "Pendulum-v1", seed=1, device="cpu", **{**SMALL, "learning_starts": 20, "gradient_steps": 1}
    )
    trained.learn(60)
    assert 0.0 < float(trained.metrics.collect()["train/edited_share_of_actions"]) < 1.0


def test_constant_critic_drives_edits_to_the_largest_entropy() -> None:
    """Uniform on [-1, 1]: entropy log 2 a dimension, whatever the scale of edits and the temperature."""
    agent = expo(edit_scale=0.05, learning_rate=3e-3, ent_coef=0.5)
    for parameter in agent.critics.parameters():
        parameter.data.zero_()
    batch = pendulum_batch()
    for _ in range(400):
        _, _, entropy, gain = agent.step_policies(batch)
        assert float(gain) == 0.0
    assert float(entropy) == pytest.approx(math.log(2.0), abs=0.05)


def test_temperature_rises_where_edits_have_too_little_entropy_and_falls_where_too_much() -> None:
    batch = pendulum_batch()
    for target, sign in ((5.0, 1), (-5.0, -1)):
        agent = expo(target_entropy=target)
        before = float(agent.alpha)
        agent.step_policies(batch)
        assert sign * (float(agent.alpha) - before) > 0
    assert expo().target_entropy == -0.5


def test_edit_loss_and_its_gradient_are_those_of_the_paper() -> None:
    """mean[alpha (log pi_e - |A| log beta) - mean_i Q_i(s, clip(a + beta e))], the critics held fixed."""
    agent, same = expo(ent_coef=0.3), expo(ent_coef=0.3)
    batch = pendulum_batch()
    same.base(batch.observation).loss(batch.action, same.generator)  # The base policy's draws come first.
    edit, log_prob = same.editor(batch.observation, batch.action).edit.sample_with_log_prob(same.generator)
    value = same.critics(batch.observation, (batch.action + 0.5 * edit).clamp(-1, 1)).mean().mean(0)
    expected = (0.3 * (log_prob - math.log(0.5)) - value).mean()
    gradients = torch.autograd.grad(expected, list(same.editor.parameters()))
    torch.testing.assert_close(agent.step_policies(batch)[1], expected.detach())
    for parameter, gradient in zip(agent.editor.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_policies_are_stepped_every_so_many_updates() -> None:
    agent = expo(policy_delay=3)
    batch = pendulum_batch()
    watched = [agent.base, agent.editor, agent.acting_base]
    changed = []
    for number in range(6):
        before = [next(module.parameters()).clone() for module in watched]
        agent.num_updates = number
        agent.update(batch)
        changed.append(
            [not torch.equal(next(module.parameters()), old) for module, old in zip(watched, before, strict=True)]
        )
    assert changed == [[number % 3 == 2] * 3 for number in range(6)]


def test_base_policy_never_receives_a_gradient_of_values() -> None:
    """Critics scaled by a thousand change nothing of what the base policy learns."""
    batch = pendulum_batch()
    one, other = expo(), expo()
    for parameter in other.critics.parameters():
        parameter.data.mul_(1000.0)
    for agent in (one, other):
        agent.step_policies(batch)
    for mine, theirs in zip(one.base.parameters(), other.base.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_acting_base_follows_slowly() -> None:
    agent = expo(base_tau=0.25)
    first = [parameter.clone() for parameter in agent.acting_base.parameters()]
    agent.step_policies(pendulum_batch())
    for old, live, slow in zip(first, agent.base.parameters(), agent.acting_base.parameters(), strict=True):
        torch.testing.assert_close(slow, old + 0.25 * (live - old))


def test_softmax_selection_takes_other_candidates_too() -> None:
    seen = observations(200)
    for temperature, least in ((0.0, 1), (100.0, 6)):
        agent = expo(selection_temperature=temperature, critic_subset=4)
        with torch.no_grad():
            choice = agent.choose(agent.base, seen, torch.Generator().manual_seed(0))
        assert len(choice.proposal.unique()) >= least


def test_terminated_rows_have_no_bootstrap() -> None:
    batch = pendulum_batch()
    ended = Batch(
        batch.observation,
        batch.action,
        batch.reward,
        batch.next_observation,
        torch.ones(32, dtype=torch.bool),
        batch.truncated,
    )
    agent, untouched = expo(), expo()
    loss = agent.update(ended)["train/critic_loss"]
    with torch.no_grad():
        expected = (untouched.critics(batch.observation, batch.action).mean() - batch.reward).square().mean()
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 0}, "num_samples=0"),
        ({"edit_scale": 0.0}, "edit_scale=0.0"),
        ({"critic_subset": 5}, "critic_subset=5; expected an integer from 1 to num_critics"),
        ({"base_trunk": "bronet"}, "base_trunk='bronet'"),
        ({"base_tau": 0.0}, "base_tau=0.0"),
    ],
)
def test_bad_configurations_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        expo(**options)
