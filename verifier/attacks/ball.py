"""The regions of a search as a descent needs them: flat, in the dtype of the model, closed under its steps.

Written for few and cheap passes: on one core a `where` or a comparison of 784 x 85 numbers takes 30 to 200
microseconds, a `clamp` 10, the forward pass of a 784-256-256-10 network 450.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from encoders.region import BallRegion
from verifier.attacks.geometry import lengths, project, project_into_box, steepest, stretch_into_box
from verifier.attacks.randomness import ball as unit_ball
from verifier.attacks.randomness import uniform

# Units of rounding by which the radius of a 2- or 1-ball is smaller than stated: of the radius, for the arithmetic
# of a projection, and of the largest coordinate, for the rounding of a point. What slips through is clipped later.
RADIUS_SLACK = 16
COORDINATE_SLACK = 4
# Units of rounding by which a 2-norm computed in float64 is trusted to err, beside one for each coordinate. More than
# the region's own bound errs, so that what is accepted by it is accepted there.
DISTANCE_SLACK = 64
# Below, squares of differences underflow.
LEAST_RADIUS = 1e-100


@dataclass(frozen=True, eq=False)
class Ball:
    """Balls cut to the domain: centre and box `(batch, n)`, radius `(batch,)`, in one floating dtype.

    lower, upper: the box around the ball, cut to the domain. In the inf-norm it is the region itself.
    """

    centre: Tensor
    lower: Tensor
    upper: Tensor
    radius: Tensor
    norm: str

    @staticmethod
    def of(region: BallRegion, dtype: torch.dtype) -> Ball:
        """Return the regions in `dtype`, rounded inward by at most two units."""
        # A copy, also where the dtype is the region's: what starts at the centre may be written to.
        centre = region.centre.to(dtype).flatten(1).clone(memory_format=torch.contiguous_format)
        radius = region.radius
        lower, upper = (end.flatten(1).to(dtype) for end in (region.lower, region.upper))
        eps = torch.finfo(dtype).eps
        if dtype != region.lower.dtype:
            # Half a unit was lost by rounding to nearest, one to two are given back.
            lower, upper = lower + eps * lower.abs(), upper - eps * upper.abs()
        # But never past the centre: a ball thinner than the spacing of the dtype is its centre.
        lower, upper = torch.minimum(lower, centre), torch.maximum(upper, centre)
        if region.norm != "inf":
            largest = torch.maximum(lower.abs(), upper.abs()).to(torch.float64).amax(dim=1)
            # Roundings of coordinates add up like a random walk in the 1-norm, and hardly at all in the 2-norm.
            walk = centre.shape[1] ** 0.5 if region.norm == "1" else 1.0
            radius = radius * (1 - RADIUS_SLACK * eps) - COORDINATE_SLACK * eps * walk * largest
        return Ball(centre, lower, upper, radius.clamp(min=0).to(dtype), region.norm)

    def at(self, rows: Tensor) -> Ball:
        """Return the balls of the given rows (an index tensor)."""
        centre, lower, upper, radius = (
            part.index_select(0, rows) for part in (self.centre, self.lower, self.upper, self.radius)
        )
        return Ball(centre, lower, upper, radius, self.norm)

    def clamp(self, x: Tensor) -> Tensor:
        """Return the points moved into the box."""
        return torch.clamp(x, self.lower, self.upper)

    def project(self, x: Tensor) -> Tensor:
        """Return the nearest points of the balls, exact up to rounding."""
        if self.norm == "2":
            delta = project_into_box(x - self.centre, self.radius, self.lower - self.centre, self.upper - self.centre)
            x = self.centre + delta
        elif self.norm == "1":
            delta = x - self.centre
            caps = torch.where(delta > 0, self.upper - self.centre, self.centre - self.lower)
            x = self.centre + project(delta, self.radius, self.norm, caps)
        return self.clamp(x)

    def vertex(self, gradient: Tensor) -> Tensor:
        """Return the points of the balls with the least <gradient, x>: exact up to rounding."""
        if self.norm == "inf":
            return self.descend(self.centre, gradient, self.radius)
        if self.norm == "2":
            lower, upper = self.lower - self.centre, self.upper - self.centre
            return self.clamp(self.centre + stretch_into_box(-gradient, self.radius, lower, upper))
        room = self.room(self.centre, gradient)
        return self.project(self.centre + steepest(gradient, self.radius, self.norm, room))

    def descend(self, x: Tensor, gradient: Tensor, size: Tensor) -> Tensor:
        """Return x moved by a steepest step of length `size` `(batch,)`, and projected.

        inf: along the sign. 2: along the gradient, whatever the box, so that on a linear function the fixed points
        are its minima; a step that heeds the box stops up to a few percent short of them. 1: the coordinates that
        can still move; one that ignored the box would push a single coordinate for ever.
        """
        if self.norm == "inf":
            return self.clamp(torch.addcmul(x, gradient.sign(), size[:, None], value=-1))
        room = self.room(x, gradient) if self.norm == "1" else None
        return self.project(x + steepest(gradient, size, self.norm, room))

    def room(self, x: Tensor, gradient: Tensor) -> Tensor:
        """Return how far each coordinate can move against the gradient before it leaves the box."""
        return torch.where(gradient > 0, x - self.lower, self.upper - x).clamp(min=0)

    def random(self, seeds: Tensor, stream: int) -> Tensor:
        """Return random points: uniform in the ball, then, if the domain cuts it, projected (inf-norm: uniform)."""
        count = self.centre.shape[1]
        if self.norm == "inf":
            share = uniform(seeds, stream, count).to(self.centre.dtype)
            return self.project(self.lower + share * (self.upper - self.lower))
        away = unit_ball(seeds, stream, count, self.norm).to(self.centre.dtype)
        return self.project(self.centre + self.radius[:, None] * away)


def contains(region: BallRegion, points: Tensor) -> Tensor:
    """Return a mask `(batch,)`: where `BallRegion.contains` is true of the points.

    It asks for the region's own answer only where a cheaper test fails that implies it: differences to the bounds have
    exact signs, and a 2-norm computed to nearest errs by at most a unit for each coordinate. Radii whose squares
    underflow are left to the region.
    """
    if region.norm == "1" or region.scale is not None or not points[0:1].numel():
        return region.contains(points)
    exact = points.to(torch.float64)
    beyond = torch.maximum(region.lower - exact, exact - region.upper).flatten(1)
    inside = beyond.amax(dim=1) <= 0
    if region.norm == "inf":
        return inside
    away = lengths((exact - region.centre).flatten(1), "2")
    slack = (beyond.shape[1] + DISTANCE_SLACK) * torch.finfo(torch.float64).eps
    inside &= (away * (1 + slack) <= region.radius) & (region.radius > LEAST_RADIUS)
    if bool(inside.all()):
        return inside
    rows = torch.nonzero(~inside).squeeze(1)
    inside[rows] = region[rows].contains(points[rows])
    return inside
