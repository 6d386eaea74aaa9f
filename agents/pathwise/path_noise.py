"""The noise of simulated paths, drawn from a torch generator as a world asks for it."""

from __future__ import annotations

import torch
from torch import Generator, Tensor


class PathNoise:
    """The noise of one moment of a batch of paths; implements `palaestra.protocols.Key`.

    A moment draws each of its names once, in the order in which the world asks for them: unlike that of the faces, the
    noise of a path is a stream, which costs a third of counted draws.

    Args:
        generator: What the draws come from; it moves on with each.
        batch: Number of paths.
        dtype: Precision of uniform and normal draws, and so of the whole simulation.
    """

    def __init__(self, generator: Generator, batch: int, dtype: torch.dtype) -> None:
        self._generator, self._batch, self._dtype = generator, batch, dtype
        self._drawn: dict[tuple[str, str, tuple[int, ...], int], Tensor] = {}

    @property
    def batch(self) -> int:
        """Number of paths."""
        return self._batch

    def uniform(self, name: str, size: tuple[int, ...] = ()) -> Tensor:
        """Return draws, uniform on [0, 1), of shape `[batch, *size]`."""
        return self._draw("uniform", name, size, 0)

    def normal(self, name: str, size: tuple[int, ...] = ()) -> Tensor:
        """Return standard normal draws of shape `[batch, *size]`."""
        return self._draw("normal", name, size, 0)

    def integers(self, name: str, high: int, size: tuple[int, ...] = ()) -> Tensor:
        """Return int64 draws, uniform on {0, ..., high - 1}, of shape `[batch, *size]`."""
        return self._draw("integers", name, size, high)

    def _draw(self, kind: str, name: str, size: tuple[int, ...], high: int) -> Tensor:
        address = (kind, name, size, high)
        if address not in self._drawn:
            shape, generator = (self._batch, *size), self._generator
            if kind == "integers":
                drawn = torch.randint(high, shape, generator=generator, device=generator.device)
            else:
                draw = torch.rand if kind == "uniform" else torch.randn
                drawn = draw(shape, generator=generator, device=generator.device, dtype=self._dtype)
            self._drawn[address] = drawn
        return self._drawn[address]
