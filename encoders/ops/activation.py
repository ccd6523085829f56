"""Smooth activation functions, convex left of zero and concave right of it. They rise, so ends give the range."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from encoders.arithmetic import Arithmetic
from encoders.box import Box
from encoders.ops.smooth import SmoothOp
from encoders.rounding import ELEMENTARY_FUNCTION_ULPS, widen
from encoders.views.envelope import ElementwiseEnvelope, reach_of
from encoders.views.s_shape import s_shape_envelope, s_shape_shares


class SShape(SmoothOp):
    """f with f(-x) = 2 f(0) - f(x), increasing, between two values and of slope at most 1."""

    keeps_order = True
    slopes_by_row = False
    least: ClassVar[float]
    greatest: ClassVar[float] = 1.0
    steepest: ClassVar[float] = 1.0

    @property
    def value_at_zero(self) -> float:
        return (self.least + self.greatest) / 2.0

    def interval(self, *boxes: Box) -> Box:
        """Return the range, widened by the trusted error of the library's function and cut to its values."""
        (box,) = boxes
        lower, upper = widen(self.evaluate(box.lower), self.evaluate(box.upper), ELEMENTARY_FUNCTION_ULPS)
        return Box.unchecked(lower.clamp(self.least, self.greatest), upper.clamp(self.least, self.greatest))

    def execution_error(self, boxes: Sequence[Box], errors: Sequence[Tensor], arithmetic: Arithmetic) -> Tensor:
        """Return the error of the input times the steepest slope, and the trusted error of the library's function."""
        own = 2.0 * ELEMENTARY_FUNCTION_ULPS * arithmetic.roundoff + arithmetic.absolute(1)
        return arithmetic.bounded(errors[0] * self.steepest + own, reach_of(boxes[0]) + errors[0])

    def order_error(self, inputs: Box, error: Tensor, arithmetic: Arithmetic, one: bool) -> Tensor | None:
        """Return what tells f(0) + f'(0) x from f(0) where one is compared with it; far from zero several saturate."""
        if not one:
            return None
        own = 2.0 * ELEMENTARY_FUNCTION_ULPS * arithmetic.roundoff + arithmetic.absolute(1)
        return torch.full_like(error, 4.0 * own / self.steepest)

    def trusted_error(self, size: Tensor, *x: Tensor) -> Tensor:
        """Return ones: approximations of curves err by a share of the curve's range."""
        return torch.ones_like(size)

    def lines(self, box: Box, thin: bool = False) -> ElementwiseEnvelope:
        return s_shape_envelope(self.interval, self.derivative, box, thin)

    def envelope(self, *boxes: Box, slope: Tensor | None = None) -> ElementwiseEnvelope:
        return s_shape_envelope(self.interval, self.derivative, boxes[0], touching=slope)

    def slope_range(self, box: Box) -> tuple[Tensor, Tensor, Tensor]:
        """Return the shares `(batch, 2, *shape)` where the lines below and above may touch: see `s_shape_envelope`."""
        chosen = s_shape_shares(box)
        return torch.zeros_like(chosen), torch.ones_like(chosen), chosen


@dataclass(frozen=True, eq=False)
class Sigmoid(SShape):
    """y = 1 / (1 + exp(-x))."""

    kind = "sigmoid"
    least = 0.0
    steepest = 0.25

    def evaluate(self, *x: Tensor) -> Tensor:
        return torch.sigmoid(x[0])

    def derivative(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x) * torch.sigmoid(-x)


@dataclass(frozen=True, eq=False)
class Tanh(SShape):
    """y = tanh(x)."""

    kind = "tanh"
    least = -1.0

    def evaluate(self, *x: Tensor) -> Tensor:
        return torch.tanh(x[0])

    def derivative(self, x: Tensor) -> Tensor:
        return (1.0 - torch.tanh(x)) * (1.0 + torch.tanh(x))
