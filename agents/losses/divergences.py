"""Divergences between action distributions of the same kind."""

from __future__ import annotations

from torch import Tensor

from palaestra.agents.nn.distributions import Categorical, DiagonalGaussian, Distribution, MultiCategorical


def kl_divergence(one: Distribution, other: Distribution) -> Tensor:
    """Return KL(one || other) `[batch]` in nats.

    Args:
        one: Diagonal Gaussians, categorical or several categorical variables.
        other: Of the same kind; masked alike, where there are masks.

    Raises:
        TypeError: If the kinds differ or have no closed form.
    """
    if isinstance(one, DiagonalGaussian) and isinstance(other, DiagonalGaussian):
        log_ratio = other.log_std - one.log_std
        distance = (one.mean - other.mean).square() * (-2.0 * other.log_std).exp()
        return (log_ratio + 0.5 * ((-2.0 * log_ratio).exp() + distance - 1.0)).sum(-1)
    if isinstance(one, Categorical) and isinstance(other, Categorical):
        ours, theirs = one.log_probs, other.log_probs
        if one.mask is not None:  # Finite where the probability is 0, so that no term is -inf - -inf.
            ours, theirs = ours.masked_fill(~one.mask, 0.0), theirs.masked_fill(~one.mask, 0.0)
        return (one.probs * (ours - theirs)).sum(-1)
    if isinstance(one, MultiCategorical) and isinstance(other, MultiCategorical):
        first, *rest = (kl_divergence(p, q) for p, q in zip(one.parts, other.parts, strict=True))
        return sum(rest, start=first)
    raise TypeError(
        f"kl_divergence: {type(one).__name__} and {type(other).__name__}; expected two distributions of one kind with "
        "a closed form: DiagonalGaussian, Categorical or MultiCategorical"
    )
