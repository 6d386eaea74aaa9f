"""A lower bound on the cost of a hydrothermal system: the optimum if every inflow were its mean."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from palaestra.envs.energy.inflows import Inflows
from palaestra.envs.energy.system import HydroSystem


def mean_inflow_bound(system: HydroSystem, inflows: Inflows, start: NDArray[np.float64], stages: int) -> float:
    """Return a lower bound on the expected cost of the stages, by one linear programme.

    The least cost with all inflows known is convex in them, so that at their means it is no more than on average
    (Jensen), and knowing them can only help.

    Args:
        system: The system.
        inflows: Its inflows.
        start: Volumes at the start, `[plants]`.
        stages: Number of stages.
    """
    return perfect_foresight_cost(system, np.array([inflows.mean(stage) for stage in range(stages)]), start)


def perfect_foresight_cost(system: HydroSystem, flows: NDArray[np.float64], start: NDArray[np.float64]) -> float:
    """Return the least cost of operating a system on inflows that are all known beforehand.

    Args:
        system: The system.
        flows: Inflows, `[stages, plants]`.
        start: Volumes at the start, `[plants]`.
    """
    # Importing them takes a second, which only what needs a linear programme should cost.
    from scipy import sparse
    from scipy.optimize import linprog

    programme, stages, plants = system.stage_programme(1.0), len(flows), system.plants
    each = sparse.eye(stages)
    water = sparse.kron(each, sparse.hstack([sparse.eye(plants), -programme.effect]))
    before = sparse.kron(
        sparse.eye(stages, k=-1), sparse.hstack([sparse.eye(plants), sparse.csr_matrix(programme.effect.shape)])
    )
    power = sparse.kron(each, sparse.hstack([sparse.csr_matrix((1, plants)), sparse.csr_matrix(programme.balance)]))
    arriving = flows @ programme.gain.T
    arriving[0] += start
    found = linprog(
        np.tile(np.concatenate((np.zeros(plants), programme.costs)), stages),
        A_eq=sparse.vstack([water - before, power]).tocsc(),
        b_eq=np.concatenate((arriving.ravel(), np.tile(programme.requirement, stages))),
        bounds=np.tile(
            np.stack((np.zeros(plants + len(programme.limits)), np.append(programme.capacity, programme.limits)), 1),
            (stages, 1),
        ),
        method="highs",
    )
    return float(found.fun)
