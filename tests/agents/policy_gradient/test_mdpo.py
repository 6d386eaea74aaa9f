"""On-policy MDPO against the mirror-descent step in closed form, and the first inner gradient against the policy's."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from palaestra.agents.losses.divergences import kl_divergence
from palaestra.agents.losses.surrogates import penalised_surrogate
from palaestra.agents.nn.distributions import Categorical
from palaestra.agents.nn.flat_parameters import flat_values
from palaestra.agents.policy_gradient.mdpo import MDPO
from palaestra.agents.registry import make_agent
from tests.agents.worlds import register_worlds

register_worlds()

SMALL: dict[str, Any] = {"device": "cpu", "preset_name": None, "hidden": (16,), "n_steps": 32, "batch_size": 32}


def solved(old: torch.Tensor, advantage: torch.Tensor, step_size: float) -> torch.Tensor:
    """Minimise the surrogate over tables `[states, actions]` of policies; its expectation is written out."""
    states, actions = old.shape
    logits = old.log().clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=500, tolerance_grad=1e-13, tolerance_change=0.0, line_search_fn="strong_wolfe"
    )
    before = Categorical(old.log())
    every = torch.arange(actions).repeat(states)

    def closure() -> torch.Tensor:
        policy = Categorical(logits)
        rows = Categorical(logits.repeat_interleave(actions, 0))
        log_ratio = rows.log_prob(every) - old.log().flatten()
        # The mean over samples becomes that over actions, each as often as the old policy takes it.
        weighted = (old * advantage).flatten() * actions
        loss = penalised_surrogate(log_ratio, weighted, kl_divergence(policy, before), step_size)
        optimizer.zero_grad()
        loss.backward()
        return loss

    optimizer.step(closure)
    return torch.softmax(logits.detach(), -1)


def test_two_arms_in_closed_form() -> None:
    """Uniform, A = (1, -1), t = 1: the first arm has e / (e + 1/e) = 0.880797."""
    new = solved(torch.full((1, 2), 0.5, dtype=torch.float64), torch.tensor([[1.0, -1.0]]).double(), 1.0)
    assert new[0, 0].item() == pytest.approx(0.880797, abs=1e-6)


@pytest.mark.parametrize("step_size", [0.3, 1.0, 4.0])
def test_table_in_closed_form(step_size: float) -> None:
    """pi_{k+1} is pi_k exp(t_k A), normalised."""
    generator = torch.Generator().manual_seed(0)
    old = torch.softmax(torch.randn(5, 4, generator=generator, dtype=torch.float64), -1)
    advantage = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    expected = old * torch.exp(step_size * advantage)
    new = solved(old, advantage, step_size)
    torch.testing.assert_close(new, expected / expected.sum(-1, keepdim=True), atol=1e-6, rtol=0.0)


def bandit(**config: Any) -> tuple[MDPO, dict[str, Any], torch.Tensor]:
    """An agent that is uniform over three actions in three states, and a batch of every action of every state once."""
    settings = {**SMALL, "normalize_advantage": False, "learning_rate_schedule": "constant", **config}
    agent = make_agent("mdpo", "TestIdentity-v0", env_kwargs={"kind": "Discrete"}, **settings)
    assert isinstance(agent, MDPO)
    output = agent.network.policy[-1]
    with torch.no_grad():
        for parameter in output.parameters():
            parameter.zero_()
    advantage = torch.tensor([[1.0, 0.2, -1.2], [-0.5, 1.0, -0.5], [0.0, 0.7, -0.7]])
    observation, action = torch.arange(1, 4).repeat_interleave(3), torch.arange(3).repeat(3)
    log_prob = torch.full((9,), 1.0 / 3.0).log()
    batch = {"observation": observation, "action": action, "log_prob": log_prob, "advantage": advantage.flatten()}
    return agent, batch, advantage


def probabilities(agent: MDPO) -> torch.Tensor:
    with torch.no_grad():
        policy = agent.network.act(torch.arange(1, 4), None, None, None)[0]
    assert isinstance(policy, Categorical)
    return policy.probs


@pytest.mark.parametrize("step_size", [0.5, 1.0])
def test_many_inner_steps_of_the_agent_reach_the_closed_form(step_size: float) -> None:
    agent, batch, advantage = bandit(policy_updates=600, learning_rate=5e-3, step_size=step_size)
    metrics = agent.update_policy(batch)
    expected = torch.softmax(step_size * advantage, -1)
    torch.testing.assert_close(probabilities(agent), expected, atol=2e-3, rtol=0.0)
    kl = (expected * (3.0 * expected).log()).sum(-1).mean()
    assert metrics["train/kl"].item() == pytest.approx(kl.item(), abs=5e-3)


def test_a_single_step_is_the_plain_policy_gradient() -> None:
    """The KL has no gradient at pi_k: with m = 1 its weight does not matter, with m = 2 it does."""
    for updates, equal in ((1, True), (2, False)):
        moved = []
        for step_size in (1e3, 1e-3):
            agent, batch, _ = bandit(policy_updates=updates, step_size=step_size)
            agent.update_policy(batch)
            moved.append(flat_values(agent.network.policy_parameters()))
        assert torch.allclose(*moved, atol=1e-7, rtol=0.0) is equal

    agent, batch, advantage = bandit(policy_updates=1, max_grad_norm=1e9)
    agent.update_policy(batch)
    rate, eps = agent.config.learning_rate, 1e-5
    moved_bias = agent.network.policy[-1].bias.detach()
    # d/dlogit_j of -mean(A log pi) is -sum_s (A_sj - pi_j sum_a A_sa) / 9, and Adam's first step is lr g / (|g| + eps).
    gradient = -(advantage - advantage.sum(-1, keepdim=True) / 3.0).sum(0) / 9.0
    torch.testing.assert_close(moved_bias, -rate * gradient / (gradient.abs() + eps), atol=1e-7, rtol=1e-3)


def test_a_smaller_step_size_keeps_the_policy_nearer() -> None:
    divergences = []
    for step_size in (0.05, 0.5, 5.0):
        agent, batch, _ = bandit(policy_updates=100, step_size=step_size, learning_rate=3e-3)
        divergences.append(agent.update_policy(batch)["train/kl"].item())
    assert 0.0 < divergences[0] < 0.3 * divergences[1] < 0.3 * divergences[2]


def test_step_size_and_learning_rates_are_annealed() -> None:
    """t_k = 1 - k / K for the rollouts k = 0, ..., K - 1."""
    agent = make_agent("mdpo", "CartPole-v1", **SMALL)
    assert isinstance(agent, MDPO)
    seen: list[tuple[float, float, float]] = []
    update = agent.update_policy

    def watch(batch: dict[str, Any]) -> Any:
        rates = [o.param_groups[0]["lr"] for o in (agent.policy_optimizer, agent.value_optimizer)]
        seen.append((agent.step_size, *rates))
        metrics = update(batch)
        assert metrics["train/kl_weight"].item() == pytest.approx(1.0 / agent.step_size)
        return metrics

    agent.update_policy = watch  # type: ignore[method-assign]
    agent.learn(4 * 32)
    assert [t for t, *_ in seen] == pytest.approx([1.0, 0.75, 0.5, 0.25])
    assert [rates for _, *rates in seen] == [pytest.approx([s * 3e-4] * 2) for s in (0.75, 0.5, 0.25, 0.0)]


def test_every_rollout_counts_once_in_policy_updates() -> None:
    agent = make_agent("mdpo", "CartPole-v1", policy_updates=7, n_critic_updates=3, **SMALL).learn(64)
    assert agent.num_updates == 2
    assert agent.policy_optimizer.state_dict()["steps"].item() == 14
    assert agent.value_optimizer.state_dict()["steps"].item() == 6


def test_recurrent_policies_are_refused() -> None:
    with pytest.raises(ValueError, match="MDPOConfig: recurrent_size=4; expected 0"):
        make_agent("mdpo", "CartPole-v1", recurrent_size=4)
