"""Unsafe points of a box of few inputs by sampling: random points, then points around the best, ever closer.

No gradient is asked for, so that flat places and the corners of conjunctions do not stop it (a cross-entropy search
whose uniform density shrinks: Rubinstein 1999).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from verifier.certificates.conjunctions import Conjunctions

# Points of a round, how many of the best the next one starts from, rounds, and the share of the width that each keeps.
POINTS, BEST, ROUNDS, SHRINK = 8192, 128, 16, 0.7
# Values of the widest node that the points of a round may take: 128 MiB.
MOST_VALUES = 1 << 24


def sampled(asked: Conjunctions, lower: Tensor, upper: Tensor, seed: int) -> Iterator[Tensor]:
    """Yield after each round its best points `(BEST, inputs)` of the box `(inputs,)`, float64, the surest first."""
    generator = torch.Generator().manual_seed(seed % 2**63)
    widest = max(math.prod(shape) for shape in asked.network.shapes.values())
    count = max(2 * BEST, min(POINTS, MOST_VALUES // widest))

    def uniform(number: int) -> Tensor:
        return torch.rand(number, len(lower), generator=generator, dtype=torch.float64)

    width = upper - lower
    points = torch.minimum(lower + uniform(count) * width, upper)
    for _ in range(ROUNDS):
        excess = asked.excess(points.reshape(-1, *asked.network.input_shape))
        best = points[excess.nan_to_num(torch.inf, torch.inf, -torch.inf).argsort()[:BEST]]
        yield best
        width = width * SHRINK
        around = best[torch.randint(len(best), (count - len(best),), generator=generator)]
        moved = around + width * (uniform(len(around)) - 0.5)
        points = torch.cat([best, torch.minimum(torch.maximum(moved, lower), upper)])
