"""Sampling error: how far the actions of a batch are from the policy that was meant to have sampled them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def sampling_error(observations: np.ndarray, actions: np.ndarray, log_probs: np.ndarray) -> float:
    """Return KL(pi_D || pi) in nats, at least 0, where pi_D(a|s) = n(s, a) / n(s) counts a batch D.

    It is the mean over the batch of log pi_D(a|s) - log pi(a|s): 0 where every action was taken exactly as often as the
    policy says, and about (number of actions - 1) / (2 n) per state visited n times under independent samples. States
    are told apart by their exact observations, so that it says something about worlds with few of them only.

    Args:
        observations: `[n, ...]`.
        actions: Discrete actions `[n]` or `[n, variables]`.
        log_probs: log pi(a|s) under the policy `[n]`.

    Raises:
        ValueError: If the batch is empty or the lengths differ.

    Source: Corrado and Hanna, arXiv 2311.08290, section 5.
    """
    count = len(observations)
    if not count or not count == len(actions) == len(log_probs):
        raise ValueError(
            f"sampling_error: {count} observations, {len(actions)} actions, {len(log_probs)} log_probs; expected "
            "equally many of each, at least 1"
        )
    states = _codes(np.asarray(observations).reshape(count, -1))
    pairs = _codes(np.column_stack([states, np.asarray(actions).reshape(count, -1)]))
    log_share = np.log(np.bincount(pairs)[pairs]) - np.log(np.bincount(states)[states])
    return float(np.mean(log_share - np.asarray(log_probs, np.float64)))


def batch_sampling_error(
    policy: Any, env_id: str, *, env_kwargs: Mapping[str, Any], seed: int, minimum: int = 1
) -> dict[str, float]:
    """Measure the sampling error of what an agent has collected for its next update, under its policy of now.

    Args:
        policy: An agent that learns from rollouts (`rollout`, and `recent` where it keeps earlier ones), with Discrete
            or MultiDiscrete actions and a feed-forward policy (`network`).
        env_id: Not looked at, as the batch is there already; so are the two that follow.
        env_kwargs: As above.
        seed: As above.
        minimum: Steps below which a batch is not measured.

    Returns:
        "kl": `sampling_error` of the batch; "steps": its number of steps. {} for a batch too small to measure, such as
        that of an agent which has just made an update.

    Raises:
        TypeError: If the agent has no such batch.
    """
    # `sampling_error` itself is to cost no torch.
    import torch

    from palaestra.agents.memory.fields import nest_fields

    rollout, network = getattr(policy, "rollout", None), getattr(policy, "network", None)
    if rollout is None or network is None:
        raise TypeError(f"batch_sampling_error: policy={policy!r}; expected an agent that learns from rollouts")
    if not np.issubdtype(policy.action_space.dtype, np.integer):
        raise TypeError(f"batch_sampling_error: action space {policy.action_space}; expected Discrete or MultiDiscrete")
    if hasattr(policy, "recent"):
        rollout = policy.recent.together_with(rollout)
    if rollout.position < max(minimum, 1):
        return {}
    valid = rollout.fields["valid"][: rollout.position]
    steps = nest_fields({name: field[: rollout.position][valid] for name, field in rollout.fields.items()})
    observation = steps["observation"]
    with torch.no_grad():
        distribution, _ = network.act(observation, steps.get("mask"), None, None)
        log_probs = distribution.log_prob(steps["action"])
    count = len(log_probs)
    parts = list(observation.values()) if isinstance(observation, Mapping) else [observation]
    seen = np.column_stack([part.reshape(count, -1).cpu().numpy() for part in parts])
    return {"kl": sampling_error(seen, steps["action"].cpu().numpy(), log_probs.cpu().numpy()), "steps": float(count)}


def _codes(rows: np.ndarray) -> np.ndarray:
    return np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)
