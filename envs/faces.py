"""The two Gymnasium faces of a simulator: one environment, and many rows of it in one vector environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from palaestra.envs.arrays import keep_freed_memory
from palaestra.envs.noise import MAX_SEED
from palaestra.envs.simulation import Simulation
from palaestra.envs.simulator import Simulator
from palaestra.protocols import Key


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
        self._run = Simulation(simulator, None, render_mode, world)
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
        if run.state is None or run.ended:
            run.require_episode("step")
        simulator, noise = run.simulator, run.noise
        transition = simulator.step(run.state, run.read(action), noise.transition())
        state = transition.state
        observation = run.observation(state)
        info = run.information(state, transition)
        if run.scalars:
            reward, terminated = float(transition.reward), bool(transition.terminated)
        else:
            reward, terminated = float(transition.reward[0]), bool(transition.terminated[0])
        noise.advance()
        truncated = not terminated and noise.reached(simulator.horizon) is not None
        run.state, run.ended = state, terminated or truncated
        return observation, reward, terminated, truncated, info

    def render(self) -> Any:
        """Return a picture `[height, width, 3]` uint8, or a text, of the present state."""
        return self._run.frames()[0]

    def post_decision(self, action: Any) -> tuple[Any, float]:
        """Return what is shown once an action has taken effect and nature has not moved, and the reward so far.

        Nothing changes by asking.

        Args:
            action: A member of `action_space`.

        Raises:
            TypeError: If the world shows no post-decision states.
        """
        observation, reward = self._run.post_decision(action)
        return observation, float(reward[0])

    def action_masks(self) -> np.ndarray:
        """Return the admissible actions `[num_actions]` as bools, all true where the world has no mask."""
        return self._run.masks()[0]

    @property
    def state(self) -> Any:
        """State, a batch of one row, which a world's own actors read."""
        return self._run.batch_state()

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
        keep_freed_memory()
        self._run = Simulation(simulator, num_envs, render_mode, world)
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
        noise = run.noise
        transition = run.simulator.step(run.state, run.read(actions), noise.transition())
        state = transition.state
        observation = run.observation(state)
        info = run.information(state, transition)
        reward = np.array(transition.reward, dtype=np.float64)
        terminated = np.array(transition.terminated, dtype=bool)
        late = noise.reached(run.simulator.horizon - 1)
        done = terminated if late is None else terminated | late
        truncated = np.zeros(run.batch, bool) if late is None else late & ~terminated
        rows = done.nonzero()[0]
        if len(rows):
            final = {
                "final_obs": observation,
                "_final_obs": done.copy(),
                "final_info": info,
                "_final_info": done.copy(),
            }
            state, observation, info = run.restarted(rows, state, observation, info, transition)
            info.update(final)
        # Nothing of the run changes before this line, so a step that raises leaves it as it was.
        noise.advance()
        if len(rows):
            noise.restart(rows)
        run.state = state
        return observation, reward, terminated, truncated, info

    def render(self) -> tuple[Any, ...]:
        """Return one picture `[height, width, 3]` uint8, or one text, for each row."""
        return self._run.frames()

    def post_decision(self, actions: Any) -> tuple[Any, np.ndarray]:
        """Return what is shown once actions have taken effect and nature has not moved, and the rewards so far.

        Nothing changes by asking.

        Args:
            actions: A member of `action_space`, `[num_envs, ...]`.

        Raises:
            TypeError: If the world shows no post-decision states.
        """
        observation, reward = self._run.post_decision(actions)
        return observation, np.array(reward, np.float64)

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
