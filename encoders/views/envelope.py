"""Envelopes: linear functions below and above an op on a box, in the form that backward propagation needs.

Backward linear bound propagation (Zhang et al. 2018) holds a row c and wants coefficients a_i of the op's inputs and a
constant with

    c . op(x) >= sum_i a_i . x_i + constant        for every x in the boxes,

in real arithmetic: the rounding of the a_i, times the size of x_i, is part of the constant. Upper bounds are lower
bounds of -c. One class serves each shape that such functions take.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from encoders.box import Box
from encoders.rounding import tiny, unit_roundoff
from encoders.views.coefficients import BoxMinimum, Coefficients, dot_error, inflated, underflow_slack

# Below this share of units that matter, a row is cut down to them.
SUPPORT_SHARE = 0.9

# Coefficients of each input, and the constant `(batch, rows)`.
Below = tuple[tuple[Coefficients, ...], Tensor]


class Envelope(ABC):
    """Linear functions below and above an op on a batch of boxes."""

    @abstractmethod
    def below(self, coefficients: Coefficients) -> Below:
        """Return (coefficients of the inputs, constant) of functions below `coefficients . op(x)` on the boxes."""


@dataclass(frozen=True, eq=False)
class ConstantEnvelope(Envelope):
    """The bounds of the op's output box: for ops whose linear functions would gain nothing over intervals."""

    output: Box

    def below(self, coefficients: Coefficients) -> Below:
        return (), self._minimum(coefficients)

    @cached_property
    def _minimum(self) -> BoxMinimum:
        return BoxMinimum(self.output)


@dataclass(frozen=True, eq=False)
class LinearEnvelope(Envelope):
    """An op that is affine itself, y = sum_i L_i x_i + b.

    adjoint: maps c to the float values of (c L_1, ...). bias: `(batch, *output)`, or None. error: for each output,
    `(batch, *output)`, the sum over i of |L_i| max|x_i|, times the relative error of one coefficient, and that of the
    bias's product. slack: `(batch, 1)`, what underflow of a coefficient can move a bound by.
    """

    adjoint: Callable[[Coefficients], tuple[Coefficients, ...]]
    bias: Tensor | None
    error: Tensor | None
    slack: Tensor

    def below(self, coefficients: Coefficients) -> Below:
        batch, rows = coefficients.rows
        constant = -self.slack.expand(batch, rows)
        if self.bias is not None:
            constant = constant + coefficients.dot(self.bias)
        if self._inflated_error is not None:
            constant = constant - abs(coefficients).dot(self._inflated_error)
        return self.adjoint(coefficients), constant

    @cached_property
    def _inflated_error(self) -> Tensor | None:
        return None if self.error is None else inflated(self.error)


@dataclass(frozen=True, eq=False)
class ElementwiseEnvelope(Envelope):
    """Lines for each unit: lower_slope x + lower_offset <= op(x) <= upper_slope x + upper_offset on the box.

    Slopes `(batch, *shape)`, or `(batch, rows, *shape)` where each row of coefficients has its own; offsets
    `(batch, *shape)`, already rounded outward. reach: max |x| over the box.
    """

    lower_slope: Tensor
    lower_offset: Tensor
    upper_slope: Tensor
    upper_offset: Tensor
    reach: Tensor

    def below(self, coefficients: Coefficients) -> Below:
        """Take the lower line where a coefficient is positive and the upper one where it is negative.

        With middle = (lower + upper) / 2 and half = (lower - upper) / 2 that is c middle + |c| half.
        """
        if self._support is not None:
            coefficients = coefficients.only(self._support)
        size = abs(coefficients)
        middle, half = self._slopes
        offset_middle, offset_half = self._offsets
        values = coefficients.values * coefficients.crop(middle) + size.values * coefficients.crop(half)
        constant = size.dot(offset_half) - self._slack
        if offset_middle is not None:
            constant = constant + coefficients.dot(offset_middle)
        return (coefficients.with_values(values),), constant

    @cached_property
    def _slopes(self) -> tuple[Tensor, Tensor]:
        """(middle, half), with an axis for rows."""
        rank = self.reach.dim()
        lower, upper = (s.unsqueeze(1) if s.dim() == rank else s for s in (self.lower_slope, self.upper_slope))
        return (lower + upper) * 0.5, (lower - upper) * 0.5

    @cached_property
    def _offsets(self) -> tuple[Tensor | None, Tensor]:
        """Middle and half of the offsets; the half is lowered by every rounding error, as |c| multiplies it.

        Five roundings lie between a slope and its product, each of at most |c| (|lower| + |upper|) u times |x|; of
        slopes that differ between rows the greatest counts.
        """
        relative = 32.0 * unit_roundoff(self.reach.dtype)
        rank = self.reach.dim()
        sizes = (slope.detach().abs() for slope in (self.lower_slope, self.upper_slope))
        slopes = sum((size if size.dim() == rank else size.amax(dim=1) for size in sizes), 4.0 * tiny(self.reach.dtype))
        middle = (self.lower_offset + self.upper_offset) * 0.5
        half = (self.lower_offset - self.upper_offset) * 0.5
        error = slopes * relative * self.reach + dot_error(middle) + dot_error(half) * 2.0
        error = inflated(error + (half.abs() + middle.abs()) * relative)
        return (middle if bool((middle != 0).any()) else None), half - error

    @cached_property
    def _slack(self) -> Tensor:
        """What underflows can move a bound by, `(batch, 1)`."""
        reach = self.reach.unsqueeze(-1).flatten(1).sum(dim=1, keepdim=True) + 1.0
        return reach * underflow_slack(tuple(self.reach.shape[1:]), self.reach.dtype)

    @cached_property
    def _support(self) -> Tensor | None:
        """The units of a shape with one axis that are not zero for every input and row; None if nearly all are."""
        if self.reach.dim() != 2:
            return None
        parts = (self.lower_slope, self.upper_slope, self.lower_offset, self.upper_offset)
        used = torch.stack([(part.detach() != 0).flatten(0, -2).any(dim=0) for part in parts]).any(dim=0)
        return used.nonzero().squeeze(1) if int(used.sum()) < SUPPORT_SHARE * used.numel() else None


@dataclass(frozen=True, eq=False)
class SelectionEnvelope(Envelope):
    """A maximum over windows: below by one chosen input, above by it where it always wins, else by a constant.

    scatter: adds rows of outputs onto the chosen inputs. always: `(batch, *output)`, 1.0 where the chosen input is the
    maximum on the whole box, else 0.0. upper: upper end of the output. reach: for each output, the greatest |x|
    of the chosen input, times the relative error of the sum that an input collects.
    """

    scatter: Callable[[Coefficients], Coefficients]
    always: Tensor
    upper: Tensor
    reach: Tensor

    def below(self, coefficients: Coefficients) -> Below:
        always = coefficients.crop(self.always).unsqueeze(1)
        positive = coefficients.values.clamp(min=0)
        kept = coefficients.with_values(positive + (coefficients.values - positive) * always)
        constants = coefficients.with_values(coefficients.values - kept.values)
        constant = constants.dot(self.upper) - abs(coefficients).dot(self._error)
        return (self.scatter(kept),), constant - underflow_slack(tuple(self.upper.shape[1:]), self.upper.dtype)

    @cached_property
    def _error(self) -> Tensor:
        return inflated(self.reach + dot_error(self.upper))


def offsets_at_ends(low: Box, high: Box, box: Box, slope: Tensor) -> tuple[Tensor, Tensor]:
    """Return (least, greatest) of f(x) - slope x over the two ends of the box, rounded outward.

    low, high: enclosures of f at the lower and the upper end. Where f - slope x is monotone, these are its extremes
    on the box; where it is convex the greatest is, where it is concave the least.
    """
    # Without product overflows the two roundings of f - fl(slope x) are relative to the sizes of its parts.
    ends = ((low, box.lower), (high, box.upper))
    least = torch.minimum(*(residual(f.lower, slope, x, -1.0) for f, x in ends))
    greatest = torch.maximum(*(residual(f.upper, slope, x, 1.0) for f, x in ends))
    return least, greatest


def residual(value: Tensor, slope: Tensor, x: Tensor, sign: float) -> Tensor:
    """Return value - slope x, moved in the direction of the sign past its rounding error."""
    product = slope * x
    error = (value.abs() + product.abs()) * (8.0 * unit_roundoff(value.dtype)) + 8.0 * tiny(value.dtype)
    return value - product + sign * error


def reach_of(box: Box) -> Tensor:
    """Return max |x| over the box."""
    return torch.maximum(box.lower.abs(), box.upper.abs())
