"""Images shrunk to a random size and put at a random place on zeros, in their own size again.

Xie, Wang, Zhang, Ren, Yuille 2018. A draw picks the height uniformly from `smallest` to the image's, the width in
proportion, and the offsets uniformly among those that fit; pixels are those of the nearest neighbour, so a draw is a
`gather`. The views are not those of a mean, which would be a blurred image: they are those of the draw of the largest
size, the image as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from encoders.box import Shape
from encoders.ops.gather import Gather
from encoders.ops.placement_box import PlacementBox, placed, width_of
from encoders.ops.shape import Reshape


@dataclass(frozen=True, eq=False, kw_only=True)
class ResizeAndPad(Reshape):
    """`shape` is that of the image, (channels, height, width); smallest: the least height, from 1 to the image's."""

    kind = "resize-and-pad"
    randomised = True

    smallest: int

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1 or not 1 <= self.smallest <= self.shape[1]:
            raise ValueError(
                f"resize-and-pad takes a shape (channels, height, width) and a least height from 1 to the image's, got "
                f"{self.shape} and {self.smallest}"
            )

    def output_shape(self, *shapes: Shape) -> Shape:
        if tuple(shapes[0]) != tuple(self.shape):
            raise ValueError(f"resize-and-pad takes shape {self.shape}, got {shapes[0]}")
        return self.shape

    def draw(self, generator: torch.Generator) -> Gather:
        height = self.smallest + _below(self.shape[1] - self.smallest + 1, generator)
        width = width_of(self.shape, height)
        top, left = (_below(n - size + 1, generator) for n, size in zip(self.shape[1:], (height, width), strict=True))
        return placed(self.shape, height, top, left)

    def over_draws(self, deviations: float) -> PlacementBox:
        return PlacementBox(tuple(self.shape), self.smallest)


def _below(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator))
