"""Heads: action distributions with exactly what agents need, without the overhead of `torch.distributions`.

Each offers `sample(generator)`, `mode()`, `log_prob(action)` `[batch]` and `entropy()` `[batch]`.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from palaestra.agents.nn.fused import transformed

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


class Distribution(Protocol):
    """What a policy head yields for a batch of observations."""

    def sample(self, generator: Generator | None) -> Tensor:
        """Return one action per row."""
        ...

    def mode(self) -> Tensor:
        """Return the most probable action per row."""
        ...

    def log_prob(self, action: Tensor) -> Tensor:
        """Return log-probabilities (densities) `[batch]`."""
        ...

    def entropy(self) -> Tensor:
        """Return entropies `[batch]` in nats."""
        ...


def standard_normal_like(mean: Tensor, generator: Generator | None) -> Tensor:
    """Return standard normal noise of the same shape, type and device."""
    return torch.empty_like(mean).normal_(generator=generator)


class DiagonalGaussian:
    """Independent normal distributions over action dimensions.

    Args:
        mean: `[batch, action_dim]`.
        log_std: `[batch, action_dim]` or `[action_dim]`.
    """

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self.mean, self.log_std = mean, log_std.expand_as(mean)

    def sample(self, generator: Generator | None) -> Tensor:
        """Return reparameterised samples `[batch, action_dim]`."""
        return self.mean + self.log_std.exp() * standard_normal_like(self.mean, generator)

    def sample_with_log_prob(self, generator: Generator | None) -> tuple[Tensor, Tensor]:
        """Return reparameterised samples `[batch, action_dim]` and their log-densities `[batch]`."""
        action = self.sample(generator)
        return action, self.log_prob(action)

    def mode(self) -> Tensor:
        """Return the mean `[batch, action_dim]`."""
        return self.mean

    def log_prob(self, action: Tensor) -> Tensor:
        """Return log-densities `[batch]` of actions `[batch, action_dim]`."""
        standardised = (action - self.mean) * torch.exp(-self.log_std)
        return (-0.5 * standardised.square() - self.log_std - HALF_LOG_TWO_PI).sum(-1)

    def entropy(self) -> Tensor:
        """Return `[batch]` entropies: 1.4189 + log std per dimension."""
        return (self.log_std + 0.5 + HALF_LOG_TWO_PI).sum(-1)


class SquashedGaussian:
    """tanh of a diagonal Gaussian: actions in (-1, 1) (Haarnoja et al. 2018, appendix C).

    Args:
        mean: `[batch, action_dim]` before squashing.
        log_std: `[batch, action_dim]`.
    """

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self.mean, self.log_std = mean, log_std

    def sample(self, generator: Generator | None) -> Tensor:
        """Return reparameterised samples `[batch, action_dim]`."""
        return torch.tanh(self.mean + self.log_std.exp() * standard_normal_like(self.mean, generator))

    def mode(self) -> Tensor:
        """Return tanh of the mean `[batch, action_dim]`."""
        return torch.tanh(self.mean)

    def sample_with_log_prob(self, generator: Generator | None) -> tuple[Tensor, Tensor]:
        """Return reparameterised samples `[batch, action_dim]` and their log-densities `[batch]`.

        The squashing term log(1 - tanh(u)^2) is written as 2 (log 2 - u - softplus(-2u)), which stays exact where
        the tanh saturates.
        """
        noise = standard_normal_like(self.mean, generator)
        if transformed():
            return _squash(self.mean, self.log_std, noise)[1:]
        action, log_prob = _SquashedSample.apply(self.mean, self.log_std, noise)
        return action, log_prob

    def log_prob(self, action: Tensor) -> Tensor:
        """Return log-densities `[batch]` of actions `[batch, action_dim]` inside (-1, 1)."""
        return self.log_prob_of_tanh(torch.atanh(action))

    def log_prob_of_tanh(self, u: Tensor) -> Tensor:
        """Return log-densities `[batch]` of the actions tanh(u), exact where the tanh saturates.

        Args:
            u: Actions before squashing `[batch, action_dim]`, such as samples of `before_tanh`.
        """
        return self.before_tanh.log_prob(u) - log_tanh_slope(u).sum(-1)

    @property
    def before_tanh(self) -> DiagonalGaussian:
        """What is squashed."""
        return DiagonalGaussian(self.mean, self.log_std)

    def entropy(self) -> Tensor:
        """Raise, because a squashed Gaussian has no closed-form entropy; estimate it by -log_prob of samples."""
        raise TypeError("SquashedGaussian has no closed-form entropy; use -log_prob of samples")


def _squash(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return std * noise, the squashed sample u = mean + std * noise, and its log-density.

    The density is -noise^2 / 2 - log std - log(2 pi) / 2 - log(1 - tanh(u)^2), its constants added once per row.
    """
    spread = log_std.exp() * noise
    u = mean + spread
    terms = 2.0 * (F.softplus(-2.0 * u) + u) - log_std - 0.5 * noise.square()
    return spread, torch.tanh(u), terms.sum(-1) - mean.shape[-1] * (HALF_LOG_TWO_PI + 2.0 * math.log(2.0))


class _SquashedSample(torch.autograd.Function):
    """One node instead of the twenty that autograd would visit; first derivatives alone are defined."""

    @staticmethod
    def forward(ctx: Any, mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        spread, action, log_prob = _squash(mean, log_std, noise)
        ctx.save_for_backward(spread, action)
        return action, log_prob

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, by_action: Tensor, by_log_prob: Tensor) -> tuple[Tensor, Tensor, None]:
        spread, action = ctx.saved_tensors
        by_log_prob = by_log_prob.unsqueeze(-1)
        # d action / du = 1 - action^2 and d log_prob / du = 2 action.
        by_mean = torch.addcmul(by_action, action * action, by_action, value=-1.0)
        by_mean.addcmul_(action, by_log_prob, value=2.0)
        return by_mean, (by_mean * spread).sub_(by_log_prob), None


def log_tanh_slope(u: Tensor) -> Tensor:
    """Return log(1 - tanh(u)^2), elementwise."""
    return 2.0 * (math.log(2.0) - u - F.softplus(-2.0 * u))


class Categorical:
    """A distribution over {0, ..., num_actions - 1}; masked actions have probability exactly 0.

    Args:
        logits: `[batch, num_actions]`, unnormalised.
        mask: Bools `[batch, num_actions]`, True where the action is admissible; None for all.
    """

    def __init__(self, logits: Tensor, mask: Tensor | None = None) -> None:
        if mask is not None:
            logits = logits.masked_fill(~mask, -torch.inf)
        self.log_probs = torch.log_softmax(logits, -1)
        self.mask = mask

    @property
    def probs(self) -> Tensor:
        """Probabilities `[batch, num_actions]`."""
        return self.log_probs.exp()

    def sample(self, generator: Generator | None) -> Tensor:
        """Return samples `[batch]` (the Gumbel-max trick: one pass, no cumulative sums)."""
        exponential = torch.empty_like(self.log_probs).exponential_(generator=generator)
        return (self.log_probs - exponential.log()).argmax(-1)

    def mode(self) -> Tensor:
        """Return the most probable action `[batch]`."""
        return self.log_probs.argmax(-1)

    def log_prob(self, action: Tensor) -> Tensor:
        """Return log-probabilities `[batch]` of actions `[batch]`."""
        return self.log_probs.gather(-1, action.long().unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """Return entropies `[batch]`."""
        log_probs = self.log_probs
        if self.mask is not None:
            log_probs = log_probs.masked_fill(~self.mask, 0.0)
        return -(log_probs.exp().masked_fill(self.log_probs == -torch.inf, 0.0) * log_probs).sum(-1)


class MultiCategorical:
    """Independent categorical variables, one per entry of a MultiDiscrete action.

    Args:
        logits: `[batch, sum(counts)]`.
        counts: Number of values of each variable.
        mask: Bools `[batch, sum(counts)]` or None.
    """

    def __init__(self, logits: Tensor, counts: list[int], mask: Tensor | None = None) -> None:
        masks: list[Tensor | None] = [None] * len(counts) if mask is None else list(mask.split(counts, -1))
        self.parts = [Categorical(part, m) for part, m in zip(logits.split(counts, -1), masks, strict=True)]

    def sample(self, generator: Generator | None) -> Tensor:
        """Return samples `[batch, variables]`."""
        return torch.stack([part.sample(generator) for part in self.parts], -1)

    def mode(self) -> Tensor:
        """Return the most probable values `[batch, variables]`."""
        return torch.stack([part.mode() for part in self.parts], -1)

    def log_prob(self, action: Tensor) -> Tensor:
        """Return joint log-probabilities `[batch]` of actions `[batch, variables]`."""
        columns = action.unbind(-1)
        return torch.stack([part.log_prob(a) for part, a in zip(self.parts, columns, strict=True)]).sum(0)

    def entropy(self) -> Tensor:
        """Return joint entropies `[batch]`."""
        return torch.stack([part.entropy() for part in self.parts]).sum(0)
