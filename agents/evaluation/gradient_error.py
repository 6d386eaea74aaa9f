"""Gradient error: how far the gradients that an agent estimates are from the exact one, in a world small enough."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from palaestra.agents.evaluation.evaluate import simulator_for
from palaestra.agents.nn.flat_parameters import flat_gradient, flat_values
from palaestra.agents.nn.spaces import to_tensor
from palaestra.protocols import Enumerable
from palaestra.seeding import stream_seed

if TYPE_CHECKING:
    from palaestra.agents.training.episodic import EpisodicAgent

DIFFERENCE = 1e-4
"""Half-width of the central differences; expected returns are polynomials in the probabilities of actions."""


def gradient_error(
    policy: Any, env_id: str, *, env_kwargs: Mapping[str, Any], seed: int, estimates: int = 32
) -> dict[str, float]:
    """Measure the squared error of an agent's estimate of the gradient of its expected return.

    An agent that averages gradients (`direction`) is judged by the average that it has now. Of any other, copies with
    fresh noise make one update each, on as many trajectories as its configuration says, and the step that a copy took,
    for a step size of 1, is its estimate.

    Args:
        policy: An agent that learns from whole trajectories, with gamma 1, and whose step is along its estimate.
        env_id: Id of a world that judges policies exactly, with Discrete actions.
        env_kwargs: Its parameters.
        seed: Seed of the copies.
        estimates: Number of copies.

    Returns:
        "squared_error": |estimate - gradient|^2, the mean over copies; "relative": the same by |gradient|^2;
        "squared_bias": |mean of the estimates - gradient|^2; "norm": |gradient|.

    Raises:
        TypeError: If agent or world are of another kind.
    """
    simulator = simulator_for(env_id, dict(env_kwargs))
    if not isinstance(simulator, Enumerable):
        raise TypeError(f"gradient_error: {env_id} cannot be enumerated; expected a world with exact_return")
    config = getattr(policy, "config", None)
    fits = hasattr(policy, "learn_from") and getattr(config, "gamma", None) == 1.0
    changes = ("natural", "normalize_direction", "normalize_observation")
    if not fits or any(getattr(config, name, False) for name in changes):
        raise TypeError(
            f"gradient_error: policy={policy!r} with {config}; expected an agent that learns from whole trajectories, "
            "with gamma 1, neither natural nor normalised"
        )
    exact = exact_gradient(policy, simulator)
    if hasattr(policy, "direction"):
        found = [policy.direction.double()]
    else:
        seeds = [stream_seed(seed, f"gradient-error-{copy}") for copy in range(estimates)]
        found = [_one_estimate(policy, env_id, env_kwargs, copy_seed) for copy_seed in seeds]
    errors = torch.stack(found) - exact
    squared, norm = float(errors.square().sum(-1).mean()), float(exact.norm())
    return {
        "squared_error": squared,
        "relative": squared / norm**2,
        "squared_bias": float(errors.mean(0).square().sum()),
        "norm": norm,
    }


def exact_gradient(agent: EpisodicAgent, simulator: Any) -> Tensor:
    """Return the gradient of the expected return of an episode in the policy's parameters, float64 `[n]`.

    The derivative of the return in the probabilities of actions is taken by central differences that keep them
    probabilities, and multiplied by the gradient of these.

    Args:
        agent: The agent; what has a gradient are its `parameters`.
        simulator: A world with `enumerate_states` and `exact_return`, and Discrete actions.
    """
    states = simulator.enumerate_states()
    masks, space = simulator.action_masks(states), simulator.action_space
    observation = to_tensor(simulator.observe(states), agent.device)
    admissible = None if masks is None else torch.as_tensor(np.asarray(masks), device=agent.device)
    distribution, _ = agent.network.act(observation, admissible, None, None)
    rows = len(next(iter(observation.values())) if isinstance(observation, Mapping) else observation)
    actions = [torch.full((rows,), action, device=agent.device) for action in range(space.n)]
    probabilities = torch.stack([distribution.log_prob(action).exp() for action in actions], dim=-1)
    values = probabilities.detach().cpu().double().numpy()
    values /= values.sum(axis=1, keepdims=True)
    derivative = np.zeros_like(values)
    for state, action in np.argwhere(values > 0):
        change = np.zeros_like(values)
        change[state] = DIFFERENCE * (np.eye(space.n)[action] - values[state])
        above, below = (simulator.exact_return(values + sign * change) for sign in (1.0, -1.0))
        derivative[state, action] = (above - below) / (2.0 * DIFFERENCE)
    weight = torch.as_tensor(derivative, dtype=probabilities.dtype, device=agent.device)
    return flat_gradient((weight * probabilities).sum(), agent.parameters).double()


def _one_estimate(agent: Any, env_id: str, env_kwargs: Mapping[str, Any], seed: int) -> Tensor:
    steps = {"learning_rate": 1.0, "step_decay": 0.0, "learning_rate_schedule": "constant"}
    config = dataclasses.replace(agent.config, **steps)
    copy = type(agent)(env_id, config, seed=seed, device=agent.device, env_kwargs=env_kwargs)
    copy.network.load_state_dict(agent.network.state_dict())
    before = flat_values(copy.parameters).double()
    copy.learn(int(1e12), callback=lambda learner: learner.num_updates == 0)
    return flat_values(copy.parameters).double() - before
