"""Overestimation: how far what critics say of an agent's actions lies above what these actions bring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from palaestra.agents.nn.networks import Observation
from palaestra.agents.nn.spaces import to_tensor
from palaestra.agents.training.seeding import make_generator
from palaestra.protocols import KnownActionValue, simulator_of
from palaestra.seeding import row_seeds
from palaestra.wrappers.vectorize import make_vec, native_backend

VectorEnv = gym.vector.VectorEnv[Any, Any, Any]
Values = NDArray[np.float64]

FORGOTTEN = 0.01
"""Largest discount at a truncation: states nearer to one are not measured, for more of their value lies beyond it."""


def overestimation(
    policy: Any,
    env_id: str,
    *,
    env_kwargs: Mapping[str, Any],
    seed: int,
    episodes: int = 10,
    time_limit: int | None = None,
    reward_scale: float = 1.0,
) -> dict[str, float]:
    """Measure the bias of critics, Q(s, a) less the value of taking a in s.

    Where the world knows its values (`palaestra.protocols.KnownActionValue`), the actions are the modes of the policy
    in the states that episodes start in. Elsewhere whole episodes are played by the policy that the critics speak of:
    where the agent has a temperature by samples, whose later entropy counts towards the value, else by its mode. The
    value of a state in them is the discounted return from there; states from which a truncation is so near that its
    discount is above 1% are not measured.

    Args:
        policy: An agent of the suite with an actor and critics of states and actions.
        env_id: Registered id.
        env_kwargs: Parameters of the env.
        seed: Seed of the measurement: of the episodes and of the actions' noise.
        episodes: Number of episodes, played side by side.
        time_limit: Steps to truncation in place of the env's own.
        reward_scale: What the rewards were multiplied by that the critics have learnt from.

    Returns:
        "bias": mean over states of the bias of the critics' average; "lowest_bias": that of the lowest of them, which
        agents with several go by; "value": mean value; "states": number of states measured.

    Raises:
        TypeError: If the agent has no such critics, or its policy no densities where they are needed.
        ValueError: If every state is too near to a truncation.

    Source: the comparison of Q with true values in Duan et al., arXiv 2310.05858.
    """
    if not all(hasattr(policy, part) for part in ("critics", "actor", "action_map")):
        raise TypeError(f"overestimation: policy={policy!r}; expected an agent with an actor and critics of Q(s, a)")
    kwargs, backend = dict(env_kwargs), native_backend(env_id)
    if time_limit is not None:
        kwargs["horizon" if backend == "own" else "max_episode_steps"] = time_limit
    env = make_vec(env_id, episodes, env_kwargs=kwargs, frame_stack=policy.config.frame_stack, backend=backend)
    seeds = row_seeds(seed, "eval", episodes)
    try:
        with torch.no_grad():
            if isinstance(simulator_of(env.unwrapped), KnownActionValue):
                said, values = _at_starts(policy, env, seeds, reward_scale)
            else:
                said, values = _along_episodes(policy, env, seeds, seed, reward_scale)
    finally:
        env.close()
    return {
        "bias": float((said.mean(0) - values).mean()),
        "lowest_bias": float((said.min(0) - values).mean()),
        "value": float(values.mean()),
        "states": float(len(values)),
    }


def _at_starts(policy: Any, env: VectorEnv, seeds: Sequence[int], reward_scale: float) -> tuple[Values, Values]:
    """Return what critics say `[critics, states]` and the exact values `[states]` of the policy's modes at starts."""
    observation, _ = env.reset(seed=list(seeds))  # type: ignore[arg-type]
    seen = policy.normalised(to_tensor(observation, policy.device))
    action = policy.act(seen, None)
    face: Any = env.unwrapped
    taken = policy.action_map.to_env(action.cpu().numpy()).astype(np.float64)
    return _said(policy, seen, action), reward_scale * np.asarray(face.simulator.action_value(face.state, taken))


def _along_episodes(
    policy: Any, env: VectorEnv, seeds: Sequence[int], seed: int, reward_scale: float
) -> tuple[Values, Values]:
    """Return what critics say `[critics, states]` and the returns `[states]` along one episode of every row."""
    generator = make_generator(seed, "overestimation", policy.device)
    rows, gamma = env.num_envs, policy.config.gamma
    said, rewards, entropies, playing = [], [], [], [np.ones(rows, np.bool_)]
    terminates = np.zeros(rows, np.bool_)
    observation, _ = env.reset(seed=list(seeds))  # type: ignore[arg-type]
    while playing[-1].any():
        seen = policy.normalised(to_tensor(observation, policy.device))
        action, entropy = _chosen(policy, seen, generator)
        said.append(_said(policy, seen, action))
        entropies.append(entropy)
        observation, reward, terminated, truncated, _ = env.step(policy.action_map.to_env(action.cpu().numpy()))
        rewards.append(reward_scale * np.asarray(reward, np.float64))
        terminates |= playing[-1] & np.asarray(terminated)
        playing.append(playing[-1] & ~np.asarray(terminated) & ~np.asarray(truncated))
    # What is still to come, from the last step back: rewards, and the entropy of actions that are not given.
    following, left = np.zeros(rows), np.where(terminates, 0.0, 1.0)
    kept_said, kept_values = [], []
    for step in range(len(said) - 1, -1, -1):
        alive = playing[step]
        value = rewards[step] + gamma * following
        following = np.where(alive, value + entropies[step], 0.0)
        left = np.where(alive, gamma * left, left)
        counted = alive & (left <= FORGOTTEN)
        kept_said.append(said[step][:, counted])
        kept_values.append(value[counted])
    if not any(len(values) for values in kept_values):
        raise ValueError(
            f"overestimation: every state lies within {len(said)} steps of a truncation; expected a time_limit beyond "
            f"the {int(np.ceil(np.log(FORGOTTEN) / np.log(gamma)))} steps after which a discount of {gamma} forgets"
        )
    return np.concatenate(kept_said, axis=1), np.concatenate(kept_values)


def _chosen(policy: Any, seen: Observation, generator: Generator) -> tuple[Tensor, Values]:
    """Return actions `[rows, action_dim]`, and the value of having chosen them `[rows]`: -temperature * log pi."""
    if not hasattr(policy, "log_alpha"):
        action = policy.act(seen, None)
        return action, np.zeros(len(action))
    distribution = policy.actor(seen)
    if not hasattr(distribution, "sample_with_log_prob"):
        raise TypeError(f"overestimation: a {type(distribution).__name__}; expected a policy with sample_with_log_prob")
    action, log_prob = distribution.sample_with_log_prob(generator)
    return action, -(policy.log_alpha.exp() * log_prob).cpu().numpy().astype(np.float64)


def _said(policy: Any, seen: Observation, action: Tensor) -> Values:
    """Return the values `[critics, rows]` that critics give to actions."""
    said = policy.critics(seen, action)
    values = said if isinstance(said, Tensor) else said.mean()
    return np.asarray(values.cpu().numpy(), np.float64)
