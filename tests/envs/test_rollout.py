from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch

from palaestra.envs.control.multi_goal_2d import MultiGoal2D
from palaestra.envs.inventory.one_store_backlog import OneStoreBacklog
from palaestra.envs.noise import draw_tape
from palaestra.envs.registration import make_simulator, own_env_ids
from palaestra.envs.rollout import episode_returns, long_run_reward, rollout, run_episodes

SEEDS = [5, 6, 2**62, 0]


def test_rollout_meets_the_noise_of_the_vector_face():
    """Bitwise, on the same row seeds and actions: what makes paired comparisons honest."""
    world = OneStoreBacklog(lead_time=3, horizon=50)
    actor = world.reference_policies()["base-stock"]
    result = rollout(world, actor, SEEDS, steps=50)
    env = gym.make_vec("palaestra/OneStoreBacklog-v0", 4, lead_time=3, horizon=50)
    env.reset(seed=SEEDS)
    for step in range(50):
        _, reward, _, _, info = env.step(result.actions[step])
        np.testing.assert_array_equal(reward, result.rewards[step])
        np.testing.assert_array_equal(info["demand"], result.info["demand"][step])


@pytest.mark.parametrize("env_id", own_env_ids())
def test_episodes_are_those_of_their_seeds_and_numbers(env_id):
    """Returns, lengths and final infos over autoresets equal those of each episode run alone on its own tape."""
    world = make_simulator(env_id)
    actor = world.reference_policies()["random"]
    result = run_episodes(world, actor, SEEDS, episodes=3)
    for row, seed in enumerate(SEEDS):
        for episode in range(3):
            tape = draw_tape([seed], world.horizon, episode=episode)
            alone = rollout(world, actor, noise=tape, steps=int(result.lengths[row, episode]))
            assert float(alone.rewards.sum()) == pytest.approx(result.returns[row, episode], rel=1e-12)
            ended = bool(alone.terminated[-1, 0])
            assert ended or result.lengths[row, episode] == world.horizon
            assert not alone.terminated[:-1].any()
            for name, value in world.information(alone.state).items():
                np.testing.assert_array_equal(result.info[name][row, episode], value[0])
    np.testing.assert_array_equal(episode_returns(world, actor, SEEDS, 3), result.returns)


def test_rows_that_terminate_stay():
    world = MultiGoal2D()
    result = rollout(world, world.expert("goal-2"), SEEDS, steps=20)
    first = result.terminated.argmax(axis=0)
    assert result.terminated[-1].all()
    for row, last in enumerate(first):
        assert (result.rewards[last + 1 :, row] == 0.0).all()
        assert result.rewards[last, row] > 9.0
        assert result.terminated[last:, row].all()
    np.testing.assert_array_equal(result.state.goal, 2)


def test_long_run_is_the_mean_after_the_ignored_steps():
    world = OneStoreBacklog()
    actor = world.expert("optimal")
    rewards = rollout(world, actor, SEEDS, steps=40).rewards
    np.testing.assert_allclose(long_run_reward(world, actor, SEEDS, 40, 15), rewards[15:].mean(axis=0), rtol=1e-13)


def test_gradients_flow_through_a_rollout():
    world = OneStoreBacklog(action_mode="orders")
    order = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)
    result = rollout(world, lambda state, observation, key: order.expand(4, 1), torch.tensor(SEEDS), steps=8)
    result.rewards.sum().backward()
    assert order.grad is not None
    assert float(order.grad) != 0.0


def test_bad_calls_are_refused():
    world, goals = OneStoreBacklog(), MultiGoal2D()
    actor = world.expert("optimal")
    with pytest.raises(ValueError, match="either seeds or noise"):
        rollout(world, actor, steps=3)
    with pytest.raises(ValueError, match="either seeds or noise"):
        rollout(world, actor, SEEDS, steps=3, noise=draw_tape(SEEDS, 3))
    with pytest.raises(ValueError, match="received 0"):
        rollout(world, actor, SEEDS, steps=0)
    with pytest.raises(ValueError, match="ignore=10"):
        long_run_reward(world, actor, SEEDS, 10, 10)
    with pytest.raises(ValueError, match="MultiGoal2D terminated"):
        long_run_reward(goals, goals.expert("nearest"), SEEDS, 20)
