"""PA-RL: what it reduces to, how actions are improved, what is imitated, and the conservative term."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from palaestra.agents.memory.replay import Batch
from palaestra.agents.nn.actor_classes import ACTOR_CLASSES
from palaestra.agents.registry import make_agent
from tests.agents.batches import pendulum_batch

SMALL: dict[str, Any] = {
    "hidden": (16, 16),
    "critic_hidden": (16, 16),
    "levels": 3,
    "num_critics": 4,
    "num_samples": 8,
    "kept_samples": 3,
    "climbing_steps": 4,
    "climbing_rate": 0.05,
    "return_min": -5.0,
    "return_max": 5.0,
    "num_atoms": 21,
    "batch_size": 32,
}


def pa_rl(actor_class: str = "diffusion", **options: Any) -> Any:
    return make_agent(
        "pa-rl",
        "Pendulum-v1",
        seed=0,
        device="cpu",
        preset_name=None,
        **{**SMALL, "actor_class": actor_class, **options},
    )


def observations(count: int = 6) -> Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(5))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(2)


@pytest.mark.parametrize("actor_class", ACTOR_CLASSES)
def test_one_sample_without_climb_is_the_actor_bit_for_bit(actor_class: str) -> None:
    agent = pa_rl(actor_class, num_samples=1, kept_samples=1, climbing_steps=0)
    seen = observations()
    with torch.no_grad():
        policy = agent.actor(seen)
        assert torch.equal(agent.act(seen, generator()), policy.propose(1, generator())[:, 0])
        assert torch.equal(agent.act(seen, None), policy.act(torch.zeros(6, *policy.noise_shape)))


@pytest.mark.parametrize("actor_class", ACTOR_CLASSES)
def test_one_sample_without_climb_is_cloning_with_policy_evaluation(actor_class: str) -> None:
    """The actor imitates the data's action, the only candidate; targets are at the actor's own action."""
    reduced: dict[str, Any] = {"num_samples": 1, "kept_samples": 1, "climbing_steps": 0, "critic_subset": 4}
    agent, same = pa_rl(actor_class, **reduced), pa_rl(actor_class, **reduced)
    batch = pendulum_batch()
    metrics = agent.update(batch)
    with torch.no_grad():
        following = same.actor(batch.next_observation).propose(1, same.generator)[:, 0]
        same.target_critics.draw_members(4, same.generator)
        discount = 0.99 * ~batch.terminated
        target = same.target_critics(batch.next_observation, following).lowest().moved(batch.reward, discount)
        loss = same.critics(batch.observation, batch.action).loss(target).mean()
        same.propose(batch.observation, same.generator)
        # The softmax of a single candidate draws too.
        torch.empty(32, 1).exponential_(generator=same.generator)
        imitation = same.actor(batch.observation).loss(batch.action, same.generator).mean()
    torch.testing.assert_close(metrics["train/critic_loss"], loss)
    torch.testing.assert_close(metrics["train/actor_loss"], imitation)
    assert float(metrics["train/data_chosen_share"]) == 1.0


def test_without_climb_it_is_the_best_of_several_actions() -> None:
    agent = pa_rl(climbing_steps=0, kept_samples=8)
    seen = observations()
    with torch.no_grad():
        proposals = agent.actor(seen).propose(8, generator())
        values = torch.stack([agent.critics(seen, proposals[:, k]).mean().mean(0) for k in range(8)], -1)
        best = proposals[torch.arange(6), values.argmax(-1)]
        torch.testing.assert_close(agent.act(seen, generator()), best)


@pytest.mark.parametrize("rate", [1e-3, 0.05, 30.0])
def test_improved_action_is_worth_at_least_every_candidate(rate: float) -> None:
    agent = pa_rl(climbing_rate=rate)
    seen = observations(40)
    proposals = agent.propose(seen, generator())
    chosen = agent.judge(seen, agent.act(seen, generator()))
    for column in proposals.unbind(1):
        assert (chosen >= agent.judge(seen, column) - 1e-5).all()


def test_linear_critics_move_actions_by_exactly_steps_times_rate_times_slope() -> None:
    agent = pa_rl("gaussian", climbing_steps=5, climbing_rate=0.01)
    agent.critics = agent.target_critics = Linear()
    seen = observations()
    with torch.no_grad():
        start = agent.propose(seen, generator()).clamp(-0.5, 0.5)
        ranked = agent.selector.rank(agent.judge, seen, start)
    kept = start.gather(1, ranked.proposal.unsqueeze(-1))
    torch.testing.assert_close(ranked.action - kept, torch.full((6, 3, 1), 5 * 0.01 * 2.0))


class Linear(torch.nn.Module):
    """Q(s, a) = 2 a, said by one critic."""

    def forward(self, observation: Tensor, action: Tensor) -> Any:
        from palaestra.agents.nn.estimates import ScalarEstimate

        return ScalarEstimate(2.0 * action.sum(-1)[None])


def test_imitated_action_tends_to_the_best_as_the_temperature_falls() -> None:
    """At temperature 0 two actors that draw equally imitate equal actions; at a high one others."""
    batch = pendulum_batch()
    losses = {}
    for temperature in (0.0, 1e-4, 1e3):
        agent = pa_rl("gaussian", selection_temperature=temperature)
        losses[temperature] = float(agent.update(batch)["train/actor_loss"])
    assert losses[1e-4] == pytest.approx(losses[0.0], rel=1e-4)
    assert abs(losses[1e3] - losses[0.0]) > 1e-3


def test_datas_action_takes_the_place_of_the_worst_kept() -> None:
    agent = pa_rl(climbing_steps=0)
    batch = pendulum_batch()
    ranked = agent.selector.rank(
        agent.judge, batch.observation, agent.propose(batch.observation, generator()), batch.action
    )
    assert torch.equal(ranked.action[:, -1], batch.action)
    assert (ranked.proposal[:, -1] == -1).all()
    assert (ranked.proposal[:, :-1] >= 0).all()


def test_actor_never_receives_a_gradient_of_values() -> None:
    """With the choice taken out (one candidate, no climb), other critics teach the actor nothing else."""
    batch = pendulum_batch()
    reduced: dict[str, Any] = {"num_samples": 1, "kept_samples": 1, "climbing_steps": 0}
    one, other = pa_rl(**reduced), pa_rl(**reduced)
    for parameter in other.critics.parameters():
        parameter.data.mul_(10.0)
    one.update(batch)
    other.update(batch)
    for mine, theirs in zip(one.actor.parameters(), other.actor.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_conservative_term_by_hand() -> None:
    """Rows with a known return count: max(Q(s, a*), return) - Q(s, a), averaged over them and over critics."""
    agent = pa_rl()
    batch = pendulum_batch()
    returns = torch.where(torch.arange(32) % 2 == 0, torch.linspace(-3.0, 3.0, 32), torch.nan)
    with_returns: Batch = replace(batch, collected_return=returns)
    improved = torch.full((32, 1), 0.3)
    with torch.no_grad():
        value = agent.critics(batch.observation, batch.action).mean()
        other = agent.critics(batch.observation, improved).mean()
        got = agent.conservative_term(with_returns, value, improved)
        known = torch.arange(0, 32, 2)
        expected = (torch.maximum(other[:, known], returns[known]) - value[:, known]).mean()
        torch.testing.assert_close(got, expected)
        assert float(agent.conservative_term(batch, value, improved)) == 0.0
        assert float(pa_rl(conservative_weight=0.0).conservative_term(with_returns, value, improved)) == 0.0
        unknown = replace(batch, collected_return=torch.full((32,), torch.nan))
        assert float(agent.conservative_term(unknown, value, improved)) == 0.0


def test_calibrated_rows_push_no_value_below_the_return_collected() -> None:
    """Where the return is above Q(s, a*), the term has no gradient by Q(s, a*): only Q(s, a) is raised."""
    agent = pa_rl()
    batch = replace(pendulum_batch(), collected_return=torch.full((32,), 4.9))
    value = torch.zeros(4, 32, requires_grad=True)
    term = agent.conservative_term(batch, value, batch.action)
    gradients = torch.autograd.grad(term, [value, *agent.critics.parameters()], allow_unused=True)
    torch.testing.assert_close(gradients[0], torch.full((4, 32), -1.0 / 128))
    assert all(gradient is None or not gradient.any() for gradient in gradients[1:])


def test_offline_the_actor_clones_the_data_and_online_it_imitates_what_was_improved() -> None:
    batch = pendulum_batch()
    agent, same = pa_rl("gaussian"), pa_rl("gaussian")
    agent.pretraining = True
    loss = agent.update(batch)["train/actor_loss"]
    torch.testing.assert_close(loss, same.actor(batch.observation).loss(batch.action, None).mean().detach())
    assert agent.actor_optimizer.param_groups[0]["lr"] == 3e-4
    agent.pretraining = False
    metrics = agent.update(batch)
    assert agent.actor_optimizer.param_groups[0]["lr"] == 5e-5
    assert float(metrics["train/climbed_share"]) > 0.0


@pytest.mark.parametrize("actor_class", ACTOR_CLASSES)
def test_every_class_learns_a_bandits_best_action(actor_class: str) -> None:
    """Q known and fixed: the actor's own actions come to its optimum by being improved and imitated alone."""
    agent = pa_rl(actor_class, learning_rate=3e-3, climbing_rate=0.1, selection_temperature=0.0)

    class Peak(torch.nn.Module):
        def forward(self, observation: Tensor, action: Tensor) -> Any:
            from palaestra.agents.nn.estimates import ScalarEstimate

            return ScalarEstimate(-(action - 0.4).square().sum(-1)[None])

    seen = torch.zeros(64, 3)
    agent.critics = Peak()
    for _ in range(300):
        proposed = agent.propose(seen, agent.generator)
        improved = agent.selector.rank(agent.judge, seen, proposed).drawn(0.0, None).action
        loss = agent.actor(seen).loss(improved, agent.generator).mean()
        agent.actor_optimizer.zero_grad()
        loss.backward()
        agent.actor_optimizer.step()
    drawn = agent.propose(torch.zeros(200, 3), generator())
    assert float((drawn - 0.4).abs().mean()) < 0.12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kept_samples": 0}, "kept_samples=0"),
        ({"num_bins": 1}, "num_bins=1"),
        ({"climbing_rate": -1.0}, "climbing_rate=-1.0"),
        ({"return_min": 6.0}, "return_min=6.0; expected a number below return_max"),
        ({"critic_subset": 9}, "critic_subset=9"),
    ],
)
def test_bad_configurations_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pa_rl(**options)
