"""Entropy of samples by a Gaussian mixture fitted to them, for many sets of samples at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from palaestra.agents.nn.distributions import HALF_LOG_TWO_PI

FLOOR = 1e-6
"""Added to the variances, so that samples that are all alike have a finite entropy."""
MEAN_STEPS, STEPS = 10, 40
"""Steps of k-means before, and of expectation-maximisation in a fit."""


@dataclass(frozen=True)
class GaussianMixtures:
    """One mixture with full covariances for each set of samples.

    Attributes:
        weight: `[sets, components]`, each row sums to 1.
        mean: `[sets, components, dim]`.
        root: Lower Cholesky factors of the covariances `[sets, components, dim, dim]`.
    """

    weight: Tensor
    mean: Tensor
    root: Tensor

    def log_joint(self, samples: Tensor) -> Tensor:
        """Return log(weight N(x; mean, covariance)) `[sets, count, components]` of samples `[sets, count, dim]`."""
        offset = (samples.unsqueeze(1) - self.mean.unsqueeze(2)).transpose(2, 3)
        standard = torch.linalg.solve_triangular(self.root, offset, upper=False)
        log_density = -0.5 * standard.square().sum(2) - self._log_volume().unsqueeze(-1)
        return (log_density + self.weight.clamp_min(FLOOR).log().unsqueeze(-1)).transpose(1, 2)

    def log_prob(self, samples: Tensor) -> Tensor:
        """Return log-densities `[sets, count]` of samples `[sets, count, dim]`."""
        return self.log_joint(samples).logsumexp(-1)

    def entropy_bound(self) -> Tensor:
        """Return -sum w log w + sum w H(component), `[sets]` in nats.

        It is the entropy of a sample together with the component it came from: at least that of the mixture, and at
        most log(components) more.
        """
        dim = self.mean.shape[-1]
        of_components = self._log_volume() + 0.5 * dim
        return (self.weight * (of_components - self.weight.clamp_min(FLOOR).log())).sum(-1)

    def _log_volume(self) -> Tensor:
        """Return log((2 pi)^(dim / 2) sqrt(det covariance)) `[sets, components]`."""
        return self.root.diagonal(dim1=-2, dim2=-1).log().sum(-1) + self.mean.shape[-1] * HALF_LOG_TWO_PI


@torch.no_grad()
def fit_mixtures(samples: Tensor, components: int, generator: Generator | None) -> GaussianMixtures:
    """Return mixtures fitted to samples by expectation-maximisation, begun from k-means.

    Means start at samples drawn in proportion to the squared distance from those drawn before. The number of steps is
    fixed, so that all sets are fitted as one batch.

    Args:
        samples: `[sets, count, dim]`; more of a set than components.
        components: Gaussians of a mixture, at least 1.
        generator: Draws where the means start.

    Raises:
        ValueError: If a set has no more samples than the mixture has components.
    """
    if not 1 <= components < samples.shape[1]:
        raise ValueError(
            f"fit_mixtures: components={components} for {samples.shape[1]} samples a set; expected at least 1, and "
            "fewer than the samples"
        )
    means = _first_means(samples, components, generator)
    for _ in range(MEAN_STEPS):
        share = torch.nn.functional.one_hot(_distances(samples, means).argmin(-1), components).to(samples.dtype)
        means = torch.where((share.sum(1) > 0.0).unsqueeze(-1), _averages(samples, share), means)
    share = torch.nn.functional.one_hot(_distances(samples, means).argmin(-1), components).to(samples.dtype)
    mixtures = _maximised(samples, share)
    for _ in range(STEPS):
        mixtures = _maximised(samples, mixtures.log_joint(samples).softmax(-1))
    return mixtures


def _first_means(samples: Tensor, components: int, generator: Generator | None) -> Tensor:
    """Return `[sets, components, dim]`, drawn as k-means++ does (Arthur and Vassilvitskii 2007)."""
    weights = torch.ones_like(samples[..., 0])
    chosen: list[Tensor] = []
    for _ in range(components):
        # Gumbel's trick, for all sets at once; samples that are all alike may be drawn again.
        noise = torch.empty_like(weights).exponential_(generator=generator)
        index = ((weights + FLOOR).log() - noise.log()).argmax(-1)
        chosen.append(samples.gather(1, index.view(-1, 1, 1).expand(-1, 1, samples.shape[-1])))
        weights = _distances(samples, torch.cat(chosen, 1)).amin(-1)
    return torch.cat(chosen, 1)


def _distances(samples: Tensor, means: Tensor) -> Tensor:
    """Return squared distances `[sets, count, components]`."""
    return (samples.unsqueeze(2) - means.unsqueeze(1)).square().sum(-1)


def _averages(samples: Tensor, share: Tensor) -> Tensor:
    """Return the averages `[sets, components, dim]` of samples weighed by shares `[sets, count, components]`."""
    return share.transpose(1, 2) @ samples / share.sum(1).clamp_min(FLOOR).unsqueeze(-1)


def _maximised(samples: Tensor, share: Tensor) -> GaussianMixtures:
    """Return the likeliest mixtures where components own shares `[sets, count, components]` of the samples."""
    mean = _averages(samples, share)
    offset = samples.unsqueeze(1) - mean.unsqueeze(2)
    scale = (share / share.sum(1, keepdim=True).clamp_min(FLOOR)).transpose(1, 2).sqrt().unsqueeze(-1)
    weighed = scale * offset
    covariance = weighed.transpose(2, 3) @ weighed
    floor = FLOOR * torch.eye(samples.shape[-1], dtype=samples.dtype, device=samples.device)
    root, _ = torch.linalg.cholesky_ex(covariance + floor)
    return GaussianMixtures(share.mean(1), mean, root)
