"""The `relax` view: convex rows between the inputs and the output of an op that hold on a box (Ehlers 2017).

Every row holds in real arithmetic for y = op(x) and every x in the box: coefficients are stored weights or floats that
were chosen, and what rounding makes them miss is part of the row's ends. Rows of ops that are affine with exact floats
are equations. Ranges of single values are no rows: the boxes of the nodes hold them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy
import torch
from torch import Tensor

from encoders.box import Box
from encoders.views.envelope import ElementwiseEnvelope


class Size(NamedTuple):
    """What a block of rows holds: how many rows, and how many entries."""

    rows: int
    entries: int


@dataclass(frozen=True, eq=False)
class Relaxation:
    """Rows lower <= matrix [x; y; a; b] <= upper.

    Columns: the flattened inputs side by side, the flattened output, auxiliary values, binaries. lines: (rows, units)
    of the lines above open hinges, whose ends depend on the box; None for other ops.

    Only of the view `exact`: binaries: how many columns b there are, each 0 or 1. auxiliary: the (lower, upper) ends of
    the columns a, which are continuous. gap: how far y may lie from op(x) at most in a solution with whole binaries
    that keeps x in the box; 0 where the rows hold nothing but y = op(x).
    """

    matrix: scipy.sparse.csr_array
    lower: np.ndarray
    upper: np.ndarray
    lines: tuple[np.ndarray, np.ndarray] | None = None
    binaries: int = 0
    auxiliary: tuple[np.ndarray, np.ndarray] | None = None
    gap: float = 0.0


@dataclass(frozen=True, eq=False)
class Rows:
    """A block of rows: how many, their entries as arrays (row of the block, column, value), their ends."""

    count: int
    entries: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray | float]]
    lower: np.ndarray | float
    upper: np.ndarray | float


def assembled(blocks: list[Rows], columns: int) -> tuple[scipy.sparse.csr_array, np.ndarray, np.ndarray]:
    """Return (matrix, lower, upper) of blocks under each other; entries that are zero are kept."""
    starts = np.concatenate([[0], np.cumsum([block.count for block in blocks])])
    parts = [
        (row + start, column, np.broadcast_to(value, row.shape))
        for block, start in zip(blocks, starts[:-1], strict=True)
        for row, column, value in block.entries
    ]
    row, column, value = (np.concatenate(part) for part in zip(*parts, strict=True))
    lower, upper = (
        np.concatenate([np.broadcast_to(getattr(block, side), (block.count,)) for block in blocks])
        for side in ("lower", "upper")
    )
    matrix = scipy.sparse.csr_array(scipy.sparse.coo_array((value, (row, column)), shape=(int(starts[-1]), columns)))
    return matrix, lower, upper


def linear_relaxation(
    matrix: scipy.sparse.csr_array, constant: np.ndarray, divisor: np.ndarray | float = 1.0
) -> Relaxation:
    """Return the equations matrix x - divisor y = -constant, all of it exact."""
    outputs, inputs = matrix.shape
    # The entry of y goes to the end of each row: joining matrices would sort all entries again.
    starts = matrix.indptr + np.arange(outputs + 1, dtype=matrix.indptr.dtype)
    last = starts[1:] - 1
    data, columns = np.empty(starts[-1]), np.empty(starts[-1], dtype=matrix.indices.dtype)
    inner = np.ones(len(data), dtype=bool)
    inner[last] = False
    data[inner], columns[inner] = matrix.data, matrix.indices
    data[last], columns[last] = -np.asarray(divisor, dtype=np.float64), inputs + np.arange(outputs)
    rows = scipy.sparse.csr_array((data, columns, starts), shape=(outputs, inputs + outputs))
    end = -np.broadcast_to(np.asarray(constant, dtype=np.float64), (outputs,))
    return Relaxation(rows, end, end)


def no_rows(*sizes: int) -> Relaxation:
    """Return the relaxation of an op whose output box says it all; sizes: of the inputs and the output."""
    return Relaxation(scipy.sparse.csr_array((0, sum(sizes)), dtype=np.float64), np.zeros(0), np.zeros(0))


def line_relaxation(envelope: ElementwiseEnvelope, parallel: bool = False) -> Relaxation:
    """Return lower_slope x + lower_offset <= y <= upper_slope x + upper_offset for one box (batch 1).

    parallel: the slopes are equal, so that one row holds both ends.
    """
    slopes = [_flat(slope) for slope in (envelope.lower_slope, envelope.upper_slope)]
    offsets = [_flat(offset) for offset in (envelope.lower_offset, envelope.upper_offset)]
    count = len(slopes[0])
    units = np.arange(count)
    free = np.full(count, np.inf)
    if parallel:
        return _stacked(count, [(units, slopes[0], -offsets[1], -offsets[0])])
    return _stacked(count, [(units, slopes[0], -free, -offsets[0]), (units, slopes[1], -offsets[1], free)])


def hinge_relaxation(envelope: ElementwiseEnvelope, left: float, is_open: Tensor) -> Relaxation:
    """Return the triangle of y = x for x >= 0, left x below, for one box; elsewhere the active line.

    envelope: of the op; its upper line is the chord, or the active line. is_open: mask `(1, *shape)` of units that get
    a triangle, whether or not their sign is known on this box: nested boxes with one mask have one sparsity pattern.
    """
    slope, offset = _flat(envelope.upper_slope), _flat(envelope.upper_offset)
    mask = is_open.flatten().cpu().numpy()
    units, known = np.flatnonzero(mask), np.flatnonzero(~mask)
    free, zero = np.full(len(units), np.inf), np.zeros(len(units))
    blocks = [(units, np.ones(len(units)), -free, zero)]
    if left != 0.0:
        # Of a relu this is the bound y >= 0, which the box holds.
        blocks.append((units, np.full(len(units), left), -free, zero))
    first = len(units) * len(blocks)
    blocks.append((units, slope[units], -offset[units], free))
    blocks.append((known, slope[known], np.zeros(len(known)), np.zeros(len(known))))
    return _stacked(len(slope), blocks, (first + np.arange(len(units)), units))


def exact_hinge(box: Box, left: float) -> Relaxation:
    """Return rows whose solutions are exactly y = x for x >= 0, left x below, on one box; -1 <= left <= 1.

    Of a unit whose sign is open one binary b says which side x is on (Tjeng et al. 2019): y >= x, y >= left x,
    y <= x + (left - 1) l (1 - b), y <= left x + (1 - left) u b. The two constants are rounded up, which cuts nothing
    off: at b = 0 and 1 the other row holds y on its line.
    """
    lower, upper = _flat(box.lower), _flat(box.upper)
    is_open = (lower < 0) & (upper > 0)
    units, known = np.flatnonzero(is_open), np.flatnonzero(~is_open)
    slope = np.where(lower[known] >= 0, 1.0, left)
    # The difference misses by up to one unit in the last place of the product, the product by half of one.
    above_right = _two_up((left - 1.0) * lower[units])
    above_left = _two_up((1.0 - left) * upper[units])
    count, at, line = len(lower), np.arange(len(units)), np.arange(len(known))
    y, b = (at, count + units, -1.0), 2 * count + at
    blocks = [
        Rows(len(at), [(at, units, 1.0), y], -np.inf, 0.0),
        Rows(len(at), [(at, units, left), y], -np.inf, 0.0),
        Rows(len(line), [(line, known, slope), (line, count + known, -1.0)], 0.0, 0.0),
        Rows(len(at), [(at, units, 1.0), y, (at, b, -above_right)], -above_right, np.inf),
        Rows(len(at), [(at, units, left), y, (at, b, above_left)], 0.0, np.inf),
    ]
    return Relaxation(*assembled(blocks, 2 * count + len(at)), binaries=len(at))


def window_relaxation(lower: Tensor, around: tuple[Tensor, Tensor], cells: Tensor) -> Relaxation:
    """Return the rows of a maximum over windows for one box: at least each cell, and below one sum of them.

    lower: ends of the flattened input `(inputs,)`; around: (lower, upper) of a box that holds it and decides which
    cells may win; cells: places `(windows, cells)`, -1 for padding. With l the lower ends, L the greatest and the sum
    over the cells that may win, max x <= sum (x - l) + L, as the winner's own term is there and no other is negative.
    """
    present, places = (cells >= 0).numpy(), cells.clamp(min=0).numpy()
    least, outer_least, outer_most = (end.cpu().numpy() for end in (lower, *around))
    floor = np.where(present, outer_least[places], -np.inf).max(axis=1, keepdims=True)
    may_win = present & (outer_most[places] >= floor)
    windows, inputs = cells.shape[0], len(least)
    row, _ = np.nonzero(present)
    at_least = _entries(row, places[present], windows, inputs, np.arange(len(row)))
    starts = np.concatenate([[0], np.cumsum(may_win.sum(axis=1) + 1)])
    columns, data = np.empty(starts[-1], dtype=np.int64), np.ones(starts[-1])
    last = starts[1:] - 1
    columns[last], data[last] = inputs + np.arange(windows), -1.0
    inner = np.ones(len(columns), dtype=bool)
    inner[last] = False
    columns[inner] = places[may_win]
    above = scipy.sparse.csr_array((data, columns, starts), shape=(windows, inputs + windows))
    greatest = np.where(present, least[places], -np.inf).max(axis=1)
    constant = sum_up(np.column_stack([greatest, np.where(may_win, -least[places], 0.0)]))
    free = np.full(windows, np.inf)
    matrix = scipy.sparse.csr_array(_joined(at_least, above))
    lower_ends = np.concatenate([np.full(len(row), -np.inf), -constant])
    return Relaxation(matrix, lower_ends, np.concatenate([np.zeros(len(row)), free]))


def sum_up(values: np.ndarray) -> np.ndarray:
    """Return an upper bound `(rows,)` of the sums over the second axis, each addition rounded up (TwoSum).

    Infinity where a value is not finite: nothing is claimed there.
    """
    total = values[:, 0]
    with np.errstate(over="ignore", invalid="ignore"):
        for column in values.T[1:]:
            nearest = total + column
            part = nearest - total
            error = (total - (nearest - part)) + (column - part)
            # An error that is not a number is that of an overflow.
            total = np.where(error <= 0, nearest, np.nextafter(nearest, np.inf))
    bound: np.ndarray = np.where(np.isfinite(values).all(axis=1), total, np.inf)
    return bound


def _two_up(values: np.ndarray) -> np.ndarray:
    """Return the float after the next one."""
    moved: np.ndarray = np.nextafter(np.nextafter(values, np.inf), np.inf)
    return moved


def _joined(first: scipy.sparse.csr_array, second: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    """Return the rows of both, explicit zeros and the order of entries kept."""
    data = np.concatenate([first.data, second.data])
    indices = np.concatenate([first.indices, second.indices])
    starts = np.concatenate([first.indptr, second.indptr[1:] + first.indptr[-1]])
    return scipy.sparse.csr_array((data, indices, starts), shape=(first.shape[0] + second.shape[0], first.shape[1]))


def _entries(
    windows: np.ndarray, places: np.ndarray, outputs: int, inputs: int, rows: np.ndarray
) -> scipy.sparse.csr_array:
    """Return rows x[place] - y[window]."""
    columns = np.stack([places, inputs + windows], axis=1).reshape(-1)
    data = np.tile([1.0, -1.0], len(rows))
    return scipy.sparse.csr_array((data, columns, 2 * np.arange(len(rows) + 1)), shape=(len(rows), inputs + outputs))


def _stacked(
    count: int,
    blocks: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]],
    lines: tuple[np.ndarray, np.ndarray] | None = None,
) -> Relaxation:
    """Return rows lower <= slope x_i - y_i <= upper of blocks (units, slope, lower, upper); zero slopes are kept."""
    units, slope, lower, upper = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    columns = np.stack([units, units + count], axis=1).reshape(-1)
    data = np.stack([slope, np.full(len(slope), -1.0)], axis=1).reshape(-1)
    matrix = scipy.sparse.csr_array((data, columns, 2 * np.arange(len(units) + 1)), shape=(len(units), 2 * count))
    return Relaxation(matrix, lower, upper, lines)


def _flat(x: Tensor) -> np.ndarray:
    values: np.ndarray = x.detach().flatten().to(device="cpu", dtype=torch.float64).numpy()
    return values
