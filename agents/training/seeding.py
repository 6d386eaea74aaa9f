"""Torch generators derived from a run's seed; global generators are left as they were found."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from palaestra.seeding import stream_seed

# Runs trained together initialise networks in threads of their own, but torch has one global generator.
_INITIALISING = threading.RLock()


def make_generator(run_seed: int, role: str, device: torch.device) -> torch.Generator:
    """Return a run's own generator for one role ("policy", "replay", "predict", ...)."""
    generator = torch.Generator(device=device)
    generator.manual_seed(stream_seed(run_seed, role))
    return generator


@contextmanager
def seeded_initialisation(run_seed: int, role: str = "initialisation") -> Iterator[None]:
    """Initialise networks reproducibly: torch's global generator is seeded inside and restored outside."""
    with _INITIALISING, torch.random.fork_rng():
        torch.manual_seed(stream_seed(run_seed, role))
        yield
