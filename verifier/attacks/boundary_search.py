"""Boundary search: project on the linearised boundary, lean towards the input, step back (FAB; Croce and Hein 2020).

With d(z) the shortest step, within the domain, from z to the nearest boundary of the model linearised at x, and x_o
the input (Algorithm 1 and section 3.2):

    alpha = min(||d(x)|| / (||d(x)|| + ||d(x_o)||), alpha_max)
    x <- clip((1 - alpha) (x + eta d(x)) + alpha (x_o + eta d(x_o)))

and where x is unsafe then, x <- x_o + beta (x - x_o). A projection of the input and a bisection of the segment from it
to the nearest unsafe point end the search. The radius of the ball plays no part, but that random starts lie within
half of it.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from verifier.attacks.geometry import lengths
from verifier.attacks.halfspace import step_to_halfspace
from verifier.attacks.nearest import Nearest, NearestAttack
from verifier.attacks.randomness import as_seeds, ball


@dataclass(frozen=True)
class BoundarySearch(NearestAttack):
    """Settings of the search.

    steps: linearisations in a restart; restarts: the first from the input, the others from random points within half
    the distance known; sweep: how many of the best other classes are then aimed at, each in a run of its own from the
    input (their targeted version); lean: alpha_max; overshoot: eta; back: beta; candidates: how many of the best other
    classes are looked at; projections: of the input on the boundary linearised at the nearest point, at the end;
    segment_steps: halvings of the last segment.
    """

    norms: ClassVar[tuple[str, ...]] = ("inf", "2", "1")

    steps: int = 50
    restarts: int = 1
    sweep: int = 0
    lean: float = 0.1
    overshoot: float = 1.05
    back: float = 0.9
    candidates: int = 10
    projections: int = 2
    segment_steps: int = 10

    def approach(self, nearest: Nearest) -> None:
        for restart in range(self.restarts):
            self._run(nearest, nearest.centre if restart == 0 else self._start(nearest, restart), None)
        for aims in nearest.aims(self.sweep):
            self._run(nearest, nearest.centre, aims)
        nearest.polish(self.projections)
        nearest.pull(self.segment_steps)

    def _run(self, nearest: Nearest, x: Tensor, aims: Tensor | None) -> None:
        """Search from the given points, all inputs together; aims: the classes whose boundary alone counts."""
        rows = nearest.all_rows()
        for _ in range(self.steps):
            if not len(rows) or nearest.search.budget.exhausted:
                break
            model = nearest.linearise(rows, x, self.candidates, None if aims is None else aims[rows])
            # Without any gradient there is no next step; at distance 0 there is nothing left to find.
            going = torch.nonzero(~model.vanishing() & (nearest.distances[rows] > 0)).squeeze(1)
            margins, gradients = (part[going] for part in model.nearest_boundary(nearest.norm))
            rows, x = rows[going], self._step(nearest, rows[going], x[going], margins, gradients)
            unsafe = nearest.evaluate(rows, x) <= 0
            centre = nearest.centre[rows]
            x = torch.where(_column(unsafe, x), centre + self.back * (x - centre), x)

    def _step(self, nearest: Nearest, rows: Tensor, x: Tensor, margins: Tensor, gradients: Tensor) -> Tensor:
        """Return the next points: mostly the overshot projection of x, partly that of the input."""
        centre = nearest.centre[rows]
        margins_there = margins + ((centre - x).flatten(1) * gradients).sum(dim=1)
        here = step_to_halfspace(gradients, margins, *nearest.rooms(x), nearest.norm)
        there = step_to_halfspace(gradients, margins_there, *nearest.rooms(centre), nearest.norm)
        away, away_there = (lengths(step, nearest.norm).clamp(min=1e-8) for step in (here, there))
        alpha = _column((away / (away + away_there)).clamp(max=self.lean), x)
        projected = x + self.overshoot * here.reshape_as(x)
        projected_there = centre + self.overshoot * there.reshape_as(x)
        return nearest.clamp((1.0 - alpha) * projected + alpha * projected_there)

    def _start(self, nearest: Nearest, restart: int) -> Tensor:
        """Return random points within half the distance known, or half the radius."""
        centre = nearest.centre.flatten(1)
        seeds = as_seeds(nearest.search.seeds, centre.device)
        directions = ball(seeds, restart, centre.shape[1], nearest.norm).to(centre.dtype)
        limit = torch.minimum(nearest.distances, nearest.search.region.radius.to(centre.dtype))
        return nearest.clamp((centre + 0.5 * limit[:, None] * directions).reshape_as(nearest.centre))


def _column(values: Tensor, like: Tensor) -> Tensor:
    """Return values `(batch,)` in a shape that broadcasts over points."""
    return values.reshape(-1, *[1] * (like.dim() - 1))
