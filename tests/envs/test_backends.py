"""Every own simulator that stands in for a foreign id shows what the id's own env shows."""

from __future__ import annotations

import gymnasium as gym
import pytest
from gymnasium.vector import AutoresetMode

from palaestra.envs.backends import OWN_BACKENDS, make_own
from palaestra.wrappers.env_state import why_not_resumable
from palaestra.wrappers.vectorize import backend_of, find_spec, make_vec


@pytest.mark.parametrize("env_id", sorted(OWN_BACKENDS))
def test_spaces_and_time_limits_are_those_of_the_id(env_id: str) -> None:
    own, native = make_vec(env_id, 2), make_vec(env_id, 2, backend="sync")
    assert (backend_of(own), backend_of(native)) == ("own", "sync")
    assert own.single_observation_space == native.single_observation_space
    assert own.single_action_space == native.single_action_space
    assert own.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert why_not_resumable(own) is None
    limit = find_spec(env_id).max_episode_steps
    if OWN_BACKENDS[env_id].takes_time_limit:
        assert own.simulator.horizon == limit  # type: ignore[attr-defined]
    observation, _ = own.reset(seed=0)
    assert own.observation_space.contains(observation)


def test_an_id_without_one_is_refused() -> None:
    with pytest.raises(ValueError, match="make_own: FrozenLake-v1 has no own simulator"):
        make_own(gym.spec("FrozenLake-v1"), 2, {})
