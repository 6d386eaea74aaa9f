"""The laws that every registered world keeps; a new row of the table is tested with no edit here.

Only its golden hash must be added to `golden.json`. A hash that changes means that the world changed: that takes a new
version of the id.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import pickle
import random
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from palaestra.envs.noise import CounterKey, stream_code
from palaestra.envs.registration import load_simulator, make_simulator, own_env_ids, registered_rows
from palaestra.envs.rollout import episode_returns, long_run_reward, rollout
from palaestra.envs.simulator import Simulator
from palaestra.protocols import Oracle, simulator_of
from palaestra.seeding import row_seeds

IDS = own_env_ids()
GOLDEN = Path(__file__).with_name("golden.json")
ALLOWED_WARNINGS = (
    # Backlog and stock have no bound.
    "A Box observation space minimum value is -infinity",
    "A Box observation space maximum value is infinity",
)
MATRIX_PRODUCTS: frozenset[str] = frozenset()
"""Ids whose rows equal the single world to 1e-12 instead of bitwise, because matrix products are in their step."""


@pytest.fixture(params=IDS)
def env_id(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def assert_same(actual: Any, expected: Any, tolerance: float = 0.0) -> None:
    """Compare observations or infos, which may be nested."""
    if isinstance(expected, dict):
        assert set(actual) == set(expected)
        for name in expected:
            assert_same(actual[name], expected[name], tolerance)
    elif isinstance(expected, tuple | list | str):
        assert actual == expected
    elif tolerance:
        np.testing.assert_allclose(actual, expected, rtol=0.0, atol=tolerance)
    else:
        np.testing.assert_array_equal(actual, expected)


def row_of(batch: Any, row: int) -> Any:
    return {name: row_of(part, row) for name, part in batch.items()} if isinstance(batch, dict) else batch[row]


def mask_of(info: dict[str, Any]) -> Any:
    return info.get("action_mask")


def play(env: Any, info: dict[str, Any], steps: range, random_actions: Any, rows: int | None = None) -> list[Any]:
    """Take random admissible steps, resetting a single env where it ends; return everything that came back."""
    trace = []
    space = env.action_space if rows is None else env.single_action_space
    for step in steps:
        mask = mask_of(info)
        masks = mask if rows is not None or mask is None else mask[None]
        actions = random_actions(space, rows or 1, step, masks)
        result = env.step(actions if rows is not None else actions[0])
        info = result[-1]
        trace.append(result)
        if rows is None and (result[2] or result[3]):
            observation, info = env.reset()
            trace.append((observation, info))
    return trace


def test_check_env_passes_without_new_warnings(env_id):
    env = gym.make(env_id)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(env.unwrapped)
    messages = [str(warning.message) for warning in caught]
    assert [text for text in messages if not any(allowed in text for allowed in ALLOWED_WARNINGS)] == []


def test_made_without_wrappers_and_found_by_simulator_of(env_id):
    env, vector_env = gym.make(env_id), gym.make_vec(env_id, 2)
    assert env is env.unwrapped
    assert env.spec is not None
    assert env.spec.max_episode_steps is None
    assert isinstance(simulator_of(env), Simulator)
    assert isinstance(simulator_of(vector_env), Simulator)


def test_docstring_is_a_specification(env_id):
    text = type(make_simulator(env_id)).__doc__ or ""
    for heading in ("Observation", "Action", "Reward", "End", "Info", "Oracle", "Version history", "Args:"):
        assert heading.lower() in text.lower(), heading


def test_two_runs_of_one_seed_are_equal(env_id, random_actions):
    traces = []
    for _ in range(2):
        env = gym.make(env_id)
        observation, info = env.reset(seed=5)
        traces.append([(observation, info), *play(env, info, range(150), random_actions)])
    assert_same_traces(*traces)
    other, _ = gym.make(env_id).reset(seed=5)
    assert_same(other, traces[0][0][0])


def assert_same_traces(actual: list[Any], expected: list[Any]) -> None:
    assert len(actual) == len(expected)
    for ours, theirs in zip(actual, expected, strict=True):
        for part, other in zip(ours, theirs, strict=True):
            assert_same(part, other)


def seen_alike(first: list[Any], second: list[Any]) -> bool:
    """Return whether observations and rewards are the same at every step."""
    try:
        for ours, theirs in zip(first, second, strict=True):
            assert_same(ours[0], theirs[0])
            assert_same(ours[1], theirs[1])
    except AssertionError:
        return False
    return True


def test_rows_equal_single_envs(env_id, random_actions):
    """Rows of a batch of 7, autoresets included, against single envs with the rows' seeds."""
    rows, tolerance = 7, 1e-12 if env_id in MATRIX_PRODUCTS else 0.0
    seeds = row_seeds(3, "test", rows)
    batch = gym.make_vec(env_id, rows)
    singles = [gym.make(env_id) for _ in range(rows)]
    observation, info = batch.reset(seed=seeds)
    firsts = [env.reset(seed=seed) for env, seed in zip(singles, seeds, strict=True)]
    for row, (first, first_info) in enumerate(firsts):
        assert_same(row_of(observation, row), first, tolerance)
        assert_same(row_of(info, row), first_info, tolerance)
    ended, step = 0, -1
    # Worlds that seldom terminate end at their horizon.
    while step < 119 or (ended == 0 and step <= batch.simulator.horizon):
        step += 1
        actions = random_actions(batch.single_action_space, rows, step, mask_of(info))
        observation, reward, terminated, truncated, info = batch.step(actions)
        for row, env in enumerate(singles):
            single, *outcome, single_info = env.step(actions[row])
            assert_same([reward[row], terminated[row], truncated[row]], outcome, tolerance)
            if outcome[1] or outcome[2]:
                ended += 1
                assert info["_final_obs"][row]
                assert_same(row_of(info["final_obs"], row), single, tolerance)
                assert_same(row_of(info["final_info"], row), single_info, tolerance)
                single, single_info = env.reset()
            else:
                assert "_final_obs" not in info or not info["_final_obs"][row]
            assert_same(row_of(observation, row), single, tolerance)
            assert all(np.array_equal(info[name][row], single_info[name]) for name in mask_names(single_info))
    assert ended > 0


def mask_names(info: dict[str, Any]) -> list[str]:
    return [name for name in info if name == "action_mask"]


def test_restored_state_replays_and_branches(env_id, random_actions):
    env = gym.make_vec(env_id, 16)
    _, info = env.reset(seed=11)
    play(env, info, range(3), random_actions, rows=16)
    snapshot = env.snapshot()
    kept = copy.deepcopy(snapshot)
    # A fresh object, as in a new process.
    other = gym.make_vec(env_id, 16)

    def branches_differ(steps: int) -> bool:
        traces = []
        for face, branch in ((env, 0), (other, 0), (other, 1), (other, 2)):
            observation, info = face.restore(snapshot, branch=branch)
            traces.append([(observation, info), *play(face, info, range(steps), random_actions, rows=16)])
        assert_same_traces(traces[1], traces[0])
        assert_same(snapshot, kept)
        for trace in traces[2:]:
            assert_same(trace[0][0], traces[0][0][0])
        return not any(seen_alike(first[1:], second[1:]) for first, second in itertools.combinations(traces[1:], 2))

    differ = branches_differ(60)
    if make_simulator(env_id).draws and not differ:
        # Worlds that draw noise at the start of an episode alone differ once the horizon is past.
        assert branches_differ(env.simulator.horizon + 1)


def test_single_env_restores_into_a_fresh_object(env_id, random_actions):
    env = gym.make(env_id)
    _, info = env.reset(seed=2)
    snapshot = env.unwrapped.snapshot()
    expected = play(env, info, range(40), random_actions)
    fresh = gym.make(env_id)
    _, info = fresh.unwrapped.restore(snapshot)
    assert_same_traces(play(fresh, info, range(40), random_actions), expected)


def test_pickled_in_mid_episode_goes_on_equally(env_id, random_actions):
    env, single = gym.make_vec(env_id, 4), gym.make(env_id)
    _, info = env.reset(seed=0)
    last = play(env, info, range(5), random_actions, rows=4)[-1][-1]
    copied = pickle.loads(pickle.dumps(env))
    expected = play(env, last, range(5, 40), random_actions, rows=4)
    assert_same_traces(play(copied, last, range(5, 40), random_actions, rows=4), expected)
    _, info = single.reset(seed=0)
    copied_single = pickle.loads(pickle.dumps(single))
    expected = play(single, info, range(20), random_actions)
    assert_same_traces(play(copied_single, info, range(20), random_actions), expected)


def test_global_random_state_is_untouched(env_id, random_actions):
    before = (random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes())  # noqa: NPY002
    env = gym.make(env_id)
    _, info = env.reset()
    play(env, info, range(30), random_actions)
    batch = gym.make_vec(env_id, 3)
    _, info = batch.reset()
    play(batch, info, range(30), random_actions, rows=3)
    after = (random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes())  # noqa: NPY002
    assert before == after


def test_unseeded_envs_differ_and_seeded_ones_too(env_id, random_actions):
    envs = [gym.make_vec(env_id, 8) for _ in range(2)]
    traces = [play(env, env.reset()[1], range(30), random_actions, rows=8) for env in envs]
    assert not seen_alike(*traces)
    traces = [play(envs[0], envs[0].reset(seed=seed)[1], range(30), random_actions, rows=8) for seed in (0, 100)]
    assert not seen_alike(*traces)


def test_everything_stays_inside_its_space_on_a_long_random_run(env_id, random_actions):
    rows = 16
    env = gym.make_vec(env_id, rows)
    observation, info = env.reset(seed=1)
    assert env.observation_space.contains(observation)
    steps_in_episode, horizon = np.zeros(rows, int), env.simulator.horizon
    for step in range(400):
        actions = random_actions(env.single_action_space, rows, step, mask_of(info))
        assert env.action_space.contains(actions)
        observation, reward, terminated, truncated, info = env.step(actions)
        assert env.observation_space.contains(observation)
        assert reward.dtype == np.float64
        assert np.isfinite(reward).all()
        assert not (terminated & truncated).any()
        steps_in_episode += 1
        # The time limit truncates at the horizon, neither before nor after.
        assert np.array_equal(truncated, (steps_in_episode >= horizon) & ~terminated)
        steps_in_episode[terminated | truncated] = 0
        if "final_obs" in info:
            assert env.observation_space.contains(info["final_obs"])


def test_handed_out_arrays_never_change(env_id, random_actions):
    env = gym.make_vec(env_id, 4)
    first = env.reset(seed=0)
    trace = [first, *play(env, first[1], range(10), random_actions, rows=4)]
    kept = copy.deepcopy(trace)
    play(env, trace[-1][-1], range(10, 60), random_actions, rows=4)
    assert_same_traces(trace, kept)


def test_masks_agree_and_leave_a_choice(env_id, random_actions):
    env = gym.make_vec(env_id, 4)
    if not isinstance(env.single_action_space, gym.spaces.Discrete | gym.spaces.MultiDiscrete):
        env.reset(seed=0)
        with pytest.raises(TypeError, match="action_masks"):
            env.action_masks()
        return
    _, info = env.reset(seed=0)
    for step in range(30):
        masks = env.action_masks()
        assert masks.dtype == bool
        assert masks.any(axis=-1).all()
        if "action_mask" in info:
            assert np.array_equal(info["action_mask"], masks)
        info = env.step(random_actions(env.single_action_space, 4, step, mask_of(info)))[-1]


def bad_actions(space: gym.Space[Any]) -> list[Any]:
    good = np.asarray(space.sample())
    if isinstance(space, gym.spaces.Box) and good.dtype.kind == "f":
        spoilt = [np.full_like(good, np.nan), np.full_like(good, np.inf), space.high + 1.0, space.low - 1.0]
        return [*spoilt, np.zeros((*good.shape, 2)), "north", None, good.astype(bool)]
    bounds = {
        gym.spaces.Discrete: lambda s: (s.start - 1, s.start + s.n),
        gym.spaces.MultiDiscrete: lambda s: (s.start - 1, s.start + s.nvec),
    }
    outside = bounds[type(space)](space) if type(space) in bounds else ()
    return [*outside, good.astype(float), np.full(good.shape, np.nan), np.zeros((*good.shape, 2), int), "north", None]


def test_bad_actions_raise_and_change_nothing(env_id):
    env, batch = gym.make(env_id), gym.make_vec(env_id, 3)
    with pytest.raises(gym.error.ResetNeeded):
        env.step(env.action_space.sample())
    with pytest.raises(gym.error.ResetNeeded):
        batch.step(batch.action_space.sample())
    env.reset(seed=0)
    batch.reset(seed=0)
    before, batch_before = env.unwrapped.snapshot(), batch.snapshot()
    for action in bad_actions(env.action_space):
        with pytest.raises((ValueError, TypeError), match="expected"):
            env.step(action)
        many = action if action is None or isinstance(action, str) else np.stack([np.asarray(action)] * 3)
        with pytest.raises((ValueError, TypeError), match="expected"):
            batch.step(many)
        if isinstance(many, np.ndarray):
            # One row too few, of good actions.
            with pytest.raises((ValueError, TypeError), match="expected"):
                batch.step(np.stack([np.asarray(env.action_space.sample())] * 2))
    assert_same(env.unwrapped.snapshot(), before)
    assert_same(batch.snapshot(), batch_before)


def measured(simulator: Simulator[Any], oracle: Oracle, actor: Any) -> np.ndarray:
    """Return the oracle's estimand of an actor, one value for each row, on the noise of shared seeds."""
    if oracle.estimand.kind == "long_run_reward":
        seeds = row_seeds(0, "eval", 48)
        return long_run_reward(simulator, actor, seeds, oracle.estimand.periods, oracle.estimand.ignore)
    return episode_returns(simulator, actor, row_seeds(0, "eval", 1000), 4).mean(axis=1)


def test_oracle_heuristics_random_in_this_order(env_id):
    simulator = make_simulator(env_id)
    oracle = simulator.oracle()
    assert "random" in simulator.reference_policies()
    if oracle is None:
        return
    values = {name: measured(simulator, oracle, actor) for name, actor in simulator.reference_policies().items()}
    values |= {f"expert {name}": measured(simulator, oracle, actor) for name, actor in simulator.experts().items()}
    errors = {name: value.std(ddof=1) / np.sqrt(len(value)) for name, value in values.items()}
    for name, value in values.items():
        assert value.mean() <= oracle.value + 3.0 * errors[name], name
        gain = value - values["random"]
        assert gain.mean() >= -3.0 * gain.std(ddof=1) / np.sqrt(len(gain)), name
    if oracle.kind == "optimum" and "optimal" in simulator.experts():
        gap = values["expert optimal"].mean() - oracle.value
        assert abs(gap) <= 3.0 * errors["expert optimal"] + 1e-9


def test_unknown_expert_is_named(env_id):
    with pytest.raises(KeyError, match="expert: kind='nobody'"):
        make_simulator(env_id).expert("nobody")


def test_numpy_and_torch_agree(env_id):
    """The same rows on both back ends: to 1e-9 after 60 steps (or the horizon), in float64."""
    simulator = make_simulator(env_id)
    actor = simulator.reference_policies()["random"]
    seeds, steps = np.array(row_seeds(4, "test", 32)), min(60, simulator.horizon)
    ours = rollout(simulator, actor, seeds, steps=steps)
    theirs = rollout(simulator, actor, torch.as_tensor(seeds), steps=steps)
    assert isinstance(theirs.rewards, torch.Tensor)
    np.testing.assert_array_equal(theirs.terminated.numpy(), ours.terminated)
    np.testing.assert_allclose(theirs.rewards.numpy(), ours.rewards, rtol=0.0, atol=1e-9)


class RecordingKey(CounterKey):
    """Keeps the names of all draws."""

    names: set[str] = set()  # noqa: RUF012

    def _draw(self, kind: str, name: str, size: tuple[int, ...], bound: int) -> Any:
        self.names.add(name)
        return super()._draw(kind, name, size, bound)


def test_draws_are_declared_and_their_codes_differ(env_id):
    simulator = make_simulator(env_id)
    RecordingKey.names = set()
    seeds = list(range(64))
    state = simulator.initial(RecordingKey(seeds))
    actor = simulator.reference_policies()["random"]
    for step in range(1, min(30, simulator.horizon)):
        action = actor(state, simulator.observe(state), CounterKey(seeds, step=step))
        state = simulator.step(state, action, RecordingKey(seeds, step=step)).state
    assert RecordingKey.names <= set(simulator.draws)
    names = {*simulator.draws, "policy"}
    assert len({stream_code(name) for name in names}) == len(names)


def test_every_render_mode_draws(env_id):
    modes = type(make_simulator(env_id)).render_modes
    assert modes, "a renderer shows a person what is going on"
    for mode in modes:
        env = gym.make_vec(env_id, 2, render_mode=mode)
        env.reset(seed=0)
        frames = env.render()
        assert len(frames) == 2
        for frame in frames:
            if mode == "rgb_array":
                assert frame.dtype == np.uint8
                assert frame.ndim == 3
                assert frame.shape[-1] == 3
                assert len(np.unique(frame.reshape(-1, 3), axis=0)) > 1
            else:
                assert isinstance(frame, str)
                assert frame.strip()
    with pytest.raises(ValueError, match="render_mode='human_eyes'"):
        gym.make_vec(env_id, 2, render_mode="human_eyes")


def trajectory_hash(env_id: str, random_actions: Any) -> str:
    """Return a hash of 200 steps, of values rounded to 4 decimals so that it holds on every processor."""
    digest = hashlib.sha256()

    def put(value: Any) -> None:
        if isinstance(value, dict):
            for name in sorted(value):
                digest.update(name.encode())
                put(value[name])
        elif isinstance(value, str):
            digest.update(value.encode())
        else:
            digest.update((np.round(np.asarray(value, np.float64), 4) + 0.0).tobytes())

    env = gym.make(env_id)
    observation, info = env.reset(seed=0)
    put(observation)
    for result in play(env, info, range(200), random_actions):
        for part in result[:-1]:
            put(part)
    return digest.hexdigest()[:32]


def test_golden_trajectory(env_id, random_actions):
    golden = json.loads(GOLDEN.read_text())
    found = trajectory_hash(env_id, random_actions)
    assert golden.get(env_id) == found, (
        f"the trajectory of {env_id} hashes to {found}; golden.json says {golden.get(env_id)}: a changed world needs a "
        "new version of its id, a new world a line in golden.json"
    )


def test_golden_file_holds_no_strangers():
    assert set(json.loads(GOLDEN.read_text())) == set(IDS)


def test_table_is_sorted_and_named_by_the_rule():
    assert sorted(IDS) == IDS
    for row in registered_rows():
        if row.id in IDS:
            namespace, _, name = row.id.partition("/")
            assert namespace == "palaestra"
            assert name == f"{load_simulator(row.simulator).__name__}-v0" or row.kwargs
