"""What a picture of learning curves shows, apart from how it is drawn: naming it needs no matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from palaestra.agents.evaluation.rows import Row


@dataclass(frozen=True)
class CurvePanel:
    """Learning curves of one metric on one env.

    Attributes:
        title: Title of the panel.
        metric: As for `Row.metric`.
        curves: Rows of all seeds and points, by what the line is called.
        levels: Levels to mark, such as thresholds claimed.
    """

    title: str
    metric: str
    curves: Mapping[str, Sequence[Row]]
    levels: tuple[float, ...] = ()
