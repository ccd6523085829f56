"""The place of the greatest value along an axis, as a number: the class that some classifiers return."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from encoders.box import Box, Shape
from encoders.ops.base import Op
from encoders.rationals import Afford, Rationals


@dataclass(frozen=True, eq=False)
class ArgMax(Op):
    """y = the first place of the greatest value along an axis of the sample, in the dtype of the values.

    keep_axis: whether the axis stays, with size 1.
    """

    kind = "arg-max"
    chooses = True
    jumps = True

    axis: int
    keep_axis: bool = False

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        if not 0 <= self.axis < len(shape):
            raise ValueError(f"arg-max: axis {self.axis} does not exist in shape {shape}")
        return (*shape[: self.axis], *([1] if self.keep_axis else []), *shape[self.axis + 1 :])

    def evaluate(self, *x: Tensor) -> Tensor:
        # The first one, where several are equal: torch promises no more than any of them.
        (value,) = x
        is_greatest = (value == value.amax(dim=self.axis + 1, keepdim=True)).to(torch.uint8)
        places = is_greatest.argmax(dim=self.axis + 1, keepdim=self.keep_axis).to(value.dtype)
        # Zero, with the gradient zero: attacks differentiate whatever a network computes.
        return places + 0.0 * torch.sign(value.amax(dim=self.axis + 1, keepdim=self.keep_axis))

    def interval(self, *boxes: Box) -> Box:
        """Return the first and the last place whose upper end reaches the greatest lower end."""
        (box,) = boxes
        axis, size = self.axis + 1, box.lower.shape[self.axis + 1]
        floor = box.lower.amax(dim=axis, keepdim=True)
        may_win = (box.upper >= floor).to(torch.uint8)
        first = may_win.argmax(dim=axis, keepdim=self.keep_axis)
        last = size - 1 - may_win.flip(axis).argmax(dim=axis, keepdim=self.keep_axis)
        return Box.unchecked(first.to(box.dtype), last.to(box.dtype))

    def rational(self, *x: Rationals, afford: Afford) -> Rationals:
        (value,) = x
        numerators = value.numerators
        greatest = np.amax(numerators, axis=self.axis + 1, keepdims=True)
        places = np.argmax(numerators == greatest, axis=self.axis + 1, keepdims=self.keep_axis)
        return Rationals(places.astype(object), 1)

    def fan_in(self) -> int:
        return 2
