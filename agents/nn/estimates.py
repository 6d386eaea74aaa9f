"""What critics say about the return: in different forms, with the same verbs.

Every form offers `mean()`, `sample()`, the estimate of a reward plus a discounted successor (`moved`), and a `loss`
against another estimate or a number. Several critics' estimates lie along the first axis, where they are put together:
`average()`, `lowest()` (the whole estimate of the critic with the lowest mean) and `random_members()`. The minimum over
a random subset, for instance, is `estimate.random_members(2, generator).lowest()`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from palaestra.agents.losses.categorical import project
from palaestra.agents.losses.quantiles import midpoints, quantile_huber_per_row
from palaestra.agents.nn.distributions import HALF_LOG_TWO_PI, standard_normal_like


class Estimate(ABC):
    """What critics say about the return of every row.

    Shapes are `[batch]` for one critic and `[critics, batch]` for several, here written `[..., batch]`.
    """

    @abstractmethod
    def mean(self) -> Tensor:
        """Return the expected return `[..., batch]`."""

    @abstractmethod
    def sample(self, generator: Generator | None) -> Tensor:
        """Return one return drawn for every row and critic `[..., batch]`; the mean where nothing is said of more."""

    @abstractmethod
    def moved(self, shift: Tensor, scale: Tensor) -> Estimate:
        """Return the estimate of shift + scale * return.

        Args:
            shift: Such as the reward, `[batch]`.
            scale: Such as the discount, 0 where the episode terminated; at least 0, `[batch]`.
        """

    @abstractmethod
    def loss(self, target: Any) -> Tensor:
        """Return how far every row is from its target, `[..., batch]`.

        Args:
            target: An estimate of the same form, `[..., batch]`, or numbers of that shape. Its gradient is the
                caller's business.
        """

    @abstractmethod
    def each(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Return the estimate whose tensors `[..., batch, ...]` are those of this one changed alike."""

    def average(self) -> Self:
        """Return the average over critics of what they say: of means, quantiles or probabilities."""
        return self.each(lambda said: said.mean(0))

    def lowest(self) -> Self:
        """Return for every row the whole estimate of the critic with the lowest mean."""
        chosen = self.mean().detach().argmin(0)

        def take(said: Tensor) -> Tensor:
            index = chosen.view(1, -1, *[1] * (said.dim() - 2)).expand(1, *said.shape[1:])
            return said.gather(0, index).squeeze(0)

        return self.each(take)

    def random_members(self, count: int, generator: Generator | None) -> Self:
        """Return the estimates of some critics drawn without replacement, the same for all rows.

        Raises:
            ValueError: If count is not from 1 to the number of critics.
        """
        first_row = self.mean().detach()[:, 0]
        if not 1 <= count <= len(first_row):
            raise ValueError(f"random_members: count={count}; expected 1 to {len(first_row)}, the number of critics")
        chosen = torch.empty_like(first_row).uniform_(generator=generator).argsort()[:count]
        return self.each(lambda said: said.index_select(0, chosen))


def expectation(target: Estimate | Tensor) -> Tensor:
    """Return the mean of a target."""
    return target.mean() if isinstance(target, Estimate) else target


class ScalarEstimate(Estimate):
    """The expected return alone; its loss is the squared error.

    Args:
        value: `[..., batch]`.
    """

    def __init__(self, value: Tensor) -> None:
        self.value = value

    def mean(self) -> Tensor:
        """Return the value."""
        return self.value

    def sample(self, generator: Generator | None) -> Tensor:
        """Return the value."""
        return self.value

    def moved(self, shift: Tensor, scale: Tensor) -> ScalarEstimate:
        """Return shift + scale * value."""
        return ScalarEstimate(shift + scale * self.value)

    def loss(self, target: Estimate | Tensor) -> Tensor:
        """Return the squared error to the target's mean."""
        return (self.value - expectation(target)).square()

    def each(self, change: Callable[[Tensor], Tensor]) -> ScalarEstimate:
        """Return the changed value."""
        return ScalarEstimate(change(self.value))


class GaussianEstimate(Estimate):
    """A normally distributed return (Duan et al. 2021, arXiv 2001.02811); its loss is the cross-entropy.

    Args:
        centre: Mean `[..., batch]`.
        std: Standard deviation `[..., batch]`, above 0 (at least 0 in a target).
        noise_clip: Largest magnitude of the standard normal noise in samples.
    """

    def __init__(self, centre: Tensor, std: Tensor, noise_clip: float) -> None:
        self.centre, self.std, self.noise_clip = centre, std, noise_clip

    def mean(self) -> Tensor:
        """Return the mean."""
        return self.centre

    def sample(self, generator: Generator | None) -> Tensor:
        """Return mean + std * z with z standard normal, clipped."""
        noise = standard_normal_like(self.centre, generator)
        return self.centre + self.std * noise.clamp(-self.noise_clip, self.noise_clip)

    def moved(self, shift: Tensor, scale: Tensor) -> GaussianEstimate:
        """Return the normal distribution of shift + scale * return."""
        return GaussianEstimate(shift + scale * self.centre, scale * self.std, self.noise_clip)

    def loss(self, target: GaussianEstimate | Tensor) -> Tensor:
        """Return the mean of -log N(y; mean, std) over the target's y, which may be a number."""
        square = (self.centre - expectation(target)).square()
        if isinstance(target, GaussianEstimate):
            square = square + target.std.square()
        return 0.5 * square / self.std.square() + self.std.log() + HALF_LOG_TWO_PI

    def each(self, change: Callable[[Tensor], Tensor]) -> GaussianEstimate:
        """Return the distribution with changed mean and standard deviation."""
        return GaussianEstimate(change(self.centre), change(self.std), self.noise_clip)


class QuantileEstimate(Estimate):
    """Equally weighted quantiles (Dabney et al. 2018); its loss is the quantile Huber loss.

    Args:
        quantiles: `[..., batch, quantiles]`.
        huber_width: Where the loss turns from a square into a line, at least 0; 0 is plain quantile regression.
    """

    def __init__(self, quantiles: Tensor, huber_width: float) -> None:
        self.quantiles, self.huber_width = quantiles, huber_width

    def mean(self) -> Tensor:
        """Return the mean of the quantiles."""
        return self.quantiles.mean(-1)

    def sample(self, generator: Generator | None) -> Tensor:
        """Return one of the quantiles, each as likely as the others."""
        count = self.quantiles.shape[-1]
        share = torch.empty_like(self.quantiles[..., 0]).uniform_(generator=generator)
        index = (share * count).long().clamp(max=count - 1)
        return self.quantiles.gather(-1, index.unsqueeze(-1)).squeeze(-1)

    def moved(self, shift: Tensor, scale: Tensor) -> QuantileEstimate:
        """Return the quantiles of shift + scale * return."""
        return QuantileEstimate(shift.unsqueeze(-1) + scale.unsqueeze(-1) * self.quantiles, self.huber_width)

    def loss(self, target: QuantileEstimate | Tensor) -> Tensor:
        """Return the quantile Huber loss against the target's quantiles, or against a number."""
        samples = target.quantiles if isinstance(target, QuantileEstimate) else target.unsqueeze(-1)
        levels = midpoints(self.quantiles.shape[-1], self.quantiles.device)
        return quantile_huber_per_row(self.quantiles, samples, levels, self.huber_width)

    def each(self, change: Callable[[Tensor], Tensor]) -> QuantileEstimate:
        """Return changed quantiles."""
        return QuantileEstimate(change(self.quantiles), self.huber_width)


class CategoricalEstimate(Estimate):
    """Probabilities of atoms (Bellemare, Dabney and Munos 2017); its loss is the cross-entropy.

    A target of the same form is projected onto the atoms; a number becomes a two-hot code.

    Args:
        log_probs: `[..., batch, atoms]`.
        atoms: At equal distances, ascending; `[atoms]`, or `[batch, atoms]` where they were moved.
    """

    def __init__(self, log_probs: Tensor, atoms: Tensor) -> None:
        self.log_probs, self.atoms = log_probs, atoms

    def mean(self) -> Tensor:
        """Return the expectation."""
        return (self.log_probs.exp() * self.atoms).sum(-1)

    def sample(self, generator: Generator | None) -> Tensor:
        """Return an atom drawn by its probability."""
        # Gumbel's trick: the largest of log p + Gumbel noise is a draw from p.
        noise = torch.empty_like(self.log_probs).exponential_(generator=generator)
        index = (self.log_probs - noise.log()).argmax(-1, keepdim=True)
        return self.atoms.expand_as(self.log_probs).gather(-1, index).squeeze(-1)

    def moved(self, shift: Tensor, scale: Tensor) -> CategoricalEstimate:
        """Return the same probabilities of moved atoms, which only a loss can put back onto fixed ones."""
        return CategoricalEstimate(self.log_probs, shift.unsqueeze(-1) + scale.unsqueeze(-1) * self.atoms)

    def loss(self, target: CategoricalEstimate | Tensor) -> Tensor:
        """Return the cross-entropy to the projected target."""
        if isinstance(target, CategoricalEstimate):
            values, probs = target.atoms.expand_as(target.log_probs), target.log_probs.exp()
        else:
            values, probs = target.unsqueeze(-1), torch.ones_like(target).unsqueeze(-1)
        return -(project(values, probs, self.atoms) * self.log_probs).sum(-1)

    def each(self, change: Callable[[Tensor], Tensor]) -> CategoricalEstimate:
        """Return changed log-probabilities of the same atoms."""
        return CategoricalEstimate(change(self.log_probs), self.atoms)

    def average(self) -> CategoricalEstimate:
        """Return the average of the probabilities."""
        return self.each(lambda said: said.logsumexp(0) - math.log(len(said)))


class SigmoidEstimate(Estimate):
    """A return of 0 or 1 by its probability, such as reaching a goal; its loss is the binary cross-entropy.

    Args:
        logits: `[..., batch]`.
    """

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    def mean(self) -> Tensor:
        """Return the probability of 1."""
        return self.logits.sigmoid()

    def sample(self, generator: Generator | None) -> Tensor:
        """Return 1 with that probability, else 0."""
        share = torch.empty_like(self.logits).uniform_(generator=generator)
        return (share < self.mean()).to(self.logits.dtype)

    def moved(self, shift: Tensor, scale: Tensor) -> ScalarEstimate:
        """Return shift + scale * probability, which must lie in [0, 1] to be a target of this form."""
        return ScalarEstimate(shift + scale * self.mean())

    def loss(self, target: Estimate | Tensor) -> Tensor:
        """Return the binary cross-entropy to the target's mean, in [0, 1]."""
        share = expectation(target)
        return F.binary_cross_entropy_with_logits(self.logits, share.expand_as(self.logits), reduction="none")

    def each(self, change: Callable[[Tensor], Tensor]) -> SigmoidEstimate:
        """Return changed logits."""
        return SigmoidEstimate(change(self.logits))

    def average(self) -> SigmoidEstimate:
        """Return the average of the probabilities."""
        return SigmoidEstimate(self.mean().mean(0).logit())
