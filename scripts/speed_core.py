"""PPO on OneStoreBacklog: its minibatches, and its time to the optimum, against stable-baselines3's."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import stable_baselines3
import torch
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

from palaestra.agents.evaluation.evaluate import evaluate
from palaestra.agents.registry import agent_class, make_agent, preset
from palaestra.agents.training.config import make_config
from palaestra.envs.sb3 import sb3_vec_env
from palaestra.scripts.peer_policy import PeerPolicy
from palaestra.scripts.speed_solve import Learner, OurLearner, SolveClock, time_to_quality
from palaestra.scripts.timing import OURS, Timing, interleaved

STORE = "palaestra/OneStoreBacklog-v0"
GAP = 0.01
SOLVE_LIMIT = 2_000_000
LOOK_EVERY = 200_000
PEER = "stable_baselines3.PPO"


def ppo_update(repeats: int) -> Timing:
    """Time PPO's passes over one rollout of OneStoreBacklog with the preset, against `PPO.train`."""
    return _ppo_update(repeats, {"gradient": "derived by hand"}, lambda agent: None)


def ppo_update_autograd(repeats: int) -> Timing:
    """Time the same with autograd in place of the gradient derived by hand."""

    def by_autograd(agent: Any) -> None:
        agent.gradient = agent.backpropagate

    return _ppo_update(repeats, {"gradient": "autograd"}, by_autograd)


def _ppo_update(repeats: int, details: dict[str, Any], prepare: Callable[[Any], None], threads: int = 1) -> Timing:
    config = _config()
    torch.set_num_threads(threads)
    ours: Any = make_agent("ppo", STORE, device="cpu")
    prepare(ours)
    improve, rollout = _filled_rollout(ours)
    theirs = peer_ppo(config, seed=0)
    theirs.set_logger(configure(None, []))
    _, callback = theirs._setup_learn(SOLVE_LIMIT)
    assert theirs.env is not None
    theirs.collect_rollouts(theirs.env, callback, theirs.rollout_buffer, config.n_steps)
    minibatches = config.n_epochs * -(-config.n_steps * config.num_envs // config.batch_size)

    def our_updates() -> float:
        improve(rollout)
        return minibatches

    def their_updates() -> float:
        theirs.train()
        return minibatches

    details = {"env": STORE, "batch": config.batch_size, "hidden": config.hidden, **details}
    sides = {OURS: our_updates, f"{PEER}.train": their_updates}
    return interleaved("ppo-update", "minibatches/s", sides, repeats, threads, details)


def _filled_rollout(agent: Any) -> tuple[Callable[[Any], None], Any]:
    """Return what learns from a rollout, and a rollout that is filled and kept, to be learnt from again and again."""
    improve, rollout = agent.improve, agent.rollout
    agent.improve, rollout.clear = lambda filled: None, lambda: None
    agent.target_timesteps = SOLVE_LIMIT
    agent.collector.start()
    while not rollout.full:
        agent.training_step()
    return improve, rollout


def ppo_solve(repeats: int, threads: int = 1) -> Timing:
    """Time PPO from the start of training until the gap to the optimal long-run cost is at most 1 %, seed by seed.

    Both sides have the same hyperparameters (our preset) and learning-rate schedule. Stable-baselines3 steps our
    batched face through the adapter, its faster one.
    """
    config = _config()
    learners: dict[str, Learner] = {OURS: OurLearner("ppo", STORE, SOLVE_LIMIT), PEER: _PeerOnStore(config)}
    details = {
        "env": STORE,
        "gap": GAP,
        "budget": SOLVE_LIMIT,
        "face": "batched, through the adapter",
        "single_face_ratio": _single_face_ratio(config),
    }
    return time_to_quality("ppo-solve", learners, _gap_closed, LOOK_EVERY, repeats, threads, details)


def _gap_closed(policy: Any, seed: int) -> bool:
    gap = evaluate(policy, STORE, episodes=32, seed=seed, long_run_rows=16).gap
    assert gap is not None
    return gap.estimate <= GAP


class _PeerOnStore:
    """Stable-baselines3's PPO on OneStoreBacklog."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def train(self, seed: int, clock: SolveClock) -> None:
        """Train from a seed."""
        model = peer_ppo(self.config, seed)
        clock.start(PeerPolicy(model))
        model.learn(SOLVE_LIMIT, callback=lambda local, outer: clock.go_on(model.num_timesteps, model._n_updates))
        clock.stop(model.num_timesteps)


def peer_ppo(config: Any, seed: int, batched: bool = True) -> stable_baselines3.PPO:
    """Return stable-baselines3's PPO with the same hyperparameters on OneStoreBacklog."""
    env: VecEnv
    if batched:
        env = sb3_vec_env(gym.make_vec(STORE, config.num_envs, vectorization_mode="vector_entry_point"))
    else:
        env = DummyVecEnv([lambda: gym.make(STORE)] * config.num_envs)
    if config.normalize_reward:
        env = VecNormalize(env, norm_obs=False, gamma=config.gamma)
    activation = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}[config.activation]
    rate = config.learning_rate

    def linear(remaining: float) -> float:
        return rate * remaining

    return stable_baselines3.PPO(
        "MlpPolicy",
        env,
        learning_rate=linear if config.learning_rate_schedule == "linear" else rate,
        n_steps=config.n_steps,
        batch_size=config.batch_size,
        n_epochs=config.n_epochs,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        clip_range=config.clip_range,
        ent_coef=config.ent_coef,
        vf_coef=config.vf_coef,
        max_grad_norm=config.max_grad_norm,
        policy_kwargs={
            "net_arch": list(config.hidden),
            "activation_fn": activation,
            "log_std_init": config.log_std_init,
        },
        seed=seed,
        device="cpu",
    )


def _config() -> Any:
    return make_config(agent_class("ppo").config_class, preset("ppo", STORE))


def _single_face_ratio(config: Any) -> float:
    """Return how many times faster stable-baselines3 collects a rollout on our batched face than on single envs."""
    seconds = []
    for batched in (False, True):
        model = peer_ppo(config, 0, batched)
        _, callback = model._setup_learn(SOLVE_LIMIT)
        assert model.env is not None
        model.collect_rollouts(model.env, callback, model.rollout_buffer, config.n_steps)
        begun = time.perf_counter()
        model.collect_rollouts(model.env, callback, model.rollout_buffer, config.n_steps)
        seconds.append(time.perf_counter() - begun)
    return seconds[0] / seconds[1]
