"""EnvPool behind Gymnasium's vector interface: seeds, next-step resets and what it says of itself."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

pytest.importorskip("envpool")

from palaestra.agents.training.collector import Collector
from palaestra.wrappers.env_state import why_not_resumable
from palaestra.wrappers.vectorize import backend_of, make_vec


def test_it_is_asked_for_by_name_and_cannot_be_resumed() -> None:
    env = make_vec("Hopper-v5", 3, backend="envpool")
    assert backend_of(env) == "envpool"
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert "EnvPoolVectorEnv has no snapshot() and restore()" in (why_not_resumable(env) or "")
    env.close()
    with pytest.raises(ValueError, match="EnvPool cannot draw"):
        make_vec("Hopper-v5", 3, backend="envpool", render_mode="rgb_array")
    with pytest.raises(ValueError, match=r"expected one of envpool\.list_all_envs"):
        make_vec("palaestra/Kuhn-v0", 3, backend="envpool")


def test_seeds_of_rows_are_kept_and_arguments_passed_on() -> None:
    env: Any = make_vec("HalfCheetah-v5", 3, env_kwargs={"ctrl_cost_weight": 0.5}, backend="envpool")
    starts = [env.reset(seed=seeds)[0] for seeds in ([1, 2, 10**15], [2, 1, 10**15], 1)]
    np.testing.assert_array_equal(starts[0], starts[1][[1, 0, 2]])
    np.testing.assert_array_equal(starts[0][:2], starts[2][:2])
    assert not np.array_equal(starts[0], env.reset()[0])
    info = env.step(np.ones((3, 6), np.float32))[4]
    np.testing.assert_allclose(info["reward_ctrl"], -3.0)
    env.close()


def test_the_collector_drops_the_steps_that_only_reset() -> None:
    env = make_vec("InvertedPendulum-v5", 2, backend="envpool")
    collector = Collector(env, [3, 4])
    collector.start()
    dropped = ended = 0
    for _ in range(60):
        before = collector.resetting.copy()
        step = collector.step(np.full((2, 1), 3.0, np.float32))
        np.testing.assert_array_equal(step.valid, ~before)
        assert (step.reward[before] == 0).all()
        dropped += int(before.sum())
        ended += int(step.done.sum())
    assert collector.episodes == ended >= 4
    assert ended - 2 <= dropped <= ended
    env.close()


def test_its_spaces_are_its_own() -> None:
    env, theirs = make_vec("HalfCheetah-v5", 2, backend="envpool"), gym.make("HalfCheetah-v5")
    assert env.single_observation_space == theirs.observation_space
    assert env.single_action_space.shape == theirs.action_space.shape
    assert env.single_action_space.dtype == np.float64
    env.close()
