"""Off-policy MDPO: SAC's actor loss where c = lambda, the solution in closed form, Tsallis logarithms, pi_k."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from palaestra.agents.actor_critic.mdpo_off import MDPOOff, tsallis_log
from palaestra.agents.memory.replay import Batch
from palaestra.agents.nn.distributions import DiagonalGaussian, SquashedGaussian, log_tanh_slope
from palaestra.agents.registry import make_agent

GOALS = "palaestra/MultiGoal2D-v0"
SMALL: dict[str, Any] = {"device": "cpu", "preset_name": None, "hidden": (16,), "learning_starts": 20, "batch_size": 16}


def make(**config: Any) -> MDPOOff:
    agent = make_agent("mdpo-off", GOALS, **{**SMALL, **config})
    assert isinstance(agent, MDPOOff)
    return agent


def a_batch(size: int = 32) -> Batch:
    generator = torch.Generator().manual_seed(0)
    observation, following, action = torch.randn(3, size, 2, generator=generator)
    terminated = torch.arange(size) < size // 2
    return Batch(observation, torch.tanh(action), torch.ones(size), following, terminated, ~terminated)


def test_with_equal_weights_it_is_the_actor_loss_of_sac() -> None:
    """c = lambda: the old policy drops out; from the same weights and noise, both actors make the same step."""
    ours = make(kl_coef=0.2, ent_coef=0.2, policy_regularisation=0.0)
    theirs: Any = make_agent("sac", GOALS, **SMALL, ent_coef=0.2)
    theirs.actor.load_state_dict(ours.actor.state_dict())
    # The paper's actor follows the first critic, SAC's the lower one: equal critics are the lower one both.
    for agent in (ours, theirs):
        for name in ("encoders", "trunks"):
            first = getattr(ours.critics, name)[0].state_dict()
            for member in getattr(agent.critics, name):
                member.load_state_dict(first)
        agent.actor_optimizer = torch.optim.SGD(agent.actor.parameters(), lr=1.0)
        agent.critic_optimizer = torch.optim.SGD(agent.critics.parameters(), lr=0.0)
    before = [p.detach().clone() for p in ours.actor.parameters()]
    batch, state = a_batch(), torch.Generator().manual_seed(5).get_state()
    for agent in (ours, theirs):
        agent.generator.set_state(state)
        agent.update(batch)
    moved = [(p.detach() - b) for p, b in zip(ours.actor.parameters(), before, strict=True)]
    assert max(float(step.abs().max()) for step in moved) > 1e-3
    for one, other in zip(ours.actor.parameters(), theirs.actor.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(("ent_coef", "kl_coef"), [(0.0, 1.0), (0.0, 0.3), (0.2, 1.0), (0.5, 0.5)])
def test_loss_is_constant_at_the_solution_in_closed_form(ent_coef: float, kl_coef: float) -> None:
    """pi is pi_k^(1 - lambda / c) exp(Q / c) / Z: there the loss is -c log Z for every action alike.

    Before the tanh pi_k is N(0.3, 0.8^2), and Q is -k (u - m)^2 / 2 less lambda times the log-slope of the tanh, which
    keeps the solution Gaussian. With lambda = 0 that is maximisation of Q regularised by the KL to pi_k.
    """
    agent = make(ent_coef=ent_coef, kl_coef=kl_coef)
    share, curvature, top = 1.0 - ent_coef / kl_coef, 2.0, -0.6
    old_mean, old_std = 0.3, 0.8
    precision = share / old_std**2 + curvature / kl_coef
    mean = (share * old_mean / old_std**2 + curvature * top / kl_coef) / precision
    of = lambda value: torch.full((50, 1), value, dtype=torch.float64)  # noqa: E731
    solution = SquashedGaussian(of(mean), of(-0.5 * torch.tensor(precision).log().item()))
    old = SquashedGaussian(of(old_mean), of(torch.tensor(old_std).log().item()))
    u = torch.linspace(-2.0, 2.0, 50, dtype=torch.float64)[:, None]
    value = (-0.5 * curvature * (u - top).square() - ent_coef * log_tanh_slope(u)).squeeze(-1)
    rows = zip(solution.log_prob_of_tanh(u), old.log_prob_of_tanh(u), value, strict=True)
    losses = torch.stack([agent.mirror_loss(*(entry[None] for entry in row)) for row in rows])
    torch.testing.assert_close(losses, losses[:1].expand(50), atol=1e-6, rtol=1e-6)


def test_tsallis_logarithm() -> None:
    """log_q(x) = (x^(1 - q) - 1) / (1 - q); near q = 1 the logarithm, at q = 2 it is 1 - 1 / x."""
    x = torch.linspace(0.05, 4.0, 30, dtype=torch.float64)
    assert torch.equal(tsallis_log(x.log(), 1.0), x.log())
    for q in (0.5, 1.5, 2.0):
        torch.testing.assert_close(tsallis_log(x.log(), q), (x ** (1.0 - q) - 1.0) / (1.0 - q))
    torch.testing.assert_close(tsallis_log(x.log(), 2.0), 1.0 - 1.0 / x)
    torch.testing.assert_close(tsallis_log(x.log(), 1.0 + 1e-7), x.log(), atol=1e-6, rtol=0.0)
    assert tsallis_log(torch.zeros(1), 1.7).item() == 0.0


@pytest.mark.parametrize("tsallis", [1.0, 1.5])
def test_value_network_follows_the_lower_critic_and_the_entropy(tsallis: float) -> None:
    agent = make(ent_coef=0.3, tsallis=tsallis)
    agent.critic_optimizer = torch.optim.SGD(agent.critics.parameters(), lr=0.0)
    batch = a_batch()
    with torch.no_grad():
        policy = agent.actor(batch.observation)
        state = agent.generator.get_state()
        u = policy.before_tanh.sample(agent.generator)
        density = DiagonalGaussian(policy.mean, policy.log_std).log_prob(u) - log_tanh_slope(u).sum(-1)
        soft = agent.critics(batch.observation, torch.tanh(u)).amin(0) - 0.3 * tsallis_log(density, tsallis)
        expected = 0.5 * (agent.value(batch.observation) - soft).square().mean()
    agent.generator.set_state(state)
    metrics = agent.update(batch)
    assert metrics["train/value_loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_critics_follow_the_target_value_through_truncation_alone() -> None:
    agent = make()
    batch = a_batch()
    with torch.no_grad():
        following = agent.target_value(batch.next_observation) * torch.where(batch.terminated, 0.0, 0.99)
        error = agent.critics(batch.observation, batch.action) - (batch.reward + following)
    metrics = agent.update(batch)
    assert metrics["train/critic_loss"].item() == pytest.approx(0.5 * error.square().mean(-1).sum().item(), rel=1e-5)


def test_old_policy_is_renewed_at_its_interval() -> None:
    agent = make(old_policy_interval=25)
    renewed: list[int] = []
    kept = [p.clone() for p in agent.old_actor.parameters()]

    def watch(agent: Any) -> None:
        now = list(agent.old_actor.parameters())
        if not all(torch.equal(one, other) for one, other in zip(now, kept, strict=True)):
            renewed.append(agent.num_timesteps)
            kept[:] = [p.clone() for p in now]

    before = [p.detach().clone() for p in agent.actor.parameters()]
    agent.learn(80, watch)
    assert renewed == [25, 50, 75]
    assert not all(torch.equal(one, other) for one, other in zip(before, kept, strict=True))


def test_a_larger_kl_weight_keeps_the_policy_nearer() -> None:
    """After many updates on one batch with the old policy standing still."""
    divergences = []
    for kl_coef in (0.2, 5.0):
        agent = make(kl_coef=kl_coef, policy_regularisation=0.0, learning_rate=3e-3)
        batch = a_batch()
        for _ in range(100):
            metrics = agent.update(batch)
        divergences.append(metrics["train/kl"].item())
    assert divergences[1] < 0.5 * divergences[0]


@pytest.mark.parametrize(("exploration", "noisy"), [("sample", True), ("mode", False)])
def test_exploration(exploration: str, noisy: bool) -> None:
    agent = make(exploration=exploration)
    observation = torch.zeros(1, 2)
    actions = {tuple(agent.explore(observation)[0].tolist()) for _ in range(3)}
    assert (len(actions) > 1) is noisy


def test_densities_stay_finite_where_the_tanh_saturates() -> None:
    policy = SquashedGaussian(torch.full((1, 1), 30.0), torch.zeros(1, 1))
    assert bool(torch.isfinite(policy.log_prob_of_tanh(torch.full((1, 1), 31.0))).all())
