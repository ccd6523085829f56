"""The robust radius by direct minimisation: the least t with |x - c|_inf <= t and a margin <= 0 (Tjeng et al. 2019).

One rival at a time, each only below the radius of the best witness so far, or all in one program. The dual bounds
raise the lower end, less MARGIN, by the solver's word alone (TRUSTED); a point lowers the upper end once it is
replayed. MARGIN is a share of the inputs' unit, the power of two that their size does not exceed. The rows stand on the
boxes of one ball, so nothing is said about what lies outside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy
import torch
from torch import Tensor

from encoders.formulations.relax import RelaxedNetwork
from encoders.linear_model import LinearModel
from encoders.network import INPUT
from encoders.scaling import scaling_of, unit
from verifier.bounds.programs.milp import ATTEMPTS, Effort, ExactRows, MilpAnswer, programs, stop_reason
from verifier.solvers.base import Solution, Solver, Termination

# What the lower end stays below a solver's bound, in units of the inputs: above its tolerances on the rows that hold
# the distance.
MARGIN = 2e-6
# How near bound and point must come, as a share of the gap that is asked for: the rest is for MARGIN and the replay.
GAP_SHARE = 0.3
# A start may break rows by this share of their largest entry: the rounding of a forward pass.
START_TOLERANCE = 1e-7

# Tries points `(count, *input_shape)`; returns the distance of the nearest replayed counterexample so far.
Nearest = Callable[[Tensor], float]


@dataclass(frozen=True)
class RadiusAnswer:
    """lower: no counterexample lies within it, by the solver's word; -1 if nothing is known. upper: of the nearest
    replayed one. Counts and the reason why the gap is still wide are those of `effort`.
    """

    lower: float
    upper: float
    effort: MilpAnswer


class RadiusSearch:
    """Minimises the distance of counterexamples within one ball (batch 1); nearest: replays points.

    gap: how near bound and point shall come, as a distance. together: whether all rivals are in one program.
    """

    def __init__(
        self, rows: ExactRows, nearest: Nearest, solver: Solver, effort: Effort, gap: float, together: bool = False
    ) -> None:
        self.rows, self.nearest, self.solver, self.effort, self.gap = rows, nearest, solver, effort, gap
        self.together = together
        self.centre = rows.region.centre.flatten().numpy()
        self.margin = MARGIN * input_unit(rows)

    def minimise(self, rows: Tensor, lower: float, witness: Tensor | None, upper: float) -> RadiusAnswer:
        """Return what is known of the least distance of a point where one of rows `(count, outputs)` is <= 0.

        lower: proved before. witness: a replayed point of shape `input_shape` at distance `upper`, or None.
        """
        radius = float(self.rows.region.radius[0])
        bounds: list[float] = []
        reason = ""
        least, _ = self.rows.least(rows)
        for group in programs(least, self.together):
            bound, upper, why = self._one(rows[group].numpy(), lower, min(radius, upper), witness, upper)
            bounds.append(bound)
            reason = why or reason
            if bound <= lower:
                # The rest cannot raise the lower end any more.
                break
        proved = min([radius, *bounds])
        proved = max(lower, math.nextafter(proved - self.margin, -math.inf))
        return RadiusAnswer(proved, upper, self.effort.answer(reason=reason))

    def _one(
        self, rows: np.ndarray, lower: float, most: float, witness: Tensor | None, upper: float
    ) -> tuple[float, float, str]:
        """Return (the bound of the distance where one of rows `(count, outputs)` is <= 0, the distance of the nearest
        witness, why it is not exact).
        """
        best, reason = lower, ""
        for tolerance, segments in ATTEMPTS:
            relaxed = self.rows.encoded(segments)
            if isinstance(relaxed, str):
                return best, upper, f"{reason}; {relaxed}" if reason else relaxed
            if relaxed.is_empty:
                return most, upper, ""
            beaten = self.rows.program(relaxed, rows, 0.0, compare=False)
            model = distance_program(beaten, relaxed.columns[INPUT], self.centre, max(lower, 0.0), most)
            start = None if witness is None else self._start(relaxed, model, witness)
            solution = self.effort.solve(
                self.solver, model, tolerance=tolerance, start=start, gap=GAP_SHARE * self.gap
            )  # fmt: skip
            best = max(best, min(bound_of(model, solution), most))
            if solution.termination is Termination.INFEASIBLE:
                return best, upper, ""
            if solution.primal is not None:
                upper = self.nearest(self.rows.point(relaxed, solution.primal))
            if best > upper + self.margin:
                words = f"{self.solver.name} says that nothing lies within {best:.6g}"
                return lower, upper, f"{words}, but a counterexample at {upper:.6g} replays"
            if upper - best <= self.gap - self.margin:
                return best, upper, ""
            reason = f"no point of {self.solver.name} at the bound {best:.6g} replays in the model"
            if solution.termination is Termination.STOPPED or self.effort.budget.exhausted:
                return best, upper, stop_reason(self.solver, solution, self.effort)
            most = min(most, upper)
        return best, upper, reason

    def _start(self, relaxed: RelaxedNetwork, model: LinearModel, witness: Tensor) -> np.ndarray | None:
        x = witness.to(torch.float64).reshape(1, *self.rows.network.input_shape)
        distance = float(np.abs(x.flatten().numpy() - self.centre).max())
        return completed(relaxed, model, x, distance)


def input_unit(rows: ExactRows) -> float:
    """Return the power of two that no input of the ball exceeds."""
    ends = rows.region.enclosure()
    return unit(float(max(ends.lower.abs().max(), ends.upper.abs().max())))


def distance_program(
    model: LinearModel, inputs: np.ndarray, centre: np.ndarray, least: float, most: float
) -> LinearModel:
    """Return the program: minimise t in [least, most], a last column, where |x - centre| <= t and a model's rows hold.

    inputs: the columns of x in the model, whose own cost is dropped.
    """
    n, columns = len(inputs), model.columns
    picks = scipy.sparse.csr_array((np.ones(n), (np.arange(n), inputs)), shape=(n, columns))
    one = scipy.sparse.csr_array(np.ones((n, 1)))
    rows = scipy.sparse.hstack([model.A, scipy.sparse.csr_array((model.rows, 1))])
    ball = [scipy.sparse.hstack([picks, -one]), scipy.sparse.hstack([picks, one])]
    A = scipy.sparse.vstack([rows, *ball], format="csr")
    free = np.full(n, np.inf)
    cost = np.zeros(columns + 1)
    cost[-1] = 1.0
    return LinearModel(
        cost, scipy.sparse.csr_array(A), np.concatenate([model.row_lower, -free, centre]),
        np.concatenate([model.row_upper, centre, free]), np.append(model.col_lower, min(least, most)),
        np.append(model.col_upper, most), model.direction, np.append(model.integer, False),
    )  # fmt: skip


def bound_of(model: LinearModel, solution: Solution) -> float:
    """Return what a solver proves about the minimum, minus infinity where the model may not prove."""
    return solution.bound if model.direction.may_prove else -math.inf


def completed(relaxed: RelaxedNetwork, model: LinearModel, x: Tensor, distance: float) -> np.ndarray | None:
    """Return the point of a distance program for an input `(1, *shape)`, or None if it is none.

    Values come from a forward pass; columns of no node are as near to 0 as they may be. A binary is 1 where all rows
    that hold it alone allow that, else 0, and of those that exclude each other the first: so the exact rows of hinges
    are met, and those of several rivals. Of a curve's segments it may fail; then there is no start.
    """
    values = {INPUT: x}
    point = np.zeros(model.columns)
    with torch.no_grad():
        for node in relaxed.network.nodes:
            values[node.name] = node.op.evaluate(*(values[name] for name in node.inputs))
    for name, columns in relaxed.columns.items():
        point[columns] = values[name].flatten().numpy()
    point[-1] = distance
    scaling = scaling_of(model)
    model, point = scaling.scaled(model), scaling.scaled_point(point)
    part = scipy.sparse.csr_array(model.A[:, model.integer])
    rows = np.flatnonzero(np.diff(part.indptr) == 1)
    if len(rows):
        places = part.indptr[rows]
        after = (model.A @ point)[rows] + part.data[places]
        fits = (after >= model.row_lower[rows] - START_TOLERANCE) & (after <= model.row_upper[rows] + START_TOLERANCE)
        binaries = np.ones(part.shape[1])
        binaries[part.indices[places[~fits]]] = 0.0
        for row in np.flatnonzero(_is_choice(model, part)).tolist():
            same = part.indices[part.indptr[row] : part.indptr[row + 1]]
            binaries[same[binaries[same] > 0.0][1:]] = 0.0
        point[model.integer] = binaries
    point = np.clip(point, model.col_lower, model.col_upper)
    return scaling.point(point) if model.violation(point) <= START_TOLERANCE else None


def _is_choice(model: LinearModel, part: scipy.sparse.csr_array) -> np.ndarray:
    """Return which rows say that one of some binaries is 1; part: the columns of the binaries."""
    has_others = np.diff(part.indptr) < np.diff(model.A.indptr)
    is_choice: np.ndarray = (
        ~has_others & (np.diff(part.indptr) > 1) & (model.row_lower == 1.0) & (model.row_upper == 1.0)
    )
    return is_choice
