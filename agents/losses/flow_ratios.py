"""Ratios of flow policies, whose densities no training can afford: of losses, and of velocities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Generator, Tensor

from palaestra.agents.nn.generative.flow import FlowPolicy
from palaestra.agents.nn.generative.noisy_flow import NoisyFlow

LARGEST_DIFFERENCE = 3.0
"""Of two losses on one draw, where every draw has a ratio of its own."""


class FlowMatchingRatio:
    """The drop of the flow-matching loss, as if that were the drop of a negative log-likelihood.

    For every action, noise z and times t are drawn when it is taken and kept. With l_i the loss on draw i, the
    log-ratio is mean_i l_i(old) - mean_i l_i(new), or that of every draw by itself, within 3 of 0. The loss is the
    squared error of the velocity, or of the noise that the velocity predicts, which is t^2 times that. Times lie on the
    grid of the sampler's steps.

    Source: McAllister et al. 2025, "Flow matching policy gradients", arXiv 2507.21053, whose time runs from the action
    to the noise.

    Args:
        draws: Of noise and time for every action, at least 1.
        supervision: Whose error counts: the noise's or the velocity's.
        each_draw: Whether every draw has a ratio of its own.
    """

    def __init__(
        self, draws: int, supervision: Literal["noise", "velocity"] = "noise", each_draw: bool = False
    ) -> None:
        self.draws, self.supervision, self.each_draw = draws, supervision, each_draw

    def draw(self, policy: FlowPolicy, generator: Generator) -> dict[str, Tensor]:
        """Return samples with "noise" `[batch, draws, action_dim]` and "time" `[batch, draws]`."""
        action = policy.sample(generator)
        noise = action.new_empty(len(action), self.draws, action.shape[-1]).normal_(generator=generator)
        steps = policy.head.steps
        step = torch.randint(steps, noise.shape[:2], generator=generator, device=action.device)
        return {"action": action, "noise": noise, "time": step.to(action.dtype) / steps}

    def old_stats(self, policy: FlowPolicy, steps: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the losses `[batch, draws]` under "flow_loss"."""
        return {"flow_loss": self.losses(policy, steps)}

    def log_ratio(self, policy: FlowPolicy, batch: Mapping[str, Any]) -> Tensor:
        """Return old minus new losses, their mean `[batch]` or each `[batch, draws]`."""
        drop: Tensor = batch["flow_loss"] - self.losses(policy, batch)
        return drop.clamp(-LARGEST_DIFFERENCE, LARGEST_DIFFERENCE) if self.each_draw else drop.mean(-1)

    def losses(self, policy: FlowPolicy, batch: Mapping[str, Any]) -> Tensor:
        """Return the losses on all draws, `[batch, draws]`."""
        losses = policy.loss(batch["action"], batch["noise"], batch["time"])
        return losses * batch["time"].square() if self.supervision == "noise" else losses


class VelocityRatio:
    """What a change of the velocity does to the density of a flow's action with Gaussian noise around it.

    An action is a = p + n, with p where the flow carries z and n ~ N(0, sigma^2). On the straight path
    x_t = (1 - t) z + t p the velocity has changed by delta_t = v(x_t, t) - v_old(x_t, t); if that were the shift of p,
    the ratio given z would be rho_t = N(n; delta_t, sigma^2) / N(n; 0, sigma_old^2). The ratio is the mean of rho_t
    over times drawn when acting, uniformly from {0, 1/(2K), ..., 1} for K steps of the sampler.

    Source: "PolicyFlow: Policy optimization with continuous normalizing flow", arXiv 2602.01156.

    Args:
        times: Drawn for every action, at least 1.
    """

    def __init__(self, times: int) -> None:
        self.times = times

    def draw(self, policy: NoisyFlow, generator: Generator) -> dict[str, Tensor]:
        """Return samples with "latent" z and "reached" p `[batch, action_dim]`, and "time" `[batch, times]`."""
        latent = policy.flow.draw_noise(generator)
        reached = policy.flow.transport(latent)
        grid = 2 * policy.flow.head.steps
        step = torch.randint(grid + 1, (len(latent), self.times), generator=generator, device=latent.device)
        action = reached + policy.draw_noise(generator)
        return {"action": action, "latent": latent, "reached": reached, "time": step.to(latent.dtype) / grid}

    def old_stats(self, policy: NoisyFlow, steps: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return "old_velocity" `[batch, times, action_dim]` and "old_log_std" `[batch, action_dim]`."""
        action = steps["action"]
        return {"old_velocity": self.velocity(policy, steps), "old_log_std": policy.log_std.expand_as(action).clone()}

    def log_ratio(self, policy: NoisyFlow, batch: Mapping[str, Any]) -> Tensor:
        """Return the logarithm of the mean of rho_t over times, `[batch]`."""
        return self.log_ratio_of(self.velocity(policy, batch), policy, batch)

    def log_ratio_of(self, velocity: Tensor, policy: NoisyFlow, batch: Mapping[str, Any]) -> Tensor:
        """Return the log-ratio, given the velocities on the path."""
        noise = (batch["action"] - batch["reached"]).unsqueeze(1)
        old_log_std = batch["old_log_std"].unsqueeze(1)
        shifted = (noise - (velocity - batch["old_velocity"])) * torch.exp(-policy.log_std)
        before = noise * torch.exp(-old_log_std)
        log_ratio = (0.5 * (before.square() - shifted.square()) + old_log_std - policy.log_std).sum(-1)
        return torch.log1p(torch.expm1(log_ratio).mean(-1)) if self.times > 1 else log_ratio.squeeze(-1)

    def velocity(self, policy: NoisyFlow, batch: Mapping[str, Any]) -> Tensor:
        """Return the velocities on the path, `[batch, times, action_dim]`."""
        return policy.flow.velocity(path(batch), batch["time"])


def path(batch: Mapping[str, Any]) -> Tensor:
    """Return the points x_t = (1 - t) z + t p, `[batch, times, action_dim]`."""
    latent, reached, time = (
        batch[name].unsqueeze(axis) for name, axis in (("latent", 1), ("reached", 1), ("time", -1))
    )
    return latent + time * (reached - latent)
