"""Activation functions. All but abs are non-decreasing, so the ends of a box give the exact range."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from encoders.box import Box
from encoders.ops.base import Op, Shape
from encoders.rounding import ELEMENTARY_FUNCTION_ULPS, widen


class _Elementwise(Op):
    """An op that keeps the shape."""

    def output_shape(self, *shapes: Shape) -> Shape:
        return shapes[0]


@dataclass(frozen=True, eq=False)
class Relu(_Elementwise):
    """y = max(x, 0)."""

    kind = "relu"

    def evaluate(self, *x: Tensor) -> Tensor:
        return functional.relu(x[0])

    def interval(self, *boxes: Box) -> Box:
        """Return the exact range; nothing is rounded."""
        (box,) = boxes
        return Box.unchecked(functional.relu(box.lower), functional.relu(box.upper))


@dataclass(frozen=True, eq=False)
class LeakyRelu(_Elementwise):
    """y = x for x >= 0, slope * x below; slope in [0, 1]."""

    kind = "leaky-relu"

    slope: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.slope <= 1.0:
            raise ValueError(f"leaky-relu supports slopes in [0, 1], got {self.slope}")

    def evaluate(self, *x: Tensor) -> Tensor:
        return functional.leaky_relu(x[0], self.slope)

    def interval(self, *boxes: Box) -> Box:
        """Return the range, negative ends widened by the one rounding of the product."""
        (box,) = boxes
        if self.slope == 0.0:
            # 0 times an infinite end would be undefined.
            return Box.unchecked(functional.relu(box.lower), functional.relu(box.upper))
        lower, upper = self.evaluate(box.lower), self.evaluate(box.upper)
        wide_lower, wide_upper = widen(lower, upper, ulps=1)
        # The sign of the input decides: a product that underflows to -0 is rounded too.
        return Box.unchecked(
            torch.where(box.lower < 0, wide_lower, lower), torch.where(box.upper < 0, wide_upper, upper)
        )


@dataclass(frozen=True, eq=False)
class Abs(_Elementwise):
    """y = |x|."""

    kind = "abs"

    def evaluate(self, *x: Tensor) -> Tensor:
        return x[0].abs()

    def interval(self, *boxes: Box) -> Box:
        """Return the exact range; nothing is rounded."""
        (box,) = boxes
        lower = torch.maximum(box.lower, -box.upper).clamp(min=0)
        return Box.unchecked(lower, torch.maximum(-box.lower, box.upper))


@dataclass(frozen=True, eq=False)
class Sigmoid(_Elementwise):
    """y = 1 / (1 + exp(-x))."""

    kind = "sigmoid"

    def evaluate(self, *x: Tensor) -> Tensor:
        return torch.sigmoid(x[0])

    def interval(self, *boxes: Box) -> Box:
        """Return the range, widened by the trusted error of the library's sigmoid and cut to [0, 1]."""
        return _monotone(self, boxes[0], 0.0, 1.0)


@dataclass(frozen=True, eq=False)
class Tanh(_Elementwise):
    """y = tanh(x)."""

    kind = "tanh"

    def evaluate(self, *x: Tensor) -> Tensor:
        return torch.tanh(x[0])

    def interval(self, *boxes: Box) -> Box:
        """Return the range, widened by the trusted error of the library's tanh and cut to [-1, 1]."""
        return _monotone(self, boxes[0], -1.0, 1.0)


def _monotone(op: Op, box: Box, least: float, greatest: float) -> Box:
    lower, upper = widen(op.evaluate(box.lower), op.evaluate(box.upper), ELEMENTARY_FUNCTION_ULPS)
    return Box.unchecked(lower.clamp(least, greatest), upper.clamp(least, greatest))
