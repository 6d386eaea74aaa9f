"""Time by phase, always measured: two clock readings per phase."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

PHASES = ("act", "env", "memory", "update", "callbacks")


class Profiler:
    """Seconds spent in each phase of training since construction."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time inside the block towards a phase."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start

    def lines(self) -> list[str]:
        """Return the seconds and the share of each phase, a line each."""
        total = sum(self.seconds.values()) or 1.0
        return [f"  {name:<10} {value:8.2f} s  {100 * value / total:5.1f} %" for name, value in self.seconds.items()]
