"""Diffusions: a learned prediction of the noise takes it away, level by level, until the action is left.

Ho, Jain and Abbeel 2020, "Denoising diffusion probabilistic models", arXiv 2006.11239.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import torch
from torch import Generator, Tensor, nn

from palaestra.agents.nn.distributions import HALF_LOG_TWO_PI
from palaestra.agents.nn.generative.schedules import Schedule
from palaestra.agents.nn.generative.timed_network import TimedNetwork
from palaestra.agents.nn.networks import Observation


class DiffusionHead(nn.Module):
    """Predictions of the noise in x_k = signal_k a + noise_k eps, and the chain of Gaussians that takes it away.

    Args:
        observation_space: Space of one observation.
        action_dim: Dimensions of the action.
        hidden: Widths of the hidden layers.
        activation: Name of the activation.
        encoder: Name of the encoder.
        levels: K, at least 1.
        schedule: Name of the noise schedule: cosine, vp or linear.
        clip: Bound that predicted actions are kept within at every level, or None. With the last step's noise being 0,
            samples are within it too.
        eta: Share of the ancestral noise in a step, in [0, 1].
        trunk: Name of the trunk.
    """

    signal: Tensor
    noise: Tensor
    std: Tensor
    of_action: Tensor
    of_point: Tensor

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_dim: int,
        hidden: Sequence[int],
        activation: str = "relu",
        encoder: str = "auto",
        levels: int = 20,
        schedule: str = "cosine",
        clip: float | None = 1.0,
        eta: float = 1.0,
        trunk: str = "mlp",
    ) -> None:
        super().__init__()
        self.network = TimedNetwork(observation_space, action_dim, hidden, activation, encoder, trunk)
        self.action_dim, self.levels, self.clip = action_dim, levels, clip
        self.schedule = Schedule(schedule, levels, eta)
        for name in ("signal", "noise", "std", "of_action", "of_point"):
            values = torch.as_tensor(getattr(self.schedule, name), dtype=torch.get_default_dtype())
            self.register_buffer(name, values, persistent=False)

    def forward(self, observation: Observation) -> DiffusionPolicy:
        """Return the policy in a batch of observations."""
        return DiffusionPolicy(self, self.network.encode(observation))

    def noise_prediction(self, observation: Observation, x: Tensor, level: Tensor) -> Tensor:
        """Return the noise predicted in points `[batch, action_dim]` of levels `[batch]`, like the points."""
        return self(observation).noise_prediction(x, level)

    def loss(self, observation: Observation, action: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """Return denoising losses `[batch]`; see `DiffusionPolicy.loss`."""
        return self(observation).loss(action, noise, level)

    def sample(
        self, observation: Observation, noise: Tensor, init: Tensor | None = None, from_level: int | None = None
    ) -> Tensor:
        """Return actions `[batch, action_dim]`; arguments as for `DiffusionPolicy.chain`."""
        return self(observation).denoise(noise, init, from_level)

    def chain(
        self,
        observation: Observation,
        noise: Tensor,
        init: Tensor | None = None,
        from_level: int | None = None,
        min_std: float = 0.0,
        to_level: int = 0,
    ) -> Tensor:
        """Return the points from the first level to the last; see `DiffusionPolicy.chain`."""
        return self(observation).chain(noise, init, from_level, min_std, to_level)

    def chain_log_prob(
        self, observation: Observation, chain: Tensor, first: int, last: int = 1, min_std: float = 0.0
    ) -> Tensor:
        """Return log-densities of a chain's steps; see `DiffusionPolicy.chain_log_prob`."""
        return self(observation).chain_log_prob(chain, first, last, min_std)

    def next_mean(self, x: Tensor, predicted: Tensor, level: int | Tensor) -> Tensor:
        """Return the mean of x_{k-1} given x_k and the noise predicted in it.

        Args:
            x: x_k `[..., action_dim]`.
            predicted: Like it.
            level: k, an integer or integers `[...]`.
        """
        coefficients: Any
        if isinstance(level, int):
            s = self.schedule
            coefficients = (float(c[level]) for c in (s.signal, s.noise, s.of_action, s.of_point))
        else:
            tables = (self.signal, self.noise, self.of_action, self.of_point)
            coefficients = (table[level].unsqueeze(-1) for table in tables)
        signal, noise, of_action, of_point = coefficients
        action = (x - noise * predicted) / signal
        if self.clip is not None:
            action = action.clamp(-self.clip, self.clip)
        return of_action * action + of_point * x


@dataclass(frozen=True)
class DiffusionPolicy:
    """A diffusion in given observations.

    Attributes:
        head: Whose it is.
        features: Of the observations `[batch, features]`.
    """

    head: DiffusionHead
    features: Tensor

    def repeated(self, count: int) -> DiffusionPolicy:
        """Return the policy of every row `count` times in turn."""
        return DiffusionPolicy(self.head, self.features.repeat_interleave(count, 0))

    def noise_prediction(self, x: Tensor, level: Tensor) -> Tensor:
        """Return the noise predicted in points, like the points.

        Args:
            x: `[batch, action_dim]` or `[batch, draws, action_dim]`.
            level: Integers from 1 to K, `[batch]` or `[batch, draws]`.
        """
        predicted: Tensor = self.head.network(self.features, x, level.to(x.dtype) / self.head.levels)
        return predicted

    def noised(self, action: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """Return x_k `[..., action_dim]` of actions and noise `[..., action_dim]` and levels k `[...]`."""
        level = level.unsqueeze(-1)
        return self.head.signal[level] * action + self.head.noise[level] * noise

    def loss(self, action: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """Return denoising losses: the mean over dimensions of (eps - eps_hat(x_k, k))^2.

        Args:
            action: `[batch, action_dim]`, or `[batch, draws, action_dim]` as the noise.
            noise: eps, `[batch, action_dim]` or `[batch, draws, action_dim]`.
            level: k, integers from 1 to K, `[batch]` or `[batch, draws]`.

        Returns:
            `[batch]` or `[batch, draws]`.
        """
        action = action if action.dim() == noise.dim() else action.unsqueeze(1)
        predicted = self.noise_prediction(self.noised(action, noise, level), level)
        return (noise - predicted).square().mean(-1)

    def chain(
        self,
        noise: Tensor,
        init: Tensor | None = None,
        from_level: int | None = None,
        min_std: float = 0.0,
        to_level: int = 0,
    ) -> Tensor:
        """Return the points `[batch, points, action_dim]` from x_{from_level} to x_{to_level}, by default the action.

        Differentiable in the noise, `init` and the parameters where gradients are enabled.

        Args:
            noise: Standard normal `[batch, K + 1, action_dim]`: first what the whole chain starts from, then what the
                steps from level K, ..., 1 add.
            init: What to start from instead `[batch, action_dim]`: with `from_level`, a guess of the action noised to
                that level.
            from_level: Level to start at, K by default.
            min_std: Smallest standard deviation of a step.
            to_level: Level to end at.

        Raises:
            ValueError: If `from_level` is outside `to_level`..K, or is below K without `init`.
        """
        head = self.head
        start = head.levels if from_level is None else from_level
        if not to_level <= start <= head.levels or (start < head.levels and init is None):
            raise ValueError(
                f"DiffusionPolicy.chain: from_level={from_level}, init={'none' if init is None else 'given'}; expected "
                f"a level from {to_level} to {head.levels}, and an init below {head.levels}"
            )
        levels = torch.arange(start, to_level, -1, dtype=self.features.dtype, device=self.features.device)
        predict = head.network.along(self.features, levels / head.levels)
        x = noise[:, 0] if init is None else init
        points = [x]
        for step, level in enumerate(range(start, to_level, -1)):
            mean = head.next_mean(x, predict(step, x), level)
            std = max(float(head.schedule.std[level]), min_std)
            x = torch.add(mean, noise[:, head.levels - level + 1], alpha=std) if std > 0.0 else mean
            points.append(x)
        return torch.stack(points, 1)

    def denoise(self, noise: Tensor, init: Tensor | None = None, from_level: int | None = None) -> Tensor:
        """Return the actions `[batch, action_dim]` that a chain ends in; arguments as for `chain`."""
        return self.chain(noise, init, from_level)[:, -1]

    def steps(self, chain: Tensor, first: int, last: int = 1, min_std: float = 0.0) -> tuple[Tensor, Tensor]:
        """Return means `[batch, steps, action_dim]` and standard deviations `[steps]` of a chain's steps.

        Args:
            chain: Points `[batch, points, action_dim]` of levels down to 0, from `first` or before it.
            first: Level that the first step starts from.
            last: Level that the last step starts from, at most `first`.
            min_std: Smallest standard deviation of a step.
        """
        head = self.head
        level = torch.arange(first, last - 1, -1, device=chain.device)
        end = chain.shape[1] - 1
        x = chain[:, end - first : end - last + 1]
        predicted = self.noise_prediction(x, level.expand(len(chain), -1))
        return head.next_mean(x, predicted, level), head.std[level].clamp_min(min_std)

    def chain_log_prob(self, chain: Tensor, first: int, last: int = 1, min_std: float = 0.0) -> Tensor:
        """Return log p(x_{k-1} | x_k) `[batch, steps]` of the steps from levels `first` to `last`, which have noise.

        Arguments as for `steps`; without a `min_std` above 0 the step from level 1 has no noise and no density.
        """
        return self.chain_log_prob_per_dimension(chain, first, last, min_std).sum(-1)

    def chain_log_prob_per_dimension(self, chain: Tensor, first: int, last: int = 1, min_std: float = 0.0) -> Tensor:
        """Return the terms `[batch, steps, action_dim]` of `chain_log_prob`, which add up to it."""
        mean, std = self.steps(chain, first, last, min_std)
        end = chain.shape[1] - 1
        reached = chain[:, end - first + 1 : end - last + 2]
        std = std.unsqueeze(-1)
        return -0.5 * ((reached - mean) / std).square() - std.log() - HALF_LOG_TWO_PI

    def draw_noise(self, generator: Generator | None) -> Tensor:
        """Return what a chain is made of `[batch, K + 1, action_dim]`: standard normal, or 0 without a generator."""
        noise = self.features.new_zeros(len(self.features), self.head.levels + 1, self.head.action_dim)
        return noise if generator is None else noise.normal_(generator=generator)

    def sample(self, generator: Generator | None) -> Tensor:
        """Return one action per row."""
        return self.denoise(self.draw_noise(generator))

    def mode(self) -> Tensor:
        """Return the actions that a chain without any noise ends in; they need not be the likeliest ones."""
        return self.denoise(self.draw_noise(None))
