"""Points that name good planes for rows of a network, beside the ascent of their slopes (`plane_lines`)."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from verifier.bounds.split.dual_ascent import DualAscent, Lines
from verifier.bounds.split.dual_steps import DualSteps
from verifier.bounds.split.form import AffineStage
from verifier.bounds.split.plane_lines import MOST_NUMBERS, PlaneLines, UnitsOverBox, rounded
from verifier.bounds.split.stages import Stage, StagedNetwork
from verifier.certificates.plane_points import PlanePoints
from verifier.certificates.planes import POINT_STEPS, THRESHOLD_STEPS

STEPS = 16
# As the mean of how many corners a first point counts.
FIRST_WEIGHT = 4
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
    best, numbers = climbed(
        ascent, units, stage, rows, lines, PlaneNumbers(slopes, None, points, None), (STEPS, FIRST_WEIGHT)
    )
    assert numbers.thresholds is not None
    return best, numbers.slopes, numbers.points, numbers.thresholds


@dataclass(frozen=True, eq=False)
class PlaneNumbers:
    """What gives bounds over planes: slopes and multipliers `(rows, units)`, points `(rows, inputs)` in [0, 1] and
    thresholds `(rows, p)`, None where they follow from the points.
    """

    slopes: Tensor
    multipliers: Tensor | None
    points: Tensor
    thresholds: Tensor | None

    def where(self, better: Tensor, other: PlaneNumbers) -> PlaneNumbers:
        """Return these numbers for some rows, those of another for the rest; better: `(rows,)`."""

        def chosen(name: str) -> Any:
            own = getattr(self, name)
            return None if own is None else torch.where(better[:, None], own, getattr(other, name))

        return PlaneNumbers(*(chosen(field.name) for field in fields(self)))


def climbed(
    ascent: DualAscent, units: UnitsOverBox, stage: AffineStage, rows: Tensor, lines: Lines, start: PlaneNumbers,
    steps: tuple[int, int], goal: float = torch.inf,
) -> tuple[Tensor, PlaneNumbers]:  # fmt: skip
    """Return (bounds `(rows,)`, the best numbers) of rows of a stage after some steps of all; early past the goal.

    steps: how many, and as the mean of how many corners the points count before. goal: finite where there are
    multipliers.
    """
    width = torch.where(units.width > 0, units.width, 1.0)
    best = torch.full((len(rows),), -torch.inf, dtype=rows.dtype, device=rows.device)
    moving, points = DualSteps(lines.span, lines.width, start.slopes, start.multipliers, goal), start.points
    thresholds, planes = units.found(points, start.thresholds)
    kept = PlaneNumbers(moving.slopes, moving.multipliers, points, thresholds)
    for step in range(steps[0]):
        numbers = PlaneNumbers(moving.slopes, moving.multipliers, points, thresholds)
        reached = ascent.evaluate(stage, rows, replace(lines, planes=planes), numbers.slopes, numbers.multipliers)
        better = reached.bound > best
        best, kept = torch.where(better, reached.bound, best), numbers.where(better, kept)
        if step == steps[0] - 1 or bool((best > goal).all()):
            break
        moving.move(reached.bound, reached.slope_gain, reached.multiplier_gain)
        corners = (reached.points - ascent.lower) / width
        points = rounded(points + 2.0 / (step + steps[1]) * (corners - points))
        thresholds, planes = units.found(points, thresholds)
    return best, kept
