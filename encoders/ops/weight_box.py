"""A layer whose weights are not known but lie in a box: what holds for every draw of a random layer.

Not in the table of ops and in no file: `Op.over_draws` makes it, and methods bound it. With weights C + D, |D| <= R,
and biases c + d, |d| <= r, for every such D and d

    C x + c - R |x| - r  <=  (C + D) x + c + d  <=  C x + c + R |x| + r,

with equality for some D (interval matrix times vector: Rump 1999; Neumaier 1990). |x| is x where x is not negative,
and lies below its chord elsewhere. `evaluate` and `rational` are those of one of the weights, the mean: where that is
unsafe not all draws are safe.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from encoders.box import Box, Shape
from encoders.ops.affine import Affine
from encoders.ops.base import Op
from encoders.ops.hinge import Abs
from encoders.ops.linear import WeightedSum
from encoders.rationals import Afford, Rationals
from encoders.rounding import add_down, add_up, next_down, next_up, tiny, unit_roundoff
from encoders.views.coefficients import Coefficients, inflated
from encoders.views.comparison import Comparison
from encoders.views.envelope import Below, Envelope, reach_of


@dataclass(frozen=True, eq=False)
class WeightBox(Op):
    """The layers of one kind whose weights and biases lie within `spread` of those of `centre`.

    mean: one of them. spread: its weights and biases are not negative; it has a bias only if the centre has one.
    """

    kind = "weight-box"
    gains_from_lines = True
    is_function = False

    mean: WeightedSum
    centre: WeightedSum
    spread: WeightedSum

    def output_shape(self, *shapes: Shape) -> Shape:
        return self.mean.output_shape(*shapes)

    def fan_in(self) -> int:
        return 2 * self.mean.fan_in()

    def evaluate(self, *x: Tensor) -> Tensor:
        return self.mean.evaluate(*x)

    def rational(self, *x: Rationals, afford: Afford) -> Rationals:
        return self.mean.rational(*x, afford=afford)

    def interval(self, *boxes: Box) -> Box:
        """Return the range: exact up to rounding where no input is negative, else centre and spread apart."""
        (box,) = boxes
        if bool((box.lower >= 0).all()):
            least, greatest = self._ends
            return Box.unchecked(least.interval(box).lower, greatest.interval(box).upper)
        middle, around = self.centre.interval(box), self.spread.interval(Box.point(reach_of(box))).upper
        lower, upper = add_down(middle.lower, -around), add_up(middle.upper, around)
        everything = -torch.inf, torch.inf
        lower, upper = (end.nan_to_num(e, e, e) for end, e in zip((lower, upper), everything, strict=True))
        return Box.unchecked(lower, upper)

    @cached_property
    def _ends(self) -> tuple[WeightedSum, WeightedSum]:
        """The layers of the least and the greatest weights and biases."""
        return _combined(self.centre, self.spread, -1.0), _combined(self.centre, self.spread, 1.0)

    def envelope(self, *boxes: Box, slope: Tensor | None = None) -> Envelope:
        (box,) = boxes
        reach = reach_of(box)
        sizes = Box.unchecked(torch.zeros_like(reach), reach)
        return _WeightBoxEnvelope(
            self.centre.envelope(box), self.spread.envelope(sizes), Abs().envelope(box), reach, box.shape
        )

    def open_units(self, box: Box) -> Tensor:
        return box.lower < box.upper

    def compare(self, *boxes: Box, classes: Tensor) -> Comparison:
        """Return what the boxes of y_c - y_k prove: the centre's differences, and the spreads of both."""
        if not isinstance(self.centre, Affine):
            return super().compare(*boxes, classes=classes)
        (box,) = boxes
        wins = torch.empty(box.batch, self.centre.fan_out(), dtype=torch.bool, device=classes.device)
        loses = torch.empty_like(wins)
        for reference in classes.unique().tolist():
            rows = classes == reference
            margins = self._differences(reference).interval(box[rows])
            wins[rows], loses[rows] = margins.lower > 0, margins.upper <= 0
        return Comparison.of(wins, loses, classes)

    def _differences(self, reference: int) -> WeightBox:
        """Return y_reference - y_k for every k; the rounding of the centre's differences is part of the spread."""
        assert isinstance(self.centre, Affine)
        centre, spread = self.centre.class_differences(reference), self.spread.parameters()
        summed = {}
        for name, value in centre.parameters().items():
            rounding = value.abs() * (4.0 * unit_roundoff(value.dtype)) + 2.0 * tiny(value.dtype)
            both = next_up(spread[name][reference] + spread[name]) if name in spread else torch.zeros_like(value)
            summed[name] = next_up(both + rounding)
        return WeightBox(centre, centre, Affine(**summed))

    def trusted_error(self, size: Tensor, *x: Tensor) -> Tensor:
        return self.mean.trusted_error(size, *x)

    def _layers(self) -> dict[str, WeightedSum]:
        return {"mean": self.mean, "centre": self.centre, "spread": self.spread}

    def parameters(self) -> dict[str, Tensor]:
        return {f"{part}.{name}": t for part, op in self._layers().items() for name, t in op.parameters().items()}

    def settings(self) -> dict[str, Any]:
        return {"layer": self.centre.kind, **self.centre.settings()}

    def cast(self, dtype: torch.dtype, device: torch.device) -> Self:
        return type(self)(*(op.cast(dtype, device) for op in self._layers().values()))


@dataclass(frozen=True, eq=False)
class _WeightBoxEnvelope(Envelope):
    """c (C x + c0) - |c| (R v + r) with v = |x|, each by the lines of its own op, and their two sums rounded down."""

    centre: Envelope
    spread: Envelope
    absolute: Envelope
    reach: Tensor
    shape: Shape

    def below(self, coefficients: Coefficients) -> Below:
        size = abs(coefficients)
        (through,), constant = self.centre.below(coefficients)
        (of_sizes,), lost = self.spread.below(size.with_values(-size.values))
        (aside,), chord = self.absolute.below(of_sizes)
        # Each entry of the sum is rounded once, by at most u (|a| + |b|) |x|.
        error = abs(through).plus(abs(aside), self.shape).dot(self._rounding)
        terms = (constant, lost, chord, -error)
        # Three additions err by less than 4 u times the sum of sizes, which is itself rounded.
        sizes = torch.stack(terms).detach().abs().sum(dim=0) + 4.0 * tiny(self.reach.dtype)
        total = torch.stack(terms).sum(dim=0) - 8.0 * unit_roundoff(self.reach.dtype) * sizes
        return (through.plus(aside, self.shape),), total

    @cached_property
    def _rounding(self) -> Tensor:
        return inflated(self.reach * (2.0 * unit_roundoff(self.reach.dtype)))


def _combined(centre: WeightedSum, spread: WeightedSum, sign: float) -> WeightedSum:
    """Return the centre's layer with the spread's weights and biases added or subtracted, rounded outward."""
    move, others, ends = next_up if sign > 0 else next_down, spread.parameters(), centre.parameters()
    for name, radius in others.items():
        ends[name] = torch.where(radius == 0, ends[name], move(ends[name] + sign * radius))
    return dataclasses.replace(centre, **ends)


def box_around(mean: WeightedSum, centre: dict[str, Tensor], spread: dict[str, Tensor]) -> WeightBox:
    """Return the box with a centre and a spread for weights and biases, float64, by the names of their fields.

    mean: one of them, an ordinary layer; what the centre does not name is the mean's, what the spread does not name is
    known exactly.
    """
    exact = mean.cast(torch.float64, torch.device("cpu"))
    absent: dict[str, Any] = {} if "bias" in spread else {"bias": None}
    middle = dataclasses.replace(exact, **centre)
    return WeightBox(mean, middle, dataclasses.replace(exact, **spread, **absent))
