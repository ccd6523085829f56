"""Activation functions. All but abs are non-decreasing, so the ends of a box give the exact range."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from encoders.box import Box
from encoders.ops.base import Op, Shape
from encoders.rounding import ELEMENTARY_FUNCTION_ULPS, widen
from encoders.views.envelope import ElementwiseEnvelope, Envelope, offsets_at_ends, reach_of
from encoders.views.piecewise import piecewise
from encoders.views.relaxation import Relaxation, exact_hinge, hinge_relaxation, line_relaxation
from encoders.views.restriction import Restriction, elementwise_restriction, positive_side
from encoders.views.s_shape import s_shape_envelope


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

    def restrict(self, *x: Tensor, direction: Tensor | None = None, tolerance: float = 0.0) -> Restriction:
        return elementwise_restriction(positive_side(x[0], direction, tolerance), 0.0)

    def interval(self, *boxes: Box) -> Box:
        """Return the exact range; nothing is rounded."""
        (box,) = boxes
        return Box.unchecked(functional.relu(box.lower), functional.relu(box.upper))

    def envelope(self, *boxes: Box, slope: Tensor | None = None) -> Envelope:
        return _hinge_envelope(self, boxes[0], 0.0, slope)

    def relax(self, *boxes: Box, around: Box | None = None) -> Relaxation:
        return _hinge_relaxation(self, boxes[0], 0.0, around)

    def exact(self, *boxes: Box, segments: int = 1) -> Relaxation:
        return exact_hinge(boxes[0], 0.0)

    def slope_range(self, box: Box) -> tuple[Tensor, Tensor, Tensor]:
        return _hinge_slopes(box, 0.0)

    def open_units(self, box: Box) -> Tensor:
        return (box.lower < 0) & (box.upper > 0)


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

    def restrict(self, *x: Tensor, direction: Tensor | None = None, tolerance: float = 0.0) -> Restriction:
        return elementwise_restriction(positive_side(x[0], direction, tolerance), self.slope)

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

    def envelope(self, *boxes: Box, slope: Tensor | None = None) -> Envelope:
        return _hinge_envelope(self, boxes[0], self.slope, slope)

    def relax(self, *boxes: Box, around: Box | None = None) -> Relaxation:
        return _hinge_relaxation(self, boxes[0], self.slope, around)

    def exact(self, *boxes: Box, segments: int = 1) -> Relaxation:
        return exact_hinge(boxes[0], self.slope)

    def slope_range(self, box: Box) -> tuple[Tensor, Tensor, Tensor]:
        return _hinge_slopes(box, self.slope)

    def open_units(self, box: Box) -> Tensor:
        return (box.lower < 0) & (box.upper > 0)


@dataclass(frozen=True, eq=False)
class Abs(_Elementwise):
    """y = |x|."""

    kind = "abs"

    def evaluate(self, *x: Tensor) -> Tensor:
        return x[0].abs()

    def restrict(self, *x: Tensor, direction: Tensor | None = None, tolerance: float = 0.0) -> Restriction:
        return elementwise_restriction(positive_side(x[0], direction, tolerance), -1.0)

    def interval(self, *boxes: Box) -> Box:
        """Return the exact range; nothing is rounded."""
        (box,) = boxes
        lower = torch.maximum(box.lower, -box.upper).clamp(min=0)
        return Box.unchecked(lower, torch.maximum(-box.lower, box.upper))

    def envelope(self, *boxes: Box, slope: Tensor | None = None) -> Envelope:
        return _hinge_envelope(self, boxes[0], -1.0, slope)

    def relax(self, *boxes: Box, around: Box | None = None) -> Relaxation:
        return _hinge_relaxation(self, boxes[0], -1.0, around)

    def exact(self, *boxes: Box, segments: int = 1) -> Relaxation:
        return exact_hinge(boxes[0], -1.0)

    def slope_range(self, box: Box) -> tuple[Tensor, Tensor, Tensor]:
        return _hinge_slopes(box, -1.0)

    def open_units(self, box: Box) -> Tensor:
        return (box.lower < 0) & (box.upper > 0)


@dataclass(frozen=True, eq=False)
class Sigmoid(_Elementwise):
    """y = 1 / (1 + exp(-x))."""

    kind = "sigmoid"

    def evaluate(self, *x: Tensor) -> Tensor:
        return torch.sigmoid(x[0])

    def interval(self, *boxes: Box) -> Box:
        """Return the range, widened by the trusted error of the library's sigmoid and cut to [0, 1]."""
        return _monotone(self, boxes[0], 0.0, 1.0)

    def envelope(self, *boxes: Box, slope: Tensor | None = None) -> Envelope:
        return self._lines(boxes[0])

    def relax(self, *boxes: Box, around: Box | None = None) -> Relaxation:
        return line_relaxation(self._lines(boxes[0]))

    def exact(self, *boxes: Box, segments: int = 1) -> Relaxation:
        return piecewise(self.interval, partial(self._lines, thin=True), _sigmoid_derivative, boxes[0], segments)

    def _lines(self, box: Box, thin: bool = False) -> ElementwiseEnvelope:
        return s_shape_envelope(self, _sigmoid_derivative, box, thin)

    def open_units(self, box: Box) -> Tensor:
        return box.lower < box.upper


@dataclass(frozen=True, eq=False)
class Tanh(_Elementwise):
    """y = tanh(x)."""

    kind = "tanh"

    def evaluate(self, *x: Tensor) -> Tensor:
        return torch.tanh(x[0])

    def interval(self, *boxes: Box) -> Box:
        """Return the range, widened by the trusted error of the library's tanh and cut to [-1, 1]."""
        return _monotone(self, boxes[0], -1.0, 1.0)

    def envelope(self, *boxes: Box, slope: Tensor | None = None) -> Envelope:
        return self._lines(boxes[0])

    def relax(self, *boxes: Box, around: Box | None = None) -> Relaxation:
        return line_relaxation(self._lines(boxes[0]))

    def exact(self, *boxes: Box, segments: int = 1) -> Relaxation:
        return piecewise(self.interval, partial(self._lines, thin=True), _tanh_derivative, boxes[0], segments)

    def _lines(self, box: Box, thin: bool = False) -> ElementwiseEnvelope:
        return s_shape_envelope(self, _tanh_derivative, box, thin)

    def open_units(self, box: Box) -> Tensor:
        return box.lower < box.upper


def _sigmoid_derivative(x: Tensor) -> Tensor:
    return torch.sigmoid(x) * torch.sigmoid(-x)


def _tanh_derivative(x: Tensor) -> Tensor:
    return (1.0 - torch.tanh(x)) * (1.0 + torch.tanh(x))


def _monotone(op: Op, box: Box, least: float, greatest: float) -> Box:
    lower, upper = widen(op.evaluate(box.lower), op.evaluate(box.upper), ELEMENTARY_FUNCTION_ULPS)
    return Box.unchecked(lower.clamp(least, greatest), upper.clamp(least, greatest))


def _hinge_slopes(box: Box, left: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return (least, greatest, chosen) lower slopes of x for x >= 0, left x below.

    Where the sign is open every slope in [left, 1] is sound, and the chosen one is that of the longer side, which
    makes the area between the lines smallest (Zhang et al. 2018). Elsewhere there is no choice.
    """
    rising, falling = box.lower >= 0, box.upper <= 0
    one = torch.ones_like(box.lower)
    least = torch.where(rising, one, left)
    greatest = torch.where(falling & ~rising, torch.full_like(one, left), one)
    chosen = torch.where(box.upper > -box.lower, greatest, least)
    return least, greatest, chosen


def _hinge_envelope(op: Op, box: Box, left: float, slope: Tensor | None) -> ElementwiseEnvelope:
    """Return the envelope of the convex function x for x >= 0, left x below, with -1 <= left <= 1.

    Above: the chord, shifted until it covers both ends. Below: any slope between left and 1 through the origin where
    the sign is open; where it is known both lines are the function itself.
    """
    least, greatest, chosen = _hinge_slopes(box, left)
    lower_slope = (
        chosen if slope is None else torch.minimum(torch.maximum(slope, _rows(least, slope)), _rows(greatest, slope))
    )
    is_open = least < greatest
    ends = [op.interval(Box.unchecked(end, end)) for end in (box.lower, box.upper)]
    chord = (ends[1].upper - ends[0].upper) / (box.upper - box.lower)
    # An infinite box has no chord: its line is flat, and its offset infinite.
    chord = torch.where(is_open, chord.nan_to_num(0.0, 0.0, 0.0), least)
    _, above = offsets_at_ends(ends[0], ends[1], box, chord)
    zero = torch.zeros_like(above)
    return ElementwiseEnvelope(lower_slope, zero, chord, torch.where(is_open, above, zero), reach_of(box))


def _hinge_relaxation(op: Op, box: Box, left: float, around: Box | None) -> Relaxation:
    outer = box if around is None else around
    return hinge_relaxation(_hinge_envelope(op, box, left, None), left, (outer.lower < 0) & (outer.upper > 0))


def _rows(units: Tensor, like: Tensor) -> Tensor:
    """Return `(batch, *shape)` with an axis for rows if `like` has one."""
    return units.unsqueeze(1) if like.dim() > units.dim() else units
