"""Sigma-zero (Cina et al. 2024): few changed coordinates, by a smooth count and a threshold that follows success.

The loss max(f, 0) + mean_i d_i^2 / (d_i^2 + sigma), f the shortfall, d the displacement, goes down by Adam on gradients
that are divided by their largest entry. After each step the domain clips, and entries with |d_i| < tau are set to 0:

    tau <- clip(tau + t eta_k, 0, 1) where the point is unsafe, else clip(tau - t eta_k, 0, 1)

eta_k falls as a cosine to a tenth (Algorithm 1). Displacements are in units of the width of the domain, or of 1 where
it has no two ends. Points count by how many coordinates they change, and have the distance in the norm of the region
that comes of it: there are no balls of this count, and nothing is certified about it.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from verifier.attacks.base import Search
from verifier.attacks.nearest import Nearest, NearestAttack
from verifier.attacks.penalty_descent import DECAY, SQUARE_DECAY, STABILISER

# The last rate as a share of the first.
FALL = 0.1


@dataclass(frozen=True)
class SigmaZero(NearestAttack):
    """Settings: steps, gradients of one input; rate: eta of the first step; smoothing: sigma; threshold: tau at the
    start; adaptation: t.
    """

    norms: ClassVar[tuple[str, ...]] = ("inf", "2", "1")

    steps: int = 300
    rate: float = 1.0
    smoothing: float = 1e-3
    threshold: float = 0.3
    adaptation: float = 0.01

    def begin(self, search: Search) -> Nearest:
        return Nearest(search, norm="0")

    def approach(self, nearest: Nearest) -> None:
        """Offer the points of the descent."""
        rows, centre = nearest.all_rows(), nearest.centre
        unit = nearest.width if nearest.bounded else 1.0
        tiny = torch.finfo(centre.dtype).tiny
        away = torch.zeros_like(centre).flatten(1)
        first, second = torch.zeros_like(away), torch.zeros_like(away)
        tau = torch.full_like(nearest.distances, self.threshold)
        rate = self.rate
        for number in range(self.steps):
            if not len(rows) or nearest.search.budget.exhausted:
                return
            values, _, slopes = nearest.differentiate(rows, self._points(nearest, away, unit))
            gradients = torch.where((values > 0)[:, None], unit * slopes, 0.0) + self._count_slopes(away)
            gradients = gradients / gradients.abs().amax(dim=1, keepdim=True).clamp(min=tiny)
            first = DECAY * first + (1.0 - DECAY) * gradients
            second = SQUARE_DECAY * second + (1.0 - SQUARE_DECAY) * gradients * gradients
            size = (second / (1.0 - SQUARE_DECAY ** (number + 1))).sqrt() + STABILISER
            away = away - rate / (1.0 - DECAY ** (number + 1)) * first / size
            away = (self._points(nearest, away, unit) - centre).flatten(1) / unit
            rate = self.rate * (FALL + (1.0 - FALL) * (1.0 + math.cos(math.pi * number / self.steps)) / 2.0)
            tau = (tau + torch.where(values <= 0, 1.0, -1.0) * self.adaptation * rate).clamp(0.0, 1.0)
            away = torch.where(away.abs() < tau[:, None], 0.0, away)
        nearest.evaluate(rows, self._points(nearest, away, unit))

    def _points(self, nearest: Nearest, away: Tensor, unit: float) -> Tensor:
        return nearest.clamp(nearest.centre + unit * away.reshape_as(nearest.centre))

    def _count_slopes(self, away: Tensor) -> Tensor:
        """Return the gradient of the mean of d^2 / (d^2 + sigma)."""
        return 2.0 * self.smoothing * away / (away * away + self.smoothing).square() / away.shape[1]
