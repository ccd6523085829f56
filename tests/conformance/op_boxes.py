"""Boxes of the inputs of an op, of all magnitudes, and points inside them."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from encoders.box import Box
from tests.conformance.op_cases import Case

F64 = torch.float64
INF = math.inf
MAX = torch.finfo(F64).max
# How many boxes each law is asked on at once.
BOXES = 6

# Where the ends of a box lie: the size of its centre and of its radius, as exponents of ten.
MAGNITUDES: dict[str, tuple[float, float]] = {
    "ordinary": (0.0, 0.0),
    "narrow": (0.0, -14.0),
    "subnormal": (-318.0, -318.0),
    "huge": (300.0, 300.0),
    "mixed": (math.nan, math.nan),
}


def boxes_of(case: Case, magnitude: str, seed: int) -> tuple[Box, ...]:
    """Return BOXES random boxes for each input; the first is a point, and so is every fifth coordinate."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for shape in case.shapes:
        size = (BOXES, *shape)
        centre = torch.randn(size, generator=generator, dtype=F64)
        radius = torch.rand(size, generator=generator, dtype=F64)
        exponents = MAGNITUDES[magnitude]
        if math.isnan(exponents[0]):
            spread = torch.rand((2, *size), generator=generator, dtype=F64) * 60.0 - 30.0
        else:
            spread = torch.tensor(exponents, dtype=F64).reshape(2, *[1] * len(size)).expand(2, *size)
        centre, radius = centre * 10.0 ** spread[0], radius * 10.0 ** spread[1]
        radius[0] = 0.0
        radius.view(-1)[::5] = 0.0
        made.append(Box(centre - radius, centre + radius))
    return tuple(made)


def points_of(boxes: tuple[Box, ...], count: int, seed: int) -> Iterator[tuple[Tensor, ...]]:
    """Yield points inside, half of them corners."""
    generator = torch.Generator().manual_seed(seed)
    for i in range(count):
        x = []
        for box in boxes:
            share = torch.rand(box.lower.shape, generator=generator, dtype=F64)
            if i % 2:
                share = share.round()
            middle = box.lower * (1.0 - share) + box.upper * share
            x.append(torch.minimum(torch.maximum(middle, box.lower), box.upper))
        yield tuple(x)


# Ends that overflow or are undefined in some formula: differences, centres, squares, products with 0.
EXTREME_BOXES = [
    (-INF, INF),
    (-INF, 1.0),
    (0.5, INF),
    (-INF, -MAX),
    (-MAX, MAX),
    (MAX, MAX),
    (-MAX, -MAX),
    (1e200, 2e200),
    (-1e160, 1e160),
    (-1e-322, 1.0),
    (-1e-322, -5e-324),
    (5e-324, 1e-308),
    (0.0, 0.0),
    (-0.0, MAX),
    (-800.0, -700.0),
]
