"""The gradient that PPO writes by hand equals autograd's, for every head, every option and odd minibatches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gymnasium import spaces

from palaestra.agents.nn.actor_critic import ActorCritic
from palaestra.agents.policy_gradient.ppo import PPO
from palaestra.agents.policy_gradient.ppo_by_hand import METRICS, PPOGradient, has_gradient_by_hand
from palaestra.agents.registry import make_agent

VECTOR = spaces.Box(-1.0, 1.0, (4,))
SPACES = {
    "gaussian": (VECTOR, spaces.Box(-1.0, 1.0, (3,))),
    "categorical": (VECTOR, spaces.Discrete(5)),
    "masked": (VECTOR, spaces.Discrete(5)),
    "several": (spaces.Discrete(6), spaces.MultiDiscrete([2, 4, 3])),
    "several-masked": (spaces.Dict({"a": VECTOR, "b": spaces.Discrete(3)}), spaces.MultiDiscrete([2, 4, 3])),
}


def some_batch(network: ActorCritic, kind: str, rows: int) -> dict[str, Any]:
    observations = {
        "several": torch.randint(6, (rows,)),
        "several-masked": {"a": torch.randn(rows, 4), "b": torch.randint(3, (rows,))},
    }
    observation = observations.get(kind, torch.randn(rows, 4))
    width = network.policy[-1].out_features
    mask = None
    if "masked" in kind:
        mask = torch.rand(rows, width) < 0.5
        # Every variable keeps an admissible value.
        mask[:, [0, 2, 6] if kind == "several-masked" else [0]] = True
    with torch.no_grad():
        policy, value, _ = network(observation, mask)
        action = policy.sample(None)
        batch = {
            "observation": observation,
            "action": action,
            # Ratios and predictions on both sides of their clipping ranges.
            "log_prob": policy.log_prob(action) + 0.4 * torch.randn(rows),
            "value": value + 0.4 * torch.randn(rows),
            "advantage": torch.randn(rows) + 0.3,
            "target": value + torch.randn(rows),
        }
    return batch if mask is None else {**batch, "mask": mask}


def gradient(agent: PPO, write: Any, batch: dict[str, Any]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    metrics = write(batch, 0.2)
    return metrics, {name: p.grad.clone() for name, p in agent.network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize(
    "options",
    [{}, {"ent_coef": 0.1, "clip_range_vf": 0.3, "activation": "relu"}, {"normalize_advantage": False, "hidden": (7,)}],
    ids=["plain", "entropy-and-clipped-values", "raw-advantages"],
)
def test_gradient_and_metrics_equal_autograd(kind: str, options: dict[str, Any]) -> None:
    torch.manual_seed(1)
    agent = bare_agent(kind, options)
    with torch.no_grad():
        # Away from the small initial outputs, so that probabilities and deviations differ.
        for parameter in agent.network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    assert isinstance(agent.gradient, PPOGradient)
    # Rows are fewer, more and one: kept arrays are cut, regrown and centred without a deviation.
    for rows in (64, 48, 96, 1):
        batch = some_batch(agent.network, kind, rows)
        expected_metrics, expected = gradient(agent, agent.backpropagate, batch)
        metrics, found = gradient(agent, agent.gradient, batch)
        assert tuple(metrics) == tuple(expected_metrics) == METRICS
        for name in METRICS:
            torch.testing.assert_close(metrics[name], expected_metrics[name].float(), atol=2e-6, rtol=2e-5)
        assert found.keys() == expected.keys()
        for name in found:
            torch.testing.assert_close(found[name], expected[name], atol=2e-6, rtol=2e-5)
        if rows > 1:
            assert 0.0 < float(metrics["train/clip_fraction"]) < 1.0


def bare_agent(kind: str, options: dict[str, Any]) -> PPO:
    """Return an agent of the spaces without building a world for them."""
    observation_space, action_space = SPACES[kind]
    config = PPO.config_class(**options)
    agent = object.__new__(PPO)
    agent.config, agent.observation_space, agent.action_space = config, observation_space, action_space
    agent.build()
    return agent


def test_other_networks_are_left_to_autograd() -> None:
    image, action = spaces.Box(0, 255, (8, 8, 3)), spaces.Discrete(2)
    assert has_gradient_by_hand(ActorCritic(VECTOR, action, (8,)))
    assert not has_gradient_by_hand(ActorCritic(VECTOR, action, (8,), recurrent_size=4))
    assert not has_gradient_by_hand(ActorCritic(image, action, (8,)))
    assert not has_gradient_by_hand(ActorCritic(VECTOR, action, (8,), activation="elu"))
    assert not has_gradient_by_hand(ActorCritic(VECTOR, action, (8,)).double())


def test_runs_with_either_gradient_stay_together() -> None:
    """Many updates of a whole run, collection included; the mechanism is used by default."""
    agents = [
        make_agent("ppo", "CartPole-v1", preset_name=None, n_steps=64, num_envs=4, n_epochs=2, device="cpu")
        for _ in range(2)
    ]
    assert isinstance(agents[0].gradient, PPOGradient)
    agents[1].gradient = agents[1].backpropagate
    for agent in agents:
        agent.learn(256)
    assert agents[0].num_updates == 8
    for ours, theirs in zip(agents[0].network.parameters(), agents[1].network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_a_bad_number_is_found() -> None:
    agent = bare_agent("gaussian", {})
    batch = some_batch(agent.network, "gaussian", 8)
    batch["advantage"][3] = torch.nan
    assert not torch.isfinite(agent.gradient(batch, 0.2)["train/policy_loss"])
