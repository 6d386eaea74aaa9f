"""Checks of the arguments of worlds, with one wording of errors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def check_count(world: str, name: str, value: Any, minimum: int = 1) -> int:
    """Return an integer argument.

    Raises:
        ValueError: If it is no integer or below `minimum`.
    """
    if np.asarray(value).dtype.kind not in "iu" or value < minimum:
        raise ValueError(f"{world}: {name}={value!r}; expected an integer of at least {minimum}")
    return int(value)


def check_amount(world: str, name: str, value: Any, *, positive: bool = False) -> float:
    """Return a real argument.

    Raises:
        ValueError: If it is no finite number, below 0, or 0 where it must be `positive`.
    """
    if np.asarray(value).dtype.kind not in "iuf" or not 0 <= value < math.inf or (positive and value == 0):
        raise ValueError(
            f"{world}: {name}={value!r}; expected a finite number {'above' if positive else 'of at least'} 0"
        )
    return float(value)
