"""Flows: a learned velocity carries noise to actions along an ordinary differential equation.

Lipman et al. 2023, "Flow matching for generative modeling", arXiv 2210.02747, on straight paths.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import torch
from torch import Generator, Tensor, nn

from palaestra.agents.nn.distributions import HALF_LOG_TWO_PI
from palaestra.agents.nn.generative.timed_network import TimedNetwork
from palaestra.agents.nn.networks import Observation


class FlowHead(nn.Module):
    """Velocities v(x, t; s) whose flow from t = 0 to 1 takes standard normal noise to actions.

    Args:
        observation_space: Space of one observation.
        action_dim: Dimensions of the action.
        hidden: Widths of the hidden layers.
        activation: Name of the activation.
        encoder: Name of the encoder.
        steps: Euler steps of a sample, at least 1.
        output_scale: Multiplies the network's output.
        trunk: Name of the trunk.
    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_dim: int,
        hidden: Sequence[int],
        activation: str = "relu",
        encoder: str = "auto",
        steps: int = 10,
        output_scale: float = 1.0,
        trunk: str = "mlp",
    ) -> None:
        super().__init__()
        if steps < 1:
            raise ValueError(f"FlowHead: steps={steps}; expected an integer of at least 1")
        self.network = TimedNetwork(observation_space, action_dim, hidden, activation, encoder, trunk)
        self.action_dim, self.steps, self.output_scale = action_dim, steps, output_scale

    def forward(self, observation: Observation) -> FlowPolicy:
        """Return the policy in a batch of observations."""
        return FlowPolicy(self, self.network.encode(observation))

    def velocity(self, observation: Observation, x: Tensor, t: Tensor) -> Tensor:
        """Return velocities `[batch, action_dim]` of points `[batch, action_dim]` at times `[batch]`."""
        return self(observation).velocity(x, t)

    def loss(self, observation: Observation, action: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Return flow-matching losses `[batch]`; see `FlowPolicy.loss`."""
        return self(observation).loss(action, noise, time)

    def sample(self, observation: Observation, noise: Tensor, steps: int | None = None) -> Tensor:
        """Return the actions `[batch, action_dim]` that noise `[batch, action_dim]` is carried to."""
        return self(observation).transport(noise, steps)

    def log_likelihood(self, observation: Observation, action: Tensor) -> Tensor:
        """Return log-densities `[batch]` of the discretised flow; see `FlowPolicy.log_prob`."""
        return self(observation).log_prob(action)


@dataclass(frozen=True)
class FlowPolicy:
    """A flow in given observations.

    Attributes:
        head: Whose it is.
        features: Of the observations `[batch, features]`.
    """

    head: FlowHead
    features: Tensor

    def repeated(self, count: int) -> FlowPolicy:
        """Return the policy of every row `count` times in turn."""
        return FlowPolicy(self.head, self.features.repeat_interleave(count, 0))

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        """Return velocities `[batch, action_dim]` or `[batch, draws, action_dim]`, like the points.

        Args:
            x: Points `[batch, action_dim]` or `[batch, draws, action_dim]`.
            t: Times `[batch]` or `[batch, draws]`.
        """
        velocity: Tensor = self.head.network(self.features, x, t)
        return velocity * self.head.output_scale

    def loss(self, action: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Return conditional flow-matching losses: the mean over dimensions of (a - z - v(x_t, t))^2.

        Args:
            action: `[batch, action_dim]`, or `[batch, draws, action_dim]` as the noise.
            noise: z, `[batch, action_dim]` or `[batch, draws, action_dim]`.
            time: t, `[batch]` or `[batch, draws]`.

        Returns:
            `[batch]` or `[batch, draws]`.
        """
        action = action if action.dim() == noise.dim() else action.unsqueeze(1)
        x = torch.lerp(noise, action.expand_as(noise), time.unsqueeze(-1))
        return (action - noise - self.velocity(x, time)).square().mean(-1)

    def transport(self, noise: Tensor, steps: int | None = None) -> Tensor:
        """Return where the flow carries noise `[batch, action_dim]`, by as many Euler steps as the head has, or given.

        Differentiable in the noise and the parameters where gradients are enabled.
        """
        count = self.head.steps if steps is None else steps
        velocity = self.head.network.along(self.features, self._times(count))
        x = noise
        for step in range(count):
            x = torch.add(x, velocity(step, x), alpha=self.head.output_scale / count)
        return x

    def draw_noise(self, generator: Generator | None) -> Tensor:
        """Return what a sample starts from `[batch, action_dim]`: standard normal, or 0 without a generator."""
        noise = self.features.new_zeros(len(self.features), self.head.action_dim)
        return noise if generator is None else noise.normal_(generator=generator)

    def sample(self, generator: Generator | None) -> Tensor:
        """Return one action per row."""
        return self.transport(self.draw_noise(generator))

    def mode(self) -> Tensor:
        """Return the actions that the noise's mode is carried to; they need not be the likeliest ones."""
        return self.transport(self.draw_noise(None))

    @torch.no_grad()
    def log_prob(self, action: Tensor, iterations: int = 60, tolerance: float = 1e-5) -> Tensor:
        """Return exact log-densities `[batch]` of the Euler steps' map, without gradients.

        The steps y = x + v(x, t) / n are inverted last to first by damped Newton iterations, and
        log p(a) = log N(z; 0, 1) - sum log |det dy/dx|. An iteration takes the whole Jacobian: it is for laboratories
        and measures.

        Args:
            action: `[batch, action_dim]`.
            iterations: Of Newton's method, at most, in each step.
            tolerance: Largest remaining error of a coordinate; rows that keep a larger one are NaN.
        """
        times = self._times(self.head.steps)
        x, log_density = action, action.new_zeros(len(action))
        for step in range(self.head.steps - 1, -1, -1):
            x, log_det = self._undo(x, times[step].expand(len(action)), iterations, tolerance)
            log_density = log_density - log_det
        return log_density - 0.5 * x.square().sum(-1) - self.head.action_dim * HALF_LOG_TWO_PI

    def _times(self, count: int) -> Tensor:
        """Return the times at which `count` Euler steps look at the velocity."""
        return torch.arange(count, dtype=self.features.dtype, device=self.features.device) / count

    def _undo(self, y: Tensor, t: Tensor, iterations: int, tolerance: float) -> tuple[Tensor, Tensor]:
        """Return the x of y = x + v(x, t) / n, NaN where none was found, and log |det dy/dx| `[batch]`."""
        x = y - self.velocity(y, t) / self.head.steps
        value, jacobian = self._step_and_jacobian(x, t)
        share = torch.ones_like(t)
        for _ in range(iterations):
            error = value - y
            if not bool((error.abs() > 0.1 * tolerance).any()):
                break
            move = torch.linalg.solve_ex(jacobian, error)[0].nan_to_num()
            tried = x - share.unsqueeze(-1) * move
            tried_value, tried_jacobian = self._step_and_jacobian(tried, t)
            better = (tried_value - y).norm(dim=-1) < error.norm(dim=-1)
            share = torch.where(better, (2.0 * share).clamp_max(1.0), 0.5 * share)
            x = torch.where(better.unsqueeze(-1), tried, x)
            value = torch.where(better.unsqueeze(-1), tried_value, value)
            jacobian = torch.where(better.view(-1, 1, 1), tried_jacobian, jacobian)
        found = (value - y).abs().amax(-1, keepdim=True) <= tolerance
        return torch.where(found, x, math.nan), torch.linalg.slogdet(jacobian)[1]

    @torch.enable_grad()
    def _step_and_jacobian(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return y = x + v(x, t) / n `[batch, action_dim]` and dy/dx `[batch, action_dim, action_dim]`."""
        x = x.detach().requires_grad_()
        y = x + self.velocity(x, t) / self.head.steps
        rows = [torch.autograd.grad(column.sum(), x, retain_graph=True)[0] for column in y.unbind(-1)]
        return y.detach(), torch.stack(rows, 1)
