"""Lines around functions that are convex left of 0 and concave right of it: sigmoid and tanh (Zhang et al. 2018).

Where a line is a tangent, the place where it touches is a choice (Shi et al. 2024, GenBaB): it is sound anywhere
between the place whose tangent clears the far end of the box, and the near end.
"""

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


def s_shape_envelope(
    interval: Interval, derivative: Derivative, box: Box, thin: bool = False, touching: Tensor | None = None
) -> ElementwiseEnvelope:
    """Return lines above and below on the box, for f with f(-x) = f(0) * 2 - f(x), increasing, slope at most 1.

    thin: tangents are not steeper than the chord, which makes the greatest distance of the two lines small; else those
    of concave and convex parts touch in the middle, which makes the mean distance least. touching: shares
    `(batch, 2, *shape)` in [0, 1] for the lines below and above, of the way from the place nearest to 0 where a tangent
    is sound to the end of the box; differentiable in them and in the box.
    """
    mirrored = Box.unchecked(-box.upper, -box.lower)
    shares = (None, None) if touching is None else touching.nan_to_num(0.5).clamp(0.0, 1.0).unbind(dim=1)
    upper_slope, upper_offset = _line_above(interval, derivative, box, False, thin, shares[1])
    # The line below f is the line above its mirror image -f(-x), mirrored back.
    lower_slope, negative_offset = _line_above(interval, derivative, mirrored, True, thin, shares[0])
    return ElementwiseEnvelope(lower_slope, -negative_offset, upper_slope, upper_offset, reach_of(box))


def s_shape_shares(box: Box) -> Tensor:
    """Return the shares `(batch, 2, *shape)` that `s_shape_envelope` takes by itself: see `touching` there."""
    concave = torch.stack([box.upper <= 0, box.lower >= 0], dim=1)
    return concave.to(box.dtype) * 0.5


def _enclose(interval: Interval, derivative: Derivative, x: Tensor, mirror: bool) -> Box:
    """Return enclosures of g(x), where g is f or its mirror image -f(-x). Their gradient is g's."""
    place = (-x if mirror else x).detach()
    values = interval(Box.unchecked(place, place))
    if mirror:
        values = Box.unchecked(-values.upper, -values.lower)
    if not x.requires_grad:
        return values
    # Steps to the next float have no derivative; what is added is zero.
    moved = derivative(place) * (x - x.detach())
    return Box.unchecked(values.lower + moved, values.upper + moved)


def _line_above(
    interval: Interval, derivative: Derivative, box: Box, mirror: bool, thin: bool, share: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return (slope, offset) of a line above g on the box; g is convex left of 0 and concave right of it.

    A line that is at least g at the left end, and either touches g at a point d >= 0 with g's slope there or passes
    above g at the right end without being steeper than g there, lies above g: on the concave side by the tangent's or
    the end's inequality, on the convex side because it is above g at both of its ends. The slope is a float near the
    derivative: what it misses, times the width, is part of the offset.
    """
    low, high = (_enclose(interval, derivative, x, mirror) for x in (box.lower, box.upper))
    width = box.upper - box.lower
    chord = ((high.upper - low.upper) / width).nan_to_num(0.0, 0.0, 0.0).clamp(min=0)
    missed = DERIVATIVE_ROUNDINGS * unit_roundoff(box.dtype)
    # The chord serves where g is convex on the box, or ends before a line through the left end would touch it.
    convex = box.upper <= 0
    ends_early = chord <= derivative(box.upper) - missed
    touching = _touching_point(interval, derivative, box, low.upper, mirror, chord if thin else None, share)
    slope = torch.where(convex | ends_early, chord, derivative(touching))
    _, at_ends = offsets_at_ends(low, high, box, slope)
    at = _enclose(interval, derivative, touching, mirror)
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
    share: Tensor | None,
) -> Tensor:
    """Return a point d >= 0 of the box (anything where it is negative) whose tangent is above g at the left end.

    Any d is sound; this one makes the line tight: the middle where g is concave on the box, else the least d whose
    tangent clears the left end. If the slope of the chord is given, the least d whose tangent is no steeper: g falls
    back to the chord's right end from there, so that this tangent lies above the chord and clears the left end too. If
    a share is given, d is that share of the way from the least place to the right end.
    """
    least = box.lower.detach().clamp(min=0)
    greatest = torch.maximum(box.upper.detach(), least)
    low, high = least, greatest
    with torch.no_grad():
        for _ in range(TOUCHING_STEPS):
            trial = (low + high) * 0.5
            slope = derivative(trial)
            if chord is None:
                above = _enclose(interval, derivative, trial, mirror).upper
                clears = above + slope * (box.lower - trial) >= value
            else:
                clears = slope <= chord
            low, high = torch.where(clears, low, trial), torch.where(clears, trial, high)
    if share is not None:
        first = torch.where(box.lower.detach() >= 0, least, high).nan_to_num(0.0, 0.0, 0.0)
        last = torch.where(greatest.isfinite(), greatest, first)
        return torch.minimum(torch.maximum(first + share * (last - first), first), last)
    middle = (least + greatest) * 0.5
    return torch.where((box.lower >= 0) & (chord is None), middle, high).nan_to_num(0.0, 0.0, 0.0)
