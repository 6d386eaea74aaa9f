"""The two Gymnasium faces of a simulator: one environment, and many rows of it in one vector environment."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from palaestra.envs import face_spaces
from palaestra.envs.key_stream import KeyStream
from palaestra.envs.noise import MAX_SEED, CounterKey, check_branch, child_branch
from palaestra.envs.registration import build_simulator
from palaestra.envs.simulator import Simulator, where_rows
from palaestra.envs.task_options import read_task_options
from palaestra.protocols import Key, Transition


class _Run:
    """A simulator in progress: state, noise clock, and what both faces show of them."""

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
        self.state: Any = None
        self.ended = False
        action_space, observation_space = simulator.action_space, simulator.observation_space
        self._text_actions = face_spaces.holds_text(action_space)
        self._text_observations = face_spaces.holds_text(observation_space)
        self._reader = None if self._text_actions else face_spaces.action_reader(action_space, num_envs, self.name)
        self._writer = None if self._text_observations else face_spaces.observation_writer(observation_space)
        self._row = face_spaces.row_reader(observation_space)

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

    def require_episode(self, call: str) -> None:
        if self.state is None:
            raise gym.error.ResetNeeded(f"{self.name}: {call} before reset; call reset() first")
        if self.ended and call == "step":
            raise gym.error.ResetNeeded(f"{self.name}: step after the end of the episode; call reset() first")

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
        self.state, self.ended = state, False

    def read(self, action: Any) -> Any:
        """Return the simulator's action arrays of a user's action, checked."""
        if self._reader is not None:
            return self._reader(action)
        if self.num_envs is None:
            return self.simulator.encode_action(self.state, [action])
        rows = face_spaces.split_rows(self.simulator.action_space, self.num_envs, action, self.name)
        return self.simulator.encode_action(self.state, rows)

    def observation(self, state: Any) -> Any:
        """Return the user's observation of a state."""
        arrays = self.simulator.observe(state)
        if self._writer is None:
            rows = list(self.simulator.decode_observation(arrays, state))
            return rows[0] if self.num_envs is None else face_spaces.join_rows(self.simulator.observation_space, rows)
        written = self._writer(arrays)
        return self._row(written) if self.num_envs is None else written

    def information(self, state: Any, transition: Transition[Any] | None = None) -> dict[str, Any]:
        """Return the info of a state, and of the transition that led to it."""
        info: dict[str, Any] = dict(transition.info) if transition is not None else {}
        info.update(self.simulator.information(state))
        mask = self.simulator.action_masks(state)
        if mask is not None:
            info["action_mask"] = mask
        if self.num_envs is not None:
            return info
        return {
            name: value.item() if isinstance(value, np.ndarray) and value.ndim == 1 else value[0]
            for name, value in info.items()
        }

    def masks(self) -> np.ndarray:
        """Return admissible actions `[batch, num_actions]`, all true where the world has no mask."""
        self.require_episode("action_masks")
        mask = self.simulator.action_masks(self.state)
        if mask is not None:
            return np.array(mask, dtype=bool)
        space = self.simulator.action_space
        if isinstance(space, gym.spaces.Discrete):
            return np.ones((self.batch, int(space.n)), bool)
        if isinstance(space, gym.spaces.MultiDiscrete):
            return np.ones((self.batch, int(space.nvec.sum())), bool)
        raise TypeError(f"{self.name}: action_masks of action_space={space}; expected Discrete or MultiDiscrete")

    def frames(self) -> tuple[Any, ...]:
        self.require_episode("render")
        if self.render_mode is None:
            raise ValueError(
                f"{self.name}: render with render_mode=None; make the environment with render_mode= one of "
                f"{self.simulator.render_modes}"
            )
        return tuple(self.simulator.render(self.state, row, self.render_mode) for row in range(self.batch))

    def snapshot(self) -> dict[str, Any]:
        self.require_episode("snapshot")
        noise = self.noise
        arrays = {"seed": noise.seed, "episode": noise.episode, "step": noise.step, "branch": noise.branch}
        return {
            "world": self.name,
            "ended": self.ended,
            **{name: array.copy() for name, array in arrays.items()},
            "state": {f.name: np.array(getattr(self.state, f.name)) for f in dataclasses.fields(self.state)},
        }

    def restore(self, snapshot: Mapping[str, Any], branch: Any) -> None:
        choice = check_branch(branch)
        if snapshot.get("world") != self.name:
            raise ValueError(f"restore: snapshot of world {snapshot.get('world')!r}; expected one of {self.name!r}")
        template = self.simulator.initial(CounterKey([0] * self.batch))
        saved = snapshot["state"]
        fields = {f.name: getattr(template, f.name) for f in dataclasses.fields(template)}
        found = {name: (np.shape(array), np.asarray(array).dtype) for name, array in saved.items()}
        expected = {name: (array.shape, array.dtype) for name, array in fields.items()}
        if found != expected:
            raise ValueError(f"restore: state of shapes and dtypes {found}; expected {expected}")
        words = {name: np.asarray(snapshot[name], np.int64) for name in ("seed", "episode", "step", "branch")}
        words["branch"] = child_branch(words["branch"], choice)
        self.state = dataclasses.replace(template, **{name: np.array(array) for name, array in saved.items()})
        self.noise.place(**words)
        self.ended = bool(snapshot["ended"])


class SimulatorEnv(gym.Env[Any, Any]):
    """One environment over a simulator.

    An episode is truncated after `simulator.horizon` steps, unless it terminated by then. `reset(seed=s)` starts
    episode 0 of seed `s`; `reset()` starts the next episode of the present seed. A step that raises changes nothing.

    Args:
        simulator: A simulator, or where its class stands, "package.module:Class".
        render_mode: None or one of the simulator's render modes.
        **world: Arguments of the simulator's class, where a place is given.

    Raises:
        ValueError: If the render mode or an argument of the world is not valid.
        TypeError: If the world takes no argument of that name.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array", "ansi"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, simulator: Simulator[Any] | str, render_mode: str | None = None, **world: Any) -> None:
        self._run = _Run(simulator, None, render_mode, world)
        self.simulator = self._run.simulator
        self.render_mode = render_mode
        self.observation_space = self.simulator.observation_space
        self.action_space = self.simulator.action_space
        self.metadata = _metadata(self.simulator)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode and return its first observation and info.

        Args:
            seed: Seed of the noise, 0 to 2**63 - 1; None goes on with the next episode of the present seed.
            options: None or empty; `{"task_seed": q, "member": m}` in worlds with numbered tasks (`read_task_options`).
        """
        super().reset(seed=seed)
        run = self._run
        if seed is None and run.state is None:
            seed = int(self.np_random.integers(MAX_SEED))
        run.begin(None if seed is None else _seed_array(seed, 1), options)
        return run.observation(run.state), run.information(run.state)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take one action.

        Args:
            action: A member of `action_space`; Box actions up to 1e-6 out of bounds are clipped.

        Returns:
            Observation, reward, terminated, truncated, info.

        Raises:
            TypeError: If the action has a wrong dtype.
            ValueError: If it has a wrong shape, is not finite or lies out of range.
            gymnasium.error.ResetNeeded: Before the first reset and after the end of an episode.
        """
        run = self._run
        run.require_episode("step")
        transition = run.simulator.step(run.state, run.read(action), run.noise.transition())
        observation = run.observation(transition.state)
        info = run.information(transition.state, transition)
        reward, terminated = float(transition.reward[0]), bool(transition.terminated[0])
        run.noise.advance()
        truncated = not terminated and int(run.noise.step[0]) >= run.simulator.horizon
        run.state, run.ended = transition.state, terminated or truncated
        return observation, reward, terminated, truncated, info

    def render(self) -> Any:
        """Return a picture `[height, width, 3]` uint8, or a text, of the present state."""
        return self._run.frames()[0]

    def action_masks(self) -> np.ndarray:
        """Return the admissible actions `[num_actions]` as bools, all true where the world has no mask."""
        return self._run.masks()[0]

    @property
    def state(self) -> Any:
        """State, a batch of one row, which a world's own actors read."""
        return self._run.state

    def key(self) -> Key:
        """Return the noise of the coming step, from which a world's own actors draw under names of their own."""
        self._run.require_episode("key")
        return self._run.noise.transition()

    def snapshot(self) -> dict[str, Any]:
        """Return state, clock and noise position as a tree of arrays."""
        return self._run.snapshot()

    def restore(self, snapshot: Mapping[str, Any], branch: int = 0) -> tuple[Any, dict[str, Any]]:
        """Continue from a snapshot, of this environment or of another of the same world and arguments.

        Args:
            snapshot: What `snapshot()` returned.
            branch: 0 replays the same noise; 1 to 65535 each draw fresh noise.

        Returns:
            Observation and info of the restored state.

        Raises:
            ValueError: If the snapshot is of another world, or `branch` is out of range.
        """
        self._run.restore(snapshot, branch)
        return self._run.observation(self._run.state), self._run.information(self._run.state)


class SimulatorVectorEnv(gym.vector.VectorEnv[Any, Any, np.ndarray]):
    """Many rows of a simulator stepped at once; a row that ends starts its next episode within the same step.

    Row `i` equals the `SimulatorEnv` with row `i`'s seed. In a step in which rows end, `info["final_obs"]` and
    `info["final_info"]` hold the last observation and info of the ended episodes, valid in the rows of the mask
    `info["_final_obs"]`; the observation, the mask and the other state entries of `info` belong to the new
    episodes, the entries of the transition to the step just taken.

    Args:
        simulator: A simulator, or where its class stands, "package.module:Class".
        num_envs: Number of rows.
        render_mode: None or one of the simulator's render modes.
        **world: Arguments of the simulator's class, where a place is given.

    Raises:
        ValueError: If `num_envs` is below 1, or the render mode or an argument of the world is not valid.
        TypeError: If the world takes no argument of that name.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(
        self, simulator: Simulator[Any] | str, num_envs: int, render_mode: str | None = None, **world: Any
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"SimulatorVectorEnv: num_envs={num_envs}; expected at least 1")
        self._run = _Run(simulator, num_envs, render_mode, world)
        self.simulator = self._run.simulator
        self.num_envs = num_envs
        self.render_mode = render_mode
        self.single_observation_space = self.simulator.observation_space
        self.single_action_space = self.simulator.action_space
        self.observation_space = gym.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gym.vector.utils.batch_space(self.single_action_space, num_envs)
        self.metadata = {**_metadata(self.simulator), "autoreset_mode": AutoresetMode.SAME_STEP}

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode in every row and return the first observations and infos.

        Args:
            seed: One seed for each row, or an int for the seeds `seed, seed + 1, ...`; None goes on with the
                next episode of each row's present seed.
            options: None or empty; `{"task_seed": q, "member": m}` in worlds with numbered tasks (`read_task_options`).
        """
        run = self._run
        super().reset(seed=seed if isinstance(seed, int) else None)
        if seed is None:
            fresh = run.state is None
            seeds = self.np_random.integers(MAX_SEED, size=run.batch) if fresh else None
        else:
            seeds = _seed_array(seed, run.batch)
        run.begin(seeds, options)
        return run.observation(run.state), run.information(run.state)

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Take one action in every row.

        Args:
            actions: A member of `action_space`, `[num_envs, ...]`; Box actions up to 1e-6 out of bounds are clipped.

        Returns:
            Observations, rewards `[num_envs]` float64, terminated and truncated `[num_envs]` bool, info.

        Raises:
            TypeError: If the actions have a wrong dtype.
            ValueError: If they have a wrong shape, are not finite or lie out of range.
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        run = self._run
        run.require_episode("step")
        transition = run.simulator.step(run.state, run.read(actions), run.noise.transition())
        state = transition.state
        observation = run.observation(state)
        info = run.information(state, transition)
        reward = np.array(transition.reward, dtype=np.float64)
        terminated = np.array(transition.terminated, dtype=bool)
        truncated = (run.noise.step >= run.simulator.horizon - 1) & ~terminated
        done = terminated | truncated
        any_done = bool(done.any())
        if any_done:
            state = where_rows(done, run.simulator.initial(run.noise.start(1)), state)
            final = {
                "final_obs": observation,
                "_final_obs": done.copy(),
                "final_info": info,
                "_final_info": done.copy(),
            }
            observation = run.observation(state)
            info = {**run.information(state, transition), **final}
        # Nothing of the run changes before this line, so a step that raises leaves it as it was.
        run.noise.advance()
        if any_done:
            run.noise.restart(done)
        run.state = state
        return observation, reward, terminated, truncated, info

    def render(self) -> tuple[Any, ...]:
        """Return one picture `[height, width, 3]` uint8, or one text, for each row."""
        return self._run.frames()

    def action_masks(self) -> np.ndarray:
        """Return the admissible actions `[num_envs, num_actions]` as bools, all true where the world has no mask."""
        return self._run.masks()

    @property
    def state(self) -> Any:
        """State of all rows, which a world's own actors read."""
        return self._run.state

    def key(self) -> Key:
        """Return the noise of the coming step, from which a world's own actors draw under names of their own."""
        self._run.require_episode("key")
        return self._run.noise.transition()

    def snapshot(self) -> dict[str, Any]:
        """Return states, clocks and noise positions of all rows as a tree of arrays."""
        return self._run.snapshot()

    def restore(self, snapshot: Mapping[str, Any], branch: int | Sequence[int] = 0) -> tuple[Any, dict[str, Any]]:
        """Continue all rows from a snapshot of a vector environment of the same world, arguments and rows.

        Args:
            snapshot: What `snapshot()` returned.
            branch: One number for all rows or one for each: 0 replays the same noise, 1 to 65535 each draw fresh noise.

        Returns:
            Observations and info of the restored states.

        Raises:
            ValueError: If the snapshot is of another world or number of rows, or `branch` is out of range.
        """
        self._run.restore(snapshot, branch)
        return self._run.observation(self._run.state), self._run.information(self._run.state)


def _metadata(simulator: Simulator[Any]) -> dict[str, Any]:
    return {"render_modes": list(simulator.render_modes), "render_fps": simulator.render_fps}


def _seed_array(seed: int | Sequence[int], rows: int) -> np.ndarray:
    seeds = [seed + row for row in range(rows)] if isinstance(seed, int | np.integer) else [int(s) for s in seed]
    if len(seeds) != rows or any(not 0 <= s <= MAX_SEED for s in seeds):
        raise ValueError(f"reset: seed={seed!r}; expected {rows} seeds from 0 to 2**63 - 1, or one int")
    return np.array(seeds, dtype=np.int64)
