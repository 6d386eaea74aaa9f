"""The exact checks of DQN: stable-baselines3's gradients, the schedule of epsilon, the target's interval, masks."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from palaestra.agents.losses.values import HuberError
from palaestra.agents.memory.replay import Batch
from palaestra.agents.nn.action_values import admissible, of_actions
from palaestra.agents.registry import make_agent
from tests.agents import worlds
from tests.agents.batches import as_samples

TOLERANCE = 1e-5
SMALL = {"hidden": (16, 16), "batch_size": 16, "buffer_size": 500, "learning_starts": 20, "preset_name": None}


def random_batch(mask: torch.Tensor | None = None, rows: int = 64) -> Batch:
    generator = torch.Generator().manual_seed(3)
    observation, following = torch.randn(2, rows, 4, generator=generator)
    action = torch.randint(2, (rows,), generator=generator)
    # Errors on both sides of the Huber loss's width.
    reward = 3.0 * torch.randn(rows, generator=generator)
    terminated = torch.rand(rows, generator=generator) < 0.2
    return Batch(observation, action, reward, following, terminated, torch.zeros_like(terminated), mask)


class ClippedSGD(torch.optim.SGD):
    """Plain steps on gradients clipped as both libraries clip them; ours leaves clipping to the optimiser."""

    def step(self, closure: Any = None) -> None:
        torch.nn.utils.clip_grad_norm_(self.param_groups[0]["params"], 0.5)
        super().step()


@pytest.mark.parametrize("max_grad_norm", [0.5, 1e9])
def test_update_equals_sb3(max_grad_norm: float) -> None:
    """One plain gradient step of size 1 on the same weights and batch, clipped or not."""
    sb3 = pytest.importorskip("stable_baselines3")
    from stable_baselines3.common.logger import configure

    theirs = sb3.DQN(
        "MlpPolicy",
        "CartPole-v1",
        learning_rate=1.0,
        max_grad_norm=max_grad_norm,
        policy_kwargs={"net_arch": [32, 32], "optimizer_class": torch.optim.SGD},
        seed=0,
        device="cpu",
    )
    theirs.set_logger(configure(None, []))
    ours = make_agent("dqn", "CartPole-v1", preset_name=None, hidden=(32, 32), device="cpu")
    with torch.no_grad():
        for mine, peer in ((ours.network, theirs.q_net), (ours.target_network, theirs.q_net_target)):
            for own, other in zip(mine.parameters(), peer.parameters(), strict=True):
                other += 0.1 * torch.randn(other.shape, generator=torch.Generator().manual_seed(other.numel()))
                own.copy_(other)
    kind = ClippedSGD if max_grad_norm < 1.0 else torch.optim.SGD
    ours.network_optimizer = kind(ours.network.parameters(), lr=1.0)
    batch = random_batch()
    theirs.replay_buffer.sample = lambda *args, **kwargs: as_samples(batch)
    theirs.train(gradient_steps=1, batch_size=64)
    metrics = ours.update(batch)
    assert metrics["train/loss"].item() == pytest.approx(theirs.logger.name_to_value["train/loss"], rel=TOLERANCE)
    for own, other in zip(ours.network.parameters(), theirs.q_net.parameters(), strict=True):
        torch.testing.assert_close(own, other, atol=TOLERANCE, rtol=TOLERANCE)
    for own, other in zip(ours.target_network.parameters(), theirs.q_net_target.parameters(), strict=True):
        assert torch.equal(own, other)


def target_of(agent: Any, batch: Batch) -> torch.Tensor:
    """The target that a batch gives, as the loss sees it."""
    seen = []

    def watch(self: HuberError, values: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        seen.append(target)
        return inner(self, values, target)

    inner = HuberError.__call__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HuberError, "__call__", watch)
        agent.update(batch)
    return seen[0]


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_targets_against_a_loop(double: bool, masked: bool) -> None:
    agent = make_agent("dqn", "CartPole-v1", device="cpu", double=double, gamma=0.9, **SMALL)
    with torch.no_grad():
        # Online and target networks that disagree on the better action in some rows.
        for parameter in agent.network.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
    mask = torch.rand(64, 2, generator=torch.Generator().manual_seed(5)) < 0.6 if masked else None
    if mask is not None:
        mask[:, 0] |= ~mask[:, 1]
    batch = random_batch(mask)
    online, target = (n(batch.next_observation).detach() for n in (agent.network, agent.target_network))
    assert bool((online.argmax(1) != target.argmax(1)).any())
    expected = []
    for row in range(64):
        actions = [a for a in range(2) if mask is None or mask[row, a]]
        best = max(actions, key=lambda a, row=row: float((online if double else target)[row, a]))
        bootstrap = 0.0 if batch.terminated[row] else 0.9 * float(target[row, best])
        expected.append(float(batch.reward[row]) + bootstrap)
    torch.testing.assert_close(target_of(agent, batch), torch.tensor(expected), atol=1e-6, rtol=1e-6)


def test_epsilon_is_linear_and_then_constant() -> None:
    agent = make_agent(
        "dqn",
        "CartPole-v1",
        device="cpu",
        exploration_fraction=0.25,
        exploration_initial_eps=0.9,
        exploration_final_eps=0.1,
        **SMALL,
    )
    agent.target_timesteps = 1_000
    seen = []
    for agent.num_timesteps in (0, 50, 125, 250, 600, 1_000):
        seen.append(agent.epsilon)
    np.testing.assert_allclose(seen, [0.9, 0.74, 0.5, 0.1, 0.1, 0.1])


def test_a_share_epsilon_of_the_actions_is_random() -> None:
    agent = make_agent("dqn", "CartPole-v1", device="cpu", **SMALL)
    agent.target_timesteps, agent.num_timesteps = 1_000, 50
    assert agent.epsilon == pytest.approx(0.525)
    observation = torch.randn(20_000, 4, generator=torch.Generator().manual_seed(0))
    greedy = agent.act(observation, None)
    chosen = agent.act(observation, torch.Generator().manual_seed(1))
    assert float((chosen != greedy).float().mean()) == pytest.approx(0.525 / 2, abs=0.01)
    for deterministic in (True, False):
        predicted, _ = agent.predict(observation.numpy(), deterministic=deterministic)
        assert np.array_equal(predicted, greedy.numpy())


@pytest.mark.parametrize(("interval", "num_envs", "renewed"), [(10, 1, [10, 20, 30, 40]), (16, 3, [18, 33, 48])])
def test_the_target_is_renewed_at_its_interval(interval: int, num_envs: int, renewed: list[int]) -> None:
    """Whenever the steps of all rows together reach or pass a multiple of the interval, and only then."""
    agent = make_agent(
        "dqn", "CartPole-v1", device="cpu", target_update_interval=interval, num_envs=num_envs, train_freq=1, **SMALL
    )
    seen, before = [], [agent.target_network.trunk[0].weight.clone()]

    def watch(agent: Any) -> None:
        # Something that the copy can be told by, before the first update too.
        now = agent.target_network.trunk[0].weight.clone()
        if not torch.equal(now, before[0]):
            seen.append(agent.num_timesteps)
        before[0] = now
        with torch.no_grad():
            agent.network.trunk[0].weight += 0.01

    agent.learn(48, watch)
    assert seen == renewed


def test_a_slow_target_follows_by_tau() -> None:
    agent = make_agent("dqn", "CartPole-v1", device="cpu", tau=0.25, target_update_interval=5, **SMALL)
    with torch.no_grad():
        for network, value in ((agent.network, 4.0), (agent.target_network, 0.0)):
            for parameter in network.parameters():
                parameter.fill_(value)
    agent.num_timesteps = 5
    agent.after_step(4)
    assert all(bool((parameter == 1.0).all()) for parameter in agent.target_network.parameters())


def test_masked_actions_are_never_taken_nor_bootstrapped_from() -> None:
    """The mask of a truncated row's true successor is stored, not that of the next episode's first observation."""
    agent = make_agent("dqn", "TestIdentity-v0", device="cpu", num_envs=2, env_kwargs={"masked": True}, **SMALL)
    taken = []
    inner = agent.collector.step

    def watch(action: np.ndarray) -> Any:
        masks = agent.collector.action_masks
        taken.extend(masks[row, value - 1] for row, value in enumerate(action))
        return inner(action)

    agent.collector.step = watch
    agent.learn(200)
    assert len(taken) >= 200
    assert all(taken)
    fields = agent.replay.fields
    count = len(agent.replay)
    goal = fields["next_observation"][:count] - 1
    assert torch.equal(fields["next_mask"][:count], torch.nn.functional.one_hot(goal.long(), 3).bool())
    assert int(fields["truncated"][:count].sum()) >= 18
    observation, masks = np.ones(3, np.int64), np.eye(3, dtype=bool)
    action, _ = agent.predict(observation, deterministic=True, action_masks=masks)
    assert action.tolist() == [1, 2, 3]


@pytest.mark.parametrize("observation", ["image", "dict"])
def test_other_observations_are_learnt_from(observation: str) -> None:
    agent = make_agent(
        "dqn",
        "TestIdentity-v0",
        device="cpu",
        env_kwargs={"observation": observation},
        train_freq=1,
        gamma=0.0,
        **{**SMALL, "buffer_size": 1_000, "learning_starts": 100, "batch_size": 32},
        learning_rate=1e-3,
    )
    agent.learn(1_200)
    env = worlds.Identity("Discrete", observation)
    seen, _ = env.reset(seed=1)
    right = 0.0
    for _ in range(50):
        action, _ = agent.predict(seen, deterministic=True)
        seen, reward, _, _, _ = env.step(action)
        right += reward / 50
    assert right > 0.9


def test_helpers_select_and_forbid() -> None:
    values = torch.arange(12.0).view(2, 3, 2)
    assert of_actions(values, torch.tensor([2, 0])).tolist() == [[4.0, 5.0], [6.0, 7.0]]
    assert of_actions(values[..., 0], torch.tensor([1, 2])).tolist() == [2.0, 10.0]
    mask = torch.tensor([[True, False, True], [False, True, False]])
    assert admissible(values[..., 0], mask).argmax(1).tolist() == [2, 1]
    assert admissible(values[..., 0], None) is not None


def test_other_action_spaces_and_settings_are_refused() -> None:
    with pytest.raises(TypeError, match=r"dqn: action space Box.*expected Discrete"):
        make_agent("dqn", "Pendulum-v1")
    for name, value in (
        ("exploration_fraction", 0.0),
        ("exploration_final_eps", 1.5),
        ("target_update_interval", 0),
        ("max_grad_norm", 0.0),
    ):
        with pytest.raises(ValueError, match=f"{name}={value}; expected"):
            make_agent("dqn", gym.make("CartPole-v1"), **{name: value})
