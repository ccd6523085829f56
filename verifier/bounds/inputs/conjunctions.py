"""Rows over the outputs, some of which must all be met for a point to be unsafe, and what bounds of them say of a box.

A row c y - d is met where it is at most zero. On a box each row has a linear function below it, s x + t, so that the
points where it is met lie in the half-space s x + t <= 0. A group of rows, a polyhedron of the unsafe set, is refuted
where one of its rows is positive all over the box, or a combination of them with weights that are not negative; where
it is not, its points lie in the box that its half-spaces leave, which is mostly smaller. Everything here is rounded so
that no unsafe point is lost.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from encoders.network import Network
from encoders.property import Halfspaces
from encoders.rounding import next_down, next_up, tiny, unit_roundoff
from verifier.bounds.linear.backward import LinearFunctions

# Steps towards the best weights of the rows of a group.
WEIGHT_STEPS = 12
# Rounds in which the half-spaces of a group shrink a box, each in the box that the others left.
ROUNDS = 2


@dataclass(frozen=True, eq=False)
class Conjunctions:
    """The unsafe points of a network: those where all rows of a group are met.

    coefficients: `(rows, *output_shape)` float64; offsets: `(rows,)`, d. groups: the rows of each group, one after the
    other.
    """

    network: Network
    coefficients: Tensor
    offsets: Tensor
    groups: tuple[slice, ...]

    @classmethod
    def of_class(cls, network: Network, winner: int) -> Conjunctions:
        """Return those of the question whether a class is strictly above every other: one row for each rival."""
        outputs = network.output_shape[0]
        rivals = [k for k in range(outputs) if k != winner]
        rows = -torch.eye(outputs, dtype=torch.float64)[rivals]
        rows[:, winner] = 1.0
        groups = tuple(slice(k, k + 1) for k in range(len(rivals)))
        return cls(network, rows, torch.zeros(len(rivals), dtype=torch.float64), groups)

    @classmethod
    def of_polyhedra(cls, network: Network, unsafe: tuple[Halfspaces, ...]) -> Conjunctions:
        """Return those of a property: a group for each polyhedron."""
        ends = torch.tensor([len(halfspaces.offsets) for halfspaces in unsafe]).cumsum(0).tolist()
        groups = tuple(slice(start, end) for start, end in zip([0, *ends], ends, strict=False))
        rows = torch.cat([halfspaces.coefficients for halfspaces in unsafe])
        offsets = torch.cat([halfspaces.offsets for halfspaces in unsafe])
        return cls(network, rows.reshape(-1, *network.output_shape), offsets, groups)

    def excess(self, points: Tensor) -> Tensor:
        """Return for points `(count, *input_shape)` by how much the nearest group fails to be met, in floats.

        At most zero where a point is unsafe.
        """
        rows = self.network.evaluate(points).to(torch.float64).flatten(1) @ self.coefficients.flatten(1).T
        return self.worst(rows - self.offsets).amin(dim=1)

    def worst(self, rows: Tensor) -> Tensor:
        """Return the greatest value `(batch, groups)` of each group's rows `(batch, rows)`."""
        return torch.stack([rows[:, group].amax(dim=1) for group in self.groups], dim=1)


@dataclass(frozen=True, eq=False)
class HalfspacesOfBox:
    """Half-spaces slopes . x + constant <= 0 that hold the points of boxes where rows are met.

    slopes: `(batch, rows, inputs)`; constant: `(batch, rows)`, rounded down; lower, upper: the boxes `(batch, inputs)`.
    """

    slopes: Tensor
    constant: Tensor
    lower: Tensor
    upper: Tensor

    @classmethod
    def of(cls, below: LinearFunctions, offsets: Tensor, lower: Tensor, upper: Tensor) -> HalfspacesOfBox:
        """Return those of the rows c y with functions `below`, and offsets d `(rows,)`."""
        constant = next_down(below.constant - offsets)
        return cls(below.slopes.flatten(2), constant, lower, upper)

    def combined(self, group: slice) -> Tensor:
        """Return lower bounds `(batch,)` of a combination of the group's rows on the boxes, whose weights sum to 1.

        The weights come from a few steps of exponentiated ascent; the bound holds for any.
        """
        slopes, constant = self.slopes[:, group], self.constant[:, group]
        scale = (slopes.abs() * (self.upper - self.lower)[:, None]).sum(dim=2).amax(dim=1, keepdim=True)
        rate = 4.0 / scale.clamp(min=tiny(scale.dtype))
        weights = torch.full_like(constant, 1.0 / constant.shape[1])
        best = torch.full_like(constant[:, 0], -torch.inf)
        for step in range(WEIGHT_STEPS):
            total = (weights[:, :, None] * slopes).sum(dim=1)
            corner = torch.where(total > 0, self.lower, self.upper)
            best = torch.maximum(best, self._bound(weights, slopes, constant, total))
            values = (slopes * corner[:, None]).sum(dim=2) + constant
            weights = weights * ((values - values.amax(dim=1, keepdim=True)) * rate / (1.0 + step) ** 0.5).exp()
            weights = weights / weights.sum(dim=1, keepdim=True)
        return best.nan_to_num(-torch.inf, -torch.inf, -torch.inf)

    def _bound(self, weights: Tensor, slopes: Tensor, constant: Tensor, total: Tensor) -> Tensor:
        """Return the least value of the weighted sum of functions over the boxes, rounded down.

        total: the weighted slopes `(batch, inputs)` in floats, which err by a share of their sizes.
        """
        reach = torch.maximum(self.lower.abs(), self.upper.abs())
        least = torch.minimum(total * self.lower, total * self.upper).sum(dim=1) + (weights * constant).sum(dim=1)
        sizes = (weights[:, :, None] * slopes.abs()).sum(dim=1)
        size = (sizes * reach).sum(dim=1) + (weights * constant.abs()).sum(dim=1)
        count = slopes.shape[1] + slopes.shape[2] + 8
        return (
            least - size * (4.0 * count * unit_roundoff(size.dtype)) - count * tiny(size.dtype) * (1.0 + reach.sum(1))
        )

    def left(self, group: slice) -> tuple[Tensor, Tensor]:
        """Return the least boxes (lower, upper) `(batch, inputs)` known to hold the points that the group's rows allow.

        Crossed ends say that there are none.
        """
        lower, upper = self.lower, self.upper
        for _ in range(ROUNDS):
            for row in range(group.start, group.stop):
                lower, upper = _cut(self.slopes[:, row], self.constant[:, row], lower, upper)
        return lower, upper


def _cut(slopes: Tensor, constant: Tensor, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Return boxes that hold the points of boxes with slopes . x + constant <= 0: each coordinate with others best."""
    ends = torch.minimum(slopes * lower, slopes * upper)
    total = ends.sum(dim=1, keepdim=True) + constant[:, None]
    size = ends.abs().sum(dim=1, keepdim=True) + constant[:, None].abs()
    slack = size * (4.0 * (slopes.shape[1] + 8) * unit_roundoff(size.dtype)) + 4.0 * slopes.shape[1] * tiny(size.dtype)
    # slopes_i x_i is at most this, the others as low as they can be.
    room = (slack - total) + ends
    end = room / slopes
    rising = (slopes > 0) & end.isfinite()
    falling = (slopes < 0) & end.isfinite()
    upper = torch.where(rising, torch.minimum(upper, next_up(end)), upper)
    return torch.where(falling, torch.maximum(lower, next_down(end)), lower), upper
