"""A safe radius in closed form: within the distance to the border of its region a network is affine.

    region    min over the conditions of value / |row|_1     (Croce, Andriushchenko, Hein 2019, the inf-norm)
    decision  min over the other classes of margin / |row|_1

No LP and no bound propagation: where both hold, the class is constant. Computed in float64, shortened by a share that
covers its rounding, hence strength *computed*. At a tie the region's distance is 0: on images with a constant
background nearly always; it is meant for networks trained to have large regions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from encoders.formulations.restrict import freeze
from encoders.network import Network
from verifier.restriction.question import CHUNK, Question

# Rounding of rows and values, both sums of thousands of float64 products.
SHORTENING = 1e-9


@dataclass(frozen=True)
class LocalRadius:
    """Distances, in the inf-norm, to the border of the region and to the decision boundary inside it."""

    region: float
    decision: float

    @property
    def radius(self) -> float:
        """A radius within which the class is constant."""
        return min(self.region, self.decision)


def local_radius(network: Network, x: Tensor, reference: int) -> LocalRadius:
    """Return the safe radius of x `(1, *shape)` for its class; 0 where x ties or is of another class."""
    x = x.to(torch.float64)
    bounds = np.full(x.numel(), np.inf)
    question = Question(freeze(network, x), x, reference, -bounds, bounds, np.inf)
    values = question.at_centre
    distances = np.empty(len(values))
    for start in range(0, len(values), CHUNK):
        numbers = np.arange(start, min(start + CHUNK, len(values)))
        sizes = np.abs(question.rows(numbers)).sum(axis=1)
        distances[numbers] = _distances(values[numbers], sizes, question.units[numbers])
    count = question.label_rows
    return LocalRadius(float(distances[count:].min(initial=np.inf)), float(distances[:count].min()))


def _distances(values: np.ndarray, sizes: np.ndarray, units: np.ndarray) -> np.ndarray:
    safe = np.maximum(values * (1.0 - SHORTENING) - SHORTENING * units, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        distances = np.where(sizes > 0, safe / (sizes * (1.0 + SHORTENING)), np.inf)
    # A row without coefficients is kept everywhere if it is kept here; a condition that is 0 by definition always is.
    return np.where((sizes == 0) & (values < 0), 0.0, distances)
