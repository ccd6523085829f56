"""An oracle for piecewise linear networks: the exact least value of rows over a box, pattern by pattern.

A pattern says of each hinge on which side of zero its input is, and of each window which cell is greatest. The points
of the box with one pattern are a polytope on which the network is affine; patterns are built unit by unit, and those
without points are dropped by a linear program (scipy). Written from the definitions, independent of the package's rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import linprog

from encoders.network import Network
from encoders.ops import Abs, Affine, LeakyRelu, MaxPool2d, Relu, Reshape

# Polytopes that miss the constraints by less count as not empty: too many patterns do no harm.
FEASIBLE = 1e-9


@dataclass(frozen=True)
class Piece:
    """The affine function `matrix x + constant` where `conditions x + offsets >= 0` in a box; point: one of these x."""

    lower: np.ndarray
    upper: np.ndarray
    point: np.ndarray
    matrix: np.ndarray
    constant: np.ndarray
    conditions: np.ndarray
    offsets: np.ndarray

    def least(self, cost: np.ndarray) -> tuple[float, np.ndarray] | None:
        """Return the least cost x and where it is, or None if there is no point."""
        ends = np.stack([self.lower, self.upper], axis=1)
        if not len(self.offsets):
            point = np.where(cost > 0, self.lower, self.upper)
            return float(cost @ point), point
        found = linprog(cost, -self.conditions, self.offsets + FEASIBLE, bounds=ends)
        assert found.status in (0, 2), found.message
        return (float(found.fun), found.x) if found.status == 0 else None

    def under(self, conditions: np.ndarray, offsets: np.ndarray) -> Piece | None:
        """Return the piece under more conditions, or None if no point is left."""
        least, greatest = (
            choose(conditions * self.lower, conditions * self.upper).sum(axis=1) + offsets
            for choose in (np.minimum, np.maximum)
        )
        if (greatest < -FEASIBLE).any():
            return None
        bites = least < 0
        part = replace(
            self,
            conditions=np.concatenate([self.conditions, conditions[bites]]),
            offsets=np.concatenate([self.offsets, offsets[bites]]),
        )
        if (conditions @ self.point + offsets >= 0).all():
            return part
        found = part.least(np.zeros(len(self.lower)))
        return None if found is None else replace(part, point=found[1])


def least_values(network: Network, lower: np.ndarray, upper: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the minima over the box of rows `(rows, outputs)` of the output."""
    n = len(lower)
    pieces = [Piece(lower, upper, (lower + upper) / 2, np.eye(n), np.zeros(n), np.zeros((0, n)), np.zeros(0))]
    shape = network.input_shape
    for node in network.nodes:
        op, shape, before = node.op, network.shapes[node.name], shape
        if isinstance(op, Affine):
            weight = op.weight.double().numpy()
            bias = np.zeros(len(weight)) if op.bias is None else op.bias.double().numpy()
            pieces = [replace(p, matrix=weight @ p.matrix, constant=weight @ p.constant + bias) for p in pieces]
        elif isinstance(op, MaxPool2d):
            pieces = _with_winners(pieces, [_window(op, before, place) for place in np.ndindex(*shape)])
        elif not isinstance(op, Reshape):
            left = {Relu: 0.0, Abs: -1.0}.get(type(op), getattr(op, "slope", None))
            assert isinstance(op, Relu | Abs | LeakyRelu) and left is not None
            pieces = _with_signs(pieces, left)
    least = np.full(len(rows), np.inf)
    for piece in pieces:
        costs, constants = rows @ piece.matrix, rows @ piece.constant
        for i, (cost, constant) in enumerate(zip(costs, constants, strict=True)):
            if np.minimum(cost * lower, cost * upper).sum() + constant < least[i]:
                found = piece.least(cost)
                least[i] = least[i] if found is None else min(least[i], found[0] + constant)
    return least


def _with_signs(pieces: list[Piece], left: float) -> list[Piece]:
    """Return the pieces behind hinges of slope 1 for positive values and `left` for negative ones."""
    for unit in range(len(pieces[0].constant)):
        halves = []
        for p in pieces:
            for sign, slope in ((1.0, 1.0), (-1.0, left)):
                scale = np.ones(len(p.constant))
                scale[unit] = slope
                part = p.under(sign * p.matrix[[unit]], sign * p.constant[[unit]])
                if part is not None:
                    halves.append(replace(part, matrix=scale[:, None] * p.matrix, constant=scale * p.constant))
        pieces = halves
    return pieces


def _with_winners(pieces: list[Piece], windows: list[list[int]]) -> list[Piece]:
    """Return the pieces behind maxima over windows, each a list of places."""
    states: list[tuple[Piece, list[int]]] = [(p, []) for p in pieces]
    for cells in windows:
        longer = []
        for p, winners in states:
            for cell in cells:
                others = [c for c in cells if c != cell]
                part = p.under(p.matrix[cell] - p.matrix[others], p.constant[cell] - p.constant[others])
                if part is not None:
                    longer.append((part, [*winners, cell]))
        states = longer
    return [replace(p, matrix=p.matrix[winners], constant=p.constant[winners]) for p, winners in states]


def _window(op: MaxPool2d, shape: tuple[int, ...], place: tuple[int, ...]) -> list[int]:
    """Return the places of a window's cells in the flattened input."""
    channel, row, column = place
    cells = []
    for i in range(op.kernel[0]):
        for j in range(op.kernel[1]):
            y = row * op.stride[0] - op.padding[0] + i * op.dilation[0]
            x = column * op.stride[1] - op.padding[1] + j * op.dilation[1]
            if 0 <= y < shape[1] and 0 <= x < shape[2]:
                cells.append((channel * shape[1] + y) * shape[2] + x)
    return cells
