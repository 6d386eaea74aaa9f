"""Stages of a world chained to one linear programme with targets, whose duals are the gradient of its cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import linprog
from torch import Tensor

from palaestra.protocols import StageProgramme

_INTERIOR = 1e-7
"""Share of the largest amount by which a variable lies off its bounds if it is free to move."""


@dataclass(frozen=True)
class Solution:
    """The optimum of each path.

    Attributes:
        cost: Of the decisions, in units of reward, `[paths]`.
        penalty: Of what targets were missed by, `[paths]`.
        kept: Amounts at the end of every stage, `[paths, stages, held]`.
        missed: Targets less those amounts, `[paths, stages, held]`.
        by_target: Derivative of cost and penalty together in the targets, `[paths, stages, held]`.
        by_held: The same in the amounts held at the start, `[paths, held]`.
        variables: All variables, `[paths, columns]`.
    """

    cost: NDArray[np.float64]
    penalty: NDArray[np.float64]
    kept: NDArray[np.float64]
    missed: NDArray[np.float64]
    by_target: NDArray[np.float64]
    by_held: NDArray[np.float64]
    variables: NDArray[np.float64]


class TargetProgramme:
    """Some stages in a row of a batch of paths: for every path the least cost of keeping near its targets.

    With amounts held at the start, arrivals w and targets of all stages, it solves

        Q = min sum_t costs @ y_t + penalty @ |d_t|   subject to the equations of `StageProgramme`, stage by stage

    for all paths at once, and gets its derivatives from the duals: where a right-hand side moves, the optimum moves by
    the dual of its equation (envelope theorem). HiGHS, through SciPy, is the solver.

    Args:
        stage: The programme of a stage.
        stages: Number of stages, at least 1.
    """

    def __init__(self, stage: StageProgramme, stages: int) -> None:
        self.stage, self.stages = stage, stages
        self.held, self.decisions = stage.effect.shape
        self.equations = len(stage.requirement)
        n, k, r = self.held, self.decisions, self.equations
        # Columns of a stage: what is kept, decisions, and what targets lie above and below what is kept.
        self.width, self.height = 3 * n + k, 2 * n + r
        one, none = np.eye(n), np.zeros((n, n))
        now = np.block(
            [
                [one, -stage.effect, none, none],
                [np.zeros((r, n)), stage.balance, np.zeros((r, 2 * n))],
                [one, np.zeros((n, k)), one, -one],
            ]
        )
        before = np.zeros((self.height, self.width))
        before[:n, :n] = -one
        self.path = sparse.csc_matrix(
            sparse.kron(sparse.eye(stages), now) + sparse.kron(sparse.eye(stages, k=-1), before)
        )
        upper = np.concatenate((stage.capacity, stage.limits, np.full(2 * n, np.inf)))
        self.upper = np.tile(upper, stages)
        self.charges = np.tile(np.concatenate((np.zeros(n), stage.costs, np.zeros(2 * n))), stages)
        self._whole: tuple[int, Any] = (0, None)

    def solve(
        self, held: NDArray[np.float64], arriving: NDArray[np.float64], targets: NDArray[np.float64], penalty: float
    ) -> Solution:
        """Return the optimum of each path.

        Args:
            held: Amounts at the start, `[paths, held]`.
            arriving: What arrives, `[paths, stages, arrivals]`.
            targets: What is to be kept, `[paths, stages, held]`.
            penalty: What a unit missed costs, in multiples of the most that a unit can save; above 0.

        Raises:
            ValueError: If the solver finds no optimum.
        """
        paths, n = len(held), self.held
        right = np.zeros((paths, self.stages, self.height))
        right[:, :, :n] = arriving @ self.stage.gain.T
        right[:, 0, :n] += held
        right[:, :, n : n + self.equations] = self.stage.requirement
        right[:, :, n + self.equations :] = targets
        missing = np.zeros((self.stages, self.width))
        missing[:, -2 * n :] = penalty * np.tile(self.stage.unit_values, 2)
        charges, missing = self.charges, missing.ravel()
        found = linprog(
            np.tile(charges + missing, paths),
            A_eq=self._block_diagonal(paths),
            b_eq=right.ravel(),
            bounds=np.stack((np.zeros(paths * len(self.upper)), np.tile(self.upper, paths)), axis=1),
            method="highs-ds",
        )
        if found.status != 0:
            raise ValueError(f"TargetProgramme: no optimum found ({found.message}); expected stages that can be met")
        variables = found.x.reshape(paths, -1)
        duals = found.eqlin.marginals.reshape(paths, self.stages, self.height)
        columns = variables.reshape(paths, self.stages, self.width)
        return Solution(
            cost=variables @ charges,
            penalty=variables @ missing,
            kept=columns[:, :, :n],
            missed=columns[:, :, -2 * n : -n] - columns[:, :, -n:],
            by_target=duals[:, :, n + self.equations :],
            by_held=duals[:, 0, :n],
            variables=variables,
        )

    def sensitivity(self, solution: Solution) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the derivatives of the amounts kept at the end in those held at the start and in the targets.

        Variables at their bounds stay there, the others follow the equations. Where too few are free to follow
        (degenerate optima, where the true derivative is one-sided) those that come nearest do.

        Returns:
            `[paths, held, held]`, and `[paths, held, stages, held]`; the first axis of both after the paths is what is
            kept.
        """
        paths, n = len(solution.cost), self.held
        x = solution.variables
        margin = _INTERIOR * max(1.0, float(np.abs(self.stage.capacity).max()))
        free = (x > margin) & (x < self.upper - margin)
        matrix = self.path.toarray()[None] * free[:, None, :]
        last = slice((self.stages - 1) * self.width, (self.stages - 1) * self.width + n)
        follow = np.linalg.pinv(matrix, rcond=1e-9)[:, last].reshape(paths, n, self.stages, self.height)
        return follow[:, :, 0, :n], follow[:, :, :, n + self.equations :]

    def _block_diagonal(self, paths: int) -> Any:
        if self._whole[0] != paths:
            self._whole = paths, sparse.csc_matrix(sparse.kron(sparse.eye(paths), self.path))
        return self._whole[1]


class _Optimum(torch.autograd.Function):
    """Cost and penalty of each path, and what is kept at the end, with derivatives from duals and sensitivities."""

    @staticmethod
    def forward(
        ctx: Any, held: Tensor, targets: Tensor, arriving: Tensor, programme: TargetProgramme, penalty: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Solve the programme; the third result, the penalty alone, has no derivative."""
        start, arrivals, wanted = (tensor.detach().cpu().double().numpy() for tensor in (held, arriving, targets))
        if not all(np.isfinite(array).all() for array in (start, arrivals, wanted)):
            # No solver takes them: what comes out must say so to whoever watches the loss.
            ctx.programme = None
            nowhere = torch.full_like(held, torch.nan)
            return nowhere[:, 0].clone(), nowhere, nowhere[:, 0].clone()
        solution = programme.solve(start, arrivals, wanted, penalty)
        ctx.programme, ctx.solution = programme, solution
        value, last, part = (
            torch.as_tensor(array, dtype=held.dtype, device=held.device)
            for array in (solution.cost + solution.penalty, solution.kept[:, -1], solution.penalty)
        )
        ctx.mark_non_differentiable(part)
        ctx.set_materialize_grads(False)
        return value, last, part

    @staticmethod
    def backward(ctx: Any, by_value: Tensor | None, by_last: Tensor | None, _: Any) -> tuple[Any, ...]:
        """Return the derivatives in the amounts held and in the targets."""
        if ctx.programme is None:
            return None, None, None, None, None
        solution = ctx.solution
        held, targets = np.zeros_like(solution.by_held), np.zeros_like(solution.by_target)
        like = by_value if by_value is not None else by_last
        assert like is not None
        if by_value is not None:
            scale = by_value.cpu().double().numpy()
            held, targets = scale[:, None] * solution.by_held, scale[:, None, None] * solution.by_target
        if by_last is not None and bool(by_last.any()):
            direction = by_last.cpu().double().numpy()
            from_held, from_targets = ctx.programme.sensitivity(solution)
            held = held + np.einsum("pi,pij->pj", direction, from_held)
            targets = targets + np.einsum("pi,pitj->ptj", direction, from_targets)
        gradients = (torch.as_tensor(array, dtype=like.dtype, device=like.device) for array in (held, targets))
        return *gradients, None, None, None


def optimum(
    programme: TargetProgramme, held: Tensor, arriving: Tensor, targets: Tensor, penalty: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return cost and penalty together `[paths]`, what is kept at the end `[paths, held]`, and the penalty alone.

    The first two have derivatives in `held` and `targets`; numbers that are not finite yield NaN. Arguments as
    `TargetProgramme.solve`, as tensors.
    """
    results: tuple[Tensor, Tensor, Tensor] = _Optimum.apply(held, targets, arriving, programme, penalty)
    return results
