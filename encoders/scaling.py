"""Units in which every number of a linear model is of size 1, as powers of two, so that nothing rounds.

    x = 2^d x',   2^r (A 2^d) x' in 2^r [row_lower, row_upper],   2^s (cost 2^d) x'

d makes the reach of a column, the larger of its bounds' sizes, lie in (1/2, 1]; r the largest entry of a row; s the
largest cost. Solvers hold rows, and take numbers for zero, up to absolute tolerances: only in such units do they mean
the same for a network and for that network times a power of two, whose programs become equal bit for bit. Integer
columns keep their unit. A number that leaves float64's normal range is below 2^-1022 of the largest of its row, or
lies so far beyond what the row can reach that its size no longer matters; only such numbers round.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy

from encoders.linear_model import LinearModel

LARGEST = np.finfo(np.float64).max


@dataclass(frozen=True, eq=False)
class Scaling:
    """Exponents of two: rows `(rows,)` r, columns `(columns,)` d, cost s, as in the module docstring.

    uniform: k where all columns have the unit 2^k, and rows and cost keep their numbers; so have those that come later.
    """

    rows: np.ndarray
    columns: np.ndarray
    cost: int
    uniform: int | None = None

    @property
    def value_unit(self) -> float:
        """The size of the objective that is 1 in these units."""
        return float(np.ldexp(1.0, -self.cost))

    def scaled(self, model: LinearModel) -> LinearModel:
        """Return the model in these units."""
        row_lower, row_upper = (self.scaled_ends(end) for end in (model.row_lower, model.row_upper))
        col_lower, col_upper = (self.scaled_point(end) for end in (model.col_lower, model.col_upper))
        A = scipy.sparse.csr_array((self.scaled_entries(model.A), model.A.indices, model.A.indptr), shape=model.A.shape)
        cost = self.scaled_cost(model.cost)
        return LinearModel(
            cost, A, row_lower, row_upper, col_lower, col_upper, model.direction, model.integer
        )  # fmt: skip

    def scaled_entries(self, A: scipy.sparse.csr_array, first_row: int = 0) -> np.ndarray:
        """Return the entries of rows of the matrix, of which `first_row` is the number of the first."""
        count = A.shape[0]
        rows = np.repeat(self.rows[first_row : first_row + count], np.diff(A.indptr))
        return times_power(A.data, rows + self.columns[A.indices])

    def scaled_ends(self, ends: np.ndarray, first_row: int = 0) -> np.ndarray:
        """Return row ends; infinite ones stay so, and no finite one becomes infinite."""
        found = times_power(ends, self.rows[first_row : first_row + len(ends)])
        kept: np.ndarray = np.where(np.isfinite(ends), np.clip(found, -LARGEST, LARGEST), ends)
        return kept

    def scaled_point(self, point: np.ndarray, columns: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Return a point, or the bounds, of the given columns (all by default)."""
        found: np.ndarray = np.clip(times_power(point, -self.columns[columns]), -LARGEST, LARGEST)
        return found

    def scaled_cost(self, cost: np.ndarray) -> np.ndarray:
        """Return a cost, by the unit of value that these units have."""
        found: np.ndarray = np.clip(times_power(cost, self.cost + self.columns), -LARGEST, LARGEST)
        return found

    def scaled_value(self, value: float) -> float:
        """Return a value of the objective; infinite ones stay so."""
        return float(times_power(np.float64(value), self.cost))

    def point(self, scaled: np.ndarray) -> np.ndarray:
        """Return what a point in these units stands for."""
        return times_power(scaled, self.columns)

    def row_dual(self, scaled: np.ndarray) -> np.ndarray:
        """Return multipliers of the model from those in these units."""
        return times_power(scaled, self.rows - self.cost)

    def ray(self, scaled: np.ndarray) -> np.ndarray:
        """Return the multipliers of a refutation, which knows no cost."""
        return times_power(scaled, self.rows)

    def value(self, scaled: float) -> float:
        """Return the value of the objective that one in these units stands for."""
        return float(times_power(np.float64(scaled), -self.cost))

    def with_cost(self, cost: np.ndarray) -> Scaling:
        """Return the units for another cost."""
        return self if self.uniform is not None else replace(self, cost=cost_exponent(cost, self.columns))

    def with_rows(self, rows: scipy.sparse.csr_array) -> Scaling:
        """Return the units with those of more rows at the end."""
        own = row_exponents(rows, self.columns)
        if self.uniform is not None:
            own = np.full(rows.shape[0], -self.uniform)
        return replace(self, rows=np.concatenate([self.rows, own]))


def scaling_of(model: LinearModel) -> Scaling:
    """Return the units of a model. Those of a model that is already scaled are 1."""
    reach = np.maximum(np.abs(model.col_lower), np.abs(model.col_upper))
    is_live = (reach > 0) | model.integer
    columns = np.where(is_live & ~model.integer, exponents(reach), 0)
    rows = row_exponents(model.A, columns, is_live)
    # What is always 0 has no size: its unit is that in which the largest entry of its column is 1.
    by_column = scipy.sparse.csr_array(model.A.T)
    own = row_exponents(by_column, rows)
    columns = np.where(is_live | (np.diff(by_column.indptr) == 0), columns, own)
    return Scaling(rows, columns, cost_exponent(model.cost, columns))


def uniform_scaling(model: LinearModel, exponent: int) -> Scaling:
    """Return the units in which all columns, rows and the cost are measured by 2^exponent: another unit of x alone."""
    return Scaling(np.full(model.rows, -exponent), np.full(model.columns, exponent), -exponent, exponent)


def exponents(sizes: np.ndarray) -> np.ndarray:
    """Return the least k with |size| <= 2^k, 0 for 0."""
    mantissas, found = np.frexp(np.abs(sizes))
    least: np.ndarray = found.astype(np.int64) - (mantissas == 0.5)
    return least


def unit(size: float) -> float:
    """Return the least power of two that is no less than |size|, 1 for 0."""
    return float(np.ldexp(1.0, int(exponents(np.array([size]))[0])))


def times_power(values: np.ndarray | np.float64, powers: np.ndarray | int) -> np.ndarray:
    """Return values 2^powers, rounded once where they leave the normal range."""
    with np.errstate(over="ignore", under="ignore"):
        found: np.ndarray = np.ldexp(values, powers)
    return found


def row_exponents(A: scipy.sparse.csr_array, columns: np.ndarray, counted: np.ndarray | None = None) -> np.ndarray:
    """Return -k of each row for its largest entry 2^k at most, its columns being in units of 2^columns.

    counted: the columns that matter where a row has one of them that is not 0.
    """
    nothing = np.iinfo(np.int64).min
    own = np.where(A.data != 0, exponents(A.data) + columns[A.indices], nothing)
    found = np.full(A.shape[0], nothing)
    filled = np.diff(A.indptr) > 0
    if filled.any():
        starts = A.indptr[:-1][filled]
        found[filled] = np.maximum.reduceat(own, starts)
        if counted is not None:
            live = np.maximum.reduceat(np.where(counted[A.indices], own, nothing), starts)
            found[filled] = np.where(live == nothing, found[filled], live)
    return np.where(found == nothing, 0, -found)


def cost_exponent(cost: np.ndarray, columns: np.ndarray) -> int:
    """Return -k of the largest cost, 2^k at most, in these units of the columns; 0 without any."""
    is_some = cost != 0
    return -int((exponents(cost) + columns)[is_some].max()) if is_some.any() else 0
