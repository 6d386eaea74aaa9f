"""Sampling error: how far the actions of a batch are from the policy that was meant to have sampled them."""

from __future__ import annotations

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


def _codes(rows: np.ndarray) -> np.ndarray:
    return np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)
