"""The clips of the feed: lengths, embeddings, and what decides how viewers respond to them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from palaestra.envs.inventory.constants import Constant
from palaestra.envs.recommendation.interests import unit_vectors
from palaestra.protocols import Array

EVENTS = ("like", "comment", "follow", "share", "hate")
"""What a viewer may do beside watching."""

# Weights in the logits of the events, in their order.
_BASE = (-1.2, -3.0, -3.5, -3.2, -4.0)
_BY_AFFINITY = (2.0, 1.0, 1.5, 1.0, -1.5)
_BY_LENGTH = (-0.9, 0.2, 0.0, -0.6, 0.1)
_BY_CLICKBAIT = (-1.0, 1.5, -0.5, 0.3, 2.5)
_BY_CREATOR = (0.0, 0.0, 0.9, 0.0, 0.0)
_OWN = 0.5
"""Standard deviation of what is a clip's own in the logits of all events."""
_CREATORS = 25
_SHORTEST, _LONGEST = 6.0, 90.0


class FeedClips:
    """Clips in the order of their length; all is drawn with NumPy's legacy generator, whose stream never changes.

    Lengths are log-uniform from 6 to 90 seconds, embeddings uniform on the sphere, clickbait beta (2, 5), the quality
    of 25 creators and the clips' own appeals normal.

    Args:
        seed: Of the draws.
        count: Number of clips.
        dimensions: Of the embeddings.

    Attributes:
        seconds: Lengths, float64 `[clips]`.
        embeddings: Unit vectors, float64 `[clips, dimensions]`.
        creator: Who made it, int64 `[clips]`.
        clickbait: 0 to 1, float64 `[clips]`.
    """

    def __init__(self, seed: int, count: int, dimensions: int) -> None:
        stream = np.random.RandomState(seed)
        self.embeddings: NDArray[np.float64] = unit_vectors(stream, count, dimensions)
        seconds = np.sort(np.exp(stream.uniform(np.log(_SHORTEST), np.log(_LONGEST), count)))
        self.creator = stream.randint(_CREATORS, size=count)
        self.clickbait: NDArray[np.float64] = stream.beta(2.0, 5.0, count)
        quality = stream.normal(size=_CREATORS)[self.creator]
        own = _OWN * stream.normal(size=(count, len(EVENTS)))
        self.seconds = Constant(seconds)
        # A log-uniform variable has the standard deviation of a uniform one: its range over the root of 12.
        middle, spread = 0.5 * np.log(_SHORTEST * _LONGEST), np.log(_LONGEST / _SHORTEST) / 12.0**0.5
        length = (np.log(seconds) - middle) / spread
        self._watch = Constant(0.3 + 0.8 * self.clickbait - 0.35 * length)
        features = np.stack([np.ones(count), length, self.clickbait, quality], axis=1)
        weights = np.array([_BASE, _BY_LENGTH, _BY_CLICKBAIT, _BY_CREATOR])
        self._events = Constant(features @ weights + own)
        self._by_affinity = Constant(np.array(_BY_AFFINITY))

    def watch_logit(self, affinity: Array, fatigue: Array, clip: Array | None = None) -> Array:
        """Return the logit of the mean share watched: of clips `[batch]`, or of all of them `[batch, clips]`.

        Args:
            affinity: `[batch]`, or `[batch, clips]`.
            fatigue: `[batch]`, or `[batch, 1]`.
            clip: Numbers of the clips `[batch]`; None for all clips.
        """
        own = self._watch.like(affinity)
        return (own if clip is None else own[clip]) + 1.5 * affinity - 1.5 * fatigue

    def event_logits(self, affinity: Array, clip: Array) -> Array:
        """Return the logits of the five events `[batch, 5]`, of clips `[batch]` with affinities `[batch]`."""
        return self._events.like(affinity)[clip] + affinity[:, None] * self._by_affinity.like(affinity)
