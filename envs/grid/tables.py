"""Tables that live as long as the program, in whatever array library and on whatever device they are read."""

from __future__ import annotations

import numpy as np

from palaestra.envs.arrays import table_like
from palaestra.protocols import Array

_copies: dict[tuple[int, str], tuple[np.ndarray, Array]] = {}


def table_on(table: np.ndarray, array: Array) -> Array:
    """Return a table as an array of the other array's library, on its device, copied there once.

    Args:
        table: One that is never written to and never goes away: it is kept.
        array: The other array.
    """
    if isinstance(array, np.ndarray):
        return table
    address = id(table), str(array.device)
    if address not in _copies:
        # The table is kept beside its copy, so that no other can come to have its address.
        _copies[address] = table, table_like(table, array)
    return _copies[address][1]
