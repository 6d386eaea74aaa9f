"""Array operations that worlds share, for NumPy and torch, without the price of asking which at every call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import array_api_compat.numpy as numpy_namespace
import numpy as np
from array_api_compat import array_namespace

from palaestra.protocols import Array

_NUMPY = (np.ndarray, np.generic)


def namespace_of(array: Array) -> Any:
    """Return the array-API namespace of a NumPy array or a torch tensor."""
    return numpy_namespace if isinstance(array, _NUMPY) else array_namespace(array)


def keep_freed_memory() -> None:
    """Let the process keep the memory of arrays of up to 16 MB when they are freed, for the next ones.

    By default glibc gives blocks above 128 kB back to the system, which then faults their pages in again at every step
    of a batched world: that can cost more than the step. Freeing one greater block raises the limit, for good.
    """
    np.empty(1 << 24, np.uint8)


def clamped(array: Array, low: float, high: float) -> Array:
    """Return the array with its values kept from `low` to `high`; the gradient is 0 where it changed them."""
    if isinstance(array, _NUMPY):
        return np.minimum(np.maximum(array, low), high)
    return array.clip(low, high)


def at_least(array: Array, low: float) -> Array:
    """Return the array with its values kept at `low` or above; the gradient is 0 where it changed them."""
    return np.maximum(array, low) if isinstance(array, _NUMPY) else array.clip(low)


def in_single_precision(array: Array) -> Array:
    """Return a float64 array with its values rounded to float32; the gradient is that of the identity."""
    xp = namespace_of(array)
    return xp.astype(xp.astype(array, xp.float32), xp.float64)


def stacked(columns: Sequence[Array]) -> Array:
    """Return arrays `[batch]`, or NumPy scalars, side by side along a new last axis."""
    first = columns[0]
    if isinstance(first, np.generic):
        return np.array(columns)
    if not isinstance(first, np.ndarray):
        return array_namespace(first).stack(columns, axis=-1)
    whole = np.empty((*first.shape, len(columns)), first.dtype)
    for index, column in enumerate(columns):
        whole[..., index] = column
    return whole


def rows_replaced(whole: Array, rows: Array, part: Array) -> Array:
    """Return a copy of an array `[batch, ...]` with the numbered rows replaced by those of `part`."""
    copied = np.array(whole) if isinstance(whole, np.ndarray) else whole.clone()
    copied[rows] = part
    return copied


def table_like(table: np.ndarray, array: Array) -> Array:
    """Return a NumPy table as an array of the other array's library, on its device."""
    if isinstance(array, np.ndarray):
        return table
    return array_namespace(array).asarray(table, device=array.device)
