"""Derived seeds: every stream of a run gets its own, from the run's seed, the stream's role and its row."""

from __future__ import annotations

import zlib

import numpy as np


def row_seeds(run_seed: int, role: str, rows: int) -> list[int]:
    """Return one seed per row, each below 2**63.

    Seeds of different runs, roles and rows are hashed apart; with `run_seed + row`, runs 0 and 1 of 1,024 rows
    would share 1,023 of them.

    Args:
        run_seed: Seed of the run, at least 0.
        role: What the rows are for: "train", "eval", "data", "policy", ...
        rows: Number of rows.

    Raises:
        ValueError: If `run_seed` or `rows` is negative.
    """
    if run_seed < 0 or rows < 0:
        raise ValueError(f"row_seeds: run_seed={run_seed}, rows={rows}; expected both to be at least 0")
    role_code = zlib.crc32(role.encode())
    words = np.random.SeedSequence((run_seed, role_code)).generate_state(2 * rows, np.uint32).astype(np.uint64)
    seeds = (words[0::2] << np.uint64(32) | words[1::2]) & np.uint64(2**63 - 1)
    return [int(seed) for seed in seeds]


def stream_seed(run_seed: int, role: str) -> int:
    """Return the seed of a run's single stream of the given role (policy noise, replay sampling, initialisation)."""
    return row_seeds(run_seed, role, 1)[0]
