"""Functions of one number as spans of convex and concave parts: their exact ranges, and lines around them on any box.

A line of slope s lies below f on a box with the offset min (f(x) - s x), whatever s is. On a concave part that is
attained at an end of the part; on a convex one at t with f'(t) = s, and any t near it gives

    f(x) - s x >= f(t) - s t + min(0, (f'(t) - s)(a - t), (f'(t) - s)(b - t))     on the part [a, b].

So the offset is rigorous for floats s and t, and what is searched for (the slope whose line is highest in the middle of
the box, which makes the mean gap least) needs no rigour. Lines above are those below -f.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from encoders.box import Box
from encoders.rounding import ELEMENTARY_FUNCTION_ULPS, tiny, unit_roundoff
from encoders.views.envelope import ElementwiseEnvelope, reach_of, residual

Formula = Callable[[Tensor], Tensor]

# Halvings that place the touching point of a line: more would not move it visibly.
TOUCHING_STEPS = 40
# Searches for the slope, each three times as fine, and places on either side of the middle for each.
SEARCHES, PLACES = 4, 6
# By how many u, of its size and of `Span.slope_floor`, the computed derivative may miss the exact one.
DERIVATIVE_ROUNDINGS = 64.0
# Smallest normal numbers by which a value may miss where it underflows on the way.
UNDERFLOWS = 4096.0
# Units that are worked on at once, for the memory of the search.
CHUNK = 2**14


def own_size(x: Tensor, y: Tensor) -> Tensor:
    """Return |y|: the formula errs relatively to its value."""
    return y.abs()


@dataclass(frozen=True, eq=False)
class Span:
    """A function on [start, end] by one smooth formula.

    knots: where it turns from convex to concave or back, within a float; bends: of the parts between, 1 for convex, -1
    for concave, 0 for straight ones. turns: where it stops rising or falling, within a float. What a float misses of
    either moves a range by its square and an offset by its cube, which rounding errors cover. limits: the values at
    start and end where the formula has none; NaN for a pole, about whose value nothing is said. size: of which the
    value errs by `ELEMENTARY_FUNCTION_ULPS` at most. slope_floor: see DERIVATIVE_ROUNDINGS.
    """

    value: Formula
    derivative: Formula
    bends: tuple[int, ...]
    knots: tuple[float, ...] = ()
    turns: tuple[float, ...] = ()
    start: float = -math.inf
    end: float = math.inf
    limits: tuple[float | None, float | None] = (None, None)
    size: Callable[[Tensor, Tensor], Tensor] = own_size
    slope_floor: float = 1.0

    def enclose(self, x: Tensor) -> Box:
        """Return enclosures of the values at x in [start, end]."""
        y = self.value(x)
        greatest = torch.finfo(x.dtype).max
        error = self.size(x, y).clamp(max=greatest) * (2.0 * (ELEMENTARY_FUNCTION_ULPS + 1) * unit_roundoff(x.dtype))
        error = error + UNDERFLOWS * tiny(x.dtype)
        lower, upper = y.clamp(max=greatest) - error, y.clamp(min=-greatest) + error
        for place, limit in zip((self.start, self.end), self.limits, strict=True):
            if limit is not None:
                lower, upper = (torch.where(x == place, limit, end) for end in (lower, upper))
        return Box.unchecked(_known(lower, -torch.inf), _known(upper, torch.inf))

    def enclose_slope(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (lower, upper) bounds of the derivatives at x."""
        slope = self.derivative(x)
        error = (slope.abs() + self.slope_floor) * (DERIVATIVE_ROUNDINGS * unit_roundoff(x.dtype))
        error = error + DERIVATIVE_ROUNDINGS * tiny(x.dtype)
        return slope - error, slope + error

    def mirrored(self) -> Span:
        """Return minus the function."""
        limits = tuple(None if limit is None else -limit for limit in self.limits)
        return replace(
            self,
            value=lambda x: -self.value(x),
            derivative=lambda x: -self.derivative(x),
            bends=tuple(-bend for bend in self.bends),
            limits=(limits[0], limits[1]),
        )

    def parts(self) -> Iterator[tuple[float, float, int]]:
        """Yield (start, end, bend) of the parts."""
        for (left, right), bend in zip(pairwise((self.start, *self.knots, self.end)), self.bends, strict=True):
            yield left, right, bend


@dataclass(frozen=True, eq=False)
class Function:
    """A function of one number: spans in rising order, between two values.

    Where spans leave out numbers at either end the function is not defined: nothing is said about boxes that reach
    there. own_value: how the value is computed for users, if not span by span.
    """

    spans: tuple[Span, ...]
    least: float = -math.inf
    greatest: float = math.inf
    own_value: Formula | None = None

    def value(self, x: Tensor) -> Tensor:
        """Return f(x), differentiable."""
        if self.own_value is not None:
            return self.own_value(x)
        return self._by_span(x, [span.value for span in self.spans])

    def derivative(self, x: Tensor) -> Tensor:
        """Return f'(x); at bends one of the two."""
        return self._by_span(x, [span.derivative for span in self.spans])

    def _by_span(self, x: Tensor, formulas: list[Formula]) -> Tensor:
        if len(formulas) == 1:
            return formulas[0](x)
        result = formulas[0](x.clamp(max=self.spans[0].end))
        for span, formula in zip(self.spans[1:], formulas[1:], strict=True):
            # Where another span counts, the formula gets a place of its own: what overflows there has no gradient.
            result = torch.where(x >= span.start, formula(x.clamp(span.start, span.end)), result)
        return result

    def interval(self, box: Box) -> Box:
        """Return the exact range, rounded outward."""
        low, high = torch.full_like(box.lower, torch.inf), torch.full_like(box.lower, -torch.inf)
        margin = 4.0 * unit_roundoff(box.dtype)
        for span in self.spans:
            left, right = box.lower.clamp(min=span.start), box.upper.clamp(max=span.end)
            places = [(left <= right, end) for end in (left.clamp(max=span.end), right.clamp(min=span.start))]
            for turn in span.turns:
                near = abs(turn) * margin
                touched = (box.lower <= turn + near) & (box.upper >= turn - near)
                places.append((touched, torch.full_like(left, turn)))
            for touched, place in places:
                values = span.enclose(place)
                low = torch.where(touched, torch.minimum(low, values.lower), low)
                high = torch.where(touched, torch.maximum(high, values.upper), high)
        known = self._defined(box)
        low = torch.where(known, low.clamp(self.least, self.greatest), -torch.inf)
        return Box.unchecked(low, torch.where(known, high.clamp(self.least, self.greatest), torch.inf))

    def envelope(self, box: Box, thin: bool = False) -> ElementwiseEnvelope:
        """Return lines above and below on the box, rounded outward.

        thin: both have the slope of the chord, which makes their greatest distance small; else the lines are those that
        are nearest to the function in the middle of the box, which makes the mean distance least.
        """
        values = self.interval(box)
        usable = self._defined(box) & (box.upper - box.lower).isfinite() & (box.lower < box.upper)
        flat = Box.unchecked(box.lower[usable], box.upper[usable])
        minus = Function(tuple(span.mirrored() for span in self.spans))
        sides = []
        for curve, least in ((self, values.lower), (minus, -values.upper)):
            slope, offset = torch.zeros_like(least), least.clone()
            chunks = zip(*(end.split(CHUNK) for end in (flat.lower, flat.upper, least[usable])), strict=True)
            lines = [_line_below(curve, Box.unchecked(low, high), floor, thin) for low, high, floor in chunks]
            if lines:
                slope[usable], offset[usable] = (torch.cat(parts) for parts in zip(*lines, strict=True))
            sides.append((slope, offset))
        (lower, below), (upper, above) = sides
        return ElementwiseEnvelope(lower, below, -upper, -above, reach_of(box))

    def _defined(self, box: Box) -> Tensor:
        return (box.lower >= self.spans[0].start) & (box.upper <= self.spans[-1].end)


def _known(values: Tensor, instead: float) -> Tensor:
    """Return the values, and something else where they are not numbers."""
    return values.nan_to_num(instead, torch.inf, -torch.inf)


def _line_below(curve: Function, box: Box, floor: Tensor, thin: bool) -> tuple[Tensor, Tensor]:
    """Return (slope, offset) of lines below a curve on finite boxes `(units,)`, none of them a point.

    floor: lower bounds of the curve; what is no better than that in the middle is replaced by it.
    """
    middle = box.lower * 0.5 + box.upper * 0.5
    slope = _chord(curve, box) if thin else _supporting_slope(curve, box, middle)
    slope = torch.where(slope.isfinite(), slope, 0.0)
    offset = _known(_least_residual(curve, box, slope), -torch.inf)
    better = slope * middle + offset > floor
    return torch.where(better, slope, 0.0), torch.where(better, offset, floor)


def _chord(curve: Function, box: Box) -> Tensor:
    return (curve.value(box.upper) - curve.value(box.lower)) / (box.upper - box.lower)


def _supporting_slope(curve: Function, box: Box, middle: Tensor) -> Tensor:
    """Return nearly the slope of the line below the curve that is highest in the middle of the box.

    It is the chord, of all between a place left of the middle and one right of it, that is lowest in the middle. The
    places become denser where the last search has found them.
    """
    landmarks = {mark for span in curve.spans for mark in (*span.knots, *span.turns, span.start, span.end)}
    marks = middle.new_tensor(sorted(mark for mark in landmarks if math.isfinite(mark)))
    shares = torch.arange(PLACES, dtype=middle.dtype, device=middle.device) / PLACES
    slope = curve.derivative(middle)
    # On either side from the far end, which is included, to the near one, which is not.
    far, near = [box.lower, box.upper], [middle, middle]
    for _ in range(SEARCHES):
        steps = [(b - a) / PLACES for a, b in zip(far, near, strict=True)]
        left = torch.cat([_spread(far[0], near[0], shares), _clipped(marks, box.lower, middle)], dim=1)
        right = torch.cat([_spread(far[1], near[1], shares), _clipped(marks, middle, box.upper)], dim=1)
        rise, places = _lowest_chord(curve, left, right, middle)
        slope = torch.where(rise.isfinite(), rise, slope)
        far = [
            torch.maximum(places[0] - steps[0], box.lower),
            torch.minimum(places[1] - steps[1], box.upper),
        ]
        near = [torch.minimum(places[0] + steps[0], middle), torch.maximum(places[1] + steps[1], middle)]
    return slope


def _spread(far: Tensor, near: Tensor, shares: Tensor) -> Tensor:
    return far[:, None] + (near - far)[:, None] * shares


def _clipped(marks: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(marks, low[:, None]), high[:, None])


def _lowest_chord(curve: Function, left: Tensor, right: Tensor, middle: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return (slope, places) of the chord between places `(units, n)` that is lowest in the middle.

    The slope is NaN where rounding decides it.
    """
    x, y = left[:, :, None], right[:, None, :]
    f, g = curve.value(x), curve.value(y)
    rise, at = (g - f) / (y - x), middle[:, None, None]
    heights = f + rise * (at - x)
    # A chord that ends in the middle is as low there as the function, whatever its slope.
    heights = torch.where((x < at) & (at < y) & heights.isfinite(), heights, torch.inf).flatten(1)
    height, best = heights.min(dim=1, keepdim=True)
    noise = 2.0**12 * unit_roundoff(middle.dtype) * (f.abs() + g.abs())
    rise = torch.where((g - f).abs() > noise, rise, torch.nan)
    slope = torch.where(height.isfinite(), rise.flatten(1).gather(1, best), torch.nan)[:, 0]
    count = right.shape[1]
    return slope, [left.gather(1, best // count)[:, 0], right.gather(1, best % count)[:, 0]]


def _least_residual(curve: Function, box: Box, slope: Tensor) -> Tensor:
    """Return lower bounds of f(x) - slope x on finite boxes `(units,)`. Rigorous."""
    least = torch.full_like(slope, torch.inf)
    for span in curve.spans:
        for left, right, bend in span.parts():
            start, end = box.lower.clamp(min=left), box.upper.clamp(max=right)
            met = start <= end
            if not bool(met.any()):
                continue
            part, s = Box.unchecked(start[met], end[met]), slope[met]
            if bend > 0:
                found = _convex_residual(span, part, s)
            else:
                found = torch.minimum(*(residual(span.enclose(x).lower, s, x, -1.0) for x in (part.lower, part.upper)))
            least[met] = torch.minimum(least[met], found)
    return least


def _convex_residual(span: Span, part: Box, slope: Tensor) -> Tensor:
    """Return lower bounds of f(x) - slope x where f is convex: by tangents on both sides of where they touch."""
    low, high = part.lower, part.upper
    for _ in range(TOUCHING_STEPS):
        trial = _between(low, high)
        steep = span.derivative(trial) >= slope
        low, high = torch.where(steep, low, trial), torch.where(steep, trial, high)
    found = []
    for t in (low, high):
        least, greatest = span.enclose_slope(t)
        falls = torch.minimum((greatest - slope) * (part.lower - t), (least - slope) * (part.upper - t)).clamp(max=0)
        # Each factor and the product are rounded once.
        falls = falls * (1.0 + 16.0 * unit_roundoff(slope.dtype)) - tiny(slope.dtype)
        at = residual(span.enclose(t).lower, slope, t, -1.0)
        found.append(at + falls - (at.abs() + falls.abs()) * (4.0 * unit_roundoff(slope.dtype)))
    return torch.maximum(*(_known(bound, -torch.inf) for bound in found))


def _between(low: Tensor, high: Tensor) -> Tensor:
    """Return numbers between: of the two's size where they have one sign and differ in size, else in the middle."""
    product = low.abs().sqrt() * high.abs().sqrt()
    smaller, larger = torch.minimum(low.abs(), high.abs()), torch.maximum(low.abs(), high.abs())
    apart = (low.sign() * high.sign() > 0) & (larger > 4.0 * smaller) & (product > smaller) & (product < larger)
    return torch.where(apart, product * low.sign(), low * 0.5 + high * 0.5)
