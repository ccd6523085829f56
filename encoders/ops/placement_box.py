"""What holds for every draw of `resize-and-pad`: each pixel lies between the least and the greatest that it may be.

Not in the table of ops and in no file: `ResizeAndPad.over_draws` makes it. A draw is the nearest neighbours of an
image, of some height and the width in proportion, at some place on zeros.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from encoders.box import Box, Shape
from encoders.ops.base import Op
from encoders.ops.gather import Gather
from encoders.rationals import Afford, Rationals
from encoders.views.envelope import ConstantEnvelope, Envelope


@dataclass(frozen=True, eq=False)
class PlacementBox(Op):
    """All placements of images of a shape, (channels, height, width), from the height `smallest` on; its value is x."""

    kind = "placement-box"
    is_function = False

    shape: Shape
    smallest: int

    def output_shape(self, *shapes: Shape) -> Shape:
        return self.shape

    def evaluate(self, *x: Tensor) -> Tensor:
        return x[0]

    def rational(self, *x: Rationals, afford: Afford) -> Rationals:
        return x[0]

    def interval(self, *boxes: Box) -> Box:
        (box,) = boxes
        lower, upper = box.lower, box.upper
        for height in range(self.smallest, self.shape[1] + 1):
            rows, columns = self.shape[1] - height, self.shape[2] - width_of(self.shape, height)
            for top, left in itertools.product(range(rows + 1), range(columns + 1)):
                drawn = placed(self.shape, height, top, left).cast(box.dtype, box.lower.device).interval(box)
                lower, upper = torch.minimum(lower, drawn.lower), torch.maximum(upper, drawn.upper)
        return Box.unchecked(lower, upper)

    def envelope(self, *boxes: Box, slope: Tensor | None = None) -> Envelope:
        return ConstantEnvelope(self.interval(*boxes))


def width_of(shape: Shape, height: int) -> int:
    """Return the width that goes with a height: in proportion, rounded, at least 1."""
    return max(1, round(shape[2] * height / shape[1]))


def placed(shape: Shape, height: int, top: int, left: int) -> Gather:
    """Return the draw of a height and offsets, of images of a shape."""
    sizes = (height, width_of(shape, height))
    rows, columns = (torch.arange(size) * n // size for n, size in zip(shape[1:], sizes, strict=True))
    places = torch.full(shape, -1)
    channels = torch.arange(shape[0])[:, None, None] * (shape[1] * shape[2])
    places[:, top : top + sizes[0], left : left + sizes[1]] = channels + rows[:, None] * shape[2] + columns
    return Gather(places, torch.zeros(()))
