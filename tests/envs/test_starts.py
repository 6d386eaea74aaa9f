"""Starts drawn ahead are the starts that each row would have drawn for itself, and few calls draw them."""

from __future__ import annotations

import numpy as np
import pytest

from palaestra.envs.grid.door_key import DoorKey
from palaestra.envs.key_stream import KeyStream
from palaestra.envs.noise import CounterKey
from palaestra.envs.starts import Starts


class CountingDoorKey(DoorKey):
    """Keeps how many rows each call of `initial` draws."""

    def __init__(self, ahead: int) -> None:
        super().__init__(5)
        self.starts_ahead = ahead  # type: ignore[misc]
        self.batches: list[int] = []

    def initial(self, key):  # type: ignore[no-untyped-def]
        self.batches.append(key.batch)
        return super().initial(key)


@pytest.mark.parametrize("ahead", [0, 1, 8, 64])
def test_they_are_those_of_the_rows_own_keys(ahead: int) -> None:
    rng = np.random.default_rng(0)
    world, plain = CountingDoorKey(ahead), DoorKey(5)
    stream = KeyStream(20)
    seeds = rng.integers(0, 2**40, 20)
    stream.place(seeds, branch=3)
    starts = Starts(world, stream)
    for turn in range(60):
        for _ in range(int(rng.integers(1, 5))):
            stream.advance()
        rows = np.flatnonzero(rng.random(20) < (1.0 if turn % 20 == 7 else 0.15))
        if len(rows):
            taken = starts.take(rows)
            expected = plain.initial(CounterKey(seeds[rows], stream.episode[rows] + 1, 0, np.full(len(rows), 3)))
            for name, array in vars(expected).items():
                np.testing.assert_array_equal(getattr(taken, name), array)
            stream.restart(rows)
        if turn == 40:
            seeds = rng.integers(0, 2**40, 20)
            stream.place(seeds, branch=3)
            starts.forget()


def test_many_are_drawn_together() -> None:
    world, stream = CountingDoorKey(16), KeyStream(40)
    stream.place(np.arange(40))
    starts = Starts(world, stream)
    for row in range(40):
        stream.advance()
        starts.take(np.array([row]))
        stream.restart(np.array([row]))
    assert world.batches == [16, 16, 16]
