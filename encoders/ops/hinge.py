"""Functions with one bend, at zero: x on its right, a multiple of x on its left.

The value and its box apart, every view is one formula in the left slope, exact for all of them.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from encoders.arithmetic import INFLATION, Arithmetic
from encoders.box import Box
from encoders.ops.base import ElementwiseOp, Op
from encoders.ops.relu_difference import ReluDifference
from encoders.rationals import Afford, Rationals
from encoders.rounding import widen
from encoders.views.change import Change
from encoders.views.envelope import ElementwiseEnvelope, offsets_at_ends, reach_of
from encoders.views.pseudogradient import replace_backward
from encoders.views.relaxation import Relaxation, Size, exact_hinge, hinge_relaxation
from encoders.views.restriction import Restriction, elementwise_restriction, positive_side


class Hinge(ElementwiseOp):
    """y = x for x >= 0, left x below, with -1 <= left <= 1: convex."""

    @property
    @abstractmethod
    def hinge_slope(self) -> float: ...

    def execution_error(self, boxes: Sequence[Box], errors: Sequence[Tensor], arithmetic: Arithmetic) -> Tensor:
        """Return the error of the input times the slope where it is, and that of a product with the left slope."""
        (box,), (error,), left = boxes, errors, abs(self.hinge_slope)
        # Strictly left of zero, so that a sum that was rounded to it cannot be right of it.
        moved = torch.where(box.upper < -error * INFLATION, left * error, error)
        if left in (0.0, 1.0):
            return moved
        size = reach_of(box) + error
        return arithmetic.bounded(moved + arithmetic.relative(2) * left * size + arithmetic.absolute(1), size)

    def restrict(self, *x: Tensor, direction: Tensor | None = None, tolerance: float = 0.0) -> Restriction:
        return elementwise_restriction(positive_side(x[0], direction, tolerance), self.hinge_slope)

    def envelope(self, *boxes: Box, slope: Tensor | None = None) -> ElementwiseEnvelope:
        """Return lines around the hinge, the hinge itself where the sign is known.

        Above: the chord, shifted until it covers both ends. Below: any slope of `slope_range` through the origin.
        """
        (box,) = boxes
        least, greatest, lower_slope = self.slope_range(box)
        if slope is not None:
            lower_slope = torch.minimum(torch.maximum(slope, _rows(least, slope)), _rows(greatest, slope))
        is_open = least < greatest
        ends = [self.interval(Box.unchecked(end, end)) for end in (box.lower, box.upper)]
        chord = (ends[1].upper - ends[0].upper) / (box.upper - box.lower)
        # An infinite box has no chord: its line is flat, and its offset infinite.
        chord = torch.where(is_open, chord.nan_to_num(0.0, 0.0, 0.0), least)
        _, above = offsets_at_ends(ends[0], ends[1], box, chord)
        zero = torch.zeros_like(above)
        return ElementwiseEnvelope(lower_slope, zero, chord, torch.where(is_open, above, zero), reach_of(box))

    def slope_range(self, box: Box) -> tuple[Tensor, Tensor, Tensor]:
        """Return (least, greatest, chosen) lower slopes.

        Where the sign is open every slope in [left, 1] is sound, and the chosen one is that of the longer side, which
        makes the area between the lines smallest (Zhang et al. 2018). Elsewhere there is no choice.
        """
        rising, falling = box.lower >= 0, box.upper <= 0
        one = torch.ones_like(box.lower)
        least = torch.where(rising, one, self.hinge_slope)
        greatest = torch.where(falling & ~rising, torch.full_like(one, self.hinge_slope), one)
        chosen = torch.where(box.upper > -box.lower, greatest, least)
        return least, greatest, chosen

    def open_units(self, box: Box) -> Tensor:
        return (box.lower < 0) & (box.upper > 0)

    def relax(self, *boxes: Box, around: Box | None = None) -> Relaxation:
        (box,) = boxes
        is_open = self.open_units(box if around is None else around)
        return hinge_relaxation(self.envelope(box), self.hinge_slope, is_open)

    def exact(self, *boxes: Box, segments: int = 1) -> Relaxation:
        return exact_hinge(boxes[0], self.hinge_slope)

    def evaluate_pseudo(self, *x: Tensor, leak: float = 0.0) -> Tensor:
        if not 0.0 <= self.hinge_slope < leak:
            return self.evaluate(*x)
        return replace_backward(self.evaluate, lambda z: functional.leaky_relu(z, leak))(*x)

    def rational(self, *x: Rationals, afford: Afford) -> Rationals:
        left, numerators = Fraction(self.hinge_slope), x[0].numerators
        bent = np.where(numerators < 0, numerators * left.numerator, numerators * left.denominator)
        return Rationals(bent, x[0].denominator * left.denominator).reduced()

    def program_size(self, view: str, outputs: int, segments: int) -> Size:
        if view == "exact":
            return Size(4 * outputs, 10 * outputs)
        return super().program_size(view, outputs, segments)


@dataclass(frozen=True, eq=False)
class Relu(Hinge):
    """y = max(x, 0)."""

    kind = "relu"
    hinge_slope = 0.0

    def evaluate(self, *x: Tensor) -> Tensor:
        return functional.relu(x[0])

    def interval(self, *boxes: Box) -> Box:
        """Return the exact range; nothing is rounded."""
        (box,) = boxes
        return Box.unchecked(functional.relu(box.lower), functional.relu(box.upper))

    def change(self, other: Op) -> Change[Op] | None:
        return Change(of_both=ReluDifference())


@dataclass(frozen=True, eq=False)
class LeakyRelu(Hinge):
    """y = x for x >= 0, slope * x below; slope in [0, 1]."""

    kind = "leaky-relu"

    slope: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.slope <= 1.0:
            raise ValueError(f"leaky-relu supports slopes in [0, 1], got {self.slope}")

    @property
    def hinge_slope(self) -> float:
        return self.slope

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
class Abs(Hinge):
    """y = |x|."""

    kind = "abs"
    hinge_slope = -1.0

    def evaluate(self, *x: Tensor) -> Tensor:
        return x[0].abs()

    def interval(self, *boxes: Box) -> Box:
        """Return the exact range; nothing is rounded."""
        (box,) = boxes
        lower = torch.maximum(box.lower, -box.upper).clamp(min=0)
        return Box.unchecked(lower, torch.maximum(-box.lower, box.upper))


def _rows(units: Tensor, like: Tensor) -> Tensor:
    """Return `(batch, *shape)` with an axis for rows if `like` has one."""
    return units.unsqueeze(1) if like.dim() > units.dim() else units
