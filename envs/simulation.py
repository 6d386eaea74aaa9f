"""A simulator in progress, as both faces run it: its state, its noise clock, and what a user sees of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from palaestra.envs import face_spaces
from palaestra.envs.arrays import rows_replaced
from palaestra.envs.key_stream import KeyStream
from palaestra.envs.noise import CounterKey, check_branch, child_branch
from palaestra.envs.registration import build_simulator
from palaestra.envs.simulator import Simulator, field_names, map_arrays, with_rows
from palaestra.envs.starts import Starts
from palaestra.envs.task_options import read_task_options
from palaestra.protocols import Transition


class Simulation:
    """A simulator in progress: state, noise clock, and what both faces show of them.

    Args:
        simulator: A simulator, or where its class stands, "package.module:Class".
        num_envs: Number of rows of a vector face; None for the single one.
        render_mode: None or one of the simulator's render modes.
        world: Arguments of the simulator's class, where a place is given.

    Attributes:
        scalars: Whether the state is kept without its batch axis: the one row of an elementwise world.
        state: The present state; None before the first episode.
        ended: Whether the episode of the single face has ended.

    Raises:
        ValueError: If the render mode or an argument of the world is not valid.
        TypeError: If the world takes no argument of that name.
    """

    def __init__(
        self, simulator: Simulator[Any] | str, num_envs: int | None, render_mode: str | None, world: Mapping[str, Any]
    ) -> None:
        if isinstance(simulator, str):
            simulator = build_simulator(simulator, **world)  # type: ignore[assignment]
        elif world:
            raise TypeError(f"{type(simulator).__name__}: is made already; arguments {sorted(world)} come too late")
        assert isinstance(simulator, Simulator)
        self.simulator: Simulator[Any] = simulator
        self.name = type(simulator).__name__
        if render_mode is not None and render_mode not in simulator.render_modes:
            raise ValueError(
                f"{self.name}: render_mode={render_mode!r}; expected None or one of {simulator.render_modes}"
            )
        self.render_mode = render_mode
        self.num_envs = num_envs
        self.batch = 1 if num_envs is None else num_envs
        self.noise = KeyStream(self.batch)
        self.starts = Starts(simulator, self.noise)
        self.state: Any = None
        self.ended = False
        self.scalars = num_envs is None and simulator.elementwise
        self._informs = any(
            getattr(type(simulator), method) is not getattr(Simulator, method)
            for method in ("information", "action_masks")
        )
        action_space, observation_space = simulator.action_space, simulator.observation_space
        self._reader = self._writer = self._row = None
        if not face_spaces.holds_text(action_space):
            self._reader = face_spaces.action_reader(action_space, num_envs, self.name, batched=not self.scalars)
        if not face_spaces.holds_text(observation_space):
            self._writer = face_spaces.observation_writer(observation_space)
        if num_envs is None and not self.scalars:
            self._row = face_spaces.row_reader(observation_space)
        self._put = face_spaces.rows_replacer(observation_space)

    def __getstate__(self) -> dict[str, Any]:
        return {
            "arguments": (self.simulator, self.num_envs, self.render_mode),
            "noise": self.noise,
            "state": self.state,
            "ended": self.ended,
        }

    def __setstate__(self, saved: dict[str, Any]) -> None:
        simulator, num_envs, render_mode = saved["arguments"]
        self.__init__(simulator, num_envs, render_mode, {})  # type: ignore[misc]
        self.noise, self.state, self.ended = saved["noise"], saved["state"], saved["ended"]
        self.starts = Starts(simulator, self.noise)

    def require_episode(self, call: str) -> None:
        """Raise ResetNeeded where no episode is in progress that the named call could be about."""
        if self.state is None:
            raise gym.error.ResetNeeded(f"{self.name}: {call} before reset; call reset() first")
        if self.ended and call == "step":
            raise gym.error.ResetNeeded(f"{self.name}: step after the end of the episode; call reset() first")

    def batch_state(self) -> Any:
        """Return the state with its batch axis."""
        return map_arrays(np.atleast_1d, self.state) if self.scalars and self.state is not None else self.state

    def kept_state(self, state: Any) -> Any:
        """Return a state with its batch axis as this run keeps it."""
        return map_arrays(lambda array: array[0], state) if self.scalars else state

    def begin(self, seeds: np.ndarray | None, options: Mapping[str, Any] | None) -> None:
        """Start new episodes: of new seeds or the next of each row's present seed, of drawn or of chosen tasks."""
        choice = read_task_options(self.name, self.simulator.tasks, options, self.batch)
        if choice is not None and choice.seeds is not None:
            seeds = choice.seeds
        key = self.noise.start(1) if seeds is None else CounterKey(seeds)
        state = self.simulator.initial(key) if choice is None else self.simulator.initial_of_task(choice.tasks, key)
        if seeds is None:
            self.noise.restart()
        else:
            self.noise.place(seeds)
            self.starts.forget()
        self.state, self.ended = self.kept_state(state), False

    def read(self, action: Any) -> Any:
        """Return the simulator's action arrays of a user's action, checked."""
        if self._reader is not None:
            return self._reader(action)
        if self.num_envs is None:
            return self.simulator.encode_action(self.state, [action])
        rows = face_spaces.split_rows(self.simulator.action_space, self.num_envs, action, self.name)
        return self.simulator.encode_action(self.state, rows)

    def post_decision(self, action: Any) -> tuple[Any, Any]:
        """Return what is shown once actions have taken effect and nature has not moved, and the rewards so far."""
        self.require_episode("post_decision")
        show = getattr(self.simulator, "observe_post", None)
        if show is None or self._writer is None:
            raise TypeError(f"{self.name}: shows no post-decision state; expected a world that defines observe_post")
        post = self.simulator.decide(self.state, self.read(action))
        written = self._writer(show(post))
        return (written if self._row is None else self._row(written)), post.reward

    def observation(self, state: Any) -> Any:
        """Return the user's observation of a state, of as many rows as it has."""
        arrays = self.simulator.observe(state)
        if self._writer is None:
            rows = list(self.simulator.decode_observation(arrays, state))
            return rows[0] if self.num_envs is None else face_spaces.join_rows(self.simulator.observation_space, rows)
        written = self._writer(arrays)
        return written if self._row is None else self._row(written)

    def information(self, state: Any, transition: Transition[Any] | None = None) -> dict[str, Any]:
        """Return the info of a state, and of the transition that led to it."""
        info: dict[str, Any] = dict(transition.info) if transition is not None else {}
        if self._informs:
            info.update(self.simulator.information(state))
            mask = self.simulator.action_masks(state)
            if mask is not None:
                info["action_mask"] = mask
        if self.num_envs is not None or not info:
            return info
        if self.scalars:
            return {name: value.item() if isinstance(value, np.generic) else value for name, value in info.items()}
        return {
            name: value.item() if isinstance(value, np.ndarray) and value.ndim == 1 else value[0]
            for name, value in info.items()
        }

    def restarted(
        self, rows: np.ndarray, state: Any, observation: Any, info: Mapping[str, Any], transition: Transition[Any]
    ) -> tuple[Any, Any, dict[str, Any]]:
        """Return state, observation and info in which the numbered rows have started their next episodes."""
        fresh = self.starts.take(rows)
        if len(rows) == self.batch:
            return fresh, self.observation(fresh), self.information(fresh, transition)
        news = {name: rows_replaced(info[name], rows, values) for name, values in self.information(fresh).items()}
        return with_rows(state, rows, fresh), self._put(observation, rows, self.observation(fresh)), {**info, **news}

    def masks(self) -> np.ndarray:
        """Return admissible actions `[batch, num_actions]`, all true where the world has no mask."""
        self.require_episode("action_masks")
        mask = self.simulator.action_masks(self.batch_state())
        if mask is not None:
            return np.array(mask, dtype=bool)
        space = self.simulator.action_space
        if isinstance(space, gym.spaces.Discrete):
            return np.ones((self.batch, int(space.n)), bool)
        if isinstance(space, gym.spaces.MultiDiscrete):
            return np.ones((self.batch, int(space.nvec.sum())), bool)
        raise TypeError(f"{self.name}: action_masks of action_space={space}; expected Discrete or MultiDiscrete")

    def frames(self) -> tuple[Any, ...]:
        """Return one picture or text for each row."""
        self.require_episode("render")
        if self.render_mode is None:
            raise ValueError(
                f"{self.name}: render with render_mode=None; make the environment with render_mode= one of "
                f"{self.simulator.render_modes}"
            )
        state = self.batch_state()
        return tuple(self.simulator.render(state, row, self.render_mode) for row in range(self.batch))

    def snapshot(self) -> dict[str, Any]:
        """Return states, clocks and noise positions of all rows as a tree of arrays."""
        self.require_episode("snapshot")
        noise, state = self.noise, self.batch_state()
        arrays = {"seed": noise.seed, "episode": noise.episode, "step": noise.step, "branch": noise.branch}
        return {
            "world": self.name,
            "ended": self.ended,
            **{name: array.copy() for name, array in arrays.items()},
            "state": {name: np.array(getattr(state, name)) for name in field_names(type(state))},
        }

    def restore(self, snapshot: Mapping[str, Any], branch: Any) -> None:
        """Continue from a snapshot; `branch` as in the faces' `restore`, and its errors."""
        choice = check_branch(branch)
        if snapshot.get("world") != self.name:
            raise ValueError(f"restore: snapshot of world {snapshot.get('world')!r}; expected one of {self.name!r}")
        template = self.simulator.initial(CounterKey([0] * self.batch))
        saved = snapshot["state"]
        fields = {name: getattr(template, name) for name in field_names(type(template))}
        found = {name: (np.shape(array), np.asarray(array).dtype) for name, array in saved.items()}
        expected = {name: (array.shape, array.dtype) for name, array in fields.items()}
        if found != expected:
            raise ValueError(f"restore: state of shapes and dtypes {found}; expected {expected}")
        words = {name: np.asarray(snapshot[name], np.int64) for name in ("seed", "episode", "step", "branch")}
        words["branch"] = child_branch(words["branch"], choice)
        state = dataclasses.replace(template, **{name: np.array(array) for name, array in saved.items()})
        self.state = self.kept_state(state)
        self.noise.place(**words)
        self.starts.forget()
        self.ended = bool(snapshot["ended"])
