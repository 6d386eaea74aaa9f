from __future__ import annotations

import subprocess
import sys
import warnings

import gymnasium as gym
import pytest

import palaestra
from palaestra.envs import registration


def test_registering_twice_changes_nothing_and_says_nothing():
    before = {id: gym.registry[id] for id in registration.own_env_ids()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        palaestra.register()
    assert all(gym.registry[id] is spec for id, spec in before.items())


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("palaestra/Khun-v0", "palaestra/Kuhn-v0"),
        ("palaestra/kuhn-v0", "palaestra/Kuhn-v0"),
        ("OneStoreBacklog", "palaestra/OneStoreBacklog-v0"),
        ("palaestra:palaestra/TextCoridor-v0", "palaestra/TextCorridor-v0"),
    ],
)
def test_unknown_ids_name_the_nearest(wrong, right):
    with pytest.raises(gym.error.NameNotFound, match=f"did you mean .*'{right}'"):
        registration.make_simulator(wrong)


def test_hopeless_ids_name_all():
    with pytest.raises(gym.error.NameNotFound, match=r"unknown env id 'zzz'; expected one of .*Kuhn"):
        registration.find_row("zzz")


def test_unknown_arguments_name_the_nearest():
    with pytest.raises(TypeError, match="unknown argument leadtime=2; did you mean 'lead_time'"):
        registration.make_simulator("palaestra/OneStoreBacklog-v0", leadtime=2)
    with pytest.raises(TypeError, match="did you mean 'lead_time'"):
        gym.make("palaestra/OneStoreBacklog-v0", leadtime=2)


def test_a_world_of_ones_own(tmp_path, monkeypatch):
    source = '''
"""A world of one's own."""
import gymnasium as gym
import numpy as np
from dataclasses import dataclass
from palaestra.envs.simulator import Simulator
from palaestra.protocols import Transition

@dataclass(frozen=True)
class Count:
    """How far."""
    count: np.ndarray

class Counter(Simulator[Count]):
    """Counts up to `limit`."""
    action_space = gym.spaces.Discrete(2)
    horizon = 100

    def __init__(self, limit=3):
        self.limit = limit
        self.observation_space = gym.spaces.Discrete(limit + 1)

    def initial(self, key):
        return Count(np.zeros(key.batch, np.int64))

    def step(self, state, action, key):
        count = state.count + action
        return Transition(Count(count), action * 1.0, count >= self.limit)

    def observe(self, state):
        return state.count
'''
    (tmp_path / "counting_world.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    registration.register_simulator("mine/Counter-v0", "counting_world:Counter", limit=2)
    try:
        env = gym.make("mine/Counter-v0")
        assert env.reset(seed=0) == (0, {})
        assert env.step(1) == (1, 1.0, False, False, {})
        assert env.step(1) == (2, 1.0, True, False, {})
        assert gym.make_vec("mine/Counter-v0", 3, limit=5).simulator.limit == 5
        assert registration.summary("mine/Counter-v0") == "Counts up to `limit`."
        assert "mine/Counter-v0" not in registration.own_env_ids()
        assert "mine/Counter-v0" in [row.id for row in registration.registered_rows()]
        with pytest.raises(gym.error.NameNotFound, match="did you mean 'mine/Counter-v0'"):
            registration.find_row("mine/Counte-v0")
    finally:
        del gym.registry["mine/Counter-v0"]
        del registration._registered["mine/Counter-v0"]


@pytest.mark.parametrize("place", ["no_colon", ":Class", "module:", "module:not a name"])
def test_malformed_places_are_refused(place):
    with pytest.raises(ValueError, match=r"expected 'package\.module:Class'"):
        registration.register_simulator("mine/Bad-v0", place)


def test_missing_classes_are_named():
    with pytest.raises(ImportError, match="has no class 'Nothing'"):
        registration.load_simulator("palaestra.envs.simulator:Nothing")


def test_summaries_are_one_line():
    for id in registration.own_env_ids():
        line = registration.summary(id)
        assert 10 < len(line) <= 120
        assert "\n" not in line


def test_gym_make_imports_the_package_by_itself():
    code = (
        "import gymnasium as gym, sys; "
        "env = gym.make('palaestra:palaestra/OneStoreBacklog-v0', lead_time=2); "
        "assert env.reset(seed=0)[0].shape == (2,); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
