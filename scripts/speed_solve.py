"""`palaestra speed solve`: wall time until a policy is good enough, against stable-baselines3 with the zoo's settings.

Only training is on the clock: imports, making agents and envs, and a first stretch of training on another seed come
before it, and it stands still while a policy is looked at. Both sides are looked at after the same equal numbers of
env steps, on the same evaluation seeds, by the same function; the first look whose mean return reaches the threshold
ends the run. A seed that never gets there counts with the time of its whole budget, and is named.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
import torch

from palaestra.agents.evaluation.evaluate import evaluate
from palaestra.agents.evaluation.provenance import plain
from palaestra.agents.registry import make_agent
from palaestra.scripts.peer_policy import PeerPolicy
from palaestra.scripts.timing import OURS, Timing, turn_order

WARM_UP_SEED, WARM_UP_STEPS = 999_999, 10_000


class SolveClock:
    """Counts training time until a look says that the policy is good enough; stands still while looking.

    Args:
        reached: Whether a policy is good enough.
        look_every: Env steps between two looks.
        now: Returns the time in seconds.

    Attributes:
        seconds: Training time so far.
        steps: Env steps at the last look or at the end.
        solved: Whether the last look found the policy good enough.
    """

    def __init__(
        self, reached: Callable[[Any], bool], look_every: int, now: Callable[[], float] = time.perf_counter
    ) -> None:
        self.reached, self.look_every, self.now = reached, look_every, now
        self.seconds, self.steps, self.looks, self.solved = 0.0, 0, 0, False
        self._policy: Any = None
        self._seen: int | None = None
        self._resumed = 0.0

    def start(self, policy: Any) -> None:
        """Start counting; the policy is what looks will judge."""
        self._policy, self._resumed = policy, self.now()

    def go_on(self, steps: int, updates: int) -> bool:
        """Look if enough steps were taken since the last look, and return whether training is to go on.

        Args:
            steps: Env steps taken so far.
            updates: Updates of the policy so far; one that was looked at already is not looked at again.
        """
        if self.solved:
            # Some learners finish an iteration before they stop.
            return False
        if steps < (self.looks + 1) * self.look_every:
            return True
        self.looks = steps // self.look_every
        if updates == self._seen:
            return True
        self._pause(steps)
        self._seen, self.solved = updates, self.reached(self._policy)
        self._resumed = self.now()
        return not self.solved

    def stop(self, steps: int) -> None:
        """Stop counting at the end of the budget; a policy that was good enough at the last look ended there."""
        if not self.solved:
            self._pause(steps)

    def _pause(self, steps: int) -> None:
        self.steps = steps
        self.seconds += self.now() - self._resumed


class Learner(Protocol):
    """One side of a comparison."""

    def train(self, seed: int, clock: SolveClock) -> None:
        """Make everything, start the clock, train while it says to go on, stop it."""
        ...


def time_to_quality(
    name: str,
    learners: Mapping[str, Learner],
    reached: Callable[[Any, int], bool],
    look_every: int,
    repeats: int,
    threads: int,
    details: Mapping[str, Any],
) -> Timing:
    """Return the training seconds of each side, seed by seed; the sides take turns in going first.

    Args:
        name: Name of the part.
        learners: The sides, ours first.
        reached: Whether a policy, evaluated with the run's seed, is good enough.
        look_every: Env steps between two looks.
        repeats: Number of seeds, 0, 1, ...
        threads: Threads torch computes with.
        details: What is compared.
    """
    torch.set_num_threads(threads)
    for learner in learners.values():
        # The first look ends it: allocators, thread pools and lazy initialisation are warm after that.
        learner.train(WARM_UP_SEED, SolveClock(lambda policy: True, min(look_every, WARM_UP_STEPS)))
    clocks: dict[str, list[SolveClock]] = {side: [] for side in learners}
    for seed in range(repeats):
        for side in turn_order(learners, seed):
            clock = SolveClock(lambda policy, seed=seed: reached(policy, seed), look_every)  # type: ignore[misc]
            learners[side].train(seed, clock)
            clocks[side].append(clock)
            ending = "" if clock.solved else ", not reached"
            print(f"{name}, seed {seed}, {side}: {clock.seconds:.2f} s, {clock.steps:,} steps{ending}", flush=True)
    found = {
        "look_every": look_every,
        "steps": {side: [clock.steps for clock in run] for side, run in clocks.items()},
        "solved": {side: [clock.solved for clock in run] for side, run in clocks.items()},
    }
    seconds = {side: [clock.seconds for clock in run] for side, run in clocks.items()}
    return Timing(name, "s", seconds, threads, {**details, **found}, "medians")


@dataclass(frozen=True)
class OurLearner:
    """An agent of the suite.

    Attributes:
        agent: Its id.
        env_id: Id of the env; the agent starts from its preset there.
        budget: Env steps at most; schedules end there.
        config: Fields that differ from the preset, and other arguments of `make_agent`.
    """

    agent: str
    env_id: str
    budget: int
    config: Mapping[str, Any] = field(default_factory=dict)

    def train(self, seed: int, clock: SolveClock) -> None:
        """Train from a seed."""
        agent = self.make(seed)
        clock.start(agent)
        agent.learn(self.budget, callback=lambda agent: clock.go_on(agent.num_timesteps, agent.num_updates))
        clock.stop(agent.num_timesteps)

    def make(self, seed: int) -> Any:
        """Return the agent."""
        return make_agent(self.agent, self.env_id, seed=seed, device="cpu", **self.config)

    def settings(self) -> dict[str, Any]:
        """Return what the row tells about this side."""
        return {"agent": self.agent, "budget": self.budget, "config": plain(self.make(0).config)}


@dataclass(frozen=True)
class ZooLearner:
    """An algorithm of stable-baselines3 with the settings of rl-baselines3-zoo.

    Attributes:
        algorithm: Name of its class.
        env_id: Id of the env.
        budget: Env steps at most (the zoo's n_timesteps); schedules end there.
        num_envs: Env copies.
        config: Arguments of the algorithm; a text "lin_0.001" is a value that falls linearly to 0.
        normalize: Whether observations and rewards are normalised (VecNormalize).
        flat_grid: Whether observations are those of MiniGrid's FlatObsWrapper.
        variant: What differs from the zoo's settings, if anything does.
        library: Package of the algorithm.
        policy: Name of its policy class.
    """

    algorithm: str
    env_id: str
    budget: int
    num_envs: int = 1
    config: Mapping[str, Any] = field(default_factory=dict)
    normalize: bool = False
    flat_grid: bool = False
    variant: str = ""
    library: str = "stable_baselines3"
    policy: str = "MlpPolicy"

    @property
    def name(self) -> str:
        """How the rows name this side."""
        return f"{self.library}.{self.algorithm}" + (f", {self.variant}" if self.variant else "")

    def train(self, seed: int, clock: SolveClock) -> None:
        """Train from a seed."""
        model = self.make(seed)
        clock.start(PeerPolicy(model, _mission_block(self.env_id) if self.flat_grid else None))
        model.learn(self.budget, callback=lambda local, outer: clock.go_on(model.num_timesteps, model._n_updates))
        clock.stop(model.num_timesteps)

    def make(self, seed: int) -> Any:
        """Return the model."""
        from stable_baselines3.common.env_util import make_vec_env
        from stable_baselines3.common.vec_env import VecNormalize

        make = _flat_grid_env if self.flat_grid else gym.make
        env: Any = make_vec_env(lambda: make(self.env_id), n_envs=self.num_envs, seed=seed)
        if self.normalize:
            env = VecNormalize(env, gamma=self.config.get("gamma", 0.99))
        config = {name: _schedule(value) for name, value in self.config.items()}
        algorithm = getattr(import_module(self.library), self.algorithm)
        return algorithm(self.policy, env, seed=seed, device="cpu", **config)

    def settings(self) -> dict[str, Any]:
        """Return what the row tells about this side."""
        return {
            "algorithm": self.algorithm,
            "policy": self.policy,
            "budget": self.budget,
            "num_envs": self.num_envs,
            "config": dict(self.config),
            "normalize": self.normalize,
            "flat_grid": self.flat_grid,
        }


def _schedule(value: Any) -> Any:
    if not isinstance(value, str) or not value.startswith("lin_"):
        return value
    initial = float(value.removeprefix("lin_"))
    return lambda remaining: initial * remaining


def _flat_grid_env(env_id: str) -> gym.Env[Any, Any]:
    from minigrid.wrappers import FlatObsWrapper

    return FlatObsWrapper(gym.make(env_id))


def _mission_block(env_id: str) -> np.ndarray:
    """Return the code of the mission, which is the same in every episode, that FlatObsWrapper appends to the image."""
    env = _flat_grid_env(env_id)
    observation, _ = env.reset(seed=0)
    image = env.unwrapped.observation_space["image"]  # type: ignore[index]
    return np.asarray(observation[int(np.prod(image.shape)) :])


@dataclass(frozen=True)
class Task:
    """A threshold on an env, and who tries to reach it.

    Attributes:
        ours: Our side.
        peers: Stable-baselines3's sides.
        threshold: Mean return to reach at one look.
        look_every: Env steps between two looks, the same for both sides.
        episodes: Episodes of a look.
        deterministic: Whether the policy acts by its mode at a look; the zoo samples on MiniGrid.
        threads: Threads torch computes with, on both sides.
    """

    ours: OurLearner
    peers: tuple[ZooLearner, ...]
    threshold: float
    look_every: int
    episodes: int = 100
    deterministic: bool = True
    threads: int = 1

    def reached(self, policy: Any, seed: int) -> bool:
        """Return whether a policy reaches the threshold on the evaluation seeds of a run."""
        found = evaluate(
            policy,
            self.ours.env_id,
            episodes=self.episodes,
            num_envs=self.episodes,
            seed=seed,
            deterministic=self.deterministic,
        )
        return found.mean_return >= self.threshold

    def __call__(self, repeats: int) -> Timing:
        """Time both sides, with as many seeds as there are to be repeats."""
        details = {
            "env": self.ours.env_id,
            "threshold": self.threshold,
            "episodes": self.episodes,
            "deterministic": self.deterministic,
            "settings": {OURS: self.ours.settings(), **{peer.name: peer.settings() for peer in self.peers}},
        }
        learners: dict[str, Learner] = {OURS: self.ours, **{peer.name: peer for peer in self.peers}}
        return time_to_quality(
            self.ours.env_id, learners, self.reached, self.look_every, repeats, self.threads, details
        )


_FAST_CART_POLE = {
    "num_envs": 32,
    "n_steps": 32,
    "batch_size": 256,
    "n_epochs": 10,
    "gamma": 0.98,
    "gae_lambda": 0.8,
    "learning_rate": 2e-3,
}
CART_POLE = Task(
    # The preset is the published one for single envs; with a batched world, more rows and larger steps are faster.
    OurLearner("ppo", "CartPole-v1", 100_000, {"preset_name": None, **_FAST_CART_POLE}),
    (
        ZooLearner(
            "PPO",
            "CartPole-v1",
            100_000,
            8,
            {
                "n_steps": 32,
                "batch_size": 256,
                "n_epochs": 20,
                "gae_lambda": 0.8,
                "gamma": 0.98,
                "ent_coef": 0.0,
                "learning_rate": "lin_0.001",
                "clip_range": "lin_0.2",
            },
        ),
        ZooLearner("ARS", "CartPole-v1", 50_000, 1, {"n_delta": 2}, library="sb3_contrib", policy="LinearPolicy"),
    ),
    threshold=475.0,
    look_every=1024,
)
PENDULUM = Task(
    OurLearner("ppo", "Pendulum-v1", 150_000),
    (
        ZooLearner(
            "PPO",
            "Pendulum-v1",
            100_000,
            4,
            {
                "n_steps": 1024,
                "n_epochs": 10,
                "gae_lambda": 0.95,
                "gamma": 0.9,
                "ent_coef": 0.0,
                "learning_rate": 1e-3,
                "clip_range": 0.2,
                "use_sde": True,
                "sde_sample_freq": 4,
            },
        ),
        ZooLearner("SAC", "Pendulum-v1", 20_000, 1, {"learning_rate": 1e-3}),
    ),
    threshold=-200.0,
    look_every=200,
)
ACROBOT = Task(
    OurLearner("ppo", "Acrobot-v1", 300_000),
    (
        ZooLearner("A2C", "Acrobot-v1", 500_000, 16, {"ent_coef": 0.0}, normalize=True),
        ZooLearner(
            "PPO",
            "Acrobot-v1",
            1_000_000,
            16,
            {"n_steps": 256, "n_epochs": 4, "gae_lambda": 0.94, "gamma": 0.99, "ent_coef": 0.0},
            normalize=True,
        ),
    ),
    threshold=-100.0,
    look_every=2048,
)
_ZOO_DOOR_KEY = ZooLearner(
    "PPO",
    "MiniGrid-DoorKey-5x5-v0",
    100_000,
    8,
    {
        "n_steps": 128,
        "batch_size": 64,
        "n_epochs": 10,
        "gae_lambda": 0.95,
        "gamma": 0.99,
        "ent_coef": 0.0,
        "learning_rate": 2.5e-4,
        "clip_range": 0.2,
    },
    normalize=True,
    flat_grid=True,
)
DOOR_KEY = Task(
    OurLearner("ppo", "MiniGrid-DoorKey-5x5-v0", 400_000),
    # Where the zoo's normalisation of rewards keeps it from learning, it may do without.
    (_ZOO_DOOR_KEY, replace(_ZOO_DOOR_KEY, normalize=False, variant="without normalisation")),
    threshold=0.9,
    look_every=4096,
    deterministic=False,
)
