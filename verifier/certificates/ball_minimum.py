"""Least values of linear functions over a ball of the 2- or the 1-norm: c . centre - radius ||c||, in the dual norm."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from encoders.region import BallRegion, Norm
from encoders.rounding import tiny, unit_roundoff
from encoders.views.coefficients import dot_error, inflated


@dataclass(frozen=True, eq=False)
class BallMinimum:
    """The points within a radius of a centre `(inputs,)`, float64, in the 2- or the 1-norm."""

    centre: Tensor
    radius: float
    norm: Norm

    @classmethod
    def of(cls, region: BallRegion) -> BallMinimum | None:
        """Return that of a region (batch 1) without its domain; None in the inf-norm, whose balls are boxes."""
        if region.norm == "inf":
            return None
        return cls(region.centre[0].flatten().to(torch.float64), float(region.radius[0]), region.norm)

    def __call__(self, slopes: Tensor) -> Tensor:
        """Return lower bounds `(batch, rows)` of functions with slopes `(batch, rows, inputs)`.

        Rounded down; minus infinity where they overflow.
        """
        u, least = unit_roundoff(slopes.dtype), tiny(slopes.dtype)
        at_centre = (slopes * self.centre).sum(dim=2)
        missed = (slopes.abs() * inflated(dot_error(self.centre[None]))).sum(dim=2)
        away = self._dual_norm(slopes) * self.radius
        away = away * (1.0 + 4.0 * u) + least
        found = at_centre - missed - away - (at_centre.abs() + missed + away) * (8.0 * u) - 8.0 * least
        return found.nan_to_num(nan=-torch.inf, posinf=-torch.inf, neginf=-torch.inf)

    def misses(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Return which boxes `(batch, inputs)` lie outside `(batch,)`; False where rounding decides."""
        gaps = torch.maximum(lower - self.centre, self.centre - upper).clamp(min=0)
        count, u, least = gaps.shape[1], unit_roundoff(gaps.dtype), tiny(gaps.dtype)
        # In units of the radius, so that no square that matters under- or overflows.
        shares = gaps / max(self.radius, least)
        total = shares.sum(dim=1) if self.norm == "1" else shares.square().sum(dim=1)
        return total > 1.0 + (4.0 * count + 32.0) * u

    def _dual_norm(self, slopes: Tensor) -> Tensor:
        """Return upper bounds of the dual norms of slopes."""
        greatest = slopes.abs().amax(dim=2)
        if self.norm == "1":
            return greatest
        # Divided by the greatest, no square overflows, and what underflows is far below the roundings of the sum.
        scaled = slopes / torch.where(greatest > 0, greatest, 1.0).unsqueeze(2)
        relative = 1.0 + (2.0 * slopes.shape[2] + 32.0) * unit_roundoff(slopes.dtype)
        return scaled.square().sum(dim=2).sqrt() * greatest * relative + tiny(slopes.dtype)
