"""Classes of actors that need no more than a sampler and a supervised loss: any of them can imitate better actions.

An actor called with observations says what its policy is there, in one form for all classes: noise in, actions out
(`act`), and the loss of imitating actions (`loss`), which draws what it needs from a generator. All noise is standard
normal and may be given from outside, so that a few noises drawn once make several deterministic candidates.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Self

import gymnasium as gym
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from palaestra.agents.nn.actors import Actor
from palaestra.agents.nn.distributions import DiagonalGaussian, standard_normal_like
from palaestra.agents.nn.generative.diffusion import DiffusionHead, DiffusionPolicy
from palaestra.agents.nn.generative.flow import FlowHead, FlowPolicy
from palaestra.agents.nn.networks import Observation, make_encoder
from palaestra.agents.nn.stacked import SingleMLP

LOG_STD_RANGE = (-5.0, 2.0)


class ImitablePolicy(ABC):
    """What an actor does in given observations, `rows` of them."""

    rows: int
    noise_shape: tuple[int, ...]
    """Shape of the noise that one action takes."""

    @abstractmethod
    def repeated(self, count: int) -> Self:
        """Return the policy of every row `count` times in turn."""

    @abstractmethod
    def act(self, noise: Tensor) -> Tensor:
        """Return actions `[rows, action_dim]` in [-1, 1] that standard normal noise `[rows, *noise_shape]` becomes."""

    @abstractmethod
    def loss(self, action: Tensor, generator: Generator | None) -> Tensor:
        """Return the supervised loss `[rows]` of actions `[rows, action_dim]`."""

    def propose(self, count: int, noise: Generator | Tensor) -> Tensor:
        """Return several actions for each row, `[rows, count, action_dim]`.

        Args:
            count: How many, at least 1.
            noise: A generator to draw it from, or the noise of every candidate `[count, *noise_shape]`, the same for
                all rows.
        """
        shape = (self.rows, count, *self.noise_shape)
        if isinstance(noise, Tensor):
            given = noise.expand(shape)
        else:
            given = torch.empty(shape, device=noise.device).normal_(generator=noise)
        return self.repeated(count).act(given.flatten(0, 1)).unflatten(0, (self.rows, count))


class GaussianClass(Actor):
    """A Gaussian with independent dimensions, cut off at the box; it is fitted by its negative log-likelihood.

    Args:
        observation_space: Space of one observation.
        action_dim: Dimensions of the action.
        hidden: Widths of the hidden layers.
        activation: Name of the activation.
        encoder: Name of the encoder.
    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_dim: int,
        hidden: Sequence[int],
        activation: str = "relu",
        encoder: str = "auto",
    ) -> None:
        super().__init__(observation_space, 2 * action_dim, hidden, activation, encoder)
        self.noise_shape = (action_dim,)

    def forward(self, observation: Observation) -> GaussianClassPolicy:
        """Return the policy in a batch of observations."""
        mean, log_std = self.output(observation).chunk(2, -1)
        return GaussianClassPolicy(mean, log_std.clamp(*LOG_STD_RANGE))


class GaussianClassPolicy(ImitablePolicy):
    """Means and log standard deviations `[rows, action_dim]`."""

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self.mean, self.log_std = mean, log_std
        self.rows, self.noise_shape = len(mean), tuple(mean.shape[1:])

    def repeated(self, count: int) -> GaussianClassPolicy:
        """Return the policy of every row `count` times in turn."""
        return GaussianClassPolicy(self.mean.repeat_interleave(count, 0), self.log_std.repeat_interleave(count, 0))

    def act(self, noise: Tensor) -> Tensor:
        """Return mean + std * noise inside the box."""
        return (self.mean + self.log_std.exp() * noise).clamp(-1.0, 1.0)

    def loss(self, action: Tensor, generator: Generator | None) -> Tensor:
        """Return -log N(action; mean, std); nothing is drawn."""
        return -DiagonalGaussian(self.mean, self.log_std).log_prob(action)


class BinsClass(nn.Module):
    """Tokens: one bin of equal width for each dimension in turn, given those before it; fitted by cross-entropy.

    An action is the centres of its bins. A token is drawn by the inverse of its distribution function, so that noise 0
    is the median bin.

    Args:
        observation_space: Space of one observation.
        action_dim: Dimensions of the action.
        hidden: Widths of the hidden layers.
        activation: Name of the activation.
        encoder: Name of the encoder.
        bins: Bins of a dimension, at least 2.
    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_dim: int,
        hidden: Sequence[int],
        activation: str = "relu",
        encoder: str = "auto",
        bins: int = 32,
    ) -> None:
        super().__init__()
        self.action_dim, self.bins, self.noise_shape = action_dim, bins, (action_dim,)
        self.encoder = make_encoder(observation_space, encoder)
        # The tokens so far, zeros after them, and which one comes next.
        self.trunk = SingleMLP([self.encoder.features + 2 * action_dim, *hidden, bins], activation)

    def forward(self, observation: Observation) -> BinsClassPolicy:
        """Return the policy in a batch of observations."""
        return BinsClassPolicy(self, self.encoder(observation))

    def token_of(self, action: Tensor) -> Tensor:
        """Return the bins, from 0, that actions in [-1, 1] lie in."""
        return ((action + 1.0) * (0.5 * self.bins)).long().clamp(0, self.bins - 1)

    def centre_of(self, token: Tensor) -> Tensor:
        """Return the centres of bins."""
        return (2.0 * token + 1.0) / self.bins - 1.0


class BinsClassPolicy(ImitablePolicy):
    """Features `[rows, features]` of the observations, and whose they are."""

    def __init__(self, actor: BinsClass, features: Tensor) -> None:
        self.actor, self.features = actor, features
        self.rows, self.noise_shape = len(features), (actor.action_dim,)

    def repeated(self, count: int) -> BinsClassPolicy:
        """Return the policy of every row `count` times in turn."""
        return BinsClassPolicy(self.actor, self.features.repeat_interleave(count, 0))

    def logits(self, action: Tensor) -> Tensor:
        """Return logits `[rows, action_dim, bins]` of each token, given the centres of those before it in an action."""
        dim = self.actor.action_dim
        before = torch.ones(dim, dim, device=action.device).tril(-1)
        known = self.features.unsqueeze(1).expand(-1, dim, -1)
        which = torch.eye(dim, device=action.device).expand(self.rows, -1, -1)
        given = torch.cat([known, action.unsqueeze(1) * before, which], -1)
        output: Tensor = self.actor.trunk(given.flatten(0, 1))
        return output.view(self.rows, dim, -1)

    def act(self, noise: Tensor) -> Tensor:
        """Return the centres of tokens drawn one after the other."""
        share = 0.5 * (1.0 + torch.erf(noise / math.sqrt(2.0)))
        action = torch.zeros_like(noise)
        for dimension in range(self.actor.action_dim):
            below = self.logits(action)[:, dimension].softmax(-1).cumsum(-1)[:, :-1]
            token = (share[:, dimension, None] >= below).sum(-1)
            action = torch.cat(
                [action[:, :dimension], self.actor.centre_of(token)[:, None], action[:, dimension + 1 :]], -1
            )
        return action

    def loss(self, action: Tensor, generator: Generator | None) -> Tensor:
        """Return the cross-entropy of an action's tokens, added up; nothing is drawn."""
        token = self.actor.token_of(action)
        logits = self.logits(self.actor.centre_of(token))
        return F.cross_entropy(logits.flatten(0, 1), token.flatten(), reduction="none").view_as(action).sum(-1)


class DiffusionClass(nn.Module):
    """A diffusion, fitted by its denoising loss at a random level; arguments as for `DiffusionHead`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__()
        self.head = DiffusionHead(*arguments, **options)
        self.noise_shape = (self.head.levels + 1, self.head.action_dim)

    def forward(self, observation: Observation) -> DiffusionClassPolicy:
        """Return the policy in a batch of observations."""
        return DiffusionClassPolicy(self.head(observation))


class DiffusionClassPolicy(ImitablePolicy):
    """A diffusion's policy."""

    def __init__(self, policy: DiffusionPolicy) -> None:
        self.policy, self.rows = policy, len(policy.features)
        self.noise_shape = (policy.head.levels + 1, policy.head.action_dim)

    def repeated(self, count: int) -> DiffusionClassPolicy:
        """Return the policy of every row `count` times in turn."""
        return DiffusionClassPolicy(self.policy.repeated(count))

    def act(self, noise: Tensor) -> Tensor:
        """Return what chains end in."""
        return self.policy.denoise(noise).clamp(-1.0, 1.0)

    def loss(self, action: Tensor, generator: Generator | None) -> Tensor:
        """Return the denoising loss at levels and with noise drawn here."""
        levels = self.policy.head.levels
        level = torch.randint(1, levels + 1, (len(action),), generator=generator, device=action.device)
        return self.policy.loss(action, standard_normal_like(action, generator), level)


class FlowClass(nn.Module):
    """A flow, fitted by flow matching at a random time, cut off at the box; arguments as for `FlowHead`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__()
        self.head = FlowHead(*arguments, **options)
        self.noise_shape = (self.head.action_dim,)

    def forward(self, observation: Observation) -> FlowClassPolicy:
        """Return the policy in a batch of observations."""
        return FlowClassPolicy(self.head(observation))


class FlowClassPolicy(ImitablePolicy):
    """A flow's policy."""

    def __init__(self, policy: FlowPolicy) -> None:
        self.policy, self.rows = policy, len(policy.features)
        self.noise_shape = (policy.head.action_dim,)

    def repeated(self, count: int) -> FlowClassPolicy:
        """Return the policy of every row `count` times in turn."""
        return FlowClassPolicy(self.policy.repeated(count))

    def act(self, noise: Tensor) -> Tensor:
        """Return where the flow carries noise, inside the box."""
        return self.policy.transport(noise).clamp(-1.0, 1.0)

    def loss(self, action: Tensor, generator: Generator | None) -> Tensor:
        """Return the flow-matching loss at times and with noise drawn here."""
        time = torch.empty(len(action), device=action.device).uniform_(generator=generator)
        return self.policy.loss(action, standard_normal_like(action, generator), time)


ImitableActor = GaussianClass | BinsClass | DiffusionClass | FlowClass
ACTOR_CLASSES: dict[str, Callable[..., ImitableActor]] = {
    "gaussian": GaussianClass,
    "bins": BinsClass,
    "diffusion": DiffusionClass,
    "flow": FlowClass,
}
"""Makes an actor of its spaces, widths, activation, encoder, and what its class has beside these, by name."""
