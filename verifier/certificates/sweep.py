"""One way back through the rows of a network: what multipliers prove, with every rounding bounded.

`verifier.certificates.split_program` says what the rows are and why the bound holds for any multipliers.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from encoders.network import INPUT
from verifier.certificates.dual_bound import TINY, U

# The least and the greatest values of a node's units, `(boxes, values)`.
Ends = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Equations:
    """Rows lower <= sum_k W_k x_k - d y <= upper of an affine node; size: |W| |x| + d |y| at the ends of the boxes."""

    name: str
    inputs: tuple[tuple[str, np.ndarray | scipy.sparse.csr_array], ...]
    divisor: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    size: np.ndarray


@dataclass(frozen=True, eq=False)
class HingeRows:
    """A hinge node: the node it reads, its left slope, and where its units stand among those of all hinges."""

    name: str
    source: str
    left: float
    units: slice


@dataclass(frozen=True, eq=False)
class Planes:
    """Rows y <= g x + d over the input x for units of one hinge, which hold on the whole box of the input.

    hinge: its name; units: `(p,)`, places among its values; matrix: g, `(groups, p, inputs)`; offset: d, `(groups, p)`;
    groups: `(batch,)`, which of these each row that is bounded takes.
    """

    hinge: str
    units: np.ndarray
    matrix: np.ndarray
    offset: np.ndarray
    groups: np.ndarray


@dataclass(frozen=True, eq=False)
class ProgramRows:
    """All rows that a way back meets, in the order of the nodes.

    ends: of each node. reach: the greatest absolute values `(values,)` of each. largest_sum: the greatest number of
    entries of a column.
    """

    blocks: Sequence[Equations | HingeRows]
    ends: Mapping[str, Ends]
    reach: Mapping[str, np.ndarray]
    largest_sum: int


class Sweep:
    """One evaluation of the bound: from the output back, a multiplier for every row.

    reduced: by node, the cost of its columns less the rows' share so far, `(batch, values)`. At the end it is
    c - A^T m, each entry a sum of at most `largest_sum` products, in some order: it errs by at most gamma_k times
    |c| + |A|^T |m| (Higham 2002, section 3.1), of which `size` is the scalar product with the greatest |x|.
    signs, slopes, multipliers: `(batch, units)`; without slopes each unit takes the side of its box that is longer.
    of: `(batch,)`, which box each row is about; without it there is one box. planes: in place of the lines above open
    units that have one.
    """

    # Nodes whose columns count in the totals already.
    settled: tuple[str, ...] = ()

    def __init__(
        self,
        program: ProgramRows,
        name: str,
        rows: np.ndarray,
        signs: np.ndarray | None,
        slopes: np.ndarray | None,
        multipliers: np.ndarray | None,
        of: np.ndarray | None = None,
        planes: Planes | None = None,
    ) -> None:
        self.program, self.planes = program, planes
        # Of how many products a reduced cost is the sum, at most: an input has an entry in the row of every plane.
        self.largest_sum = program.largest_sum + (0 if planes is None else len(planes.units) + 2)
        count = len(rows)
        self.slopes = None if slopes is None else np.clip(np.nan_to_num(slopes), 0.0, 1.0).astype(np.float64)
        self.multipliers: dict[str, np.ndarray] = {}
        self.ends: dict[str, Ends] = dict(program.ends)
        self.of: np.ndarray | slice = slice(None) if of is None else of
        if signs is not None and of is not None:
            # Rows with signs of their own have boxes of their own; all others about a box share its lines.
            self.ends, self.of = {name: (low[of], high[of]) for name, (low, high) in self.ends.items()}, slice(None)
        for hinge in (block for block in program.blocks if isinstance(block, HingeRows)):
            lower, upper = self.ends[hinge.source]
            if signs is not None:
                own = signs[:, hinge.units]
                lower = np.where(own > 0, np.maximum(lower, 0.0), lower)
                upper = np.where(own < 0, np.minimum(upper, 0.0), upper)
            self.ends[hinge.source] = (lower, upper)
            if multipliers is not None:
                own = np.nan_to_num(multipliers[:, hinge.units]).astype(np.float64)
                self.multipliers[hinge.source] = self.multipliers.get(hinge.source, 0.0) + own
        self.reduced: dict[str, np.ndarray] = {name: np.array(rows, dtype=np.float64)}
        # Sums of the row ends' share, of its size, and of what bounds the errors of the reduced costs.
        self.total, self.total_size = np.zeros(count), np.zeros(count)
        self.size = np.abs(rows) @ program.reach[name]
        self.summed = 0
        for block in reversed(program.blocks):
            if block.name in self.reduced:
                self._hinge(block) if isinstance(block, HingeRows) else self._equations(block)

    def with_input(self, cost: np.ndarray) -> Sweep:
        """Return the sweep with a function of the input `(batch, inputs)` added to its rows."""
        made = copy.copy(self)
        made.reduced = dict(self.reduced)
        made.size = self.size + np.abs(cost) @ self.program.reach[INPUT]
        made._take(INPUT, -cost)
        return made

    def repeated(self, times: int) -> Sweep:
        """Return the sweep with all its rows so many times over, whose columns but those of the input are settled."""
        made = copy.copy(self)
        others = {name: reduced for name, reduced in self.reduced.items() if name != INPUT}
        made._add_columns(others)
        made.settled = (*self.settled, *others)
        made.reduced = {name: np.tile(self.reduced[name], (times, 1)) for name in self.reduced if name == INPUT}
        made.total, made.total_size, made.size = (np.tile(v, times) for v in (made.total, made.total_size, made.size))
        return made

    def bound(self) -> np.ndarray:
        """Return the bounds `(batch,)` once all rows have their multipliers; -inf where they overflow."""
        program = self.program
        self._add_columns(self.reduced)
        gamma = 2.0 * (self.largest_sum + 8) * U
        error = self.total_size * (2.0 * (self.summed + 16) * U) + self.size * (gamma * (1.0 + 64.0 * self.summed * U))
        columns = sum(float(program.reach[name].sum()) for name in (*self.settled, *self.reduced))
        error += (self.summed + 16) * 16.0 * TINY * (1.0 + columns)
        bound = self.total - error * (1.0 + 8.0 * U)
        bound = np.nextafter(bound, -np.inf)
        return np.where(np.isfinite(bound), bound, -np.inf)

    def _add_columns(self, columns: Mapping[str, np.ndarray]) -> None:
        """Add the least that reduced costs `(batch, values)`, by node, give on the boxes to the totals."""
        for name, reduced in columns.items():
            lower, upper = (end[self.of] for end in self.ends[name])
            self._add(np.minimum(reduced * lower, reduced * upper))

    def _add(self, terms: np.ndarray) -> None:
        """Add `(batch, k)` terms to the totals."""
        self.total = self.total + terms.sum(axis=1)
        self.total_size = self.total_size + np.abs(terms).sum(axis=1)
        self.summed += terms.shape[1] + 2

    def _cost(self, name: str) -> np.ndarray:
        """Return what the node's own rows are to take off its columns: the reduced cost but for the multiplier."""
        reduced = self.reduced[name]
        return reduced - self.multipliers[name] if name in self.multipliers else reduced

    def _take(self, name: str, share: np.ndarray) -> None:
        """Take the rows' share `(batch, values)` off the reduced cost of a node's columns."""
        self.reduced[name] = self.reduced[name] - share if name in self.reduced else -share

    def _equations(self, block: Equations) -> None:
        m = -self._cost(block.name) / block.divisor
        self._add(m * np.where(m > 0, block.lower, block.upper))
        self.size = self.size + np.abs(m) @ block.size
        self._take(block.name, -m * block.divisor)
        for name, weights in block.inputs:
            share = m @ weights if isinstance(weights, np.ndarray) else (weights.T @ m.T).T
            self._take(name, share)

    def _hinge(self, block: HingeRows) -> None:
        cost = self._cost(block.name)
        lower, upper = self.ends[block.source]
        slope, offset = upper_line(lower, upper, block.left)
        above = np.maximum(-cost, 0.0)
        slope, offset = slope[self.of], offset[self.of]
        own = None if self.slopes is None else self.slopes[:, block.units]
        longer = np.where(upper > -lower, 1.0, 0.0)[self.of] if own is None else own
        # Where the sign is known the hinge is one of its two sides.
        share = np.where((lower >= 0)[self.of], 1.0, np.where((upper <= 0)[self.of], 0.0, longer))
        right = -share * np.maximum(cost, 0.0)
        left = np.minimum(-np.maximum(cost, 0.0) - right, 0.0)
        on_line = above
        if self.planes is not None and block.name == self.planes.hinge:
            on_line = self._above_planes(self.planes, above, ((lower < 0) & (upper > 0))[self.of])
        self._add(-on_line * offset)
        reach_x, reach_y = self.program.reach[block.source], self.program.reach[block.name]
        at_x = on_line * np.abs(slope) - right - left * abs(block.left)
        self.size = self.size + 2.0 * (at_x @ reach_x + (above - right - left) @ reach_y)
        self._take(block.name, -(above + right + left))
        self._take(block.source, on_line * slope + right + left * block.left)

    def _above_planes(self, planes: Planes, above: np.ndarray, is_open: np.ndarray) -> np.ndarray:
        """Give multipliers `(batch, values)` to the planes of open units; return what is left to lines."""
        own = np.where(is_open[:, planes.units], above[:, planes.units], 0.0)
        self._add(-own * planes.offset[planes.groups])
        share = np.zeros((len(own), planes.matrix.shape[2]))
        size = np.zeros((len(planes.matrix), len(planes.units)))
        for group in np.unique(planes.groups).tolist():
            rows = planes.groups == group
            share[rows] = own[rows] @ planes.matrix[group]
            size[group] = np.abs(planes.matrix[group]) @ self.program.reach[INPUT]
        at_x = (own * size[planes.groups]).sum(axis=1)
        # Of y the rows' part of the errors is counted with those of lines.
        self.size = self.size + 2.0 * at_x
        self._take(INPUT, share)
        on_line = above.copy()
        on_line[:, planes.units] -= own
        return on_line


def upper_line(lower: np.ndarray, upper: np.ndarray, left: float) -> tuple[np.ndarray, np.ndarray]:
    """Return (slope, offset) of a line above the hinge on [lower, upper]: rounded up at both ends, so between too."""
    is_open = (lower < 0) & (upper > 0)
    width = np.where(is_open, upper - lower, 1.0)
    slope = np.where(is_open, (upper - left * lower) / width, np.where(lower >= 0, 1.0, left))
    ends = np.maximum(left * lower - slope * lower, upper - slope * upper)
    size = np.abs(lower) * (abs(left) + np.abs(slope)) + np.abs(upper) * (1.0 + np.abs(slope))
    return slope, np.where(is_open, ends + 8.0 * U * size + 4.0 * TINY, 0.0)
