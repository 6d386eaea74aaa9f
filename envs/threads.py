"""How many threads step worlds that are stepped by threads."""

from __future__ import annotations

import os

THREADS_VARIABLE = "PALAESTRA_PHYSICS_THREADS"
"""Environment variable that sets the number where an argument does not: one each where many runs share a machine."""


def default_threads() -> int:
    """Return `PALAESTRA_PHYSICS_THREADS` where it is set, else the number of cores that this process may use.

    Raises:
        ValueError: If the variable is no integer of at least 1.
    """
    wanted = os.environ.get(THREADS_VARIABLE)
    if wanted is not None:
        if not wanted.isdecimal() or int(wanted) < 1:
            raise ValueError(f"{THREADS_VARIABLE}={wanted!r}; expected an integer of at least 1")
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
