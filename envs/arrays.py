"""Array operations that worlds share, for NumPy and torch, without the price of asking which at every call."""

from __future__ import annotations

from typing import Any

import array_api_compat.numpy as numpy_namespace
import numpy as np
from array_api_compat import array_namespace

from palaestra.protocols import Array


def namespace_of(array: Array) -> Any:
    """Return the array-API namespace of a NumPy array or a torch tensor."""
    return numpy_namespace if isinstance(array, np.ndarray) else array_namespace(array)


def clamped(array: Array, low: float, high: float) -> Array:
    """Return the array with its values kept from `low` to `high`; the gradient is 0 where it changed them."""
    if isinstance(array, np.ndarray):
        return np.minimum(np.maximum(array, low), high)
    return array.clip(low, high)


def at_least(array: Array, low: float) -> Array:
    """Return the array with its values kept at `low` or above; the gradient is 0 where it changed them."""
    return np.maximum(array, low) if isinstance(array, np.ndarray) else array.clip(low)


def table_like(table: np.ndarray, array: Array) -> Array:
    """Return a NumPy table as an array of the other array's library, on its device."""
    if isinstance(array, np.ndarray):
        return table
    return array_namespace(array).asarray(table, device=array.device)
