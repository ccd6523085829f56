"""The `restrict` view: the linear piece of an op that is active at a point, and the conditions that keep it.

For linear ops the piece is the op itself and nothing has to be kept. A relu, a leaky relu, an absolute value and a
maximum over windows pick, for each output, one of their inputs and a factor: a `Selection`. Conditions are closed
(>= 0), so neighbouring pieces share their border and agree on it. Bastani et al. (2016), section 4, print the two
right-hand sides of the relu the wrong way round: x <= 0 goes with y = 0, x >= 0 with y = x.

Ties. Where a point lies on a border (within a tolerance), the directional derivative along a given direction decides;
where that is zero too, or no direction is given, a relu is taken as inactive and the first cell of a window wins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy
import torch
from torch import Tensor

from encoders.box import Shape


class LinearMap(Protocol):
    """What pieces and linear ops have in common: evaluation, and a sparse matrix."""

    def evaluate(self, *x: Tensor) -> Tensor:
        """Return the value at x `(batch, *shape)`, affine in x."""

    def matrix(self, *shapes: Shape) -> scipy.sparse.csr_array:
        """Return the matrix from the flattened inputs, side by side, to the flattened output; float64."""


@dataclass(frozen=True, eq=False)
class Selection:
    """The linear map y_j = plus_j x[first_j] - minus_j x[second_j] over the flattened input.

    Tensors are `(batch, outputs)`, or (1, outputs) for one map that serves every x; an index None stands for j.
    """

    shape: Shape
    plus: Tensor
    first: Tensor | None = None
    minus: Tensor | None = None
    second: Tensor | None = None

    def evaluate(self, *x: Tensor) -> Tensor:
        """Return y `(batch, *shape)`, differentiable."""
        flat = x[0].flatten(1)
        value = self.plus * _taken(flat, self.first)
        if self.minus is not None:
            value = value - self.minus * _taken(flat, self.second)
        return value.reshape(flat.shape[0], *self.shape)

    def rows(self, chosen: Tensor, inputs: int) -> Tensor:
        """Return the rows `(k, inputs)` of the matrix for chosen outputs (an index tensor); only for one map."""
        count = torch.arange(len(chosen), device=chosen.device)
        result = self.plus.new_zeros(len(chosen), inputs)
        pairs = ((self.plus, self.first, 1.0), (self.minus, self.second, -1.0))
        for factor, index, sign in pairs:
            if factor is not None:
                columns = chosen if index is None else index[0, chosen]
                result[count, columns] += sign * factor[0, chosen]
        return result

    def matrix(self, *shapes: Shape) -> scipy.sparse.csr_array:
        """Return the matrix; only for one map (batch 1)."""
        if len(self.plus) != 1:
            raise ValueError(f"a selection for {len(self.plus)} points has no single matrix; restrict at one point")
        inputs = int(np.prod(shapes[0], dtype=np.int64))
        result = _scaled_rows(self.plus, self.first, inputs)
        return (
            result
            if self.minus is None
            else scipy.sparse.csr_array(result - _scaled_rows(self.minus, self.second, inputs))
        )


@dataclass(frozen=True, eq=False)
class Restriction:
    """A linear piece of an op, and the map whose values must be >= 0 for the op to equal it (None: always)."""

    piece: LinearMap
    conditions: Selection | None = None


def positive_side(x: Tensor, direction: Tensor | None, tolerance: float) -> Tensor:
    """Return a mask of the shape of x: x > 0, and where |x| <= tolerance whether it rises along the direction."""
    rising = torch.zeros_like(x, dtype=torch.bool) if direction is None else direction > 0
    return torch.where(x.abs() <= tolerance, rising, x > 0)


def elementwise_restriction(active: Tensor, below: float) -> Restriction:
    """Return y = x where `active` `(batch, *shape)`, else below * x, and the conditions x >= 0 or -x >= 0."""
    shape = tuple(active.shape[1:])
    signs = active.flatten(1).to(torch.float64)
    factor = signs + below * (1.0 - signs)
    return Restriction(Selection(shape, factor), Selection(shape, 2.0 * signs - 1.0))


def window_restriction(
    x: Tensor, cells: Tensor, shape: Shape, direction: Tensor | None, tolerance: float, with_relu: bool = False
) -> Restriction:
    """Return the piece of a maximum over windows of the flattened x, with_relu: of max(0, that maximum).

    cells: places `(windows, cells)`, -1 for padding. Conditions, `(batch, windows * cells)`: the winner is at least
    every other cell; with relu either also the winner >= 0, or, where the maximum is not positive, just every cell
    <= 0, whichever of them is the largest (a union of pieces that is convex, hence larger than any one).
    """
    cells = cells.to(x.device)
    present, places = cells >= 0, cells.clamp(min=0)
    values = torch.where(present, x.flatten(1)[:, places], -torch.inf)
    slopes = torch.zeros_like(values) if direction is None else direction.flatten(1)[:, places]
    near = values >= values.amax(dim=2, keepdim=True) - tolerance
    # argmax returns the first of equal values.
    winner = torch.where(near, slopes, -torch.inf).argmax(dim=2, keepdim=True)
    alive = torch.ones_like(winner, dtype=torch.bool)
    if with_relu:
        slope = None if direction is None else slopes.gather(2, winner)
        alive = positive_side(values.gather(2, winner), slope, tolerance)
    is_winner = torch.arange(cells.shape[1], device=x.device) == winner
    first = places.expand(len(x), -1, -1).gather(2, winner)
    keep_winner = torch.full_like(present, with_relu)
    plus = present & alive & (~is_winner | keep_winner)
    minus = present & ~(alive & is_winner)
    conditions = Selection(
        (cells.numel(),),
        plus.flatten(1).to(torch.float64),
        first.expand_as(is_winner).flatten(1),
        minus.flatten(1).to(torch.float64),
        places.flatten()[None],
    )
    return Restriction(Selection(shape, alive.flatten(1).to(torch.float64), first.flatten(1)), conditions)


def _taken(flat: Tensor, index: Tensor | None) -> Tensor:
    if index is None:
        return flat
    # index_select, as the backward pass of an index is ten times slower under vmap.
    return flat.index_select(1, index[0]) if len(index) == 1 else flat.gather(1, index)


def _scaled_rows(factor: Tensor, index: Tensor | None, inputs: int) -> scipy.sparse.csr_array:
    values = factor[0].cpu().numpy().astype(np.float64)
    columns = np.arange(len(values)) if index is None else index[0].cpu().numpy()
    return selection_matrix(columns, inputs, values)


def selection_matrix(columns: np.ndarray, inputs: int, values: np.ndarray | None = None) -> scipy.sparse.csr_array:
    """Return the matrix `(len(columns), inputs)` with one entry a row, 1 or the given value; zeros are left out."""
    entries = np.ones(len(columns)) if values is None else values
    # A copy: leaving out zeros moves the columns in place.
    matrix = scipy.sparse.csr_array(
        (entries, columns, np.arange(len(columns) + 1)), shape=(len(columns), inputs), copy=True
    )
    matrix.eliminate_zeros()
    return matrix
