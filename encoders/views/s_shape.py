"""Lines around functions that are convex left of 0 and concave right of it: sigmoid and tanh (Zhang et al. 2018)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from encoders.box import Box
from encoders.rounding import unit_roundoff
from encoders.views.envelope import ElementwiseEnvelope, offsets_at_ends, reach_of

# What encloses the function on a box, and its derivative.
Interval = Callable[[Box], Box]
Derivative = Callable[[Tensor], Tensor]

# Halvings that place the touching point of a line through an end of the box: more would not move the line visibly.
TOUCHING_STEPS = 40
# By how many u the computed derivative may miss the exact one: both factors err by 8 units in the last place, and
# neither exceeds 2.
DERIVATIVE_ROUNDINGS = 128.0


def s_shape_envelope(interval: Interval, derivative: Derivative, box: Box, thin: bool = False) -> ElementwiseEnvelope:
    """Return lines above and below on the box, for f with f(-x) = f(0) * 2 - f(x), increasing, slope at most 1.

    thin: tangents are not steeper than the chord, which makes the greatest distance of the two lines small; else those
    of concave and convex parts touch in the middle, which makes the mean distance least.
    """
    mirrored = Box.unchecked(-box.upper, -box.lower)
    upper_slope, upper_offset = _line_above(interval, derivative, box, False, thin)
    # The line below f is the line above its mirror image -f(-x), mirrored back.
    lower_slope, negative_offset = _line_above(interval, derivative, mirrored, True, thin)
    return ElementwiseEnvelope(lower_slope, -negative_offset, upper_slope, upper_offset, reach_of(box))


def _enclose(interval: Interval, x: Tensor, mirror: bool) -> Box:
    """Return enclosures of g(x), where g is f or its mirror image -f(-x)."""
    if not mirror:
        return interval(Box.unchecked(x, x))
    values = interval(Box.unchecked(-x, -x))
    return Box.unchecked(-values.upper, -values.lower)


def _line_above(
    interval: Interval, derivative: Derivative, box: Box, mirror: bool, thin: bool
) -> tuple[Tensor, Tensor]:
    """Return (slope, offset) of a line above g on the box; g is convex left of 0 and concave right of it.

    A line that is at least g at the left end, and either touches g at a point d >= 0 with g's slope there or passes
    above g at the right end without being steeper than g there, lies above g: on the concave side by the tangent's or
    the end's inequality, on the convex side because it is above g at both of its ends. The slope is a float near the
    derivative: what it misses, times the width, is part of the offset.
    """
    low, high = _enclose(interval, box.lower, mirror), _enclose(interval, box.upper, mirror)
    width = box.upper - box.lower
    chord = ((high.upper - low.upper) / width).nan_to_num(0.0, 0.0, 0.0).clamp(min=0)
    missed = DERIVATIVE_ROUNDINGS * unit_roundoff(box.dtype)
    # The chord serves where g is convex on the box, or ends before a line through the left end would touch it.
    convex = box.upper <= 0
    ends_early = chord <= derivative(box.upper) - missed
    touching = _touching_point(interval, derivative, box, low.upper, mirror, chord if thin else None)
    slope = torch.where(convex | ends_early, chord, derivative(touching))
    _, at_ends = offsets_at_ends(low, high, box, slope)
    at = _enclose(interval, touching, mirror)
    # |slope - g'| <= missed bounds how far the line sinks below the tangent anywhere on the box.
    _, at_touching = offsets_at_ends(at, at, Box.unchecked(touching, touching), slope)
    tangent = torch.maximum(at_touching + missed * (width * 2.0), at_ends)
    return slope, torch.where(convex | ends_early, at_ends, tangent)


def _touching_point(
    interval: Interval,
    derivative: Derivative,
    box: Box,
    value: Tensor,
    mirror: bool,
    chord: Tensor | None,
) -> Tensor:
    """Return a point d >= 0 of the box (anything where it is negative) whose tangent is above g at the left end.

    Any d is sound; this one makes the line tight: the middle where g is concave on the box, else the least d whose
    tangent clears the left end. If the slope of the chord is given, the least d whose tangent is no steeper: g falls
    back to the chord's right end from there, so that this tangent lies above the chord and clears the left end too.
    """
    least = box.lower.clamp(min=0)
    greatest = torch.maximum(box.upper, least)
    middle = (least + greatest) * 0.5
    low, high = least, greatest
    for _ in range(TOUCHING_STEPS):
        trial = (low + high) * 0.5
        slope = derivative(trial)
        if chord is None:
            clears = _enclose(interval, trial, mirror).upper + slope * (box.lower - trial) >= value
        else:
            clears = slope <= chord
        low, high = torch.where(clears, low, trial), torch.where(clears, trial, high)
    return torch.where((box.lower >= 0) & (chord is None), middle, high).nan_to_num(0.0, 0.0, 0.0)
