"""Planes above the first hinge that each subproblem names by a point of its own, where inputs are few.

The planes that are best on the whole ball are loose where splits have cut it: most of what is left there lies far from
their point. On the ruarobot network of safenlp (30 inputs, one hinge of 128 units) 16 steps with points of their own
closed all of 256 subproblems of some 17 splits, of which 200 steps over the planes of the ball closed 28.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from verifier.bounds.split.plane_lines import PlaneLines, UnitsOverBox
from verifier.bounds.split.plane_search import FoundPlanes
from verifier.certificates.plane_points import PlanePoints
from verifier.certificates.planes import POINT_STEPS, THRESHOLD_STEPS, PlaneMaker
from verifier.certificates.split_program import SplitProgram
from verifier.certificates.sweep import Planes

# Units of the first hinge times inputs: of a larger network planes cost a subproblem more than they spare.
MOST_NUMBERS = 1 << 13


@dataclass(frozen=True, eq=False)
class OwnPlanes:
    """The first hinge of a ball as points name planes above it, for ascent and as they are proved.

    places: `(p,)`, of its open units among its values. first: `(rows, inputs + p)`, points and thresholds of each row
    on the whole ball, from which subproblems start.
    """

    units: UnitsOverBox
    places: np.ndarray
    maker: PlaneMaker
    first: Tensor

    @classmethod
    def on(cls, program: SplitProgram, units: UnitsOverBox, found: FoundPlanes, places: np.ndarray) -> OwnPlanes | None:
        """Return the planes of the subproblems of a ball; None where they would cost too much."""
        if units.gains.numel() > MOST_NUMBERS:
            return None
        return cls(units, places, PlaneMaker(program, places), torch.cat([found.points, found.thresholds], dim=1))

    def parts(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return (points, thresholds) of subproblems from both side by side `(batch, inputs + p)`."""
        inputs = len(self.units.lower)
        return points[:, :inputs], points[:, inputs:]

    def lines(self, points: Tensor) -> PlaneLines:
        """Return the planes of subproblems, for ascent."""
        return self.units.planes(*self.parts(points))

    def kept(self, points: np.ndarray) -> PlanePoints:
        """Return points and thresholds of subproblems as a certificate keeps them."""
        own, thresholds = np.split(points.astype(np.float64), [len(self.units.lower)], axis=1)
        steps = (own * POINT_STEPS).round().astype(np.uint8), (thresholds * THRESHOLD_STEPS).round().astype(np.int16)
        return PlanePoints(self.places, *steps)

    def proved(self, points: Tensor) -> Planes:
        """Return the planes of subproblems as they are proved."""
        rows = np.arange(len(points))
        return self.maker.planes(self.kept(points.numpy()), rows, rows)
