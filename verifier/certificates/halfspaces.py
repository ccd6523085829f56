"""Half-spaces that hold the points of boxes where rows are met, and what they leave of these boxes.

A row c y - d is met where it is at most zero. On a box it has a linear function below it, s x + t, so that the points
where it is met lie in the half-space s x + t <= 0. Rows that must be met together are refuted where one of them, or a
combination of them with weights that are not negative, is positive all over the box; where they are not, their points
lie in the box that the half-spaces leave, mostly smaller (closed form for one row: Zhou et al. 2025). Everything is
rounded so that no such point is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from encoders.rounding import next_down, next_up, tiny, unit_roundoff

# Steps towards the best weights of the rows of a group.
WEIGHT_STEPS = 12
# Rounds in which the half-spaces of a group shrink a box, each in the box that the others left.
ROUNDS = 2


class LinesBelow(Protocol):
    """Functions slopes . x + constant: `(batch, rows, *input_shape)` and `(batch, rows)`, as real numbers."""

    @property
    def slopes(self) -> Tensor:
        """What each input counts."""

    @property
    def constant(self) -> Tensor:
        """The value at zero."""


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
    def of(cls, below: LinesBelow, offsets: Tensor, lower: Tensor, upper: Tensor) -> HalfspacesOfBox:
        """Return those of the rows c y with functions `below`, and offsets d `(rows,)`."""
        constant = next_down(below.constant - offsets)
        return cls(below.slopes.flatten(2), constant, lower, upper)

    def of_groups(self, groups: Sequence[slice], is_open: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (which groups stay open, the ends of the boxes around what these leave); infinite where none does.

        is_open: `(batch, groups)`. The points of several groups lie in the box around what is left of each.
        """
        is_open = is_open.clone()
        lower, upper = torch.full_like(self.lower, torch.inf), torch.full_like(self.upper, -torch.inf)
        for k, group in enumerate(groups):
            least, greatest = self.left(group)
            is_open[:, k] &= ~(least > greatest).any(dim=1)
            if group.stop - group.start > 1:
                is_open[:, k] &= ~(self.combined(group) > 0)
            keeps = is_open[:, k, None]
            lower = torch.where(keeps, torch.minimum(lower, least), lower)
            upper = torch.where(keeps, torch.maximum(upper, greatest), upper)
        return is_open, lower, upper

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
