"""Paths of a policy through a world's simulator, with the gradient of their rewards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor, nn

from palaestra.agents.pathwise.path_noise import PathNoise
from palaestra.protocols import Simulator


@dataclass(frozen=True)
class Paths:
    """What happened on simulated paths.

    Attributes:
        rewards: `[periods, paths]`, with their gradient in the policy's parameters.
        observations: What the policy saw in each period, `[paths, observation]`, without gradient, where it is kept.
    """

    rewards: Tensor
    observations: list[Tensor] = field(default_factory=list)


def simulate(
    simulator: Simulator,
    policy: Callable[[Tensor], Tensor],
    generator: Generator,
    paths: int,
    periods: int,
    dtype: torch.dtype,
    *,
    keep: bool = False,
) -> Paths:
    """Return paths of a policy on fresh noise.

    Args:
        simulator: The world.
        policy: From observations `[paths, observation]` to actions of the world `[paths, ...]`.
        generator: Source of the noise.
        paths: Number of paths.
        periods: Periods of each.
        dtype: Precision of the simulation.
        keep: Whether to keep the observations.

    Raises:
        ValueError: If a path terminates.
    """
    state = simulator.initial(PathNoise(generator, paths, dtype))
    rewards: list[Tensor] = []
    observations: list[Tensor] = []
    ended: Tensor | None = None
    for _ in range(periods):
        observation = simulator.observe(state)
        transition = simulator.step(state, policy(observation), PathNoise(generator, paths, dtype))
        ended = transition.terminated if ended is None else ended | transition.terminated
        state = transition.state
        rewards.append(transition.reward)
        if keep:
            observations.append(observation.detach())
    if ended is not None and bool(ended.any()):
        raise ValueError(
            f"hdpo: {type(simulator).__name__} terminated within {periods} periods; expected a world without an end"
        )
    return Paths(torch.stack(rewards), observations)


def require_gradient(simulator: Simulator, rewards: Callable[[], Tensor], policy: nn.Module, periods: int) -> None:
    """Leave the gradient of rewards in a policy's parameters.

    Args:
        simulator: The world, for errors.
        rewards: What returns rewards on some paths.
        policy: The policy.
        periods: Periods of the paths, for errors.

    Raises:
        ValueError: If a path terminates.
        TypeError: If the world cannot be differentiated, or no parameter has a gradient other than 0.
    """
    world = type(simulator).__name__
    expected = "expected a world that computes with torch tensors and whose rewards have a gradient in the actions"
    try:
        rewards().sum().backward()
    except ValueError:
        raise
    except Exception as error:
        raise TypeError(f"hdpo: {world} cannot be differentiated ({error}); {expected}") from error
    if not any(bool(p.grad.any()) for p in policy.parameters() if p.grad is not None):
        raise TypeError(
            f"hdpo: rewards of {world} do not depend smoothly on actions within periods={periods}; {expected}"
        )
