"""The parts of `palaestra speed core`: SAC's and PPO's updates, and PPO's time to the optimum of OneStoreBacklog."""

from __future__ import annotations

import time
from typing import Any

import gymnasium as gym
import numpy as np
import stable_baselines3
import torch
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

from palaestra.agents.evaluation.evaluate import evaluate
from palaestra.agents.registry import agent_class, make_agent, preset
from palaestra.agents.training.config import make_config
from palaestra.envs.sb3 import sb3_vec_env
from palaestra.scripts.claim_run import PeerPolicy
from palaestra.scripts.speed import Timing, interleaved

STORE = "palaestra/OneStoreBacklog-v0"
GAP = 0.01
SOLVE_LIMIT = 4_000_000
LOOK_EVERY = 200_000


def sac_update(repeats: int, threads: int = 2, updates: int = 100, width: int = 256, batch: int = 256) -> Timing:
    """Time SAC's update on HalfCheetah's spaces, sampling included, against `SAC.train` of stable-baselines3."""
    env_id, rows = "HalfCheetah-v5", 10_000
    generator = np.random.default_rng(0)
    hidden = (width, width)
    ours = make_agent("sac", env_id, preset_name=None, device="cpu", hidden=hidden, batch_size=batch, buffer_size=rows)
    theirs = stable_baselines3.SAC(
        "MlpPolicy", env_id, device="cpu", buffer_size=rows, batch_size=batch, policy_kwargs={"net_arch": list(hidden)}
    )
    theirs.set_logger(configure(None, []))
    observation, following = generator.normal(size=(2, rows, 17)).astype(np.float32)
    action = generator.uniform(-1.0, 1.0, (rows, 6)).astype(np.float32)
    reward = generator.normal(size=rows).astype(np.float32)
    never = np.zeros(rows, bool)
    ours.streams()["replay"].add(
        {
            "observation": observation,
            "action": action,
            "reward": reward,
            "next_observation": following,
            "terminated": never,
            "truncated": never,
        }
    )
    assert theirs.replay_buffer is not None
    for row in range(rows):
        theirs.replay_buffer.add(
            observation[row], following[row], action[row], reward[row : row + 1], never[row : row + 1], [{}]
        )

    def our_updates() -> float:
        ours.updates_owed = updates  # type: ignore[attr-defined]
        ours.make_updates()  # type: ignore[attr-defined]
        return updates

    def their_updates() -> float:
        theirs.train(updates, batch)
        return updates

    details = {"env": env_id, "width": width, "batch": batch, "peer": "stable_baselines3.SAC.train"}
    return interleaved("sac-update", "updates/s", our_updates, their_updates, repeats, threads, details)


def ppo_update(repeats: int, threads: int = 1) -> Timing:
    """Time PPO's passes over one rollout of OneStoreBacklog with the preset, against `PPO.train`."""
    config = _config()
    ours: Any = make_agent("ppo", STORE, device="cpu")
    ours.target_timesteps = SOLVE_LIMIT
    ours.collector.start()
    while ours.rollout.position < ours.rollout.steps - 1:
        ours.training_step()
    improve, rollout = ours.improve, ours.rollout
    # The rollout is filled and kept: what is timed is learning from it, again and again.
    ours.improve = lambda filled: None
    ours.training_step()
    rollout.position = rollout.steps
    rollout.compute_advantages(config.gamma, config.gae_lambda)
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

    details = {"env": STORE, "batch": config.batch_size, "hidden": config.hidden, "peer": "stable_baselines3.PPO.train"}
    return interleaved("ppo-update", "minibatches/s", our_updates, their_updates, repeats, threads, details)


def ppo_solve(repeats: int, threads: int = 1) -> Timing:
    """Time PPO from the start of training until the gap to the optimal long-run cost is at most 1 %, seed by seed.

    Both sides have the same hyperparameters (our preset) and learning-rate schedule, and are looked at every 200,000
    steps while their clocks stand still. Stable-baselines3 steps our batched face through the adapter, its faster one.
    A seed that does not get there counts with the time of its whole budget, and is named.
    """
    torch.set_num_threads(threads)
    config = _config()
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    steps: dict[str, list[int]] = {"ours": [], "theirs": []}
    solved: dict[str, list[bool]] = {"ours": [], "theirs": []}
    for seed in range(repeats):
        # Sides take turns in going first, so that neither always meets a warmer machine.
        for side in ("ours", "theirs") if seed % 2 == 0 else ("theirs", "ours"):
            clock = _solve_ours(seed) if side == "ours" else _solve_theirs(config, seed)
            seconds[side].append(clock.seconds)
            steps[side].append(clock.steps)
            solved[side].append(clock.solved)
            reached = "" if clock.solved else ", gap not reached"
            print(f"seed {seed}, {side}: {clock.seconds:.1f} s, {clock.steps:,} steps{reached}", flush=True)
    details = {
        "env": STORE,
        "gap": GAP,
        "steps": steps,
        "solved": solved,
        "face": "batched, through the adapter",
        "peer": "stable_baselines3.PPO",
        "single_face_ratio": _single_face_ratio(config),
    }
    return Timing("ppo-solve", "s", seconds["ours"], seconds["theirs"], threads, "medians", details)


class _Clock:
    """Counts training time until the gap is small enough; stands still while looking."""

    def __init__(self, policy: Any, seed: int) -> None:
        self.policy, self.seed = policy, seed
        self.seconds, self.steps, self.looks, self.solved = 0.0, 0, 0, False
        self.resumed = time.perf_counter()

    def look(self, steps: int) -> bool:
        """Return whether to go on."""
        if steps < (self.looks + 1) * LOOK_EVERY:
            return True
        self.looks, self.steps = steps // LOOK_EVERY, steps
        self.seconds += time.perf_counter() - self.resumed
        result = evaluate(self.policy, STORE, episodes=32, seed=self.seed, long_run_rows=16)
        assert result.gap is not None
        self.resumed = time.perf_counter()
        self.solved = result.gap.estimate <= GAP
        return not self.solved


def _solve_ours(seed: int) -> _Clock:
    agent = make_agent("ppo", STORE, seed=seed, device="cpu")
    clock = _Clock(agent, seed)
    agent.learn(SOLVE_LIMIT // 2, lambda agent: clock.look(agent.num_timesteps))
    return clock


def _solve_theirs(config: Any, seed: int) -> _Clock:
    model = peer_ppo(config, seed)
    clock = _Clock(PeerPolicy(model), seed)
    model.learn(SOLVE_LIMIT // 2, callback=lambda local, outer: clock.look(model.num_timesteps))
    return clock


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
