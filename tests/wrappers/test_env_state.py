"""Vector envs continue bit for bit from a snapshot, in a new process; what cannot says so at once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import vector as vector_wrappers

from palaestra.agents.training.checkpoint import CheckpointStore
from palaestra.agents.training.tree import first_difference, pack, unpack
from palaestra.wrappers.env_state import restore_env, snapshot_env, why_not_resumable
from palaestra.wrappers.frame_stack import VectorFrameStack
from palaestra.wrappers.replay_recorder import ActionTape, ReplayRecorder, tree_sha256
from palaestra.wrappers.vectorize import RecordedVectorEnv, as_vector_env, make_vec


class Walk(gym.Env[Any, Any]):
    """A noisy walk with hidden momentum, whose episodes end at random; `kind` chooses the form of its observation."""

    def __init__(self, kind: str = "box", explode_at: int | None = None) -> None:
        self.kind, self.explode_at = kind, explode_at
        self.action_space = gym.spaces.Box(-1, 1, (2,), np.float32)
        box = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.observation_space = {
            "box": box,
            "shared": box,
            "dict": gym.spaces.Dict({"place": box, "clock": gym.spaces.Discrete(1000)}),
            "tuple": gym.spaces.Tuple((box, gym.spaces.Discrete(1000))),
        }[kind]
        self.place, self.speed, self.clock = np.zeros(2), np.zeros(2), 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place[:] = self.np_random.normal(size=2) + (options or {}).get("offset", 0.0)
        self.speed, self.clock = np.zeros(2), 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.clock += 1
        if self.clock == self.explode_at:
            raise FloatingPointError("the walk exploded")
        # Changed in place, as careless envs do with the action they are given.
        action *= 0.5
        self.speed = 0.9 * self.speed + action + 0.1 * self.np_random.normal(size=2)
        self.place += self.speed
        return (
            self._observe(),
            float(self.place.sum()),
            bool(self.np_random.random() < 0.1),
            False,
            {"clock": self.clock},
        )

    def _observe(self) -> Any:
        if self.kind == "shared":
            return self.place
        place = self.place.copy()
        return {"box": place, "dict": {"place": place, "clock": self.clock}, "tuple": (place, self.clock)}[self.kind]


def recorded(make: Callable[[], gym.Env[Any, Any]]) -> Callable[[], gym.Env[Any, Any]]:
    return lambda: ReplayRecorder(make())


def vector(make: Callable[[], gym.Env[Any, Any]], mode: AutoresetMode = AutoresetMode.SAME_STEP) -> SyncVectorEnv:
    return SyncVectorEnv([recorded(make)] * 3, autoreset_mode=mode)


def through_disk(tree: Any) -> Any:
    return unpack(*pack(tree))


def actions(env: gym.vector.VectorEnv[Any, Any, Any], steps: int, seed: int = 0) -> list[Any]:
    env.action_space.seed(seed)
    return [env.action_space.sample() for _ in range(steps)]


def play(env: gym.vector.VectorEnv[Any, Any, Any], taken: list[Any]) -> list[str]:
    """Return the SHA-256 of everything each step yields; DISABLED envs are reset by hand."""
    yielded = []
    for action in taken:
        # Copies, because Walk changes the actions that it is given.
        step = env.step(action.copy())
        ended = step[2] | step[3]
        if env.metadata["autoreset_mode"] == AutoresetMode.DISABLED and ended.any():
            step = (*step, env.reset(options={"reset_mask": ended}))
        yielded.append(tree_sha256(step))
    return yielded


def check_continues(make: Callable[[], gym.vector.VectorEnv[Any, Any, Any]], **reset: Any) -> None:
    for before in (0, 1, 29):
        first, second = make(), make()
        taken = actions(first, before + 40)
        first.reset(**reset)
        play(first, taken[:before])
        saved = through_disk(snapshot_env(first))
        expected = play(first, taken[before:])
        # A second use of the same snapshot, in an env with a past of its own, ends in the same place.
        second.reset(seed=99)
        play(second, actions(second, 3, seed=9))
        for _ in range(2):
            restore_env(second, saved)
            assert play(second, taken[before:]) == expected
        for env in (first, second):
            env.close()


IDS = [
    "CartPole-v1",
    "Pendulum-v1",
    "MiniGrid-DoorKey-5x5-v0",
    "MiniGrid-Empty-Random-5x5-v0",
    "palaestra/Kuhn-v0",
    "palaestra/OneStoreBacklog-v0",
    "HalfCheetah-v5",
    "Hopper-v5",
]
CHILD = """
import json, sys
from palaestra.agents.training.checkpoint import CheckpointStore
from palaestra.wrappers.env_state import restore_env
from palaestra.wrappers.replay_recorder import tree_sha256
from palaestra.wrappers.vectorize import make_vec

state = CheckpointStore(sys.argv[1]).load().state
for env_id, saved in state.items():
    env = make_vec(env_id, 3, frame_stack=saved["frame_stack"])
    restore_env(env, saved["env"])
    print(json.dumps([env_id, [tree_sha256(env.step(action)) for action in saved["actions"]]]))
"""


def test_envs_continue_bit_for_bit_in_a_new_process(tmp_path: Path) -> None:
    pytest.importorskip("mujoco")
    state, expected = {}, {}
    for i, env_id in enumerate(IDS):
        frame_stack = 3 if env_id in ("Pendulum-v1", "MiniGrid-DoorKey-5x5-v0", "palaestra/OneStoreBacklog-v0") else 1
        env = make_vec(env_id, 3, frame_stack=frame_stack)
        assert why_not_resumable(env) is None
        env.reset(seed=[i, 10**12, 2**62])
        taken = actions(env, 330)
        play(env, taken[:130])
        state[env_id] = {"env": snapshot_env(env), "actions": taken[130:], "frame_stack": frame_stack}
        expected[env_id] = play(env, taken[130:])
        env.close()
    CheckpointStore(tmp_path).save(0, state, header={})
    child = subprocess.run([sys.executable, "-c", CHILD, str(tmp_path)], capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    assert dict(json.loads(line) for line in child.stdout.splitlines()) == expected


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("kind", ["box", "dict", "tuple", "shared"])
def test_every_autoreset_mode_continues(mode: AutoresetMode, kind: str) -> None:
    check_continues(lambda: vector(lambda: Walk(kind), mode), seed=5)


def test_wrappers_inside_the_recorder_are_rebuilt() -> None:
    def make() -> gym.Env[Any, Any]:
        env: Any = gym.wrappers.TimeLimit(Walk(), 6)
        env = gym.wrappers.StickyAction(env, 0.3)
        env = gym.wrappers.FrameStackObservation(env, 4)
        return gym.wrappers.TimeAwareObservation(env, flatten=True)

    check_continues(lambda: vector(make), seed=1)


def test_a_single_env_continues_as_one_row() -> None:
    check_continues(lambda: as_vector_env(gym.make("CartPole-v1")), seed=3)


def test_resets_without_a_seed_and_with_options_continue() -> None:
    check_continues(lambda: vector(Walk))
    check_continues(lambda: vector(Walk), seed=2, options={"offset": np.array([3.0, 4.0])})


def test_vector_wrappers_continue() -> None:
    def wrapped() -> Any:
        env = vector_wrappers.RecordEpisodeStatistics(vector(Walk, AutoresetMode.NEXT_STEP), buffer_length=5)
        return vector_wrappers.TransformObservation(env, lambda observation: 2 * observation)

    first, second = wrapped(), wrapped()
    first.reset(seed=1)
    taken = actions(first, 90)

    def statistics(env: Any) -> list[Any]:
        """Everything but the clock."""
        found = []
        for action in taken[45:]:
            episode = env.step(action.copy())[4].get("episode", {})
            found += [episode.get("r"), episode.get("l")]
        return [*found, list(env.env.return_queue), list(env.env.length_queue), env.env.episode_count]

    play(first, taken[:45])
    saved = through_disk(snapshot_env(first))
    restore_env(second, saved)
    assert tree_sha256(statistics(first)) == tree_sha256(statistics(second))
    check_continues(lambda: VectorFrameStack(vector(Walk), 3), seed=1)


class Delayed(gym.vector.VectorWrapper[Any, Any, Any, Any, Any]):
    """A wrapper of a user's, whose state nobody knows of."""


class Stateless(Delayed):
    stateless = True


def test_what_cannot_be_resumed_says_why() -> None:
    def walks(*layers: Callable[[Any], Any]) -> SyncVectorEnv:
        def make() -> Any:
            env: Any = Walk()
            for layer in layers:
                env = layer(env)
            return env

        return SyncVectorEnv([make, make])

    cases = {
        "env 0 is .*; expected ReplayRecorder as the outermost": walks(),
        "env 0 is <TimeLimit.*; expected ReplayRecorder as the outermost": walks(
            ReplayRecorder, lambda env: gym.wrappers.TimeLimit(env, 5)
        ),
        "NormalizeObservation of env 0 keeps statistics .* normalise in the agent": walks(
            gym.wrappers.NormalizeObservation, ReplayRecorder
        ),
        "NormalizeReward of env 0 keeps statistics": walks(gym.wrappers.NormalizeReward, ReplayRecorder),
        r"CartPoleVectorEnv has no snapshot\(\) and restore\(\)": gym.make_vec("CartPole-v1", 2),
        r"Delayed may keep state; expected snapshot\(\) and restore\(\) methods": Delayed(vector(Walk)),
        "NormalizeObservation may keep state": vector_wrappers.NormalizeObservation(
            vector(Walk, AutoresetMode.NEXT_STEP)
        ),
        "env 0 is": VectorFrameStack(walks(), 2),
        "AsyncVectorEnv keeps its envs in other processes": AsyncVectorEnv([recorded(Walk)]),
    }
    for message, env in cases.items():
        reason = why_not_resumable(env)
        assert reason is not None
        saved = through_disk(snapshot_env(env))
        with pytest.raises(ValueError, match=message):
            restore_env(env, saved)
        with pytest.raises(ValueError, match=message):
            restore_env(env, snapshot_env(vector(Walk)))
        env.close()
    foreign = vector(type("AtariEnv", (Walk,), {"__module__": "ale_py.env"}))
    assert "draws noise from a generator that cannot be saved" in str(why_not_resumable(foreign))
    for fine in (vector(Walk), Stateless(vector(Walk)), VectorFrameStack(vector(Walk), 2)):
        assert why_not_resumable(fine) is None


def test_a_snapshot_of_another_env_is_refused() -> None:
    saved = snapshot_env(vector(Walk))
    with pytest.raises(ValueError, match=r"num_envs=3 .*; expected num_envs=1"):
        restore_env(as_vector_env(Walk()), saved)
    with pytest.raises(ValueError, match=r"autoreset_mode='SameStep'; expected .* autoreset_mode='NextStep'"):
        restore_env(vector(Walk, AutoresetMode.NEXT_STEP), saved)
    with pytest.raises(ValueError, match="of kind 'rows'; expected 'snapshot'"):
        restore_env(make_vec("palaestra/Kuhn-v0", 3), saved)
    with pytest.raises(ValueError, match="branch=1; expected 0"):
        restore_env(vector(Walk), snapshot_env(vector(Walk)), branch=1)
    with pytest.raises(ValueError, match="kind=None; expected a snapshot that a ReplayRecorder made"):
        ReplayRecorder(Walk()).restore({})


def test_own_worlds_branch() -> None:
    env = make_vec("palaestra/OneStoreBacklog-v0", 3)
    env.reset(seed=0)
    taken = actions(env, 20)
    saved = snapshot_env(env)
    expected = play(env, taken)
    for branch, same in ((0, True), (1, False), (0, True)):
        restore_env(env, saved, branch)
        assert (play(env, taken) == expected) is same


class Forgetful(Walk):
    """Keeps a count over episodes that no reset sets back."""

    episodes = 0

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        self.episodes += 1
        _, info = super().reset(**kwargs)
        self.place += self.episodes
        return self._observe(), info


class Global(Walk):
    """Draws from NumPy's global generator."""

    def step(self, action: Any) -> Any:
        observation, *rest = super().step(action)
        return (observation + np.random.normal(), *rest)  # noqa: NPY002


class Impatient(Walk):
    """Draws once more from np_random where nobody sees it, but only in its first life."""

    lives = 0

    def step(self, action: Any) -> Any:
        result = super().step(action)
        if type(self).lives == 1:
            self.np_random.random()
        return result


@pytest.mark.parametrize(("kind", "what"), [(Forgetful, "observation"), (Global, "observation"), (Impatient, "noise")])
def test_an_env_that_cannot_be_replayed_is_found_out(kind: type[Walk], what: str) -> None:
    env = vector(kind)
    Impatient.lives = 1
    env.reset(seed=0)
    play(env, actions(env, 1 if kind is Impatient else 30))
    saved = snapshot_env(env)
    Impatient.lives = 2
    with pytest.raises(ValueError, match=rf"after \d+ replayed steps {what} of .* The env cannot be replayed"):
        restore_env(vector(kind), saved)


def _raises(env: RecordedVectorEnv, action: Any) -> bool:
    try:
        play(env, [action])
    except FloatingPointError:
        return True
    return False


@pytest.mark.parametrize("kind", ["box", "shared"])
def test_a_snapshot_after_a_step_that_raised_is_of_the_moment_before(kind: str) -> None:
    def make(explode_at: int | None) -> RecordedVectorEnv:
        return RecordedVectorEnv([recorded(partial(Walk, kind, at)) for at in (None, explode_at, None)])

    calm = make(None)
    taken = actions(calm, 60)
    calm.reset(seed=[1, 2, 3])
    expected = play(calm, taken)
    for explode_at in (1, 2, 5, 9):
        env = make(explode_at)
        env.reset(seed=[1, 2, 3])
        # Only the middle env counts its steps to the explosion, and its episodes may end before.
        steps = 0
        while not _raises(env, taken[steps]):
            steps += 1
        resumed = make(None)
        restore_env(resumed, through_disk(snapshot_env(env)))
        assert play(resumed, taken[steps:]) == expected[steps:]


def test_the_recorder_changes_nothing() -> None:
    plain, env = Walk(), ReplayRecorder(Walk())
    assert env.transparent
    taken = [np.full(2, 0.1 * i, np.float32) for i in range(20)]
    assert tree_sha256(plain.reset(seed=1)) == tree_sha256(env.reset(seed=1))
    for action in taken:
        assert tree_sha256(plain.step(action.copy())) == tree_sha256(env.step(action.copy()))
    with pytest.raises(gym.error.ResetNeeded):
        ReplayRecorder(gym.make("CartPole-v1")).step(0)


def test_worlds_with_a_snapshot_of_their_own_are_saved_by_it() -> None:
    env = ReplayRecorder(gym.make("palaestra/OneStoreBacklog-v0"))
    env.reset(seed=4)
    assert env.snapshot()["kind"] == "world"
    check_continues(lambda: as_vector_env(gym.make("palaestra/OneStoreBacklog-v0")), seed=4)


def test_worlds_inside_wrappers_with_state_are_replayed_over_episodes() -> None:
    def make() -> Any:
        return vector(lambda: gym.wrappers.FrameStackObservation(gym.make("palaestra/Kuhn-v0"), 3))

    env = make()
    env.reset(seed=4)
    assert snapshot_env(env)["rows"][0]["kind"] == "replay"
    # Episodes of Kuhn poker are short: most snapshots follow a reset that had no seed.
    check_continues(make, seed=4)
    check_continues(make)


@pytest.mark.parametrize(
    "taken",
    [
        [np.float32([0.1, 0.2]), np.float32([0.3, 0.4])],
        [np.int64(3), np.int64(1), 2, np.int64(3)],
        [1.5, "text", True, None],
        [np.zeros(2), np.zeros(3), np.zeros(3, np.float32), np.zeros(2)],
        [{"a": np.ones(1), "b": 2}, (1, np.zeros(2))],
        [],
    ],
    ids=str,
)
def test_actions_come_back_in_their_types(taken: list[Any]) -> None:
    tape = ActionTape()
    for action in taken * 70:
        tape.append(action)
    tape.append(np.int8(1))
    tape.remove_last()
    assert first_difference(list(ActionTape.actions(through_disk(tape.to_tree()))), taken * 70) is None


def test_a_tape_is_compact_and_keeps_copies() -> None:
    tape, action = ActionTape(), np.zeros(6, np.float32)
    for i in range(1000):
        action[:] = i
        tape.append(action)
    (run,) = tape.to_tree()
    assert run["values"].nbytes == 1000 * 6 * 4
    assert run["values"][:, 0].tolist() == list(range(1000))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (np.zeros(2), np.zeros(3)),
        (np.zeros(2, np.float32), np.zeros(2)),
        (np.zeros((2, 1)), np.zeros((1, 2))),
        (np.array([0.0]), np.array([-0.0])),
        ({"a": 1}, {"b": 1}),
        ("1", 1),
        (1, True),
        ((1, (2,)), (1, 2)),
        (("ab", "c"), ("a", "bc")),
    ],
    ids=str,
)
def test_hashes_tell_apart(left: Any, right: Any) -> None:
    assert tree_sha256(left) != tree_sha256(right)
    assert tree_sha256(left) == tree_sha256(through_disk(left))
    with pytest.raises(TypeError, match="of type object; expected arrays"):
        tree_sha256({"a": object()})
