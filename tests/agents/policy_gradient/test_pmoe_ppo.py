"""PMOE in its PPO form: with one expert it is PPO, and its gate learns which expert the action values prefer."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from palaestra.agents.policy_gradient.pmoe_ppo import PMOEPPO
from palaestra.agents.registry import make_agent

SMALL: dict[str, Any] = {
    "device": "cpu",
    "preset_name": None,
    "hidden": (16,),
    "n_steps": 32,
    "batch_size": 32,
    "n_epochs": 3,
    "learning_rate": 1e-3,
    "ent_coef": 0.01,
}
GOALS = "palaestra/MultiGoal2D-v0"


def make(**config: Any) -> PMOEPPO:
    agent = make_agent("pmoe-ppo", GOALS, **{**SMALL, **config})
    assert isinstance(agent, PMOEPPO)
    return agent


def test_one_expert_is_ppo() -> None:
    """From the same weights, through whole rollouts: the gate has no gradient and the action values no say."""
    ppo, pmoe = make_agent("ppo", GOALS, **SMALL), make(experts=1)
    weights = {f"{name}": value.clone() for name, value in ppo.network.state_dict().items()}
    weights["log_std"] = weights["log_std"].unsqueeze(0)
    gate = {name: value.clone() for name, value in pmoe.network.gate.state_dict().items()}
    pmoe.network.load_state_dict({**weights, **{f"gate.{name}": value for name, value in gate.items()}})
    ppo.learn(96)
    pmoe.learn(96)
    assert ppo.num_updates == pmoe.num_updates == 9
    for name, value in ppo.network.state_dict().items():
        ours = pmoe.network.state_dict()[name]
        torch.testing.assert_close(ours.view_as(value), value, atol=2e-5, rtol=1e-4)
    for name, value in gate.items():
        assert torch.equal(pmoe.network.gate.state_dict()[name], value)


def test_action_values_are_fitted_to_the_returns() -> None:
    agent = make()
    generator = torch.Generator().manual_seed(0)
    observation, action = torch.randn(2, 64, 2, generator=generator)
    batch = {"observation": observation, "action": action, "target": action[:, 0], **unused(64)}
    first = agent.update(batch)["train/critic_loss"].item()
    for _ in range(300):
        last = agent.update(batch)["train/critic_loss"].item()
    assert last < 0.2 * first


def unused(batch: int) -> dict[str, torch.Tensor]:
    return {name: torch.zeros(batch) for name in ("advantage", "value", "log_prob")}


def test_best_expert_is_that_of_the_highest_value() -> None:
    """With a critic that values the first coordinate, the expert farthest along it wins wherever noise is small."""
    agent = make(experts=3, log_std_init=-5.0)
    agent.critic.forward = lambda observation, action: action[:, :1].T  # type: ignore[method-assign]
    observation = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = agent.network.mixture(observation).experts.mean[..., 0].argmax(-1)
    best = agent.best_expert(observation)
    assert float((best == expected).float().mean()) > 0.9
    assert len(set(best.tolist())) > 1


def test_gate_follows_its_own_loss_and_the_surrogate() -> None:
    """With no advantage only the frequency loss moves it; with no weight on that, only the surrogate does."""
    agent = make(experts=2, ent_coef=0.0)
    observation = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    action = agent.network.mixture(observation).sample(torch.Generator().manual_seed(1))

    def gate_gradient(advantage: torch.Tensor, gate_coef: float) -> float:
        other = make(experts=2, ent_coef=0.0, gate_coef=gate_coef)
        with torch.no_grad():
            log_prob = other.network.mixture(observation).log_prob(action)
        batch = {"observation": observation, "action": action, **unused(64), "target": torch.zeros(64)}
        loss, _ = other.loss({**batch, "log_prob": log_prob, "advantage": advantage}, 0.2)
        gradients = torch.autograd.grad(loss, list(other.network.gate.parameters()))
        return max(float(gradient.abs().max()) for gradient in gradients)

    assert gate_gradient(torch.zeros(64), 0.0) == pytest.approx(0.0, abs=1e-7)
    assert gate_gradient(torch.zeros(64), 1.0) > 1e-3
    assert gate_gradient(action[:, 0].detach(), 0.0) > 1e-3


def test_gate_moves_in_training() -> None:
    agent = make(experts=3)
    before = agent.network.gate.weight.detach().clone()
    agent.learn(64)
    assert float((agent.network.gate.weight - before).detach().abs().max()) > 1e-3


def test_recurrent_policies_are_refused() -> None:
    with pytest.raises(ValueError, match="PMOEPPOConfig: recurrent_size=4; expected 0"):
        make(recurrent_size=4)
