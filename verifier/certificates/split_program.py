"""Lower bounds of a network of affine ops and hinges on a subproblem of a box, from multipliers that nobody need trust.

A hinge y = max(x, left x) with x in [l, u] obeys three rows: x - y <= 0, left x - y <= 0 and, with the line s x + t
through its ends, s x - y >= -t (Ehlers 2017); the other ops are equations, max pools are written as relus. For any
multipliers m of the right signs, min c >= sum_i m_i e_i + sum_j min over the column's bounds of (c - A^T m)_j x_j
(Neumaier, Shcherbina 2004). Two numbers a hinge unit name all of them: its slope in [0, 1] shares a positive
coefficient between the first two rows, its multiplier is what is left on x for the bounds of x to hold. Whatever they
are, the result is proved in real arithmetic: every rounding is bounded here. Subproblems are given by signs: +1 splits
off x >= 0, -1 x <= 0, 0 leaves x in its box.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array

from encoders.box import Box
from encoders.network import INPUT, Network, Node
from encoders.passes import expand_max_pools
from encoders.rounding import check_gradual_underflow
from verifier.certificates.dual_bound import TINY, U

# Blocks of the matrix with a larger share of entries are stored dense: products with them are much faster then.
DENSE = 0.1


def split_refusal(network: Network) -> Node | None:
    """Return the first node that is neither affine nor a hinge nor a max pool, which is a tree of hinges; or None."""
    for node in network.nodes:
        if not node.op.linear and node.op.hinge_slope is None and not node.op.maximum:
            return node
    return None


@dataclass(frozen=True, eq=False)
class _Equations:
    """Rows lower <= sum_k W_k x_k - d y <= upper of an affine node; size: |W| |x| + d |y| at the ends of the boxes."""

    name: str
    inputs: tuple[tuple[str, np.ndarray | csr_array], ...]
    divisor: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    size: np.ndarray


@dataclass(frozen=True, eq=False)
class _Hinge:
    """A hinge node: the node it reads, its left slope, and where its units stand among those of all hinges."""

    name: str
    source: str
    left: float
    units: slice


class SplitProgram:
    """The rows of a network on a box, node by node, and the bounds that follow from them (float64, outward).

    network: affine ops, hinges and max pools, any graph; box: batch 1. `advance` goes on to the next node that a hinge
    reads, whose box may then be tightened; the boxes of later nodes follow from it. boxes: of the nodes so far. units:
    how many there are in all hinges so far. Raises ValueError naming a node of another kind.
    """

    def __init__(self, network: Network, box: Box) -> None:
        other = split_refusal(network)
        if other is not None:
            raise ValueError(f"node {other.name!r} ({other.op.kind}) is neither affine nor a hinge nor a max pool")
        check_gradual_underflow()
        self.network = expand_max_pools(network).cast(torch.float64, torch.device("cpu"))
        self.boxes: dict[str, Box] = {INPUT: Box.unchecked(box.lower.cpu(), box.upper.cpu())}
        self.hinges: list[_Hinge] = []
        self.units = 0
        self._blocks: list[_Equations | _Hinge] = []
        self._entries: dict[str, np.ndarray] = {INPUT: np.zeros(box.lower[0].numel(), dtype=np.int64)}
        self._left = list(self.network.nodes)
        self._sources = {node.inputs[0] for node in self._left if node.op.hinge_slope is not None}

    def advance(self) -> str | None:
        """Take in nodes up to the next one that a hinge reads and return its name; None once all are in."""
        while self._left:
            node = self._left.pop(0)
            self.boxes[node.name] = node.op.interval(*(self.boxes[name] for name in node.inputs))
            self._entries[node.name] = np.zeros(self.boxes[node.name].lower.numel(), dtype=np.int64)
            left = node.op.hinge_slope
            self._blocks.append(self._equations(node) if left is None else self._hinge(node, left))
            if node.name in self._sources:
                return node.name
        return None

    def open_units(self, name: str) -> np.ndarray:
        """Return the places of a node's flattened units whose sign its box leaves open."""
        lower, upper = self._ends(name)
        return np.flatnonzero((lower < 0) & (upper > 0))

    def tighten(self, name: str, places: np.ndarray, slopes: np.ndarray) -> None:
        """Meet the box of the node just taken in with bounds of some of its units.

        places: `(k,)`; slopes: `(2 k, units)`, those of the bounds of the units, then of their negatives.
        """
        lower, upper = (end.copy() for end in self._ends(name))
        rows = np.zeros((2 * len(places), len(lower)))
        rows[np.arange(len(places)), places] = 1.0
        rows[np.arange(len(places)) + len(places), places] = -1.0
        bounds = self.bounds(name, rows, None, slopes, None)
        lower[places] = np.maximum(lower[places], bounds[: len(places)])
        upper[places] = np.minimum(upper[places], -bounds[len(places) :])
        shape = self.boxes[name].lower.shape
        self.boxes[name] = Box(torch.from_numpy(lower).reshape(shape), torch.from_numpy(upper).reshape(shape))

    def bounds(
        self,
        name: str,
        rows: np.ndarray,
        signs: np.ndarray | None,
        slopes: np.ndarray,
        multipliers: np.ndarray | None,
    ) -> np.ndarray:
        """Return lower bounds `(batch,)` of rows of a node's value on subproblems; -inf where they overflow.

        rows: `(batch, values)`; signs, slopes, multipliers: `(batch, units)`. One that is empty may get any
        number.
        """
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            return _Sweep(self, name, rows, signs, slopes, multipliers).bound()

    # ------------------------------------------------------------------------------------------------- making the rows

    def _ends(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        box = self.boxes[name]
        return box.lower.flatten().numpy(), box.upper.flatten().numpy()

    def reach(self, name: str) -> np.ndarray:
        """Return the greatest absolute values of a node's flattened units, exact."""
        lower, upper = self._ends(name)
        reach: np.ndarray = np.maximum(np.abs(lower), np.abs(upper))
        return reach

    def _hinge(self, node: Node, left: float) -> _Hinge:
        (source,) = node.inputs
        count = len(self._entries[node.name])
        hinge = _Hinge(node.name, source, left, slice(self.units, self.units + count))
        self.units += count
        self._entries[node.name] += 3
        self._entries[source] += 3
        self.hinges.append(hinge)
        return hinge

    def _equations(self, node: Node) -> _Equations:
        """Return the rows of an affine node; AssertionError if they are not one equation for each value."""
        made = node.op.relax(*(self.boxes[name] for name in node.inputs))
        matrix = csr_array(made.matrix)
        count = len(self._entries[node.name])
        own = csr_array(matrix[:, matrix.shape[1] - count :])
        divisor = -own.diagonal()
        assert matrix.shape[0] == count and own.nnz == np.count_nonzero(divisor) == count
        size = np.abs(divisor) * self.reach(node.name)
        self._entries[node.name] += 1
        inputs: list[tuple[str, np.ndarray | csr_array]] = []
        start = 0
        for name in node.inputs:
            width = len(self._entries[name])
            part = csr_array(matrix[:, start : start + width])
            start += width
            size = size + abs(part) @ self.reach(name)
            self._entries[name] += np.bincount(part.indices, minlength=width)
            inputs.append((name, part.toarray() if part.nnz > DENSE * part.shape[0] * width else part))
        # Rounded sums of k terms are at most (1 + 2 k U) below the real ones.
        size *= 1.0 + 2.0 * (matrix.shape[1] + 4) * U
        return _Equations(node.name, tuple(inputs), divisor, made.lower, made.upper, size)

    def largest_sum(self) -> int:
        """Return the greatest number of entries in a column, which bounds how often its reduced cost was rounded."""
        return max(int(entries.max(initial=0)) for entries in self._entries.values())


class _Sweep:
    """One evaluation of the bound of the module docstring: from the output back, a multiplier for every row.

    reduced: by node, the cost of its columns less the rows' share so far, `(batch, values)`. At the end it is
    c - A^T m, each entry a sum of at most `largest_sum` products, in some order: it errs by at most gamma_k times
    |c| + |A|^T |m| (Higham 2002, section 3.1), of which `size` is the scalar product with the greatest |x|.
    """

    def __init__(
        self,
        program: SplitProgram,
        name: str,
        rows: np.ndarray,
        signs: np.ndarray | None,
        slopes: np.ndarray,
        multipliers: np.ndarray | None,
    ) -> None:
        self.program = program
        count = len(rows)
        self.slopes = np.clip(np.nan_to_num(slopes), 0.0, 1.0).astype(np.float64)
        self.multipliers: dict[str, np.ndarray] = {}
        self.ends: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for hinge in program.hinges:
            lower, upper = self.ends.get(hinge.source, program._ends(hinge.source))
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
        self.size = np.abs(rows) @ program.reach(name)
        self.summed = 0
        for block in reversed(program._blocks):
            if block.name in self.reduced:
                self._hinge(block) if isinstance(block, _Hinge) else self._equations(block)

    def bound(self) -> np.ndarray:
        """Return the bounds once all rows have their multipliers."""
        program = self.program
        for name, reduced in self.reduced.items():
            lower, upper = self.ends.get(name, program._ends(name))
            self._add(np.minimum(reduced * lower, reduced * upper))
        gamma = 2.0 * (program.largest_sum() + 8) * U
        error = self.total_size * (2.0 * (self.summed + 16) * U) + self.size * (gamma * (1.0 + 64.0 * self.summed * U))
        error += (
            (self.summed + 16) * 16.0 * TINY * (1.0 + sum(float(program.reach(name).sum()) for name in self.reduced))
        )
        bound = self.total - error * (1.0 + 8.0 * U)
        bound = np.nextafter(bound, -np.inf)
        return np.where(np.isfinite(bound), bound, -np.inf)

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

    def _equations(self, block: _Equations) -> None:
        m = -self._cost(block.name) / block.divisor
        self._add(m * np.where(m > 0, block.lower, block.upper))
        self.size = self.size + np.abs(m) @ block.size
        self._take(block.name, -m * block.divisor)
        for name, weights in block.inputs:
            share = m @ weights if isinstance(weights, np.ndarray) else (weights.T @ m.T).T
            self._take(name, share)

    def _hinge(self, block: _Hinge) -> None:
        cost = self._cost(block.name)
        lower, upper = self.ends[block.source]
        slope, offset = _upper_line(lower, upper, block.left)
        above = np.maximum(-cost, 0.0)
        # Where the sign is known the hinge is one of its two sides.
        share = np.where(lower >= 0, 1.0, np.where(upper <= 0, 0.0, self.slopes[:, block.units]))
        right = -share * np.maximum(cost, 0.0)
        left = np.minimum(-np.maximum(cost, 0.0) - right, 0.0)
        self._add(-above * offset)
        reach_x, reach_y = self.program.reach(block.source), self.program.reach(block.name)
        at_x = above * np.abs(slope) - right - left * abs(block.left)
        self.size = self.size + 2.0 * (at_x @ reach_x + (above - right - left) @ reach_y)
        self._take(block.name, -(above + right + left))
        self._take(block.source, above * slope + right + left * block.left)


def _upper_line(lower: np.ndarray, upper: np.ndarray, left: float) -> tuple[np.ndarray, np.ndarray]:
    """Return (slope, offset) of a line above the hinge on [lower, upper]: rounded up at both ends, so between too."""
    is_open = (lower < 0) & (upper > 0)
    width = np.where(is_open, upper - lower, 1.0)
    slope = np.where(is_open, (upper - left * lower) / width, np.where(lower >= 0, 1.0, left))
    ends = np.maximum(left * lower - slope * lower, upper - slope * upper)
    size = np.abs(lower) * (abs(left) + np.abs(slope)) + np.abs(upper) * (1.0 + np.abs(slope))
    return slope, np.where(is_open, ends + 8.0 * U * size + 4.0 * TINY, 0.0)
