"""From flows wanted to flows that the stock on hand allows, with gradients."""

from __future__ import annotations

from palaestra.envs.arrays import at_least, clamped
from palaestra.envs.inventory.columns import row_sums, smaller
from palaestra.protocols import Array

_NONE = 1e-30
"""Stands for a total of 0 in a divisor; in float32, too."""

_EVEN = 1e-9
"""Share of every wanted flow that makes shares equal where nothing is wanted."""


def rationed(wanted: Array, available: Array) -> Array:
    """Return the flows wanted, cut in proportion where they add up to more than is available.

    They stay as they are where they are feasible, and scale with `wanted` and `available` together.

    Args:
        wanted: Of one supplier's customers, at least 0, `[batch, customers]`.
        available: `[batch, 1]`, at least 0.
    """
    return wanted * clamped(available / at_least(row_sums(wanted), _NONE)[:, None], 0.0, 1.0)


def allotted(wanted: Array, available: Array) -> Array:
    """Return all that is available, in the proportions of the flows wanted; in equal parts where nothing is wanted.

    Args:
        wanted: Of one supplier's customers, at least 0, `[batch, customers]`.
        available: `[batch, 1]`.
    """
    weights = wanted + _EVEN
    return weights * (available / row_sums(weights)[:, None])


def limited(wanted: Array, available: Array) -> Array:
    """Return the flows wanted, each at most what its own supplier has; both `[batch, links]`."""
    return smaller(wanted, available)
