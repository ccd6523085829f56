"""The first attack, by box-constrained L-BFGS (Szegedy et al. 2014, section 4.1), with scipy's L-BFGS-B.

    minimise c ||r|| + loss(f(x + r), l)  subject to  x + r in the domain,

for a target class l (here each of the best other classes) by a line search on c: the largest c, within the steps of a
bisection, whose minimiser has l win by the margin `alpha`. The problem is not convex for a network. The loss is the
cross-entropy. The norm is that of the region:

    2    ||r||_2^2 in place of ||r||_2, which has a kink at 0
    1    sum_i (p_i + q_i) with r = p - q and p, q >= 0: bounds again, and no kink
    inf  the epigraph form min c t + loss, |r_i| <= t: for a fixed t bounds alone, so the line search is over t

The last replaces the kink of ||r||_inf, on which L-BFGS stalls (Bastani et al. 2016 minimise it directly).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from verifier.attacks.base import Search
from verifier.attacks.nearest import Nearest, NearestAttack

Vector = NDArray[np.float64]
# (r (n,)) -> (loss, gradient (n,))
Loss = Callable[[Vector], tuple[float, Vector]]

# The line search on c: first value in units of loss over norm, growth until nothing is found, bisections after that.
FIRST, GROWTH, MOST_GROWTHS, BISECTIONS = 1.0, 10.0, 8, 6
# The line search on t begins at the width of the domain, so it takes more.
RADIUS_BISECTIONS = 10


def squared(loss: Loss, constant: float) -> Loss:
    """Return loss(r) + c ||r||_2^2 with its gradient."""

    def function(r: Vector) -> tuple[float, Vector]:
        value, gradient = loss(r)
        return value + constant * float(r @ r), gradient + 2.0 * constant * r

    return function


def split(loss: Loss, constant: float) -> Loss:
    """Return loss(p - q) + c sum_i (p_i + q_i) with its gradient, as a function of (p, q) in one vector."""

    def function(parts: Vector) -> tuple[float, Vector]:
        count = len(parts) // 2
        value, gradient = loss(parts[:count] - parts[count:])
        return value + constant * float(parts.sum()), np.concatenate([gradient, -gradient]) + constant

    return function


@dataclass(frozen=True)
class Lbfgs(NearestAttack):
    """Settings. steps: iterations of each minimisation; targets: how many of the best other classes are tried.

    alpha: by how much the other class is to win, in scores; projections: of the input on the boundary linearised at the
    nearest point, at the end; segment_steps: halvings of the last segment. Inputs are worked off one by one.
    """

    norms: ClassVar[tuple[str, ...]] = ("inf", "2", "1")

    steps: int = 30
    targets: int = 2
    alpha: float = 0.0
    projections: int = 2
    segment_steps: int = 10

    def begin(self, search: Search) -> Nearest:
        return Nearest(search, margin=self.alpha)

    def approach(self, nearest: Nearest) -> None:
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        # L-BFGS-B solves tiny systems with BLAS, whose second thread spins: 3 ms a step on a busy machine, not 0.1.
        with threadpool_limits(limits=1, user_api="blas"):
            for row in nearest.all_rows().tolist():
                for target in self._targets(nearest, row):
                    if nearest.search.budget.exhausted:
                        break
                    _Line(self, nearest, row, target).search()
        nearest.polish(self.projections)
        nearest.pull(self.segment_steps)

    def _targets(self, nearest: Nearest, row: int) -> list[int]:
        search = nearest.search
        if search.targets is not None:
            return [int(search.targets[row])]
        with torch.no_grad():
            scores = search.network.scores(nearest.centre[row : row + 1])[0]
        search.record.count_queries(torch.tensor([row], device=scores.device))
        scores[search.classes[row]] = -torch.inf
        return scores.topk(min(self.targets, len(scores) - 1)).indices.tolist()


class _Line:
    """The line search for one input and one target."""

    def __init__(self, attack: Lbfgs, nearest: Nearest, row: int, target: int) -> None:
        self.attack, self.nearest = attack, nearest
        self.row = torch.tensor([row], device=nearest.centre.device)
        self.target = torch.tensor([target], device=nearest.centre.device)
        self.centre = nearest.search.region.centre[self.row]
        self.below, self.above = ((end - self.centre).flatten().cpu().numpy() for end in nearest.ends)

    def search(self) -> None:
        """Offer every minimiser to `nearest`."""
        if self.nearest.norm == "inf":
            self._search_radius()
        else:
            self._search_constant()

    def _search_radius(self) -> None:
        """Bisect t, from the distance that is known or the width of the domain."""
        known = float(self.nearest.distances[self.row])
        high = min(known, float(max(np.abs(self.below).max(), np.abs(self.above).max())))
        if not np.isfinite(high):
            high = float(self.nearest.search.region.radius[self.row])
        low, start = 0.0, np.zeros_like(self.below)
        for _ in range(RADIUS_BISECTIONS):
            middle = (low + high) / 2
            bounds = (np.maximum(self.below, -middle), np.minimum(self.above, middle))
            r, unsafe = self._minimise(self._loss, np.clip(start, *bounds), bounds)
            low, high = (low, middle) if unsafe else (middle, high)
            start = r

    def _search_constant(self) -> None:
        """Raise c tenfold until its minimiser is safe, lower it until it is not, then bisect its logarithm."""
        constant, tried = FIRST, {}
        for _ in range(MOST_GROWTHS):
            tried[constant] = unsafe = self._try(constant)
            if len(set(tried.values())) == 2:
                break
            constant = constant * GROWTH if unsafe else constant / GROWTH
        safe = min((c for c, unsafe in tried.items() if not unsafe), default=None)
        unsafe_constant = max((c for c, unsafe in tried.items() if unsafe), default=None)
        if safe is None or unsafe_constant is None:
            return
        for _ in range(BISECTIONS):
            middle = (safe * unsafe_constant) ** 0.5
            if self._try(middle):
                unsafe_constant = middle
            else:
                safe = middle

    def _try(self, constant: float) -> bool:
        """Return whether the minimiser for this c is unsafe."""
        count = len(self.below)
        if self.nearest.norm == "2":
            function = squared(self._loss, constant)
            return self._minimise(function, np.zeros(count), (self.below, self.above))[1]
        bounds = (np.zeros(2 * count), np.concatenate([self.above, -self.below]))
        return self._minimise(split(self._loss, constant), np.zeros(2 * count), bounds)[1]

    def _minimise(self, function: Loss, start: Vector, bounds: tuple[Vector, Vector]) -> tuple[Vector, bool]:
        """Return (r or its two parts, whether it is unsafe)."""
        from scipy.optimize import Bounds, minimize

        solution: Any = minimize(
            function, start, jac=True, method="L-BFGS-B", bounds=Bounds(*bounds), options={"maxiter": self.attack.steps}
        )
        r, count = np.asarray(solution.x, dtype=np.float64), len(self.below)
        step = r if len(r) == count else r[:count] - r[count:]
        shortfall = self.nearest.evaluate(self.row, self.nearest.clamp(self._point(step).to(self.nearest.centre.dtype)))
        return r, float(shortfall) <= 0

    def _point(self, r: Vector) -> Tensor:
        # A copy: where bounds meet, scipy hands over an array that must not be written to.
        return self.centre + torch.tensor(r).to(self.centre).reshape_as(self.centre)

    def _loss(self, r: Vector) -> tuple[float, Vector]:
        """Return the cross-entropy of the target and its gradient."""
        x = self._point(r).requires_grad_()
        with torch.enable_grad():
            scores = self.nearest.source.scores(x)
            loss = functional.cross_entropy(scores, self.target)
            (gradient,) = torch.autograd.grad(loss, x)
        self.nearest.search.record.count_gradients(self.row)
        return float(loss.detach()), gradient.flatten().cpu().numpy()
