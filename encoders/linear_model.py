"""A linear or mixed-integer model that carries what may be concluded from it.

    minimise cost x   subject to   row_lower <= A x <= row_upper,  col_lower <= x <= col_upper,  x_j integer where said

The direction says how the model's solutions relate to the constraint program it stands for: OUTER contains them all
(it may prove), INNER is contained (it may find), EXACT both.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import numpy as np
import scipy


class Direction(enum.StrEnum):
    """How a model's solutions relate to those of the program it stands for."""

    OUTER = "outer"
    INNER = "inner"
    EXACT = "exact"

    @property
    def may_prove(self) -> bool:
        """Whether infeasibility, or a bound, carries over to the program."""
        return self in (Direction.OUTER, Direction.EXACT)


@dataclass(frozen=True, eq=False)
class LinearModel:
    """The arrays of the module docstring; float64, checked on construction.

    A: `(rows, columns)`. Row ends may be infinite on one side; every column is bounded on both (dual bounds need
    that). integer: mask `(columns,)`. Raises ValueError naming the first entry that does not fit.
    """

    cost: np.ndarray
    A: scipy.sparse.csr_array
    row_lower: np.ndarray
    row_upper: np.ndarray
    col_lower: np.ndarray
    col_upper: np.ndarray
    direction: Direction
    integer: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))

    def __post_init__(self) -> None:
        columns = len(self.cost)
        if not len(self.integer):
            object.__setattr__(self, "integer", np.zeros(columns, dtype=bool))
        rows = len(self.row_lower)
        shapes = {
            "A": (self.A.shape, (rows, columns)),
            "row_upper": (self.row_upper.shape, (rows,)),
            "col_lower": (self.col_lower.shape, (columns,)),
            "col_upper": (self.col_upper.shape, (columns,)),
            "integer": (self.integer.shape, (columns,)),
        }
        for name, (found, wanted) in shapes.items():
            if tuple(found) != wanted:
                raise ValueError(f"linear model: {name} has shape {tuple(found)}, expected {wanted}")
        if not np.isfinite(self.cost).all() or not np.isfinite(self.A.data).all():
            raise ValueError("linear model: a coefficient is NaN or infinite")
        loose = ~(np.isfinite(self.col_lower) & np.isfinite(self.col_upper))
        if loose.any():
            j = int(np.flatnonzero(loose)[0])
            ends = f"[{self.col_lower[j]}, {self.col_upper[j]}]"
            raise ValueError(f"linear model: column {j} is not bounded: {ends}; give it finite bounds")
        # Not (lower <= upper) also catches NaN.
        for name, lower, upper in (
            ("row", self.row_lower, self.row_upper),
            ("column", self.col_lower, self.col_upper),
        ):
            wrong = ~(lower <= upper)
            if wrong.any():
                i = int(np.flatnonzero(wrong)[0])
                raise ValueError(f"linear model: {name} {i} has lower end {lower[i]} above its upper end {upper[i]}")

    @property
    def columns(self) -> int:
        """The number of variables."""
        return len(self.cost)

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.row_lower)

    def violation(self, x: np.ndarray) -> float:
        """Return by how much x breaks the worst row or column bound (0 if none), integrality not counted."""
        values = self.A @ x
        parts = (self.row_lower - values, values - self.row_upper, self.col_lower - x, x - self.col_upper)
        return max(0.0, *(float(part.max(initial=0.0)) for part in parts))

    def dual_bound(self, row_dual: np.ndarray) -> float:
        """Return a lower bound of the minimum from multipliers of any quality (weak duality); float64, not directed.

        sum_i (y_i > 0: y_i row_lower_i, else y_i row_upper_i) + sum_j min over the column's bounds of
        (cost - A^T y)_j x_j. A multiplier whose row end is infinite counts as 0. Valid for integer columns too. Minus
        infinity where the numbers overflow.
        """
        y = np.where((row_dual > 0) & np.isfinite(self.row_lower), row_dual, 0.0)
        y += np.where((row_dual < 0) & np.isfinite(self.row_upper), row_dual, 0.0)
        ends = np.where(y > 0, self.row_lower, np.where(y < 0, self.row_upper, 0.0))
        with np.errstate(over="ignore", invalid="ignore"):
            reduced = self.cost - self.A.T @ y
            found = float(y @ ends + np.minimum(reduced * self.col_lower, reduced * self.col_upper).sum())
        return found if np.isfinite(found) else -np.inf


class RowBuilder:
    """Collects blocks of rows over a fixed number of columns; `stack` joins them once."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self._blocks: list[scipy.sparse.csr_array] = []
        self._ends: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, block: scipy.sparse.csr_array, lower: np.ndarray | float, upper: np.ndarray | float) -> None:
        """Take in rows `(k, columns)` with their ends, one for all or one each."""
        if block.shape[1] != self.columns:
            raise ValueError(f"rows over {block.shape[1]} columns do not fit {self.columns}")
        count = block.shape[0]
        self._blocks.append(scipy.sparse.csr_array(block, dtype=np.float64))
        ends = [np.broadcast_to(np.asarray(end, dtype=np.float64), (count,)) for end in (lower, upper)]
        self._ends.append((ends[0], ends[1]))

    def stack(self) -> tuple[scipy.sparse.csr_array, np.ndarray, np.ndarray]:
        """Return (A, row_lower, row_upper)."""
        if not self._blocks:
            return scipy.sparse.csr_array((0, self.columns), dtype=np.float64), np.zeros(0), np.zeros(0)
        lower, upper = (np.concatenate(parts) for parts in zip(*self._ends, strict=True))
        return scipy.sparse.csr_array(scipy.sparse.vstack(self._blocks, format="csr")), lower, upper
