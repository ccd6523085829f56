"""Smooth activation functions, convex left of zero and concave right of it. They rise, so ends give the range."""

from abc import abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from encoders.box import Box
from encoders.ops.base import ElementwiseOp
from encoders.rounding import ELEMENTARY_FUNCTION_ULPS, widen
from encoders.views.envelope import ElementwiseEnvelope, Envelope
from encoders.views.piecewise import piecewise
from encoders.views.pseudogradient import replace_backward
from encoders.views.relaxation import Relaxation, line_relaxation
from encoders.views.s_shape import s_shape_envelope


class SShape(ElementwiseOp):
    """f with f(-x) = 2 f(0) - f(x), increasing, between two values and of slope at most 1."""

    keeps_order = True
    least: ClassVar[float]
    greatest: ClassVar[float] = 1.0

    @property
    def value_at_zero(self) -> float:
        return (self.least + self.greatest) / 2.0

    @abstractmethod
    def derivative(self, x: Tensor) -> Tensor:
        """Return the derivative at x."""

    def interval(self, *boxes: Box) -> Box:
        """Return the range, widened by the trusted error of the library's function and cut to its values."""
        (box,) = boxes
        lower, upper = widen(self.evaluate(box.lower), self.evaluate(box.upper), ELEMENTARY_FUNCTION_ULPS)
        return Box.unchecked(lower.clamp(self.least, self.greatest), upper.clamp(self.least, self.greatest))

    def envelope(self, *boxes: Box, slope: Tensor | None = None) -> Envelope:
        return self._lines(boxes[0])

    def relax(self, *boxes: Box, around: Box | None = None) -> Relaxation:
        return line_relaxation(self._lines(boxes[0]))

    def exact(self, *boxes: Box, segments: int = 1) -> Relaxation:
        return piecewise(self.interval, partial(self._lines, thin=True), self.derivative, boxes[0], segments)

    def open_units(self, box: Box) -> Tensor:
        return box.lower < box.upper

    def evaluate_pseudo(self, *x: Tensor, leak: float = 0.0) -> Tensor:
        if leak == 0.0:
            return self.evaluate(*x)
        return replace_backward(self.evaluate, lambda z: self.evaluate(z) + leak * z)(*x)

    def trusted_error(self, size: Tensor, *x: Tensor) -> Tensor:
        """Return ones: approximations of curves err by a share of the curve's range."""
        return torch.ones_like(size)

    def _lines(self, box: Box, thin: bool = False) -> ElementwiseEnvelope:
        return s_shape_envelope(self.interval, self.derivative, box, thin)


@dataclass(frozen=True, eq=False)
class Sigmoid(SShape):
    """y = 1 / (1 + exp(-x))."""

    kind = "sigmoid"
    least = 0.0

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
