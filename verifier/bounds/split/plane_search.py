"""Points that name good planes for rows of a network, beside the ascent of their slopes (`plane_lines`)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from verifier.bounds.adam import adam
from verifier.bounds.split.dual_ascent import DECAY, RATE, DualAscent, Lines
from verifier.bounds.split.form import AffineStage
from verifier.bounds.split.plane_lines import MOST_NUMBERS, PlaneLines, UnitsOverBox, rounded
from verifier.bounds.split.stages import Stage, StagedNetwork
from verifier.certificates.planes import POINT_STEPS, THRESHOLD_STEPS, PlanePoints

STEPS = 16
# Numbers over rows, units, inputs and steps that a search may take: some ten seconds.
MOST_WORK = 1 << 30


@dataclass(frozen=True, eq=False)
class FoundPlanes:
    """Of each row: its bound `(rows,)`, slopes `(rows, units)`, point `(rows, inputs)`, thresholds `(rows, p)`."""

    bounds: Tensor
    slopes: Tensor
    points: Tensor
    thresholds: Tensor

    def planes(self, units: UnitsOverBox) -> PlaneLines:
        """Return the planes of all rows, a group for each."""
        return units.planes(self.points, self.thresholds)

    def kept(self, units: np.ndarray) -> PlanePoints:
        """Return what a certificate keeps; units: `(p,)`, places among the values of the first hinge."""
        points = (self.points * POINT_STEPS).round().to(torch.uint8).numpy()
        thresholds = (self.thresholds * THRESHOLD_STEPS).round().to(torch.int16).numpy()
        return PlanePoints(units.astype(np.int32), points, thresholds)


def first_units(ascent: DualAscent) -> UnitsOverBox | None:
    """Return the units of a network's first hinge over its box of inputs; None where it is not held as matrices."""
    if not isinstance(ascent.network, StagedNetwork) or not ascent.network.hinges:
        return None
    stage: Stage = ascent.network.hinges[0]
    if set(stage.weights) != {0} or not stage.size:
        return None
    return UnitsOverBox(stage.weights[0], stage.bias, ascent.lower, ascent.upper, stage.left)


def planes_found(
    ascent: DualAscent, units: UnitsOverBox, stage: AffineStage, rows: Tensor, lines: Lines, slopes: Tensor
) -> FoundPlanes | None:
    """Return planes for rows `(rows, values)` of a stage on the whole box; None where they take too much work.

    lines: of the one box; slopes: `(rows, units)`, from which to go on.
    """
    each = units.gains.numel()
    if len(rows) * each * STEPS > MOST_WORK:
        return None
    size = max(1, MOST_NUMBERS // max(1, each))
    parts = [
        _found(ascent, units, stage, rows[part], lines, slopes[part])
        for part in (slice(start, start + size) for start in range(0, len(rows), size))
    ]
    joined = (torch.cat(values) for values in zip(*parts, strict=True))
    return FoundPlanes(*joined)


def _found(
    ascent: DualAscent, units: UnitsOverBox, stage: AffineStage, rows: Tensor, lines: Lines, slopes: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    width = torch.where(units.width > 0, units.width, 1.0)
    ends = ascent.evaluate(stage, rows, lines, slopes, None).points
    # Half way from the middle to the corner in which the bound over lines ends.
    points = rounded(0.25 + 0.5 * (ends - ascent.lower) / width)
    thresholds, planes = units.found(points, None)
    best = torch.full((len(rows),), -torch.inf, dtype=rows.dtype, device=rows.device)
    kept_slopes, kept_points, kept_thresholds = slopes, points, thresholds
    averages = [torch.zeros_like(slopes), torch.zeros_like(slopes)]
    for step in range(STEPS):
        reached = ascent.evaluate(stage, rows, replace(lines, planes=planes), slopes, None)
        better = reached.bound > best
        best = torch.where(better, reached.bound, best)
        kept_slopes, kept_points, kept_thresholds = (
            torch.where(better[:, None], new, old)
            for new, old in ((slopes, kept_slopes), (points, kept_points), (thresholds, kept_thresholds))
        )
        slopes = (slopes + RATE * DECAY**step * adam(averages, reached.slope_gain, step)).clamp(0.0, 1.0)
        corners = (reached.points - ascent.lower) / width
        points = rounded(points + 2.0 / (step + 4) * (corners - points))
        thresholds, planes = units.found(points, thresholds)
    return best, kept_slopes, kept_points, kept_thresholds
