"""The attacks of Carlini and Wagner (2017): minimise a distortion plus c times how far the scores are from unsafe.

2-norm (section VI-A): D = ||x - x_o||_2^2, c by binary search, ten times larger while nothing unsafe is met.
Inf-norm (VI-C): D = sum_i max(|x_i - x_oi| - tau, 0), where tau falls below the distance of the nearest point known
and the descent starts there. The authors stop where 0.9 tau fails; here the gap is bisected further. All coordinates
move by about tau, also those at the ends of the domain, where tanh is flat: 50 steps of the authors' variable moved
black pixels by .003 and were weaker than one step of FGSM. So points are moved back into the domain instead, rates are
shares of tau, and the first point comes from f alone.
Fewest coordinates (VI-B): the 2-norm attack on fewer and fewer coordinates: those freeze whose change counts least
for f, |g_i (x_i - x_oi)|, until nothing unsafe is met.

The first two end with projections of the input on the boundary linearised at the nearest unsafe point, and with a
bisection of the segment to it; neither is the authors'.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from verifier.attacks.base import Search
from verifier.attacks.geometry import lengths
from verifier.attacks.nearest import Nearest, NearestAttack
from verifier.attacks.penalty_descent import Problem, minimise

# The next tau as a share of the nearest distance known, until it fails.
SHRINK = 0.9
# Growth of c where nothing unsafe was met.
GROWTH = 10.0
# c of the inf-norm attack, times the mean slope of f: below 1, so that the penalty wins on each coordinate, and far
# above 1 / n, so that f wins on all together. 0.1, 0.2 and 0.4 differ by 1 % in distance on digits.
INF_SLOPE = 0.4
INF_GROWTH = 3.0
# How far, in widths of the domain, the first descents of the inf-norm attack may go, until one meets something unsafe.
INF_FIRST = (0.5, 5.0, 50.0)
# Share of the coordinates left that freeze together, rounded up.
FREEZE = 0.2
# How often c grows in vain before the coordinates of an input are as few as they get.
CHANCES = 2


@dataclass(frozen=True)
class CarliniWagner(NearestAttack):
    """Settings, and the attacks in the 2-norm and the inf-norm.

    searches: values of c, or of tau half as many more; steps: of Adam in each; rate, constant: of Adam, and the first
    c, in the 2-norm; kappa: by how much the other class is to win; projections: on the boundary linearised at the point
    found, at the end; segment_steps: halvings of the last segment.
    """

    norms: ClassVar[tuple[str, ...]] = ("inf", "2")

    searches: int = 9
    steps: int = 100
    rate: float = 0.1
    constant: float = 0.01
    kappa: float = 0.0
    projections: int = 2
    segment_steps: int = 10

    def begin(self, search: Search) -> Nearest:
        return Nearest(search, margin=self.kappa)

    def approach(self, nearest: Nearest) -> None:
        if nearest.norm == "2":
            self._search_constant(nearest)
        else:
            self._search_threshold(nearest)
        nearest.polish(self.projections)
        nearest.pull(self.segment_steps)

    def retry(self, nearest: Nearest) -> None:
        # Adam does not ask for the scale of a gradient.
        self.approach(nearest)

    def _search_constant(self, nearest: Nearest) -> Tensor:
        """Run the 2-norm attack; return for each input the least c that met an unsafe point, else the last."""
        rows = nearest.all_rows()
        constants = torch.full_like(nearest.distances, self.constant)
        low, high = torch.zeros_like(constants), torch.full_like(constants, math.inf)
        for _ in range(self.searches):
            if nearest.search.budget.exhausted:
                break
            unsafe = minimise(Problem(nearest, rows, _square, constants, nearest.centre), self.steps, self.rate)
            high = torch.where(unsafe, torch.minimum(high, constants), high)
            low = torch.where(unsafe, low, torch.maximum(low, constants))
            constants = torch.where(high.isfinite(), (low + high) / 2, GROWTH * constants)
        return torch.where(high.isfinite(), high, constants)

    def _search_threshold(self, nearest: Nearest) -> None:
        """Run the inf-norm attack: f alone until a point is known, then with tau below the distance of the nearest."""
        rows, width = nearest.all_rows(), nearest.width if nearest.bounded else 1.0
        for reach in INF_FIRST:
            free, ones = torch.full_like(nearest.distances, torch.inf), torch.ones_like(nearest.distances)
            left = rows[~nearest.found]
            if len(left):
                self._keep_within(nearest, left, free[left], ones[left], reach * width * ones[left])
        low, constants = torch.zeros_like(nearest.distances), self._first_constants(nearest)
        for _ in range(self.searches + self.searches // 2 - 1):
            if nearest.search.budget.exhausted:
                break
            before = nearest.distances.clone()
            high = torch.where(nearest.found, before, width)
            tau = torch.maximum(SHRINK * high, (low + high) / 2)
            unsafe = self._keep_within(nearest, rows, tau, constants, tau)
            better = nearest.distances < before
            low = torch.where(better | ~unsafe, low, tau)
            constants = torch.where(unsafe, constants, INF_GROWTH * constants)

    def _keep_within(self, nearest: Nearest, rows: Tensor, tau: Tensor, constants: Tensor, reach: Tensor) -> Tensor:
        """Minimise from the points known, all rates together `reach` `(rows,)`; return where Adam ended unsafe."""
        start = torch.where(_column(nearest.found, nearest.points), nearest.points, nearest.centre)[rows]
        problem = Problem(nearest, rows, _Excess(tau), constants, start, projected=True)
        # The rate falls evenly to zero.
        return minimise(problem, self.steps, 2.0 * reach / self.steps)

    def _first_constants(self, nearest: Nearest) -> Tensor:
        """Return INF_SLOPE over the mean |slope| of f, taken as f(x_o) / (sqrt(n) ||x - x_o||_2) at the points met."""
        shortfalls = nearest.evaluate(nearest.all_rows(), nearest.centre).clamp(
            min=torch.finfo(nearest.centre.dtype).tiny
        )
        away = lengths((nearest.points - nearest.centre).flatten(1), "2")
        count = math.prod(nearest.centre.shape[1:])
        return torch.where(nearest.found, INF_SLOPE * math.sqrt(count) * away / shortfalls, 1.0)


@dataclass(frozen=True)
class FewestCoordinates(CarliniWagner):
    """The attack that changes as few coordinates as it can; its points have the distance that comes of it."""

    norms: ClassVar[tuple[str, ...]] = ("inf", "2", "1")

    rounds: int = 60

    def begin(self, search: Search) -> Nearest:
        return Nearest(search, norm="0", margin=self.kappa)

    def approach(self, nearest: Nearest) -> None:
        search = nearest.search
        constants = self._search_constant(nearest)
        rows = torch.nonzero(nearest.found).squeeze(1)
        constants, chances = constants[rows], torch.full_like(rows, CHANCES)
        movable = torch.ones_like(nearest.centre, dtype=torch.bool)[rows]
        for _ in range(self.rounds):
            if not len(rows) or search.budget.exhausted:
                break
            fresh = _column(chances == CHANCES, movable)
            movable = torch.where(fresh, movable & self._worth_moving(nearest, rows, movable), movable)
            start = torch.where(movable, nearest.points[rows], nearest.centre[rows])
            problem = Problem(nearest, rows, _square, constants, start, movable)
            unsafe = minimise(problem, self.steps, self.rate)
            chances = torch.where(unsafe, CHANCES, chances - 1)
            constants = torch.where(unsafe, constants, GROWTH * constants)
            going = torch.nonzero((chances > 0) & movable.flatten(1).any(dim=1)).squeeze(1)
            rows, movable, constants, chances = rows[going], movable[going], constants[going], chances[going]

    def _worth_moving(self, nearest: Nearest, rows: Tensor, movable: Tensor) -> Tensor:
        """Return the mask without the coordinates whose change counts least at the points known."""
        model = nearest.linearise(rows, nearest.points[rows], 1)
        away = (nearest.points[rows] - nearest.centre[rows]).flatten(1)
        worth = torch.where(movable.flatten(1), (model.gradients[:, 0] * away).abs(), torch.inf)
        left = movable.flatten(1).sum(dim=1)
        count = (FREEZE * left).ceil().to(torch.int64)
        rank = worth.argsort(dim=1).argsort(dim=1)
        return (rank >= count[:, None]).reshape_as(movable)


def _square(away: Tensor, at: Tensor) -> Tensor:
    return (away * away).sum(dim=1)


@dataclass(frozen=True, eq=False)
class _Excess:
    """sum_i max(|d_i| - tau, 0)."""

    tau: Tensor

    def __call__(self, away: Tensor, at: Tensor) -> Tensor:
        return (away.abs() - self.tau[at, None]).clamp(min=0).sum(dim=1)


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (like.dim() - 1))
