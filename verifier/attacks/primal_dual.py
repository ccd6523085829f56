"""Primal-dual proximal gradient descent (PDPGD; Matyasko, Chau 2021): distance and margin weighed by a dual variable.

The Lagrangian of min ||d||_p subject to f(x_o + d) <= 0 is w_0 ||d||_p + w_1 h(f), the weights adding up to 1 and h the
softplus. In turn, with Adam's step (m, v) for grad h(f):

    d <- prox of eta (w_0 / w_1) ||.||_p of d - eta m / sqrt(v)        in the metric sqrt(v) / max sqrt(v)
    log w_1 <- log w_1 + theta_k sign f, the weights averaged over time

(Algorithm 2). prox_mu: soft thresholding by mu in the 1-norm, d (1 - mu / ||d||_2)_+ in the 2-norm, and d less its
projection on the 1-ball of radius mu in the inf-norm (Moreau). In the metric it has no closed form: a few fixed-point
steps approach it (Melchior et al. 2019). Projections and a bisection end it, as in `FastMinimumNorm`; not theirs.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from verifier.attacks.geometry import lengths, project
from verifier.attacks.nearest import Nearest, NearestAttack
from verifier.attacks.penalty_descent import DECAY, SQUARE_DECAY, STABILISER

# The logarithm of the ratio of the two weights stays within plus and minus this.
MOST_LOG_RATIO = math.log(1e6)
# The last dual step as a share of the first.
DUAL_FALL = 0.1


@dataclass(frozen=True)
class PrimalDual(NearestAttack):
    """Settings: steps, gradients of one input; rate, last_rate: of Adam, in units of the domain's width, falling
    geometrically; ratio: of the weights at the start; dual_rate: theta at the start; average: of the weights over time,
    the share that stays; proximal_steps; projections, segment_steps: at the end.
    """

    norms: ClassVar[tuple[str, ...]] = ("inf", "2", "1")

    steps: int = 100
    rate: float = 0.1
    last_rate: float = 0.001
    ratio: float = 0.01
    dual_rate: float = 0.1
    average: float = 0.9
    proximal_steps: int = 5
    projections: int = 2
    segment_steps: int = 10

    def approach(self, nearest: Nearest) -> None:
        """Offer the points of the descent, then those of the projections and the segment."""
        rows, centre = nearest.all_rows(), nearest.centre
        unit = nearest.width if nearest.bounded else 1.0
        away = torch.zeros_like(centre).flatten(1)
        first, second = torch.zeros_like(away), torch.zeros_like(away)
        log_ratio = torch.full_like(nearest.distances, -math.log(self.ratio))
        share = log_ratio.sigmoid()
        for number in range(self.steps):
            if not len(rows) or nearest.search.budget.exhausted:
                break
            values, _, gradients = nearest.differentiate(rows, nearest.clamp(centre + away.reshape_as(centre)))
            gradients = values.sigmoid()[:, None] * gradients
            first = DECAY * first + (1.0 - DECAY) * gradients
            second = SQUARE_DECAY * second + (1.0 - SQUARE_DECAY) * gradients * gradients
            metric = (second / (1.0 - SQUARE_DECAY ** (number + 1))).sqrt() + STABILISER
            rate = unit * self.rate * (self.last_rate / self.rate) ** (number / self.steps)
            away = away - rate / (1.0 - DECAY ** (number + 1)) * first / metric
            away = (nearest.clamp(centre + away.reshape_as(centre)) - centre).flatten(1)
            peak = metric.amax(dim=1)
            weight = rate / peak * (1.0 - share) / share
            away = self._proximal(nearest, away, metric / peak[:, None], weight)
            left = (self.steps - 1 - number) / max(1, self.steps - 1)
            theta = self.dual_rate * (left * (1.0 - DUAL_FALL) + DUAL_FALL)
            log_ratio = (log_ratio + theta * values.sign()).clamp(-MOST_LOG_RATIO, MOST_LOG_RATIO)
            share = self.average * share + (1.0 - self.average) * log_ratio.sigmoid()
        if not nearest.search.budget.exhausted:
            nearest.evaluate(rows, nearest.clamp(centre + away.reshape_as(centre)))
        nearest.polish(self.projections)
        nearest.pull(self.segment_steps)

    def _proximal(self, nearest: Nearest, away: Tensor, metric: Tensor, weight: Tensor) -> Tensor:
        """Return the proximal points of displacements in a metric whose greatest entry is 1, cut to the domain."""
        centre, z = nearest.centre, away
        for _ in range(self.proximal_steps):
            z = proximal_point(z - metric * (z - away), weight, nearest.norm)
            z = (nearest.clamp(centre + z.reshape_as(centre)) - centre).flatten(1)
        return z


def proximal_point(v: Tensor, weight: Tensor, norm: str) -> Tensor:
    """Return argmin_z weight ||z|| + ||z - v||_2^2 / 2 for each row of v `(batch, n)`; weight: `(batch,)`, >= 0."""
    if norm == "1":
        return torch.copysign((v.abs() - weight[:, None]).clamp(min=0), v)
    if norm == "2":
        size = lengths(v, "2").clamp(min=torch.finfo(v.dtype).tiny)
        return v * (1.0 - weight / size).clamp(min=0)[:, None]
    return v - project(v, weight, "1")
