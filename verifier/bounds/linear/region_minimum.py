"""Least values of linear functions over balls, and the points that attain them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from encoders.box import Box
from encoders.region import BallRegion
from encoders.rounding import tiny, unit_roundoff
from encoders.views.coefficients import BoxMinimum, Coefficients, dot_error, inflated


@dataclass(frozen=True, eq=False)
class RegionMinimum:
    """The least values of linear functions over balls, prepared once for many rows. Rounded down.

    Over the box around the ball, and in the 2- and 1-norm also c . centre - radius ||c|| in the dual norm.
    """

    region: BallRegion
    dtype: torch.dtype = torch.float64

    def __call__(self, coefficients: Coefficients) -> Tensor:
        """Return lower bounds `(batch, rows)`."""
        bound = self._over_box(coefficients)
        if self.region.norm == "inf":
            return bound
        u = unit_roundoff(self.dtype)
        reduction = self.region.radius.to(self.dtype).unsqueeze(1) * self._dual_norm(coefficients.values.flatten(2))
        value = coefficients.dot(self._centre) - abs(coefficients).dot(self._error)
        ball = value - reduction - (value.abs() + reduction) * (8.0 * u) - 8.0 * tiny(self.dtype)
        return torch.maximum(bound, ball.nan_to_num(nan=-torch.inf, posinf=-torch.inf, neginf=-torch.inf))

    def points(self, coefficients: Coefficients, shape: tuple[int, ...]) -> Tensor:
        """Return points `(batch, rows, *shape)` near the least values of functions; not always inside the region."""
        region, box = self.region, self.region.enclosure()
        values = coefficients.full(shape)
        lower, upper, centre = (t.unsqueeze(1) for t in (box.lower, box.upper, region.centre))
        corners = torch.where(values > 0, lower, torch.where(values < 0, upper, centre))
        if region.norm == "inf":
            return corners
        flat = values.flatten(2)
        if region.norm == "2":
            away = flat / flat.norm(dim=2, keepdim=True).clamp(min=tiny(flat.dtype))
        else:
            best = flat.abs().argmax(dim=2, keepdim=True)
            away = torch.zeros_like(flat).scatter(2, best, flat.gather(2, best).sign())
        moved = centre - (away * region.radius[:, None, None]).view(values.shape)
        return torch.minimum(torch.maximum(moved, lower), upper)

    @cached_property
    def box(self) -> Box:
        """The boxes around the balls."""
        box = self.region.enclosure()
        return box if self.dtype == torch.float64 else Box(box.lower.to(self.dtype), box.upper.to(self.dtype))

    def _dual_norm(self, rows: Tensor) -> Tensor:
        """Return upper bounds of the dual norms of rows `(batch, rows, inputs)`."""
        if self.region.norm == "1":
            return rows.abs().amax(dim=2)
        count = rows.shape[2]
        # Squares below the smallest normal number are lost: each may have hidden a coefficient of its root.
        lost = 2.0 * math.sqrt(count * tiny(self.dtype))
        relative = 1.0 + (2.0 * count + 32.0) * unit_roundoff(self.dtype)
        length: Tensor = torch.linalg.vector_norm(rows, dim=2)
        return length * relative + lost

    @cached_property
    def _over_box(self) -> BoxMinimum:
        return BoxMinimum(self.box)

    @cached_property
    def _centre(self) -> Tensor:
        return self.region.centre.to(self.dtype)

    @cached_property
    def _error(self) -> Tensor:
        return inflated(dot_error(self._centre))
