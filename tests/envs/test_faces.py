"""What the faces do beyond the laws of registered worlds, on small worlds made for it."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from palaestra.envs.arrays import stacked
from palaestra.envs.faces import SimulatorEnv, SimulatorVectorEnv
from palaestra.envs.noise import CounterKey
from palaestra.envs.simulator import Simulator
from palaestra.protocols import Array, Key, Transition


@dataclass(frozen=True)
class Sum:
    """A running sum `[batch]` and the last action `[batch]`."""

    total: Array
    last: Array


class Adder(Simulator[Sum]):
    """Adds actions and a noise; terminated at 5 or more."""

    draws: ClassVar[tuple[str, ...]] = ("start", "noise")
    horizon = 4

    def __init__(self, action_space: gym.Space[Any] | None = None, observation: str = "dict") -> None:
        self.action_space = spaces.Discrete(3, start=-1) if action_space is None else action_space
        parts = {"total": spaces.Box(-100.0, 100.0, (2,), np.float32), "last": spaces.Discrete(200, start=-100)}
        choice = {
            "dict": spaces.Dict(parts),
            "tuple": spaces.Tuple(parts.values()),
            "discrete": parts["last"],
            "text": spaces.Text(20, min_length=0, charset="0123456789-. total"),
            "both": spaces.Dict({**parts, "text": spaces.Text(20, min_length=0, charset="0123456789-. total")}),
        }
        self.kind, self.observation_space = observation, choice[observation]
        self.poison = False

    def initial(self, key: Key) -> Sum:
        total = key.uniform("start")
        return Sum(total, 0 * key.integers("start", 2))

    def step(self, state: Sum, action: Array, key: Key) -> Transition[Sum]:
        if isinstance(action, Mapping):
            action = action["a"]
        amount = np.asarray(action).reshape(len(state.total), -1)[:, 0]
        total = state.total + amount + 0.01 * key.uniform("noise")
        if self.poison:
            raise RuntimeError("poisoned")
        return Transition(Sum(total, amount.astype(np.int64)), 1.0 * amount, total >= 5.0, {"amount": amount})

    def observe(self, state: Sum) -> Any:
        parts = {"total": np.stack([state.total, state.total], axis=-1), "last": state.last}
        if self.kind == "tuple":
            return tuple(parts.values())
        return parts["last"] if self.kind == "discrete" else parts

    def information(self, state: Sum) -> Mapping[str, Array]:
        return {"total": state.total, "pair": np.stack([state.total, state.total], axis=-1)}

    def encode_action(self, state: Sum, actions: Sequence[Any]) -> Array:
        if not all(isinstance(action, str) for action in actions):
            raise TypeError(f"Adder: action={actions!r}; expected strings")
        return np.array([int(action) for action in actions])

    def decode_observation(self, observation: Any, state: Sum) -> list[Any]:
        texts = [f"total {total:.2f}" for total in state.total]
        if self.kind == "text":
            return texts
        written = zip(observation["total"].astype(np.float32), observation["last"], texts, strict=True)
        return [{"total": total, "last": int(last), "text": text} for total, last, text in written]


def test_dict_and_discrete_observations_of_both_faces():
    env, batch = SimulatorEnv(Adder()), SimulatorVectorEnv(Adder(), 3)
    observation, info = env.reset(seed=4)
    assert env.observation_space.contains(observation)
    assert type(observation["last"]) is int
    assert type(info["total"]) is float
    assert info["pair"].shape == (2,)
    observations, infos = batch.reset(seed=4)
    assert batch.observation_space.contains(observations)
    np.testing.assert_array_equal(observations["total"][0], observation["total"])
    assert infos["total"].shape == (3,)
    assert SimulatorEnv(Adder(observation="discrete")).reset(seed=0)[0] == 0
    observation, _ = SimulatorEnv(Adder(observation="tuple")).reset(seed=0)
    assert SimulatorEnv(Adder(observation="tuple")).observation_space.contains(observation)


def test_terminated_and_truncated_and_what_belongs_to_which_episode():
    """Row 0 terminates at step 3, row 1 is truncated at step 4, and a row that does both at once terminates."""
    batch = SimulatorVectorEnv(Adder(spaces.Box(-9.0, 9.0, (1,), np.float32), "dict"), 3)
    batch.reset(seed=[1, 2, 3])
    moves = np.array([[2.0, 0.0, 0.0], [1.0, 0.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 5.0]])[..., None]
    outcomes = [batch.step(move) for move in moves]
    terminated, truncated = (np.stack([outcome[i] for outcome in outcomes]) for i in (2, 3))
    np.testing.assert_array_equal(terminated, np.array([[0, 0, 0], [0, 0, 0], [1, 0, 0], [0, 0, 1]], bool))
    np.testing.assert_array_equal(truncated, np.array([[0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 1, 0]], bool))
    assert all("final_obs" not in outcome[4] for outcome in outcomes[:2])
    observation, _, _, _, info = outcomes[2]
    np.testing.assert_array_equal(info["_final_obs"], [True, False, False])
    np.testing.assert_array_equal(info["_final_info"], info["_final_obs"])
    assert info["final_obs"]["total"][0, 0] >= 5.0
    assert info["final_info"]["total"][0] >= 5.0
    # The new episode's state beside the old one's transition.
    assert 0.0 <= observation["total"][0, 0] < 1.0
    assert 0.0 <= info["total"][0] < 1.0
    assert info["amount"][0] == 2.0
    np.testing.assert_array_equal(batch.snapshot()["episode"], [1, 1, 1])
    np.testing.assert_array_equal(batch.snapshot()["step"], [1, 0, 0])


def test_single_env_refuses_to_step_past_the_end():
    env = SimulatorEnv(Adder())
    env.reset(seed=0)
    results = [env.step(0) for _ in range(4)]
    assert [result[3] for result in results] == [False, False, False, True]
    snapshot = env.snapshot()
    with pytest.raises(gym.error.ResetNeeded, match="after the end of the episode"):
        env.step(0)
    other = SimulatorEnv(Adder())
    other.restore(snapshot)
    with pytest.raises(gym.error.ResetNeeded, match="after the end of the episode"):
        other.step(0)
    env.reset()
    env.step(0)


def test_seeds_of_reset():
    batch = SimulatorVectorEnv(Adder(), 3)
    first, _ = batch.reset(seed=10)
    np.testing.assert_array_equal(batch.snapshot()["seed"], [10, 11, 12])
    listed, _ = batch.reset(seed=[10, 11, 12])
    np.testing.assert_array_equal(first["total"], listed["total"])
    following, _ = batch.reset()
    np.testing.assert_array_equal(batch.snapshot()["episode"], [1, 1, 1])
    assert not np.array_equal(following["total"], first["total"])
    alone = SimulatorEnv(Adder())
    alone.reset(seed=11)
    np.testing.assert_array_equal(alone.reset()[0]["total"], following["total"][1])
    assert alone.np_random_seed == 11
    for seed in ([1, 2], [1, 2, 2**63], [1, 2, -1]):
        with pytest.raises(ValueError, match="expected 3 seeds from 0 to"):
            batch.reset(seed=seed)
    for face in (batch, alone):
        with pytest.raises(ValueError, match=r"options=.*'task': 1.*expected None"):
            face.reset(options={"task": 1})


ACTIONS = [
    (spaces.Box(-1.0, 1.0, (2,), np.float32), [0.5, -0.5]),
    (spaces.Box(0, 9, (2,), np.int32), [3, 4]),
    (spaces.Discrete(4, start=2), 3),
    (spaces.MultiDiscrete([3, 4], start=[1, -1]), [1, -1]),
    (spaces.MultiBinary(2), [0, 1]),
]


@pytest.mark.parametrize(("space", "good"), ACTIONS, ids=[type(space).__name__ for space, _ in ACTIONS])
def test_every_array_space_reaches_the_simulator(space, good):
    env, batch = SimulatorEnv(Adder(space)), SimulatorVectorEnv(Adder(space), 2)
    env.reset(seed=0)
    batch.reset(seed=0)
    result = env.step(np.array(good, dtype=space.dtype))
    assert result[4]["amount"] == np.asarray(good).ravel()[0]
    env.step(good)
    np.testing.assert_array_equal(batch.step(np.array([good, good]))[4]["amount"], [result[4]["amount"]] * 2)
    env.reset(seed=0)
    for action in (np.asarray(good) + 100, np.asarray(good) - 100, [[good]], np.asarray(good) * 1j):
        with pytest.raises((ValueError, TypeError), match=r"Adder: action=.*expected"):
            env.step(action)


def test_nested_actions():
    space = spaces.Dict({"a": spaces.Discrete(3), "b": spaces.Tuple([spaces.Box(0.0, 1.0, (1,), np.float32)])})
    env, batch = SimulatorEnv(Adder(space)), SimulatorVectorEnv(Adder(space), 2)
    env.reset(seed=0)
    batch.reset(seed=0)
    assert env.step({"a": 2, "b": (np.array([0.5]),)})[1] == 2.0
    np.testing.assert_array_equal(batch.step({"a": np.array([2, 1]), "b": (np.zeros((2, 1)),)})[1], [2.0, 1.0])
    with pytest.raises(TypeError, match=r"expected a dict with keys \['a', 'b'\]"):
        env.step({"a": 2})
    with pytest.raises(ValueError, match=r"action\['b'\]\[0\]=.*holds 7.0 at index \[0\]"):
        env.step({"a": 2, "b": ([7.0],)})


def test_rounding_out_of_a_box_is_clipped_and_more_is_an_error():
    space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    for env, action in ((SimulatorEnv(Adder(space)), [1.0]), (SimulatorVectorEnv(Adder(space), 2), [[1.0], [-1.0]])):
        env.reset(seed=0)
        near = np.array(action) * (1.0 + 5e-7)
        np.testing.assert_array_equal(np.ravel(env.step(near)[4]["amount"]), np.ravel(action))
        with pytest.raises(
            ValueError, match=r"holds 1.00001 at index \[0(, 0)?\]; expected a finite value from -1.0 to 1.0"
        ):
            env.step(np.array(action) * 1.00001)
        with pytest.raises(ValueError, match="holds nan"):
            env.step(np.array(action) * np.nan)


def test_many_dimensional_boxes_are_checked_too():
    env = SimulatorEnv(Adder(spaces.Box(-1.0, 1.0, (4, 5), np.float32)))
    env.reset(seed=0)
    action = np.zeros((4, 5))
    env.step(action)
    action[2, 3] = -3.0
    with pytest.raises(ValueError, match=r"holds -3.0 at index \[2, 3\]"):
        env.step(action)


def test_text_worlds_speak_strings_through_both_faces():
    space = spaces.Text(3, charset="0123456789-")
    env, batch = SimulatorEnv(Adder(space, "text")), SimulatorVectorEnv(Adder(space, "text"), 2)
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    observations, _ = batch.reset(seed=0)
    assert observations[0] == observation
    assert batch.observation_space.contains(observations)
    assert env.step("2")[1] == 2.0
    observations, reward, _, _, _ = batch.step(("4", "-1"))
    np.testing.assert_array_equal(reward, [4.0, -1.0])
    observations, _, terminated, _, info = batch.step(("3", "0"))
    np.testing.assert_array_equal(terminated, [True, False])
    assert float(info["final_obs"][0].split()[1]) >= 5.0
    assert float(observations[0].split()[1]) < 1.0
    with pytest.raises(TypeError, match="expected strings"):
        env.step(3)
    with pytest.raises(ValueError, match="expected 2 actions"):
        batch.step(("1", "2", "3"))
    with pytest.raises(ValueError, match="expected 2 actions"):
        batch.step("12")


def test_text_beside_arrays():
    batch = SimulatorVectorEnv(Adder(observation="both"), 2)
    observation, _ = batch.reset(seed=0)
    assert batch.observation_space.contains(observation)
    assert observation["total"].dtype == np.float32
    assert observation["text"][1] == f"total {observation['total'][1, 0]:.2f}"


def test_a_step_that_raises_changes_nothing():
    for face, action in ((SimulatorEnv(Adder()), 1), (SimulatorVectorEnv(Adder(), 2), np.array([1, 1]))):
        face.reset(seed=0)
        face.step(action)
        before = face.snapshot()
        face.simulator.poison = True
        with pytest.raises(RuntimeError, match="poisoned"):
            face.step(action)
        face.simulator.poison = False
        after = face.snapshot()
        np.testing.assert_array_equal(before["step"], after["step"])
        expected = SimulatorEnv(Adder()) if isinstance(face, SimulatorEnv) else SimulatorVectorEnv(Adder(), 2)
        expected.restore(before)
        np.testing.assert_array_equal(face.step(action)[4]["total"], expected.step(action)[4]["total"])


def test_rows_branch_one_by_one():
    batch = SimulatorVectorEnv(Adder(), 4)
    batch.reset(seed=[7, 7, 7, 7])
    batch.step(np.zeros(4, int))
    snapshot = batch.snapshot()
    batch.restore(snapshot, branch=[0, 0, 1, 2])
    total = batch.step(np.zeros(4, int))[4]["total"]
    assert total[0] == total[1]
    assert len(set(total)) == 3
    # A branch of a branch is fresh, though it bear the same number.
    batch.restore(snapshot, branch=3)
    inner = batch.snapshot()
    replay = batch.step(np.zeros(4, int))[4]["total"]
    batch.restore(inner, branch=3)
    assert not np.isin(batch.step(np.zeros(4, int))[4]["total"], replay).any()
    batch.restore(inner)
    np.testing.assert_array_equal(batch.step(np.zeros(4, int))[4]["total"], replay)


def test_foreign_snapshots_are_refused():
    env = SimulatorEnv(Adder())
    env.reset(seed=0)
    snapshot = env.snapshot()
    with pytest.raises(ValueError, match="restore: state of shapes"):
        SimulatorVectorEnv(Adder(), 2).restore(snapshot)
    with pytest.raises(ValueError, match="world 'Other'; expected one of 'Adder'"):
        env.restore({**snapshot, "world": "Other"})
    with pytest.raises(ValueError, match="branch=-1"):
        env.restore(snapshot, branch=-1)
    with pytest.raises(gym.error.ResetNeeded, match="snapshot before reset"):
        SimulatorEnv(Adder()).snapshot()


def test_masks_where_the_world_has_none():
    env, batch = SimulatorEnv(Adder()), SimulatorVectorEnv(Adder(spaces.MultiDiscrete([2, 3])), 2)
    with pytest.raises(gym.error.ResetNeeded):
        env.action_masks()
    env.reset(seed=0)
    batch.reset(seed=0)
    np.testing.assert_array_equal(env.action_masks(), [True] * 3)
    np.testing.assert_array_equal(batch.action_masks(), np.ones((2, 5), bool))


def test_faces_refuse_what_they_cannot_be():
    with pytest.raises(ValueError, match="num_envs=0"):
        SimulatorVectorEnv(Adder(), 0)
    with pytest.raises(TypeError, match="made already"):
        SimulatorEnv(Adder(), limit=3)
    with pytest.raises(ValueError, match="render_mode='rgb_array'; expected None or one of"):
        SimulatorEnv(Adder(), render_mode="rgb_array")
    with pytest.raises(TypeError, match="expected Box, Discrete"):
        SimulatorEnv(Adder(spaces.Graph(spaces.Discrete(2), None)))
    env = SimulatorEnv(Adder())
    env.reset(seed=0)
    with pytest.raises(ValueError, match="render with render_mode=None"):
        env.render()


@dataclass(frozen=True)
class Count:
    """A count `[batch]` and where it began `[batch]`."""

    count: Array
    first: Array


class Counter(Simulator[Count]):
    """Counts up by the action to 9; elementwise, with masks and info, and it notes how many rows each call is for."""

    draws: ClassVar[tuple[str, ...]] = ("start",)
    render_modes: ClassVar[tuple[str, ...]] = ("ansi",)
    elementwise: ClassVar[bool] = True
    horizon = 6

    def __init__(self) -> None:
        self.action_space = spaces.Box(-1.0, 3.0, (2,), np.float64)
        self.observation_space = spaces.Box(-100.0, 100.0, (2,), np.float64)
        self.started: list[int] = []

    def initial(self, key: Key) -> Count:
        self.started.append(key.batch)
        first = key.uniform("start")
        return Count(first, first)

    def step(self, state: Count, action: Array, key: Key) -> Transition[Count]:
        count = state.count + action[..., 0] + 0.5 * action[..., 1]
        return Transition(Count(count, state.first), 1.0 * action[..., 0], count >= 9.0, {"doubled": 2.0 * count})

    def observe(self, state: Count) -> Array:
        return stacked((state.count, state.first))

    def information(self, state: Count) -> Mapping[str, Array]:
        return {"high": state.count > 5.0}

    def action_masks(self, state: Count) -> Array:
        return np.ones((*np.shape(state.count), 3), bool)

    def render(self, state: Count, row: int = 0, mode: str = "rgb_array") -> str:
        return f"{state.count[row]:.1f}"


def test_single_face_of_an_elementwise_world_shows_what_rows_show():
    env, batch = SimulatorEnv(Counter(), render_mode="ansi"), SimulatorVectorEnv(Counter(), 2)
    observation, info = env.reset(seed=3)
    observations, infos = batch.reset(seed=[3, 4])
    for _ in range(20):
        np.testing.assert_array_equal(observation, observations[0])
        assert type(info["high"]) is bool
        assert info["high"] == infos["high"][0]
        np.testing.assert_array_equal(info["action_mask"], infos["action_mask"][0])
        np.testing.assert_array_equal(env.action_masks(), batch.action_masks()[0])
        # The world's own actors and pictures see a batch of one.
        assert env.state.count.shape == (1,)
        assert env.render() == f"{env.state.count[0]:.1f}"
        copied = pickle.loads(pickle.dumps(env))
        fresh = SimulatorEnv(Counter())
        fresh.restore(env.snapshot())
        action = np.array([1.0, 0.25])
        observation, reward, terminated, truncated, info = env.step(action)
        for other in (copied, fresh):
            np.testing.assert_array_equal(other.step(action)[0], observation)
        observations, rewards, ended, late, infos = batch.step(np.array([action, action]))
        assert (type(reward), type(terminated), type(truncated)) == (float, bool, bool)
        assert (reward, terminated, truncated) == (rewards[0], ended[0], late[0])
        if terminated or truncated:
            assert info["doubled"] == infos["final_info"]["doubled"][0]
            observation, info = env.reset()
    snapshot = env.snapshot()
    SimulatorVectorEnv(Counter(), 1).restore(snapshot)


def test_only_rows_that_end_are_started_anew():
    batch = SimulatorVectorEnv(Counter(), 3)
    batch.reset(seed=0)
    moves = np.zeros((3, 2))
    # Row 1 arrives at 9 in its third step; the others are truncated together in their sixth.
    for step in range(1, 7):
        moves[1, 0] = 3.0 if step <= 3 else 0.0
        observation, *_, info = batch.step(moves)
        if step == 3:
            np.testing.assert_array_equal(info["_final_obs"], [False, True, False])
            assert info["final_obs"][1, 0] >= 9.0
            assert info["final_info"]["high"][1]
            np.testing.assert_array_equal(info["high"], False)
            np.testing.assert_array_equal(observation[[0, 2]], info["final_obs"][[0, 2]])
            assert observation[1, 0] == observation[1, 1] < 1.0
    assert batch.simulator.started == [3, 1, 2]
    np.testing.assert_array_equal(batch.snapshot()["step"], [0, 3, 0])
    np.testing.assert_array_equal(batch.snapshot()["episode"], [1, 1, 1])
    batch.restore(batch.snapshot())
    batch.simulator.started.clear()
    for _ in range(6):
        batch.step(np.zeros((3, 2)))
    assert batch.simulator.started == [1, 2]


@pytest.mark.parametrize("rows", [None, 4, 700])
def test_no_noise_is_drawn_where_a_step_asks_for_none(rows, monkeypatch):
    world = Counter()
    face = SimulatorEnv(world) if rows is None else SimulatorVectorEnv(world, rows)
    face.reset(seed=0)
    drawn = []
    draw = CounterKey._draw
    monkeypatch.setattr(CounterKey, "_draw", lambda key, *what: drawn.append(what) or draw(key, *what))
    action = np.zeros(2) if rows is None else np.zeros((rows, 2))
    for _ in range(world.horizon - 1):
        face.step(action)
    assert drawn == []
    # The start of the next episodes is.
    face.step(action)
    face.reset()
    assert drawn


def test_a_key_stays_that_of_its_moment():
    """Whether it was asked before or is asked after its world has moved on."""
    for face, action in ((SimulatorEnv(Adder()), 0), (SimulatorVectorEnv(Adder(), 2), np.zeros(2, int))):
        face.reset(seed=3)
        seeds = [3] if isinstance(face, SimulatorEnv) else [3, 4]
        asked, unasked = face.key(), face.key()
        expected = CounterKey(seeds, 0, 1).normal("policy")
        np.testing.assert_array_equal(asked.normal("policy"), expected)
        for _ in range(4):
            face.step(action)
        if isinstance(face, SimulatorEnv):
            face.reset()
        for key in (asked, unasked):
            assert key.batch == len(seeds)
            np.testing.assert_array_equal(key.normal("policy"), expected)
        np.testing.assert_array_equal(face.key().normal("policy"), CounterKey(seeds, 1, 1).normal("policy"))


def test_bounds_that_differ_by_element_are_checked_too():
    space = spaces.Box(np.array([-1.0, 0.0]), np.array([1.0, 5.0]), dtype=np.float64)
    for face, good in (
        (SimulatorEnv(Adder(space)), [0.5, 4.0]),
        (SimulatorVectorEnv(Adder(space), 2), [[0.5, 4.0]] * 2),
    ):
        face.reset(seed=0)
        face.step(good)
        for bad in ([0.5, 5.1], [0.5, -0.1], [0.5, np.nan]):
            with pytest.raises(ValueError, match=r"at index \[(1, )?1\]; expected a finite value from 0.0 to 5.0"):
                face.step(bad if isinstance(face, SimulatorEnv) else [good[0], bad])


def test_gymnasiums_vector_wrappers_work():
    env = gym.wrappers.vector.RecordEpisodeStatistics(SimulatorVectorEnv(Adder(), 2))
    env.reset(seed=0)
    for _ in range(4):
        info = env.step(np.array([1, 0]))[4]
    np.testing.assert_array_equal(info["episode"]["l"], [4, 4])
    np.testing.assert_array_equal(info["episode"]["r"], [4.0, 0.0])
    listed = gym.wrappers.vector.DictInfoToList(SimulatorVectorEnv(Adder(spaces.Discrete(7)), 2))
    listed.reset(seed=0)
    infos = listed.step(np.array([6, 0]))[4]
    assert "final_info" in infos[0]
    assert "final_info" not in infos[1]
    assert infos[1]["amount"] == 0
