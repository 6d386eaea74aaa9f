"""What worlds made of look-up tables share."""

from __future__ import annotations

import numpy as np
from array_api_compat import array_namespace

from palaestra.protocols import Array


def table_like(table: np.ndarray, array: Array) -> Array:
    """Return a NumPy table as an array of the other array's library, on its device."""
    if isinstance(array, np.ndarray):
        return table
    return array_namespace(array).asarray(table, device=array.device)
