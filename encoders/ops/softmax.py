"""Softmax and its logarithm along an axis, with ranges that are exact up to rounding and linear bounds.

With s_i = 1 + sum over j != i of exp(x_j - x_i), which rises in every other input and falls in x_i, an output is
f(s_i) for f(s) = 1/s or f(s) = -log s: convex and falling. Hence its range on a box lies between two corners, and
(Wei et al. 2023, "Convex Bounds on the Softmax Function with Applications to Robustness Verification")

    f(s) >= c - b s for a tangent, with s below the chords of exp(x_j - x_i),
    f(s) <= c - b s for the chord over the range of s, with s above tangents of exp(x_j - x_i).

Sums are taken relative to their greatest term, so that nothing overflows or cancels.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from encoders.arithmetic import Arithmetic
from encoders.box import Box, Shape
from encoders.ops.base import Op
from encoders.rounding import ELEMENTARY_FUNCTION_ULPS, add_down, add_up, tiny, unit_roundoff, widen
from encoders.views.envelope import offsets_at_ends, reach_of
from encoders.views.group_envelope import GroupEnvelope, GroupLines, from_groups, group_relaxation, to_groups
from encoders.views.relaxation import Relaxation, Size

# Tangents of exp(x_j - x_i) touch at most so far right of the lower end: there they are still positive.
LEAST_TANGENT = 0.9


@dataclass(frozen=True, eq=False)
class _OfExponentials(Op):
    """f(s_i) of the module docstring; axis: of the sample."""

    axis: int

    gains_from_lines = True
    greatest: ClassVar[float]

    def output_shape(self, *shapes: Shape) -> Shape:
        if not 0 <= self.axis < len(shapes[0]):
            raise ValueError(f"{self.kind}: axis {self.axis} does not exist in shape {shapes[0]}")
        return shapes[0]

    def keeps_order_of(self, shape: Shape) -> bool:
        """Return whether all values of a shape are divided by one sum."""
        return shape[self.axis] == math.prod(shape)

    @abstractmethod
    def of_sum(self, total: Tensor, shift: Tensor) -> Tensor:
        """Return f(1 + total exp(shift)), total 1 or more (or 0 of no terms); total errs by 64 u more."""

    @abstractmethod
    def tangent(self, slope: Tensor) -> Tensor:
        """Return c, rounded down, with f(s) >= c - slope s for all s > 0."""

    @abstractmethod
    def values(self, s: Tensor) -> Box:
        """Return boxes around f(s)."""

    @abstractmethod
    def slopes(self, least: Tensor, greatest: Tensor) -> tuple[Tensor, Tensor]:
        """Return b near -f' in the middle, and near the negative slope of the chord, for s in a range."""

    def interval(self, *boxes: Box) -> Box:
        """Return the values at two corners for each output, rounded outward."""
        (box,) = boxes
        low, high = (to_groups(end, self.axis) for end in (box.lower, box.upper))
        (most, of_high), (least, of_low) = _others(high), _others(low)
        lower = self.of_sum(of_high, add_up(most, -low))
        upper = self.of_sum(of_low, add_down(least, -high))
        count = low.shape[-1]
        relative = (2.0 * count + 256.0) * unit_roundoff(box.dtype)
        slack = (2.0 * count + 16.0) * tiny(box.dtype)
        lower, upper = widen(lower, upper, ELEMENTARY_FUNCTION_ULPS)
        lower, upper = lower - lower.abs() * relative - slack, upper + upper.abs() * relative + slack
        floor = -torch.inf if self.greatest == 0.0 else 0.0
        lower = lower.nan_to_num(nan=floor, posinf=torch.inf, neginf=-torch.inf).clamp(min=floor)
        upper = upper.nan_to_num(nan=self.greatest, posinf=torch.inf, neginf=-torch.inf).clamp(max=self.greatest)
        return Box.unchecked(*(from_groups(end, self.axis, box.shape) for end in (lower, upper)))

    def envelope(self, *boxes: Box, slope: Tensor | None = None) -> GroupEnvelope:
        (box,) = boxes
        ends, differences = self.interval(box), _differences(box, self.axis)
        # Chords above and tangents below each exp(x_j - x_i), on the diagonal nothing.
        at_ends = [_exponential(end) for end in (differences.lower, differences.upper)]
        rise, run = at_ends[1].upper - at_ends[0].lower, differences.upper - differences.lower
        chord = torch.minimum(torch.maximum(rise / run, at_ends[0].lower), at_ends[1].upper)
        chord = torch.where(run > 0, chord, at_ends[0].upper)
        above = offsets_at_ends(at_ends[0], at_ends[1], differences, chord)[1]
        middle = differences.lower + torch.minimum(0.5 * run, torch.full_like(run, LEAST_TANGENT))
        touching = torch.exp(middle)
        least, greatest = (_sum_outward(part) for part in (at_ends[0].lower, at_ends[1].upper))
        tangent, secant = self.slopes(least[0], greatest[1])
        lower = _lines(tangent, self.tangent(tangent), chord, above, differences, box, self.axis, -1.0)
        at_least, at_most = self.values(least[0]), self.values(greatest[1])
        sums = Box.unchecked(least[0], greatest[1])
        constant = offsets_at_ends(at_least, at_most, sums, -secant)[1]
        upper = _lines(secant, constant, touching, _tangent_offset(touching), differences, box, self.axis, 1.0)
        lower = lower.where_finite(to_groups(ends.lower, self.axis))
        return GroupEnvelope(lower, upper.where_finite(to_groups(ends.upper, self.axis)), box, self.axis)

    def order_error(self, inputs: Box, error: Tensor, arithmetic: Arithmetic, one: bool) -> Tensor | None:
        """Return the roundings of two shares, or of two logarithms of them, in units of what they are taken of.

        Of shares the exponentials, their arguments and the division err relatively, and the sum by the same for both;
        an argument may be taken less the logarithm of the sum. Logarithms err by the size of what is subtracted.
        """
        spread = 1.0 + math.log(1.0 + inputs.lower.shape[1])
        shares = arithmetic.roundoff * (4.0 * ELEMENTARY_FUNCTION_ULPS + 32.0) * spread + arithmetic.absolute(4)
        return torch.full_like(error, shares)

    def relax(self, *boxes: Box, around: Box | None = None) -> Relaxation:
        return group_relaxation(self.envelope(boxes[0]))

    def program_size(self, view: str, outputs: int, segments: int) -> Size:
        return Size(2 * outputs, 2 * outputs * (outputs + 1))

    def open_units(self, box: Box) -> Tensor:
        return box.lower < box.upper


@dataclass(frozen=True, eq=False)
class Softmax(_OfExponentials):
    """y_i = exp(x_i) / sum over j of exp(x_j), j along an axis."""

    kind = "softmax"
    greatest = 1.0

    def evaluate(self, *x: Tensor) -> Tensor:
        return torch.softmax(x[0], dim=self.axis + 1)

    def of_sum(self, total: Tensor, shift: Tensor) -> Tensor:
        return 1.0 / (1.0 + total * torch.exp(shift))

    def tangent(self, slope: Tensor) -> Tensor:
        # 1/s + b s is least at 1/sqrt(b).
        root = 2.0 * torch.sqrt(slope)
        return root - root * (16.0 * unit_roundoff(slope.dtype)) - tiny(slope.dtype)

    def values(self, s: Tensor) -> Box:
        return Box.unchecked(*widen(1.0 / s, 1.0 / s, 1))

    def slopes(self, least: Tensor, greatest: Tensor) -> tuple[Tensor, Tensor]:
        return (2.0 / (least + greatest)).square(), 1.0 / least / greatest


@dataclass(frozen=True, eq=False)
class LogSoftmax(_OfExponentials):
    """y_i = x_i - log(sum over j of exp(x_j)), j along an axis."""

    kind = "log-softmax"
    greatest = 0.0

    def order_error(self, inputs: Box, error: Tensor, arithmetic: Arithmetic, one: bool) -> Tensor | None:
        size = reach_of(inputs) + error
        size = size + size.amax(dim=1, keepdim=True) + 1.0 + math.log(1.0 + size.shape[1])
        return arithmetic.bounded(arithmetic.relative(4 * ELEMENTARY_FUNCTION_ULPS + 32) * size, size)

    def evaluate(self, *x: Tensor) -> Tensor:
        return torch.log_softmax(x[0], dim=self.axis + 1)

    def of_sum(self, total: Tensor, shift: Tensor) -> Tensor:
        far = shift + torch.log(total + torch.exp(-shift))
        return -torch.where(shift > 0, far, torch.log1p(total * torch.exp(shift)))

    def tangent(self, slope: Tensor) -> Tensor:
        # -log s + b s is least at 1/b.
        value = torch.log(slope)
        error = (value.abs() + 1.0) * (4.0 * ELEMENTARY_FUNCTION_ULPS * unit_roundoff(slope.dtype))
        return 1.0 + value - error

    def values(self, s: Tensor) -> Box:
        return Box.unchecked(*widen(-torch.log(s), -torch.log(s), ELEMENTARY_FUNCTION_ULPS))

    def slopes(self, least: Tensor, greatest: Tensor) -> tuple[Tensor, Tensor]:
        run = greatest - least
        secant = torch.where(run > 0, (torch.log(greatest) - torch.log(least)) / run, 1.0 / greatest)
        return 2.0 / (least + greatest), secant.clamp(min=0.0)


def _others(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each i of the last axis (m, t): m + log t = log of the sum over j != i of exp(x_j), m the greatest.

    No term cancels another: sums over the others are those before and after. Relative error of t: (2n + 64) u.
    """
    if x.shape[-1] == 1:
        return torch.full_like(x, -torch.inf), torch.zeros_like(x)
    top = x.topk(2, dim=-1)
    greatest, second = top.values[..., :1], top.values[..., 1:]
    is_greatest = torch.zeros_like(x, dtype=torch.bool).scatter(-1, top.indices[..., :1], True)
    terms = torch.exp(x - greatest)
    before = torch.cumsum(terms, dim=-1).roll(1, dims=-1)
    before[..., 0] = 0.0
    after = torch.cumsum(terms.flip(-1), dim=-1).roll(1, dims=-1)
    after[..., 0] = 0.0
    rest = torch.where(is_greatest, 0.0, torch.exp(x - second)).sum(dim=-1, keepdim=True)
    total = torch.where(is_greatest, rest, before + after.flip(-1))
    return torch.where(is_greatest, second, greatest), total


def _differences(box: Box, axis: int) -> Box:
    """Return boxes of x_j - x_i, `(batch, groups, i, j)`; on the diagonal zero."""
    low, high = (to_groups(end, axis) for end in (box.lower, box.upper))
    lower = add_down(low.unsqueeze(-2), -high.unsqueeze(-1))
    upper = add_up(high.unsqueeze(-2), -low.unsqueeze(-1))
    diagonal = torch.eye(low.shape[-1], dtype=torch.bool, device=low.device)
    return Box.unchecked(torch.where(diagonal, 0.0, lower), torch.where(diagonal, 0.0, upper))


def _exponential(x: Tensor) -> Box:
    """Return boxes around exp(x)."""
    value = torch.exp(x)
    lower, upper = widen(value, value, ELEMENTARY_FUNCTION_ULPS)
    return Box.unchecked(lower.clamp(min=0.0), upper)


def _tangent_offset(slope: Tensor) -> Tensor:
    """Return h, rounded down, with exp(d) >= slope d + h for all d: slope (1 - log slope)."""
    logarithm = torch.log(slope)
    value = slope * (1.0 - logarithm)
    error = slope * (1.0 + logarithm.abs()) * (4.0 * ELEMENTARY_FUNCTION_ULPS * unit_roundoff(slope.dtype))
    return torch.where(slope > 0, value - error - tiny(slope.dtype), torch.zeros_like(slope))


def _sum_outward(terms: Tensor) -> tuple[Tensor, Tensor]:
    """Return bounds of s = 1 + the sum of terms over the last axis without the diagonal."""
    total = 1.0 + _without_diagonal(terms).sum(dim=-1)
    error = total * ((2.0 * terms.shape[-1] + 16.0) * unit_roundoff(terms.dtype))
    return (total - error).clamp(min=1.0), total + error


def _without_diagonal(x: Tensor) -> Tensor:
    return x.masked_fill(torch.eye(x.shape[-1], dtype=torch.bool, device=x.device), 0.0)


def _lines(
    slope: Tensor, constant: Tensor, line: Tensor, offset: Tensor, differences: Box, box: Box, axis: int, sign: float
) -> GroupLines:
    """Return constant - slope (1 + sum over j != i of (line_ij (x_j - x_i) + offset_ij)) as functions of x.

    sign: -1 to round the offset down, 1 to round it up, past everything that the weights are rounded by.
    """
    u, count = unit_roundoff(line.dtype), line.shape[-1]
    weight = _without_diagonal(-slope.unsqueeze(-1) * line)
    own = -weight.sum(dim=-1)
    offset = _without_diagonal(offset)
    value = constant - slope * (1.0 + offset.sum(dim=-1))
    size = constant.abs() + slope * (1.0 + offset.abs().sum(dim=-1))
    reach = torch.maximum(differences.lower.abs(), differences.upper.abs())
    lengths = torch.maximum(*(to_groups(end.abs(), axis) for end in (box.lower, box.upper)))
    moved = (weight.abs() * (4.0 * u * reach)).sum(dim=-1)
    moved = moved + weight.abs().sum(dim=-1) * lengths * ((2.0 * count + 8.0) * u)
    lost = (reach.sum(dim=-1) + lengths * count + count + 16.0) * (4.0 * tiny(line.dtype))
    error = (size * ((4.0 * count + 64.0) * u) + moved + lost) * (1.0 + (4.0 * count + 64.0) * u)
    return GroupLines(weight + torch.diag_embed(own), value + sign * error)
