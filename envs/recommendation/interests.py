"""Interests and items as unit vectors: what recommendation worlds share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from palaestra.envs import rendering
from palaestra.envs.arrays import namespace_of
from palaestra.envs.inventory.columns import row_sums
from palaestra.envs.inventory.constants import Constant
from palaestra.protocols import Array


def unit_vectors(stream: np.random.RandomState, count: int, dimensions: int) -> NDArray[np.float64]:
    """Return vectors of length 1, uniform on the sphere, `[count, dimensions]`."""
    vectors = stream.normal(size=(count, dimensions))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def normalised(vectors: Array) -> Array:
    """Return vectors `[batch, dimensions]` scaled to length 1."""
    return vectors / (row_sums(vectors * vectors) ** 0.5)[:, None]


def logistic(logit: Array) -> Array:
    """Return 1 / (1 + exp(-logit))."""
    return 1.0 / (1.0 + namespace_of(logit).exp(-logit))


class Catalogue:
    """Items as unit vectors.

    Args:
        embeddings: `[items, dimensions]`, of length 1.
    """

    def __init__(self, embeddings: NDArray[np.float64]) -> None:
        self.embeddings = Constant(embeddings)
        self._by_dimension = Constant(np.ascontiguousarray(embeddings.T))
        # The plane in which the items lie furthest apart, for pictures.
        self._plane = np.linalg.svd(embeddings - embeddings.mean(axis=0), full_matrices=False)[2][:2].T

    def of(self, items: Array, interest: Array) -> Array:
        """Return the embeddings `[batch, dimensions]` of items `[batch]`, in the library and precision of interests."""
        return self.embeddings.like(interest)[items]

    def affinities(self, interest: Array) -> Array:
        """Return the inner products `[batch, items]` of interests `[batch, dimensions]` with all items."""
        # A matrix product may add up a row in an order that depends on the rows beside it.
        rows = self._by_dimension.like(interest)
        total = interest[:, :1] * rows[0]
        for dimension in range(1, interest.shape[1]):
            total = total + interest[:, dimension : dimension + 1] * rows[dimension]
        return total

    def draw(self, canvas: rendering.Canvas, side: float, interest: Array) -> None:
        """Draw all items as dots in a square of the given side at the top left, and the user's interest as a disc."""
        for item in range(len(self.embeddings.values)):
            x, y = self.place(side, self.embeddings.values[item])
            canvas.disc(x, y, 1.8, rendering.PALE)
        x, y = self.place(side, np.asarray(interest, np.float64))
        canvas.disc(x, y, 6.0, rendering.BLUE)

    def place(self, side: float, vector: NDArray[np.float64]) -> tuple[float, float]:
        """Return where a vector `[dimensions]` is drawn in that square."""
        x, y = vector @ self._plane
        return side * (0.5 + 0.45 * float(x)), side * (0.5 - 0.45 * float(y))
