"""Several stores: their names, and their parameters from one number, one for each, or the published draws."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from palaestra.envs.checks import check_amount


def store_names(count: int) -> tuple[str, ...]:
    """Return "store 0", "store 1", ..."""
    return tuple(f"store {store}" for store in range(count))


def store_amounts(
    world: str,
    argument: str,
    given: float | Sequence[float] | None,
    published: NDArray[np.float64],
    names: Sequence[str],
    *,
    positive: bool = False,
) -> dict[str, float]:
    """Return an amount for each store: those given, one for all or one for each, or the published ones where None.

    Raises:
        ValueError: If there is not one for each store, or one is outside its range.
    """
    if given is None:
        return dict(zip(names, published.tolist(), strict=True))
    if np.ndim(given) == 0:
        return dict.fromkeys(names, check_amount(world, argument, given, positive=positive))
    if np.shape(given) != (len(names),):
        raise ValueError(
            f"{world}: {argument}={given!r} of shape {np.shape(given)}; expected one number or one for each of "
            f"{len(names)} stores"
        )
    return each_amount(world, argument, np.asarray(given), names, positive=positive)


def each_amount(
    world: str, argument: str, given: Iterable[float], names: Sequence[str], *, positive: bool = False
) -> dict[str, float]:
    """Return the amounts given for some nodes, one for each.

    Raises:
        ValueError: If one is outside its range; the message names its place in the argument.
    """
    return {
        name: check_amount(world, f"{argument}[{index}]", amount, positive=positive)
        for index, (name, amount) in enumerate(zip(names, given, strict=True))
    }
