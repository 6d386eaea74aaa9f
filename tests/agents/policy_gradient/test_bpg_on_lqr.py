"""The gradient of Bayesian policy gradient against the exact one of a linear policy in a linear-quadratic world."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from palaestra.agents.losses.bayesian_quadrature import posterior_of_returns
from palaestra.agents.nn.flat_parameters import flat_gradient, row_gradients
from palaestra.agents.policy_gradient.bpg import BPG
from palaestra.agents.registry import make_agent
from palaestra.agents.training.episodic import Trajectories
from palaestra.envs.control.lqr import LQR

HORIZON, BATCHES, COUNT = 10, 40, 5


@cache
def played() -> tuple[BPG, list[Trajectories]]:
    """An agent whose policy is linear and stays as it is, and batches of five trajectories of it."""
    agent = make_agent(
        "bpg",
        "palaestra/LQR-v0",
        device="cpu",
        preset_name=None,
        env_kwargs={"horizon": HORIZON},
        hidden=(),
        num_envs=COUNT,
        gamma=1.0,
        log_std_init=-1.5,
    )
    assert isinstance(agent, BPG)
    batches: list[Trajectories] = []
    agent.learn_from = batches.append  # type: ignore[method-assign]
    while len(batches) < BATCHES:
        agent.learn(COUNT * HORIZON, reset_num_timesteps=False)
    return agent, batches


def expected_return(agent: BPG) -> Tensor:
    """The return of forces max_force (W z + b + std noise): means and covariances go through linear dynamics."""
    world = LQR(horizon=HORIZON)
    named = dict(agent.network.named_parameters())
    gain, bias = (world.max_force * named[f"policy.0.{name}"].double() for name in ("weight", "bias"))
    spread = (world.max_force * named["log_std"].double().exp()).square()
    dynamics, control = torch.as_tensor(world.dynamics), torch.as_tensor(world.control)
    cost = torch.diag(torch.tensor([world.position_cost, world.velocity_cost], dtype=torch.float64))
    kick = (world.noise_std / world.time_step) ** 2
    mean = torch.zeros(2, dtype=torch.float64)
    covariance = world.start_size**2 / 3.0 * torch.eye(2, dtype=torch.float64)
    total = torch.zeros((), dtype=torch.float64)
    for _ in range(HORIZON):
        force = gain @ mean + bias
        effort = (gain @ covariance @ gain.T).squeeze() + spread + force.square()
        state_cost = torch.trace(cost @ (covariance + torch.outer(mean, mean)))
        total = total - world.time_step * (state_cost + world.force_cost * effort.sum())
        closed = dynamics + control @ gain
        mean = dynamics @ mean + control @ force
        covariance = closed @ covariance @ closed.T + (spread + kick) * control @ control.T
    return total


@cache
def estimates() -> tuple[Tensor, Tensor, Tensor]:
    """The exact gradient, and of every batch what Monte Carlo and Model 2 make of the same scores and returns."""
    agent, batches = played()
    monte_carlo, bayesian = [], []
    for batch in batches:
        steps = row_gradients(agent.log_probs(agent.network, batch), agent.parameters).double()
        scores = torch.zeros(COUNT, steps.shape[1], dtype=torch.float64).index_add_(0, batch.number, steps)
        returns = batch.weight[batch.first_steps()].double()
        monte_carlo.append(scores.T @ returns / COUNT)
        bayesian.append(posterior_of_returns(scores, returns, agent.fisher_of(batch), 1.0).mean)
    exact = flat_gradient(expected_return(agent), agent.parameters).double()
    return exact, torch.stack(monte_carlo), torch.stack(bayesian)


def test_returns_average_to_the_exact_one() -> None:
    agent, batches = played()
    returns = torch.cat([batch.weight[batch.first_steps()] for batch in batches]).numpy()
    assert returns.size == BATCHES * COUNT
    exact = float(expected_return(agent).detach())
    assert abs(returns.mean() - exact) < 4.0 * returns.std() / np.sqrt(returns.size)


def test_monte_carlo_averages_to_the_exact_gradient() -> None:
    exact, monte_carlo, _ = estimates()
    error = (monte_carlo.mean(0) - exact).abs()
    assert bool((error < 4.0 * monte_carlo.std(0) / BATCHES**0.5).all())


def test_five_trajectories_say_more_by_bayesian_quadrature() -> None:
    """Mean squared error on the same samples."""
    exact, monte_carlo, bayesian = estimates()
    errors = [float((found - exact).square().sum(-1).mean()) for found in (bayesian, monte_carlo)]
    assert errors[0] < errors[1]
