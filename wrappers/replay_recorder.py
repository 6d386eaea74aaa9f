"""Any env made resumable: what happened since the last reset is recorded, and done again to come back."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs

from palaestra.protocols import Snapshotable


class ActionTape:
    """The actions of one episode, in arrays that grow; they come back in their own types."""

    def __init__(self) -> None:
        self._finished: list[dict[str, Any]] = []
        self._type: type[Any] | None = None
        self._dtype: np.dtype[Any] | None = None
        self._shape: tuple[int, ...] = ()
        self._values: Any = []
        self._count = 0

    def append(self, action: Any) -> None:
        """Add a copy of an action: a NumPy array or scalar takes a row of an array, all else an item of a list."""
        if type(action) is not self._type or (
            self._type is np.ndarray and (action.dtype is not self._dtype or action.shape != self._shape)
        ):
            self._begin_run(action)
        if self._dtype is None:
            self._values.append(copy.deepcopy(action))
        else:
            if self._count == len(self._values):
                self._values = np.concatenate([self._values, np.empty_like(self._values)])
            self._values[self._count] = action
        self._count += 1

    def remove_last(self) -> None:
        """Take back the latest action."""
        self._count -= 1
        if self._dtype is None:
            self._values.pop()

    def to_tree(self) -> list[dict[str, Any]]:
        """Return the actions as runs of one type: arrays with a leading time axis, or lists."""
        return [*self._finished, *self._run()]

    @staticmethod
    def actions(tree: list[dict[str, Any]]) -> Iterator[Any]:
        """Yield the actions of a tree, each as it was given."""
        for run in tree:
            for action in run["values"]:
                yield action.copy() if isinstance(action, np.ndarray) else action

    def _run(self) -> list[dict[str, Any]]:
        return [{"values": self._values[: self._count].copy()}] if self._count else []

    def _begin_run(self, action: Any) -> None:
        self._finished += self._run()
        self._type, self._count = type(action), 0
        if isinstance(action, np.ndarray | np.generic):
            self._dtype, self._shape = action.dtype, action.shape
            self._values = np.empty((64, *action.shape), action.dtype)
        else:
            self._dtype, self._shape, self._values = None, (), []


@dataclass
class _Episode:
    """What an episode follows from: the noise before its reset, the reset's arguments, and the actions."""

    origin: Any
    seed: int | None
    options: dict[str, Any] | None
    tape: ActionTape = field(default_factory=ActionTape)
    length: int = 0


class RecorderMark(NamedTuple):
    """A moment to which a recorder's record can be cut back."""

    episode: _Episode | None
    length: int
    observation: Any


class ReplayRecorder(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Adds `snapshot()` and `restore()` to an env, and changes nothing else.

    It must be the outermost wrapper: replaying the actions as the agent gave them rebuilds the state of everything
    inside, time limits and frame stacks among it. Worlds with a `snapshot()` of their own are saved by that. For all
    others a snapshot is the state of `np_random` before the last reset, the reset's arguments and the actions since;
    restoring does them again and compares hashes of the last observation and of the noise. (Pickling or deep copying
    is no way: for MuJoCo envs both silently give a fresh env.)

    Restoring takes as long as the episode took. Not covered is what outlives a reset: see
    `palaestra.wrappers.env_state.why_not_resumable`.

    Args:
        env: The env with all its wrappers.
    """

    transparent = True

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        gym.Wrapper.__init__(self, env)
        self.observation: Any = None
        self._episode: _Episode | None = None
        self._rewound = self._overwritten = False
        self._world = self.unwrapped if isinstance(self.unwrapped, Snapshotable) else None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        origin = self._origin(seed)
        if seed is None and origin is None and self._world is not None:
            # An unseeded first reset has no noise to come back to yet: the seed is drawn here, where it is recorded.
            seed = int(np.random.SeedSequence().generate_state(1)[0])
        episode = _Episode(origin, seed, copy.deepcopy(options))
        observation, info = self.env.reset(seed=seed, options=options)
        self._episode, self.observation = episode, observation
        self._rewound = self._overwritten = False
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        episode = self._episode
        if episode is None:
            return self.env.step(action)
        # Recorded before the step, which may change the action in place.
        episode.tape.append(action)
        try:
            result = self.env.step(action)
        except BaseException:
            episode.tape.remove_last()
            raise
        episode.length += 1
        self.observation = result[0]
        return result

    def mark(self) -> RecorderMark:
        """Return the present moment, for `rewind`."""
        episode = self._episode
        return RecorderMark(episode, 0 if episode is None else episode.length, self.observation)

    def rewind(self, mark: RecorderMark) -> None:
        """Cut the record (not the env) back to at most one step ago: until a reset, snapshots describe that moment."""
        episode = mark.episode
        if self._episode is not episode or (episode is not None and episode.length > mark.length):
            self._rewound = True
            # An env that reuses the array of its observations has overwritten the one of that moment.
            self._overwritten = self.observation is mark.observation
        if episode is not None and episode.length > mark.length:
            episode.tape.remove_last()
            episode.length = mark.length
        self._episode, self.observation = episode, mark.observation

    def snapshot(self) -> dict[str, Any]:
        """Return what `restore` needs: a tree of plain values and arrays."""
        episode = self._episode
        if episode is None:
            return {"kind": "not_reset"}
        if self._world is not None and self._is_bare() and not self._rewound:
            return {"kind": "world", "world": self._world.snapshot(), "observation": copy.deepcopy(self.observation)}
        return {
            "kind": "replay",
            "origin": episode.origin,
            "seed": episode.seed,
            "options": copy.deepcopy(episode.options),
            "actions": episode.tape.to_tree(),
            "observation_sha256": None if self._overwritten else tree_sha256(self.observation),
            "noise_sha256": None if self._rewound else self._noise_sha256(),
        }

    def restore(self, snapshot: Mapping[str, Any], branch: int = 0) -> None:
        """Bring the env to where it was, in this or another process.

        Args:
            snapshot: What `snapshot()` returned.
            branch: 0 replays the same noise; other branches only worlds with a `restore()` of their own have.

        Raises:
            ValueError: If the replay ends elsewhere (the env has state or noise that its generator, the reset's
                arguments and the actions do not determine), the snapshot is no recorder's, or there is no such branch.
        """
        kind = snapshot.get("kind")
        if kind not in ("not_reset", "world", "replay"):
            raise ValueError(f"ReplayRecorder.restore: kind={kind!r}; expected a snapshot that a ReplayRecorder made")
        if branch and kind != "world":
            raise ValueError(f"ReplayRecorder.restore: branch={branch}; expected 0, since {self} can only be replayed")
        if kind == "world":
            self._restore_world(snapshot, branch)
        elif kind == "replay":
            self._replay(snapshot)
        else:
            self._episode = None

    def _restore_world(self, snapshot: Mapping[str, Any], branch: int) -> None:
        if self._world is None:
            raise ValueError(
                f"ReplayRecorder.restore: {self} has no restore() of its own; expected the env of the snapshot"
            )
        # The reset satisfies Gymnasium's order check, and makes the episode one that is recorded.
        self.reset()
        self._world.restore(snapshot["world"], branch)
        self.observation = copy.deepcopy(snapshot["observation"])

    def _replay(self, snapshot: Mapping[str, Any]) -> None:
        self._set_origin(snapshot["origin"])
        self.reset(seed=snapshot["seed"], options=copy.deepcopy(snapshot["options"]))
        steps = 0
        for action in ActionTape.actions(snapshot["actions"]):
            self.step(action)
            steps += 1
        for what, found, expected in (
            ("observation", tree_sha256(self.observation), snapshot["observation_sha256"]),
            ("noise", self._noise_sha256(), snapshot["noise_sha256"]),
        ):
            if expected is not None and found != expected:
                raise ValueError(
                    f"ReplayRecorder.restore: after {steps} replayed steps {what} of {self} has SHA-256 {found}; "
                    f"expected {expected}. The env cannot be replayed: it keeps state between episodes, draws noise "
                    "from elsewhere than np_random, or is another version than the one that was saved"
                )

    def _is_bare(self) -> bool:
        """Whether no wrapper between the recorder and the world keeps state."""
        layer = self.env
        while isinstance(layer, gym.Wrapper):
            if not isinstance(layer, gym.wrappers.OrderEnforcing | gym.wrappers.PassiveEnvChecker):
                return False
            layer = layer.env
        return True

    def _origin(self, seed: int | None) -> Any:
        """Return the noise from which a reset would draw, or None where its seed alone decides."""
        if self._world is not None:
            try:
                return self._world.snapshot()
            except gym.error.ResetNeeded:
                return None
        if seed is not None and getattr(self.unwrapped, "_np_random", None) is None:
            return None
        generator = self.unwrapped.np_random
        if not isinstance(generator, np.random.Generator):
            return None
        return {"generator": generator.bit_generator.state, "seed": self.unwrapped.np_random_seed}

    def _set_origin(self, origin: Any) -> None:
        if origin is None:
            return
        if self._world is not None:
            # The world is reset first because some restore only what was reset before.
            self.env.reset()
            self._world.restore(origin)
            return
        generator, expected = self.unwrapped.np_random, origin["generator"]["bit_generator"]
        found = type(generator.bit_generator).__name__
        if found != expected:
            raise ValueError(f"ReplayRecorder.restore: np_random of {self} is a {found}; expected {expected}, as saved")
        generator.bit_generator.state = origin["generator"]
        self.unwrapped._np_random_seed = origin["seed"]

    def _noise_sha256(self) -> str | None:
        """Return the hash of all that decides what comes next, as far as it can be seen."""
        if self._world is not None:
            return tree_sha256(self._world.snapshot())
        generator = getattr(self.unwrapped, "_np_random", None)
        return tree_sha256(generator.bit_generator.state) if isinstance(generator, np.random.Generator) else None


def tree_sha256(tree: Any) -> str:
    """Return the SHA-256 of an observation or generator state: types, shapes and every bit of it count.

    Raises:
        TypeError: If it holds anything but arrays, numbers, strings, None, dicts, tuples and lists.
    """
    digest = hashlib.sha256()
    _update(digest, tree)
    return digest.hexdigest()


def _update(digest: Any, tree: Any) -> None:
    if isinstance(tree, np.ndarray | np.generic):
        array = np.asarray(tree)
        digest.update(f"array {array.dtype.str} {array.shape} ".encode())
        if array.dtype.hasobject:
            _update(digest, array.tolist())
        else:
            digest.update(array.tobytes())
    elif isinstance(tree, Mapping):
        digest.update(f"dict {len(tree)} ".encode())
        for key in sorted(tree, key=str):
            _update(digest, key)
            _update(digest, tree[key])
    elif isinstance(tree, tuple | list):
        digest.update(f"list {len(tree)} ".encode())
        for item in tree:
            _update(digest, item)
    elif tree is None or isinstance(tree, str | bytes | bool | int | float):
        digest.update(f"{type(tree).__name__} {tree!r} ".encode())
    else:
        raise TypeError(
            f"tree_sha256: {tree!r} is of type {type(tree).__name__}; expected arrays, numbers, strings and their "
            "dicts, tuples and lists"
        )
