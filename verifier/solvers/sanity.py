"""Whether a solver's answer can be an answer to its model: lengths, numbers, rows, and bound against point.

This catches solvers that return garbage, not those that err within reason; an answer that passes is still only the
word of a floating-point solver. Tolerances are wide, and relative: everything is measured in the units in which the
model's numbers are of size 1 (`encoders.scaling`), rows against the size of their terms.
"""

from __future__ import annotations

import numpy as np

from encoders.linear_model import LinearModel
from encoders.scaling import Scaling, scaling_of
from verifier.solvers.base import Solution, Termination

# Solvers hold rows to about 1e-6 after their own scaling, and integers to as much, which a big-M multiplies.
TOLERANCE = 1e-4


def nonsense(model: LinearModel, solution: Solution, start: np.ndarray | None = None) -> str | None:
    """Return what makes the solution no possible answer to the model, or None.

    start: a point that the solver was given; one that keeps all rows refutes "infeasible".
    """
    problem = _wrong_shape(model, solution)
    if problem is not None:
        return problem
    scaling = scaling_of(model)
    scaled = scaling.scaled(model)
    if solution.primal is not None:
        problem = _wrong_point(scaled, scaling, solution.primal, solution.bound)
        if problem is not None:
            return problem
    infeasible = solution.termination is Termination.INFEASIBLE
    if not infeasible or start is None or start.shape != (model.columns,):
        return None
    if _relative_violation(scaled, scaling.scaled_point(start)) == 0:
        return "it calls a model infeasible whose start keeps every row"
    return None


def _wrong_point(scaled: LinearModel, scaling: Scaling, primal: np.ndarray, bound: float) -> str | None:
    """Return what is wrong with a point and a bound, both in the model's units, for the scaled model."""
    point = scaling.scaled_point(primal)
    broken = _relative_violation(scaled, point)
    if not broken <= TOLERANCE:
        return f"its point breaks the model by {broken:.2g} of a row's size"
    value = float(scaled.cost @ point)
    if scaling.scaled_value(bound) > value + TOLERANCE * max(1.0, abs(value)):
        return f"its bound {bound:g} lies above the value {scaling.value(value):g} of its own point"
    return None


def _wrong_shape(model: LinearModel, solution: Solution) -> str | None:
    parts = (("point", solution.primal, model.columns), ("row_dual", solution.row_dual, model.rows),
             ("ray", solution.ray, model.rows))  # fmt: skip
    for name, values, count in parts:
        if values is None:
            continue
        if values.shape != (count,) or values.dtype != np.float64:
            return f"its {name} has {values.dtype} entries of shape {values.shape}, expected {count} numbers"
        if not np.isfinite(values).all():
            return f"its {name} holds NaN or infinity"
    infeasible = solution.termination is Termination.INFEASIBLE
    if np.isnan(solution.bound) or (solution.bound == np.inf and not infeasible):
        return f"its bound is {solution.bound} where it says {solution.termination!s}"
    if infeasible and solution.primal is not None:
        return "it calls the model infeasible and has a point"
    if solution.termination in (Termination.OPTIMAL, Termination.TARGET) and solution.primal is None:
        return f"it says {solution.termination!s} and has no point"
    return None


def _relative_violation(model: LinearModel, x: np.ndarray) -> float:
    """Return by how much x breaks the worst row, column bound or integrality, in units of 1 + the size of its terms."""
    values, size = model.A @ x, 1.0 + abs(model.A) @ np.abs(x)
    integers = x[model.integer]
    parts = (
        (model.row_lower - values) / size,
        (values - model.row_upper) / size,
        (model.col_lower - x) / (1.0 + np.abs(model.col_lower)),
        (x - model.col_upper) / (1.0 + np.abs(model.col_upper)),
        np.abs(integers - np.round(integers)),
    )
    return max(0.0, *(float(part.max(initial=0.0)) for part in parts))
