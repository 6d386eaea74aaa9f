"""The agent: the verbs that every learner of the suite shares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Generator, Tensor, nn

from palaestra.agents.memory.replay import ReplayBuffer
from palaestra.agents.nn.networks import Observation
from palaestra.agents.nn.normalization import ObservationNormalizer
from palaestra.agents.nn.spaces import ActionMap, space_to_json, to_tensor
from palaestra.agents.training.callbacks import CallbackLike, CallbackList, as_callback
from palaestra.agents.training.checkpoint import CheckpointStore
from palaestra.agents.training.collector import Collector, Step
from palaestra.agents.training.config import AgentConfig
from palaestra.agents.training.metrics import MetricAccumulator
from palaestra.agents.training.optimizer import FlatAdam
from palaestra.agents.training.profiler import Profiler
from palaestra.agents.training.seeding import make_generator, seeded_initialisation
from palaestra.protocols import Simulator
from palaestra.seeding import row_seeds
from palaestra.wrappers.vectorize import GIVEN, as_vector_env, backend_of, make_vec

EnvLike = str | gym.Env[Any, Any] | gym.vector.VectorEnv[Any, Any, Any]


class Agent(ABC):
    """A learner for one pair of spaces; subclasses define `build`, `act`, `decide` and `training_step`.

    Every attribute is part of the saved state unless `unsaved` names it: modules, optimisers, tensors, generators,
    plain values and objects with `state_dict`. An attribute that is neither is an error when saving, so that nothing
    can be forgotten silently.

    Args:
        env: An env id, a `gym.Env` or a `gym.vector.VectorEnv`.
        config: The agent's configuration.
        seed: Seed of everything random in the run, at least 0.
        device: "cpu", "cuda", ... or "auto": the GPU where there is one.
        env_kwargs: Arguments of the env, where it is given by id.
        backend: What steps the rows of an env given by id (see `make_vec`); resumed runs stay on theirs.

    Raises:
        TypeError: If the env's spaces do not fit the agent; the message says which do.
    """

    agent_id: ClassVar[str] = ""
    config_class: ClassVar[type[AgentConfig]] = AgentConfig
    action_spaces: ClassVar[tuple[type[gym.Space[Any]], ...]] = ()
    stochastic_modes: ClassVar[bool] = True
    """Whether acting with and without noise are both meaningful at evaluation."""
    simulators_only: ClassVar[bool] = False
    """Whether it trains through the simulator of a world and never steps its env, so that it fits no other envs."""
    unsaved: ClassVar[frozenset[str]] = frozenset(
        {
            "config",
            "seed",
            "device",
            "env_id",
            "env_kwargs",
            "backend",
            "observation_space",
            "action_space",
            "action_map",
            "profiler",
        }
    )

    def __init__(
        self,
        env: EnvLike,
        config: AgentConfig | None = None,
        *,
        seed: int = 0,
        device: str | torch.device = "auto",
        env_kwargs: Mapping[str, Any] | None = None,
        backend: str = "auto",
    ) -> None:
        config = self.config_class() if config is None else config
        vector_env = self._make_env(env, config, env_kwargs, backend)
        self._set_up(vector_env.single_observation_space, vector_env.single_action_space, config, seed, device)
        self.env_id, self.env_kwargs = _env_identity(env, vector_env, env_kwargs)
        self.backend = backend_of(vector_env)
        self.collector = Collector(vector_env, row_seeds(seed, "train", vector_env.num_envs))
        self._build(vector_env.num_envs)

    def _set_up(
        self,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        config: AgentConfig,
        seed: int,
        device: Any,
    ) -> None:
        self.config, self.seed = config, seed
        self.observation_space, self.action_space = observation_space, action_space
        self._check_spaces()
        chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self.device = torch.device(chosen)
        self.action_map = ActionMap(action_space)
        self.profiler = Profiler()
        self.num_timesteps = 0
        self.num_updates = 0
        self.target_timesteps = 0
        self.pending: dict[str, Any] | None = None
        self.metrics = MetricAccumulator()
        self.generator = make_generator(seed, "policy", self.device)
        self.predict_generator = make_generator(seed, "predict", self.device)

    def _build(self, num_envs: int) -> None:
        self.num_envs = num_envs
        normalizes = self.config.normalize_observation
        self.normalizer = ObservationNormalizer(self.observation_space).to(self.device) if normalizes else None
        # Parameters are made where they stay: optimisers hold views of their storage.
        with torch.device(self.device), seeded_initialisation(self.seed):
            self.build()

    def _check_spaces(self) -> None:
        if not isinstance(self.action_space, self.action_spaces):
            fitting = " or ".join(kind.__name__ for kind in self.action_spaces)
            raise TypeError(
                f"{self.agent_id}: action space {self.action_space} does not fit; expected {fitting}. "
                f"{_agents_for(self.action_space)}"
            )

    def _make_env(
        self, env: EnvLike, config: AgentConfig, env_kwargs: Mapping[str, Any] | None, backend: str
    ) -> gym.vector.VectorEnv[Any, Any, Any]:
        if isinstance(env, str):
            return make_vec(
                env, config.num_envs, env_kwargs=env_kwargs, frame_stack=config.frame_stack, backend=backend
            )
        if backend != "auto":
            raise ValueError(f"backend={backend!r}: expected 'auto' where env is an object, not an id")
        if env_kwargs:
            raise ValueError(f"env_kwargs={dict(env_kwargs)}: expected None where env is an object, not an id")
        if config.frame_stack > 1:
            raise ValueError(
                f"frame_stack={config.frame_stack}: expected 1 where env is an object; wrap it or give an id"
            )
        return as_vector_env(env)

    @abstractmethod
    def build(self) -> None:
        """Create networks and optimisers as attributes."""

    @abstractmethod
    def act(self, observation: Observation, generator: Generator | None) -> Tensor:
        """Return agent-space actions `[batch, ...]`: sampled with a generator, deterministic without."""

    @abstractmethod
    def decide(self) -> dict[str, Any]:
        """Return the actions to collect with, under "action", and whatever is stored beside them."""

    @abstractmethod
    def training_step(self) -> None:
        """Take one step of the vector env and make the updates that are due."""

    def interact(self) -> tuple[dict[str, Any], Step]:
        """Decide, step every row of the env, and return the decision and what it did."""
        with self.profiler.phase("act"):
            decision = self.pending or self.decide()
        # Kept until the step has succeeded: if the env raises, a checkpoint written then replays the same decision.
        self.pending = decision
        with self.profiler.phase("env"):
            step = self.collector.step(self.action_map.to_env(decision["action"].cpu().numpy()))
        self.pending = None
        self.num_timesteps += int(step.valid.sum())
        return decision, step

    def learn(
        self,
        total_timesteps: int | None,
        callback: CallbackLike = None,
        progress_bar: bool = False,
        reset_num_timesteps: bool = True,
    ) -> Agent:
        """Train, and return self.

        Args:
            total_timesteps: Env steps to take; None goes on to the target of an interrupted call.
            callback: A Callback, a function of the agent returning False to stop, or a list of callbacks.
            progress_bar: Show steps, speed and remaining time.
            reset_num_timesteps: Start counting (and the env) anew; False adds to what was done.

        Raises:
            ValueError: If `total_timesteps` is negative, or None with nothing to continue.
            NonFiniteError: If a loss became NaN or infinite.
        """
        if total_timesteps is None:
            if self.target_timesteps <= 0:
                raise ValueError("learn: total_timesteps=None continues an interrupted call; expected one to continue")
        elif total_timesteps < 0:
            raise ValueError(f"learn: total_timesteps={total_timesteps}; expected at least 0")
        elif reset_num_timesteps:
            self.num_timesteps, self.target_timesteps = 0, total_timesteps
            self.collector.started, self.pending = False, None
        else:
            self.target_timesteps = self.num_timesteps + total_timesteps
        callbacks = [as_callback(callback)]
        if progress_bar:
            from palaestra.agents.training.progress import ProgressBar

            callbacks.append(ProgressBar())
        self._learn(CallbackList(callbacks))
        return self

    def _learn(self, callback: CallbackList) -> None:
        if not self.collector.started:
            self.collector.start()
        callback.on_start(self)
        try:
            while self.num_timesteps < self.target_timesteps:
                self.training_step()
                self.metrics.raise_if_bad(self.agent_id, self.num_timesteps)
                with self.profiler.phase("callbacks"):
                    if callback.on_step(self) is False:
                        break
        finally:
            callback.on_end(self)

    @property
    def remaining(self) -> float:
        """Share of the training still ahead, from 1 to 0, for annealed schedules."""
        return max(0.0, 1.0 - self.num_timesteps / max(1, self.target_timesteps))

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        *,
        action_masks: np.ndarray | None = None,
        generator: Generator | None = None,
    ) -> tuple[np.ndarray, Any]:
        """Return env actions for one observation or a batch, and the recurrent state (None without one).

        Statistics are not updated and no training stream is drawn from.

        Args:
            observation: One observation of the env's space, or a batch of them.
            state: Recurrent state returned by the previous call.
            episode_start: Rows whose episode starts here `[batch]`; their recurrent state is zeroed.
            deterministic: Take the policy's mode instead of a sample.
            action_masks: Admissible actions `[num_actions]` or `[batch, num_actions]`.
            generator: Noise of stochastic actions; the agent's own prediction stream by default.

        Raises:
            ValueError: If the observation's shape is not that of the space.
        """
        batch, single = self._as_batch(observation)
        noise = None if deterministic else (generator or self.predict_generator)
        masks = None if action_masks is None else np.atleast_2d(np.asarray(action_masks, bool))
        starts = None if episode_start is None else np.atleast_1d(np.asarray(episode_start, bool))
        with torch.no_grad():
            tensors = self.normalised(to_tensor(batch, self.device))
            action, state = self._predict(tensors, state, starts, masks, noise)
        env_action = self.action_map.to_env(action.cpu().numpy())
        return (env_action[0] if single else env_action), state

    def _predict(
        self,
        observation: Observation,
        state: Any,
        starts: np.ndarray | None,
        masks: np.ndarray | None,
        noise: Generator | None,
    ) -> tuple[Tensor, Any]:
        return self.act(observation, noise if self.stochastic_modes else None), None

    def normalised(self, observation: Observation) -> Observation:
        """Return observations standardised by the current statistics, or unchanged without any."""
        return observation if self.normalizer is None else self.normalizer(observation)

    def _as_batch(self, observation: Any) -> tuple[Any, bool]:
        space = self.observation_space
        if isinstance(space, spaces.Dict):
            if not isinstance(observation, Mapping) or set(observation) != set(space.spaces):
                raise ValueError(
                    f"predict: observation={observation!r}; expected a dict with keys {sorted(space.spaces)}"
                )
            batched = {key: _batched(observation[key], sub) for key, sub in space.spaces.items()}
            return {key: value for key, (value, _) in batched.items()}, any(single for _, single in batched.values())
        return _batched(observation, space)

    def set_env(self, env: EnvLike, env_kwargs: Mapping[str, Any] | None = None, backend: str = "auto") -> None:
        """Train on another env with the same spaces from the next `learn` on.

        Raises:
            ValueError: If its spaces or, where per-row state exists, its number of envs differ.
        """
        vector_env = self._make_env(env, self.config, env_kwargs, backend)
        if vector_env.num_envs != self.num_envs:
            raise ValueError(f"set_env: num_envs={vector_env.num_envs}; expected {self.num_envs}")
        self._fit_to(vector_env)
        self.env_id, self.env_kwargs = _env_identity(env, vector_env, env_kwargs)
        self.backend = backend_of(vector_env)
        self.collector = Collector(vector_env, row_seeds(self.seed, "train", vector_env.num_envs))
        self.pending = None

    def _fit_to(self, env: gym.vector.VectorEnv[Any, Any, Any]) -> None:
        """Get ready to go on in another env; ValueError, and nothing changed, if its spaces differ."""
        for name, ours, theirs in (
            ("observation", self.observation_space, env.single_observation_space),
            ("action", self.action_space, env.single_action_space),
        ):
            if ours != theirs:
                raise ValueError(f"set_env: {name} space {theirs}; expected {ours}")

    def acting_in(self, simulator: Simulator) -> Agent:
        """Return who acts for this agent in a world: itself, or a copy where its policy fits other spaces than its own.

        Args:
            simulator: The world.

        Raises:
            ValueError: If its policy could fit other spaces, but not those.
        """
        return self

    def optimizer(
        self,
        *modules: nn.Module | nn.Parameter,
        learning_rate: float | None = None,
        eps: float = 1e-8,
        max_grad_norm: float | None = None,
        weight_decay: float = 0.0,
        decoupled: bool = False,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> FlatAdam:
        """Return the suite's Adam over the parameters, with the configured learning rate by default."""
        parameters = [p for m in modules for p in ([m] if isinstance(m, nn.Parameter) else m.parameters())]
        rate = learning_rate or self.config.learning_rate
        return FlatAdam(
            parameters,
            rate,
            eps,
            betas,
            max_grad_norm=max_grad_norm,
            weight_decay=weight_decay,
            decoupled=decoupled,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return every saved attribute (replay rows apart: see `streams`)."""
        return {name: _state_of(name, vars(self)[name]) for name in sorted(vars(self).keys() - self._outside_state())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned; the env continues where it stood."""
        for name, value in state.items():
            current = getattr(self, name)
            if isinstance(current, Generator):
                current.set_state(value)
            elif hasattr(current, "load_state_dict"):
                current.load_state_dict(value)
            elif isinstance(current, Tensor):
                current.data.copy_(value)
            else:
                setattr(self, name, value)

    def streams(self) -> dict[str, ReplayBuffer]:
        """Return the attributes that hold replay rows, saved in segments."""
        return {name: value for name, value in vars(self).items() if isinstance(value, ReplayBuffer)}

    def _outside_state(self) -> frozenset[str]:
        return self.unsaved | self.streams().keys()

    def header(self) -> dict[str, Any]:
        """Return what identifies the agent in a checkpoint."""
        return {
            "agent": self.agent_id,
            "config": self.config.to_dict(),
            "seed": self.seed,
            "num_envs": self.num_envs,
            "env_id": self.env_id,
            "env_kwargs": dict(self.env_kwargs),
            "backend": self.backend,
            "observation_space": space_to_json(self.observation_space),
            "action_space": space_to_json(self.action_space),
        }

    def recall(self, header: Mapping[str, Any]) -> None:
        """Take back what a checkpoint's header says of the env; networks are built after it."""
        self.env_id, self.env_kwargs = header["env_id"], header["env_kwargs"]
        self.backend = header.get("backend", GIVEN)

    def save(self, path: str | Path, *, replay: bool = True) -> Path:
        """Write a checkpoint directory that `load` continues from exactly; return its path.

        Args:
            path: The directory; earlier checkpoints in it are replaced.
            replay: Whether to save the replay rows too; without them, training would go on from an empty replay.

        Raises:
            CheckpointError: If the disk is full or read-only; an older checkpoint at the path stays intact.
        """
        streams = self.streams() if replay else {}
        CheckpointStore(path, keep=1).save(
            self.num_timesteps, {"agent": self.state_dict()}, header=self.header(), streams=streams
        )
        return Path(path)

    @classmethod
    def load(cls, path: str | Path, env: EnvLike | None = None, *, device: str = "auto") -> Agent:
        """Return the agent saved at a path; see `palaestra.load`."""
        from palaestra.agents.loading import load

        agent = load(path, env, device=device)
        if not isinstance(agent, cls):
            raise TypeError(f"load: {path} holds a {type(agent).__name__}; expected a {cls.__name__}")
        return agent


def _state_of(name: str, value: Any) -> Any:
    if isinstance(value, Generator):
        return value.get_state()
    if hasattr(value, "state_dict"):
        return value.state_dict()
    if isinstance(value, Tensor):
        return value.detach()
    if value is None or isinstance(value, bool | int | float | str | dict | list | tuple):
        return value
    raise TypeError(
        f"Agent.state_dict: attribute {name!r} of type {type(value).__name__} can be neither saved nor is it listed as "
        "unsaved; expected a module, optimiser, tensor, generator, plain value or an object with state_dict"
    )


def _batched(observation: Any, space: gym.Space[Any]) -> tuple[np.ndarray, bool]:
    array = np.asarray(observation)
    shape = space.shape or ()
    if array.shape == shape:
        return array[None], True
    if array.ndim == len(shape) + 1 and array.shape[1:] == shape:
        return array, False
    raise ValueError(f"predict: observation of shape {array.shape}; expected {shape} or a batch [batch, *{shape}]")


def _env_identity(
    env: EnvLike, vector_env: gym.vector.VectorEnv[Any, Any, Any], env_kwargs: Mapping[str, Any] | None
) -> tuple[str | None, dict[str, Any]]:
    if isinstance(env, str):
        return env, dict(env_kwargs or {})
    spec = getattr(env, "spec", None) or getattr(vector_env, "spec", None)
    return (None, {}) if spec is None else (spec.id, dict(spec.kwargs))


def _agents_for(space: gym.Space[Any]) -> str:
    from palaestra.agents.registry import agents_for

    fitting = agents_for(space)
    return f"Agents that fit this space: {', '.join(fitting)}" if fitting else "No agent of the suite fits this space."
