"""Gymnasium's MuJoCo ids as one resumable vector env: all rows stepped by threads, each equal to the single env."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from importlib import import_module, util
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode

from palaestra.envs.mujoco.starts import GeneratorStarts

_DRAWING = frozenset(
    {"width", "height", "camera_id", "camera_name", "default_camera_config", "max_geom", "visual_options"}
)
"""Arguments of the envs that only pictures depend on."""

_RUNNERS, _WALKERS = "palaestra.envs.mujoco.runners", "palaestra.envs.mujoco.walkers_3d"
_OTHERS = "palaestra.envs.mujoco.pendulums_and_arms"
_WORLDS = {
    "half_cheetah_v5:HalfCheetahEnv": f"{_RUNNERS}:HalfCheetah",
    "hopper_v5:HopperEnv": f"{_RUNNERS}:Hopper",
    "walker2d_v5:Walker2dEnv": f"{_RUNNERS}:Walker2d",
    "swimmer_v5:SwimmerEnv": f"{_RUNNERS}:Swimmer",
    "ant_v5:AntEnv": f"{_WALKERS}:Ant",
    "humanoid_v5:HumanoidEnv": f"{_WALKERS}:Humanoid",
    "inverted_pendulum_v5:InvertedPendulumEnv": f"{_OTHERS}:InvertedPendulum",
    "inverted_double_pendulum_v5:InvertedDoublePendulumEnv": f"{_OTHERS}:InvertedDoublePendulum",
    "reacher_v5:ReacherEnv": f"{_OTHERS}:Reacher",
    "pusher_v5:PusherEnv": f"{_OTHERS}:Pusher",
}
"""Worlds by the entry point of the env they equal, without its package."""

_PACKAGE = "gymnasium.envs.mujoco."


def why_not_pool(spec: EnvSpec, arguments: Mapping[str, Any]) -> str | None:
    """Return why an id with these arguments cannot be stepped by the pool, or None where it can."""
    if not isinstance(spec.entry_point, str) or spec.entry_point.removeprefix(_PACKAGE) not in _WORLDS:
        return f"{spec.id} is none of Gymnasium's MuJoCo worlds of version 5"
    if spec.additional_wrappers:
        return f"{spec.id} is registered with wrappers"
    if util.find_spec("mujoco") is None:
        return "MuJoCo is not installed (pip install 'palaestra[mujoco]')"
    world = _world_class(spec)
    known = world.defaults.keys() | _DRAWING | {"max_episode_steps", "render_mode"}
    unknown = sorted((spec.kwargs.keys() | arguments.keys()) - known)
    if unknown:
        return f"the pool does not know {', '.join(unknown)}; expected some of {sorted(known)}"
    limit = _time_limit(spec, arguments)
    if limit is None or limit < 1:
        return f"{spec.id} has max_episode_steps={limit}; expected a time limit"
    return None


class PoolVectorEnv(gym.vector.VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """Rows of one of Gymnasium's MuJoCo worlds, stepped at once; a row that ends begins anew in the same step.

    Row `i` equals `gym.make(id, **arguments)` with row `i`'s seed, resets included, because every row has the
    generator that the single env would have, and its draws are made in the same order: observations and ends agree
    bit for bit, rewards and infos to 1e-10 (some are sums over the batch in another order). Results do not depend on
    the number of threads. Infos are laid out as those of `SimulatorVectorEnv`.

    Actions must be finite and of the right shape. As in Gymnasium, those out of bounds are clamped by MuJoCo while
    their cost is that of the action as given.

    Args:
        spec: Spec of the id.
        num_envs: Number of rows.
        render_mode: As for `gym.make`. Rows are drawn by one env of Gymnasium's, at the positions after the step (the
            single env draws bodies one substep behind), from where it first looked at row 0.
        threads: Threads that step rows; None for `palaestra.envs.threads.default_threads()`.
        **arguments: Arguments of the env, `max_episode_steps` among them.

    Raises:
        ValueError: If `num_envs` is below 1 or the pool cannot step the id with these arguments.
    """

    def __init__(
        self,
        spec: EnvSpec,
        num_envs: int,
        render_mode: str | None = None,
        threads: int | None = None,
        **arguments: Any,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"PoolVectorEnv: num_envs={num_envs}; expected at least 1")
        reason = why_not_pool(spec, arguments)
        if reason is not None:
            raise ValueError(f"PoolVectorEnv: {reason}")
        self.spec = copy.deepcopy(spec)
        self.spec.kwargs.update(arguments if render_mode is None else {**arguments, "render_mode": render_mode})
        world = _world_class(spec)
        options = {name: value for name, value in {**spec.kwargs, **arguments}.items() if name in world.defaults}
        self.world = world(horizon=_time_limit(spec, arguments), threads=threads, **options)
        modes = ("human", "rgb_array", "depth_array", "rgbd_tuple")
        if render_mode is not None and render_mode not in modes:
            raise ValueError(f"PoolVectorEnv: render_mode={render_mode!r}; expected None or one of {modes}")
        self.render_mode = render_mode
        self._painter: Any = None
        self.num_envs = num_envs
        self.metadata = {
            "render_modes": list(modes),
            "render_fps": round(1.0 / self.world.dt),
            "autoreset_mode": AutoresetMode.SAME_STEP,
        }
        self.single_observation_space = self.world.observation_space
        self.single_action_space = self.world.action_space
        self.observation_space = gym.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gym.vector.utils.batch_space(self.single_action_space, num_envs)
        self._generators: list[np.random.Generator] = []
        self._state: Any = None
        self._elapsed = np.zeros(num_envs, np.int64)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode in every row and return the first observations and infos.

        Args:
            seed: One seed for each row (None goes on with that row's generator), or an int for `seed, seed + 1, ...`.
            options: None or empty, as Gymnasium's own envs have none.
        """
        if options:
            raise ValueError(f"reset: options={options!r}; expected None, since the envs of {self._name} have none")
        seeds = self._seeds(seed)
        old: Sequence[np.random.Generator | None] = self._generators or [None] * self.num_envs
        generators = [
            have if given is None and have is not None else seeding.np_random(given)[0]
            for have, given in zip(old, seeds, strict=True)
        ]
        self._state, self._generators = self._begun(generators), generators
        self._elapsed = np.zeros(self.num_envs, np.int64)
        return self.world.observe(self._state), dict(self.world.information(self._state))

    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Take one action in every row.

        Args:
            actions: Real numbers `[num_envs, action_dim]`.

        Returns:
            Observations float64, rewards `[num_envs]` float64, terminated and truncated `[num_envs]` bool, info. As in
            Gymnasium, a row that terminates in the step of its time limit is truncated too.

        Raises:
            ValueError: If the actions have a wrong shape or are not finite.
            TypeError: If they are no real numbers.
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        self._require_reset("step")
        actions = self._checked(actions)
        world = self.world
        transition = world.step(self._state, actions)
        state = transition.state
        observation = world.observe(state)
        info = {**transition.info, **world.information(state)}
        terminated = transition.terminated
        elapsed = self._elapsed + 1
        truncated = elapsed >= world.horizon
        done = terminated | truncated
        if done.any():
            rows = np.flatnonzero(done)
            begun = self._begun([self._generators[row] for row in rows])
            state = type(state)(
                _with_rows(state.physics, rows, begun.physics), _with_rows(state.derived, rows, begun.derived)
            )
            final = {
                "final_obs": observation,
                "_final_obs": done.copy(),
                "final_info": info,
                "_final_info": done.copy(),
            }
            observation = _with_rows(observation, rows, world.observe(begun))
            info = {**transition.info, **world.information(state), **final}
            elapsed[rows] = 0
        self._state, self._elapsed = state, elapsed
        return observation, np.array(transition.reward, np.float64), terminated, truncated, info

    def render(self) -> tuple[Any, ...]:
        """Return one picture of each row, of the kind that the render mode names (None each for "human").

        Raises:
            ValueError: If the env was made without a render mode.
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        self._require_reset("render")
        if self.render_mode is None:
            raise ValueError(f"{self._name}: render with render_mode=None; make the env with a render_mode")
        if self._painter is None:
            assert self.spec is not None
            arguments = {name: value for name, value in self.spec.kwargs.items() if name != "max_episode_steps"}
            self._painter = load_env_creator(str(self.spec.entry_point))(**arguments)
        frames = []
        for row in range(self.num_envs):
            drawn = self.world.data_of(self._state, row)
            self._painter.set_state(drawn.qpos, drawn.qvel)
            frames.append(self._painter.render())
        return tuple(frames)

    def close_extras(self, **kwargs: Any) -> None:
        """Give back threads and windows."""
        self.world.close()
        if self._painter is not None:
            self._painter.close()
            self._painter = None

    def snapshot(self) -> dict[str, Any]:
        """Return states, clocks and generators of all rows as a tree of arrays and plain values."""
        self._require_reset("snapshot")
        return {
            "world": self._name,
            "physics": self._state.physics.copy(),
            "derived": self._state.derived.copy(),
            "elapsed": self._elapsed.copy(),
            "generators": [generator.bit_generator.state for generator in self._generators],
        }

    def restore(self, snapshot: Mapping[str, Any], branch: int = 0) -> tuple[np.ndarray, dict[str, Any]]:
        """Continue all rows from a snapshot of a pool of the same world, arguments and rows.

        Args:
            snapshot: What `snapshot()` returned.
            branch: 0 replays the same noise in the resets to come; other numbers, at least 1, draw fresh noise.

        Returns:
            Observations and info of the restored states.

        Raises:
            ValueError: If the snapshot is of another world, model or number of rows, or `branch` is negative.
        """
        if branch < 0:
            raise ValueError(f"restore: branch={branch}; expected at least 0")
        if snapshot.get("world") != self._name:
            raise ValueError(f"restore: snapshot of world {snapshot.get('world')!r}; expected one of {self._name!r}")
        layout = self.world.physics.layout
        expected = ((self.num_envs, layout.size), (self.num_envs, layout.derived_size))
        found = tuple(np.shape(snapshot[name]) for name in ("physics", "derived"))
        if found != expected:
            raise ValueError(f"restore: state of shapes {found}; expected {expected}")
        self._state = self._state_of(np.array(snapshot["physics"]), np.array(snapshot["derived"]))
        self._elapsed = np.array(snapshot["elapsed"], dtype=np.int64)
        self._generators = [_generator(saved, branch) for saved in snapshot["generators"]]
        return self.world.observe(self._state), dict(self.world.information(self._state))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_painter": None}

    @property
    def _name(self) -> str:
        return str(self.spec.id)  # type: ignore[union-attr]

    def _require_reset(self, call: str) -> None:
        if self._state is None:
            raise gym.error.ResetNeeded(f"{self._name}: {call} before reset; call reset() first")

    def _seeds(self, seed: int | Sequence[int | None] | None) -> list[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, int | np.integer):
            return [int(seed) + row for row in range(self.num_envs)]
        seeds = [None if one is None else int(one) for one in seed]
        if len(seeds) != self.num_envs:
            raise ValueError(f"reset: seed={seed!r}; expected {self.num_envs} seeds, or one int")
        return seeds

    def _begun(self, generators: Sequence[np.random.Generator]) -> Any:
        """Return starts drawn from generators, which are left as they were if MuJoCo raises."""
        before = [generator.bit_generator.state for generator in generators]
        try:
            return self.world.begin(GeneratorStarts(generators))
        except BaseException:
            for generator, state in zip(generators, before, strict=True):
                generator.bit_generator.state = state
            raise

    def _state_of(self, physics: np.ndarray, derived: np.ndarray) -> Any:
        from palaestra.envs.mujoco.state import MujocoState

        return MujocoState(physics, derived)

    def _checked(self, actions: Any) -> np.ndarray:
        array = np.asarray(actions)
        if array.dtype.kind not in "fiu":
            raise TypeError(f"{self._name}: action of dtype {array.dtype}; expected real numbers")
        if array.shape != self.action_space.shape:
            raise ValueError(f"{self._name}: action of shape {array.shape}; expected {self.action_space.shape}")
        if not np.isfinite(array).all():
            row = int(np.argwhere(~np.isfinite(array))[0][0])
            raise ValueError(f"{self._name}: action of row {row} is {array[row].tolist()}; expected finite numbers")
        return array


def _world_class(spec: EnvSpec) -> Any:
    module, _, name = _WORLDS[str(spec.entry_point).removeprefix(_PACKAGE)].partition(":")
    return getattr(import_module(module), name)


def _time_limit(spec: EnvSpec, arguments: Mapping[str, Any]) -> int | None:
    limit = arguments.get("max_episode_steps")
    return spec.max_episode_steps if limit is None else limit


def _with_rows(array: np.ndarray, rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    replaced = array.copy()
    replaced[rows] = values
    return replaced


def _generator(saved: Mapping[str, Any], branch: int) -> np.random.Generator:
    generator = np.random.Generator(np.random.PCG64())
    generator.bit_generator.state = saved
    if branch:
        words = saved["state"]
        generator = np.random.Generator(np.random.PCG64([branch, words["state"], words["inc"]]))
    return generator
