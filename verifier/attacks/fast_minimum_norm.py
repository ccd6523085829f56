"""Fast minimum-norm attack (FMN; Pintor et al. 2021): descend on the margin inside a ball whose radius follows.

At step k, with g the gradient of the shortfall f (what has to fall to 0) and c_k falling as a cosine from 1 to 0:

    epsilon <- min(epsilon (1 - gamma_k), least distance met)      where x is unsafe
               epsilon (1 + gamma_k)                               where it is safe, but an unsafe point was met
               (1 + gamma_k) (||x - x_o|| + |f| / ||g||_q)         where none was: beyond the linearised boundary
    x <- projection on the ball of epsilon, cut to the domain, of x - alpha_k g / ||g||_2

gamma_k and alpha_k fall with c_k (Algorithm 1). Not theirs: in the first case epsilon falls to the linearised boundary,
||x - x_o|| - |f| / ||g||_q, but by no more than a half (distances on MNIST are a tenth shorter); in the third they end
on that boundary, where a network of relus stays safe by a rounding for ever; in a flat place half of the way is taken
back; and they clip to the domain after the projection, which in the 1-norm undoes it.
The step is in units of the width of the domain; where it has no two ends, in those of the distance to the first
linearised boundary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from verifier.attacks.geometry import lengths, project
from verifier.attacks.halfspace import dual_lengths
from verifier.attacks.nearest import SECURING_SHARES, Nearest, NearestAttack

# A ball shrinks to no less than this share of itself in a step.
LEAST_SHRINK = 0.5


@dataclass(eq=False)
class Walk:
    """Where one run of some inputs stands: points x `(rows, *shape)`, radii, and the least unsafe distances it met.

    aims: classes `(rows,)` whose boundary alone is descended to; None: that of the best other class.
    """

    rows: Tensor
    x: Tensor
    aims: Tensor | None
    epsilon: Tensor = field(init=False)
    met: Tensor = field(init=False)
    unit: Tensor | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.epsilon = self.x.new_full((len(self.rows),), math.inf)
        self.met = self.epsilon.clone()

    def keep(self, going: Tensor) -> None:
        """Leave all but the given positions."""
        self.rows, self.x, self.epsilon, self.met = (
            self.rows[going],
            self.x[going],
            self.epsilon[going],
            self.met[going],
        )
        self.aims = None if self.aims is None else self.aims[going]
        self.unit = None if self.unit is None else self.unit[going]


@dataclass(frozen=True)
class FastMinimumNorm(NearestAttack):
    """Settings of FMN.

    steps: gradients of one input; sweep: how many of the best other classes are then aimed at, each in `sweep_steps`
    from the input; length, last_length: of the first and the last step, in the 2-norm, as shares of the width of the
    domain; growth, last_growth: gamma of the first and the last step; loss: a row of `LOSSES`; projections: of the
    input on the boundary linearised at the nearest point, at the end; segment_steps: halvings of the last segment.
    The sweep and what follows it are not the authors'.
    """

    norms: ClassVar[tuple[str, ...]] = ("inf", "2", "1")

    steps: int = 100
    sweep: int = 0
    sweep_steps: int = 20
    length: float = 1.0
    last_length: float = 0.01
    growth: float = 0.05
    last_growth: float = 0.001
    loss: str = "margin"
    projections: int = 2
    segment_steps: int = 10

    @property
    def cost(self) -> tuple[int, int]:
        """Upper bounds of (gradients, queries) of one input, where it is neither flat nor masked."""
        gradients = self.steps + self.sweep * self.sweep_steps + self.projections + 1
        return gradients, 2 + self.sweep + self.projections + self.segment_steps + len(SECURING_SHARES)

    def approach(self, nearest: Nearest) -> None:
        """Offer the points of the descents, then those of the projections and the segment."""
        self.walk(nearest, Walk(nearest.all_rows(), nearest.centre, None), self.steps)
        for aims in nearest.aims(self.sweep):
            self.walk(nearest, Walk(nearest.all_rows(), nearest.centre, aims), self.sweep_steps)
        nearest.polish(self.projections)
        nearest.pull(self.segment_steps)

    def walk(self, nearest: Nearest, walk: Walk, steps: int) -> None:
        """Descend for so many steps."""
        for number in range(steps):
            if not len(walk.rows) or nearest.search.budget.exhausted:
                break
            values, margins, gradients = nearest.differentiate(walk.rows, walk.x, self.loss, walk.aims)
            # At the input without a gradient there is no next step; at distance 0 there is nothing left to find.
            moves = (gradients != 0).any(dim=1) | (walk.x != nearest.centre[walk.rows]).flatten(1).any(dim=1)
            going = torch.nonzero(moves & (nearest.distances[walk.rows] > 0)).squeeze(1)
            if len(going) < len(walk.rows):
                walk.keep(going)
                values, margins, gradients = values[going], margins[going], gradients[going]
            share = (1.0 + math.cos(math.pi * number / steps)) / 2.0
            centre = nearest.centre[walk.rows]
            away = (walk.x - centre).flatten(1)
            size = torch.linalg.vector_norm(gradients, dim=1).clamp(min=torch.finfo(away.dtype).tiny)
            if walk.unit is None:
                walk.unit = torch.full_like(size, nearest.width) if nearest.bounded else margins.abs() / size
            slope = dual_lengths(gradients, nearest.norm)
            # Where a long step ended in a flat place, half of it is taken back.
            boundary = torch.where(slope > 0, margins.abs() / slope, -0.5 * lengths(away, nearest.norm))
            self.resize(walk, away, values <= 0, boundary, share, nearest.norm)
            length = walk.unit * (self.last_length + (self.length - self.last_length) * share)
            away = away - (length / size)[:, None] * gradients
            walk.x = nearest.clamp(centre + self.place(nearest, centre, away, walk.epsilon).reshape_as(centre))
        if len(walk.rows) and not nearest.search.budget.exhausted:
            nearest.evaluate(walk.rows, walk.x)

    def resize(self, walk: Walk, away: Tensor, unsafe: Tensor, boundary: Tensor, share: float, norm: str) -> None:
        """Set the radii of the next balls.

        boundary: distances to the linearised one; share: of the fall of gamma that is left.
        """
        gamma = self.last_growth + (self.growth - self.last_growth) * share
        length = lengths(away, norm)
        walk.met = torch.where(unsafe & (length < walk.met), length, walk.met)
        outward = torch.where(walk.met.isfinite(), walk.epsilon, length + boundary) * (1.0 + gamma)
        inward = torch.maximum(length - boundary, LEAST_SHRINK * walk.epsilon)
        inward = torch.minimum(torch.minimum(walk.epsilon * (1.0 - gamma), walk.met), inward)
        walk.epsilon = torch.where(unsafe, inward, outward)

    def place(self, nearest: Nearest, centre: Tensor, away: Tensor, epsilon: Tensor) -> Tensor:
        """Return the displacements of the next points: projected on the balls, cut to the domain."""
        caps = None
        if nearest.norm != "inf":
            below, above = nearest.rooms(centre)
            caps = torch.where(away > 0, above, below)
        return project(away, epsilon, nearest.norm, caps)
