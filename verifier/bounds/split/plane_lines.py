"""Planes above the units of a first hinge, found in float32: proposals, which `verifier.certificates.planes` proves.

For one row of a network the best planes follow from one point of the box of inputs: where the row's convex bound over
all planes is least (the envelope of a unit at a point is a matter of sorting: Anderson et al. 2020). It is found as the
mean of the corners in which the bounds end, each better answered by the planes that the mean names (fictitious play:
Brown 1951); slopes of the lines below ascend meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.certificates.planes import SHARPNESS, THRESHOLD_STEPS

# Numbers over rows, units and inputs that planes of rows hold side by side, 64 MiB in float32, and that are worked on
# at once: what a core keeps close.
MOST_NUMBERS, CACHED = 1 << 24, 1 << 18
# Steps of a coordinate of a point that is kept: 15 of the 255 give planes as tight, at half the bytes.
KEPT_STEPS = 15
# Steps of Newton's method for thresholds, at first and from those before.
FIRST_NEWTON, NEWTON = 4, 1


@dataclass(frozen=True, eq=False)
class PlaneLines:
    """Planes y <= g x + d for all units of the first hinge of a staged network, in its units.

    matrix: g, `(groups, units, inputs)`; offset: d, `(groups, units)`; groups: `(batch,)`, which each subproblem takes.
    """

    matrix: Tensor
    offset: Tensor
    groups: Tensor

    def __getitem__(self, subproblems: Tensor | slice) -> PlaneLines:
        """Return the planes of some subproblems."""
        return PlaneLines(self.matrix, self.offset, self.groups[subproblems])

    def of(self, groups: Tensor) -> PlaneLines:
        """Return the planes of subproblems that take these groups."""
        return PlaneLines(self.matrix, self.offset, groups)

    def to(self, device: torch.device) -> PlaneLines:
        """Return the same on a device."""
        return PlaneLines(self.matrix.to(device), self.offset.to(device), self.groups.to(device))

    @property
    def offsets(self) -> Tensor:
        """The offsets `(batch, units)` of each subproblem."""
        return self.offset[self.groups]

    def back(self, costs: Tensor) -> Tensor:
        """Return the costs of the inputs `(batch, inputs)` from those `(batch, units)` of planes."""
        return self._times(costs, self.matrix)

    def values(self, points: Tensor) -> Tensor:
        """Return the planes' values `(batch, units)` at points `(batch, inputs)`."""
        return self._times(points, self.matrix.mT) + self.offsets

    def _times(self, values: Tensor, matrices: Tensor) -> Tensor:
        """Return values `(batch, k)` times the matrices `(groups, k, n)` that each takes."""
        count, batch = len(matrices), len(self.groups)
        each = batch // max(1, count)
        if each and torch.equal(self.groups, torch.arange(batch, device=self.groups.device) // each):
            # Groups stand side by side, of one size.
            return torch.bmm(values.reshape(count, each, -1), matrices).flatten(0, 1)
        made = values.new_zeros(batch, matrices.shape[2])
        if 4 * count <= batch:
            for group in range(count):
                some = torch.nonzero(self.groups == group).squeeze(1)
                made[some] = values[some] @ matrices[group]
            return made
        size = max(1, MOST_NUMBERS // max(1, self.matrix[:1].numel()))
        for piece in (slice(start, start + size) for start in range(0, batch, size)):
            made[piece] = torch.bmm(values[piece].unsqueeze(1), matrices[self.groups[piece]]).squeeze(1)
        return made


class UnitsOverBox:
    """The units z = w x + b of a first hinge over a box of inputs, whose planes points and thresholds name.

    weights: `(units, inputs)`, bias: `(units,)`; lower, upper: `(inputs,)`; left: the slope left of zero.
    """

    def __init__(self, weights: Tensor, bias: Tensor, lower: Tensor, upper: Tensor, left: float) -> None:
        self.weights, self.bias, self.left = weights, bias, left
        self.lower, self.width = lower, upper - lower
        # What a unit gains as an input goes through its side of the box, and its greatest value.
        self.gains = (weights * self.width).abs()
        is_rising = weights >= 0
        self.most = bias + torch.where(is_rising, upper, lower).mul(weights).sum(dim=1)
        # How a share falls with a coordinate: a unit's least value lies at 0.
        self._falls = torch.where(is_rising, -SHARPNESS, SHARPNESS)

    def planes(self, points: Tensor, thresholds: Tensor) -> PlaneLines:
        """Return the planes that points `(batch, inputs)` and thresholds `(batch, units)` name."""
        return self._made(points, thresholds, 0)[1]

    def found(self, points: Tensor, before: Tensor | None) -> tuple[Tensor, PlaneLines]:
        """Return (thresholds in their steps, planes) at points: a unit's shares take all of its greatest value.

        points: `(batch, inputs)` in [0, 1], as they are kept; before: thresholds `(batch, units)` from which to go on.
        """
        if before is None:
            return self._made(points, points.new_full((len(points), len(self.bias)), 0.5), FIRST_NEWTON)
        return self._made(points, before, NEWTON)

    def _made(self, points: Tensor, before: Tensor, steps: int) -> tuple[Tensor, PlaneLines]:
        count, (units, inputs) = len(points), self.weights.shape
        thresholds, offset = points.new_empty(2, count, units)
        matrix = points.new_empty(count, units, inputs)
        size = max(1, CACHED // max(1, units * inputs))
        for part in (slice(start, start + size) for start in range(0, count, size)):
            # Of a share, all but what the threshold adds.
            rest = (points[part, None] - 0.5) * self._falls
            thresholds[part] = self._thresholds(rest, before[part], steps)
            shares = rest.add_(_level(thresholds[part])).clamp_(0.0, 1.0)
            own = torch.mul(shares.mul_(1.0 - self.left).add_(self.left), self.weights, out=matrix[part])
            # max of z - g x and of left z - g x over the box.
            offset[part] = torch.maximum(*(self._most(side, own) for side in (1.0, self.left)))
        return thresholds, PlaneLines(matrix, offset, torch.arange(count))

    def _thresholds(self, rest: Tensor, found: Tensor, steps: int) -> Tensor:
        for _ in range(steps):
            shares = rest + _level(found)
            cut = shares.clamp(0.0, 1.0)
            slope = SHARPNESS * ((shares == cut) * self.gains).sum(dim=2)
            lack = self.most - cut.mul_(self.gains).sum(dim=2)
            found = torch.where(slope > 0, found + lack / slope, found + 0.25 * lack.sign()).clamp(-0.5, 1.5)
        return (found * THRESHOLD_STEPS).round() / THRESHOLD_STEPS

    def _most(self, side: float, matrix: Tensor) -> Tensor:
        rest = side * self.weights - matrix if side else -matrix
        return side * self.bias + rest @ self.lower + rest.clamp_(min=0) @ self.width


def _level(thresholds: Tensor) -> Tensor:
    return (0.5 + SHARPNESS * (thresholds - 0.5)).unsqueeze(2)


def rounded(points: Tensor) -> Tensor:
    """Return points in the few steps in which they are kept: a divisor of those that a certificate has."""
    return (points * KEPT_STEPS).round() / KEPT_STEPS
