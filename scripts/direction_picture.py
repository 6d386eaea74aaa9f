"""What a picture of action directions shows, apart from how it is drawn: the shares that rows of a claim hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from palaestra.agents.evaluation.action_directions import SECTORS, share_name
from palaestra.agents.evaluation.claims import Claim
from palaestra.agents.evaluation.rows import Row
from palaestra.agents.evaluation.verdicts import runs_of

MEASURE = "action-directions"


def claim_directions(claim: Claim, rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """Return the final shares of every arm that has them, `[seeds, SECTORS]` each, in order of seeds."""
    names = [f"{MEASURE}/{share_name(sector)}" for sector in range(SECTORS)]
    found = {}
    for arm in claim.arms:
        ends = [run[-1] for _, run in sorted(runs_of(claim, arm, rows).items())]
        measured = [[row.measures[name] for name in names] for row in ends if names[0] in row.measures]
        if measured:
            found[arm.name] = np.asarray(measured)
    return found


def direction_file(results: Path, claim: Claim) -> Path:
    """Return the file of a claim's picture of directions."""
    return results / "pictures" / f"{claim.name}-directions.png"
