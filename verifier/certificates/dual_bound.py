"""Safe dual bounds: what multipliers prove about a linear program, rounded outward (Neumaier, Shcherbina 2004).

For any y, min cost x >= sum_i y_i e_i + sum_j min over the column's bounds of (cost - A^T y)_j x_j, where e_i is the
lower row end for y_i > 0 and the upper one for y_i < 0. As every column is bounded, that is a number whatever y is: a
solver's multipliers are proposals, and its optimum is never read. This module imports no solver and no bound code.
"""

from __future__ import annotations

import math

import numpy as np

from encoders.linear_model import LinearModel

# Unit roundoff, and the smallest normal number, which bounds any underflow.
U = 2.0**-53
TINY = 2.0**-1022


def safe_bound(model: LinearModel, row_dual: np.ndarray, cost: np.ndarray | None = None) -> float:
    """Return a lower bound of the minimum over the model, in real arithmetic; minus infinity if the numbers overflow.

    cost: instead of the model's. A multiplier that is no number, or whose row end is infinite, counts as 0. Integer
    columns are relaxed.
    """
    target = model.cost if cost is None else cost
    y = np.where(np.isfinite(row_dual), row_dual, 0.0)
    ends = np.where(y > 0, model.row_lower, model.row_upper)
    y = np.where(np.isfinite(ends), y, 0.0)
    ends = np.where(y != 0, ends, 0.0)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        transposed = model.A.T
        reduced = target - transposed @ y
        # |fl(c - A^T y) - (c - A^T y)| <= gamma_(k + 1) (|c| + |A|^T |y|) for k terms in any order (Higham 2002).
        terms = int(np.bincount(model.A.indices, minlength=1).max(initial=0)) + 8
        size = (np.abs(target) + abs(transposed) @ np.abs(y)) * (terms * U / (1.0 - terms * U))
        error = size * (1.0 + 4.0 * terms * U) + 4.0 * terms * TINY
        reach = np.maximum(np.abs(model.col_lower), np.abs(model.col_upper))
        parts = (
            _down(y * ends),
            np.minimum(_down(reduced * model.col_lower), _down(reduced * model.col_upper)),
            _down(-(error * reach)),
        )
        values = np.concatenate(parts)
    if not np.isfinite(values).all():
        return -math.inf
    # fsum is the real sum, rounded once.
    return math.nextafter(math.fsum(values.tolist()), -math.inf)


def proves_empty(model: LinearModel, ray: np.ndarray) -> bool:
    """Return whether a ray of either sign proves that the model has no point (Farkas): a positive bound of 0 x."""
    zero = np.zeros(model.columns)
    return safe_bound(model, ray, zero) > 0 or safe_bound(model, -ray, zero) > 0


def _down(x: np.ndarray) -> np.ndarray:
    """Return floats that are at most the real products, rounded once to x (or flushed to zero)."""
    lower: np.ndarray = np.nextafter(x, -np.inf) - TINY
    return lower
