"""PROPS against PPO, the closed form of its behaviour loss on a bandit, and the sampling error that it lowers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from palaestra.agents.evaluation.sampling_error import sampling_error
from palaestra.agents.losses.surrogates import clipped_surrogate
from palaestra.agents.memory.recent import RecentRollouts
from palaestra.agents.memory.rollout import RolloutBuffer
from palaestra.agents.nn.distributions import Categorical
from palaestra.agents.nn.flat_parameters import flat_values
from palaestra.agents.policy_gradient.props import PROPS
from palaestra.agents.registry import make_agent

SMALL: dict[str, Any] = {"hidden": (16,), "device": "cpu", "preset_name": None, "n_steps": 32, "batch_size": 32}


def test_without_behaviour_epochs_and_old_batches_it_is_ppo() -> None:
    shared = {"n_epochs": 3, "learning_rate": 1e-3, **SMALL}
    ppo = make_agent("ppo", "CartPole-v1", **shared).learn(128)
    props = make_agent("props", "CartPole-v1", behaviour_epochs=0, n_batches=1, **shared).learn(128)
    assert torch.equal(flat_values(ppo.network.parameters()), flat_values(props.network.parameters()))


def test_gradient_of_the_push_on_a_bandit() -> None:
    """At phi = theta the gradient in the logits is n_a / N - pi_a; PROPS lowers what the batch has too much of."""
    logits = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64, requires_grad=True)
    actions = torch.tensor([0, 0, 0, 1, 2, 0])
    policy = Categorical(logits.expand(6, 3))
    log_ratio = policy.log_prob(actions) - policy.log_prob(actions).detach()
    (gradient,) = torch.autograd.grad(clipped_surrogate(log_ratio, -torch.ones(6).double(), 0.3), logits)
    counts = torch.bincount(actions, minlength=3) / 6
    torch.testing.assert_close(gradient, counts - policy.probs[0].detach())


def test_push_is_the_larger_ratio_and_stops_below_the_interval() -> None:
    ratio = torch.tensor([0.5, 0.69, 0.71, 1.0, 1.5], dtype=torch.float64)
    log_ratio = ratio.log().requires_grad_()
    loss = clipped_surrogate(log_ratio, -torch.ones(5).double(), 0.3)
    torch.testing.assert_close(loss, torch.maximum(ratio, ratio.clamp(0.7, 1.3)).mean())
    (gradient,) = torch.autograd.grad(loss, log_ratio)
    torch.testing.assert_close(gradient, torch.where(ratio < 0.7, 0.0, ratio / 5))


def test_behaviour_loss_of_the_agent() -> None:
    """Unchanged, every ratio is 1 and the KL is 0; the loss then falls within the bound on the KL."""
    agent = make_agent("props", "CartPole-v1", n_batches=1, behaviour_interval=33, behaviour_kl_coef=0.5, **SMALL)
    assert isinstance(agent, PROPS)
    agent.learn(20)
    (batch,) = agent.recent.together_with(agent.rollout).minibatches(20, agent.generator)
    loss, kl = agent.behaviour_loss(batch)
    assert (loss.item(), kl.item()) == (pytest.approx(1.0), pytest.approx(0.0, abs=1e-7))
    agent.correct_behaviour()
    assert agent.behaviour_steps > 0
    loss, kl = agent.behaviour_loss(batch)
    assert loss.item() < 1.0
    assert 0.0 < kl.item() < 0.03
    agent.network.load_state_dict(agent.sampler.state_dict())
    assert agent.behaviour_loss(batch)[0].item() == pytest.approx(1.0)


def test_batches_kept_are_judged_by_the_policy_of_now() -> None:
    agent = make_agent("props", "CartPole-v1", n_batches=2, **SMALL)
    seen: list[int] = []
    update = agent.update

    def check(batch: dict[str, Any]) -> Any:
        if agent.num_updates % (2 * 16) == 0 or not seen:
            policy, value = agent.network.unroll(batch["observation"][None], None, None, None)
            seen.append(len(batch["action"]))
            torch.testing.assert_close(policy.log_prob(batch["action"]), batch["log_prob"])
            torch.testing.assert_close(value, batch["value"])
        return update(batch)

    agent.update = check
    agent.learn(32)
    assert agent.num_updates == 16
    agent.num_updates = 0
    agent.learn(32, reset_num_timesteps=False)
    assert len(seen) == 2
    assert agent.num_updates == 32
    assert len(agent.recent.kept) == 1


def test_recent_rollouts_keep_the_newest_and_are_restored() -> None:
    recent = RecentRollouts(2, torch.device("cpu"))
    rollout = RolloutBuffer(1, torch.device("cpu"))
    for number in range(4):
        rollout.add(reward=torch.tensor([float(number)]), valid=torch.tensor([True]))
        assert recent.together_with(rollout).fields["reward"].flatten().tolist() == list(
            range(max(0, number - 2), number + 1)
        )
        recent.push(rollout, torch.tensor([number]))
        rollout.clear()
    restored = RecentRollouts(2, torch.device("cpu"))
    restored.load_state_dict(recent.state_dict())
    assert [following.item() for _, following in restored.kept] == [2, 3]
    assert restored.together_with(rollout).fields["reward"].flatten().tolist() == [2.0, 3.0]


def test_sampling_error_in_closed_form() -> None:
    """Of two states, one with actions 3 : 1 under 1/2 each, one as the policy says."""
    observations = np.array([[0.0]] * 4 + [[1.0]] * 2)
    actions = np.array([0, 0, 0, 1, 0, 1])
    expected = 4 / 6 * (0.75 * np.log(1.5) + 0.25 * np.log(0.5))
    assert sampling_error(observations, actions, np.full(6, np.log(0.5))) == pytest.approx(expected, abs=1e-12)
    assert sampling_error(observations, actions[:, None], np.full(6, np.log(0.5))) == pytest.approx(expected)
    with pytest.raises(ValueError, match="6 observations, 5 actions, 6 log_probs"):
        sampling_error(observations, actions[:5], np.zeros(6))


def error_of_batches(agent_id: str, steps: int, **config: Any) -> float:
    """Mean sampling error of batches collected for a policy that stays as it is, on three states of three actions."""
    agent = make_agent(
        agent_id,
        "TestIdentity-v0",
        env_kwargs={"kind": "Discrete"},
        **{**SMALL, "n_steps": steps, "n_epochs": 1, "learning_rate": 1e-12, **config},
    )
    errors: list[float] = []

    def improve(rollout: RolloutBuffer) -> None:
        fields = rollout.fields
        columns = (fields[name].flatten(0, 1).numpy() for name in ("observation", "action", "log_prob"))
        errors.append(sampling_error(*columns))

    agent.improve = improve
    agent.learn(6 * steps)
    assert len(errors) == 6
    return float(np.mean(errors))


@pytest.mark.parametrize("steps", [8, 16, 32])
def test_sampling_error_is_lower_than_under_independent_samples(steps: int) -> None:
    """The policy does not change, and every batch starts anew."""
    independent = error_of_batches("ppo", steps)
    corrected = error_of_batches(
        "props", steps, n_batches=1, behaviour_interval=1, behaviour_target_kl=0.5, behaviour_learning_rate=1e-2
    )
    assert corrected < independent


def test_recurrent_policies_are_refused() -> None:
    with pytest.raises(ValueError, match="PROPSConfig: recurrent_size=4; expected 0"):
        make_agent("props", "CartPole-v1", recurrent_size=4)
