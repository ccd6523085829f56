"""A curve as the union of strips between two lines each, one binary a strip, with a declared gap. OUTER.

The range of a unit is cut at t_0 < ... < t_n, and on each part lines hold the curve in real arithmetic. With b_j saying
that x is in part j, and a_j being x there and 0 elsewhere,

    x = sum a_j,   sum b_j = 1,   t_{j-1} b_j <= a_j <= t_j b_j,
    sum (lower_slope_j a_j + lower_offset_j b_j) <= y <= sum (upper_slope_j a_j + upper_offset_j b_j),
    sum least_j b_j <= y <= sum greatest_j b_j.

This is the multiple choice formulation (Balas 1979; Croxton, Gendron, Magnanti 2003): no constant is large, every
coefficient is a float as it stands, and the linear relaxation is the convex hull of the strips. The gap falls with the
square of the number of parts, so units get parts in proportion to the root of what their gap is uncut.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from encoders.box import Box
from encoders.rounding import next_up, tiny, unit_roundoff
from encoders.views.envelope import ElementwiseEnvelope
from encoders.views.relaxation import Relaxation, Rows, assembled

# Units whose lines are this close are not cut: solvers do not tell such values apart.
NARROW = 1e-9
# Places at which the bend of a curve is looked at, for each part.
SAMPLES = 8
# Curves of this package are nearly straight further away from zero than this.
BENT = 8.0


def piecewise(
    interval: Callable[[Box], Box],
    lines: Callable[[Box], ElementwiseEnvelope],
    derivative: Callable[[Tensor], Tensor],
    box: Box,
    segments: int,
) -> Relaxation:
    """Return rows around y = f(x) on one box (batch 1), at most `segments` parts a unit, and their gap.

    interval, lines: of f on boxes `(1, units)`, any units; derivative: of f, which only places the cuts.
    """
    flat = Box.unchecked(*(end.detach().cpu().reshape(1, -1) for end in (box.lower, box.upper)))
    uncut = lines(flat)
    whole = interval(flat)
    heights = strip_heights(uncut, flat, whole)
    counts = _parts(heights, flat, segments)
    cut = np.flatnonzero(counts > 1)
    ends = _cuts(derivative, flat, cut, counts[cut], segments)
    unit, part = np.nonzero(np.arange(segments) < counts[cut, None])
    strips = Box.unchecked(*(torch.from_numpy(ends[unit, part + side]).reshape(1, -1) for side in (0, 1)))
    inside, ranges = lines(strips), interval(strips)
    rows = _single_rows(uncut, whole, np.flatnonzero(counts == 1), len(counts))
    rows += _strip_rows(inside, strips, ranges, unit, cut, len(counts))
    gap = max(heights[counts == 1].max(initial=0.0), strip_heights(inside, strips, ranges).max(initial=0.0))
    low, high = strips.lower.numpy()[0], strips.upper.numpy()[0]
    return Relaxation(
        *assembled(rows, 2 * (len(counts) + len(unit))),
        binaries=len(unit),
        auxiliary=(np.minimum(low, 0.0), np.maximum(high, 0.0)),
        gap=float(gap),
    )


def strip_heights(lines: ElementwiseEnvelope, box: Box, ranges: Box) -> np.ndarray:
    """Return the greatest heights `(units,)` between the lines and within the ranges on one box, rounded up.

    min(upper line, greatest) - max(lower line, least) is concave in x, so it is greatest at an end of the box or where
    a line leaves the range. It is no greater than the lines' distance at one of the ends, nor than the range.
    """
    lower, upper = (lines.lower_slope, lines.lower_offset), (lines.upper_slope, lines.upper_offset)
    size = ranges.lower.abs() + ranges.upper.abs() + lower[1].abs() + upper[1].abs()
    steep = lower[0].abs() + upper[0].abs()

    def height(place: Tensor, missed: Tensor | float, clipped: bool) -> Tensor:
        top, bottom = upper[0] * place + upper[1], lower[0] * place + lower[1]
        if clipped:
            top, bottom = torch.minimum(top, ranges.upper), torch.maximum(bottom, ranges.lower)
        error = (size + steep * place.abs() + missed) * (16.0 * unit_roundoff(box.dtype)) + 8.0 * tiny(box.dtype)
        return (top - bottom + error).nan_to_num(torch.inf, torch.inf, torch.inf)

    heights = [height(end, 0.0, True) for end in (box.lower, box.upper)]
    for (slope, offset), end in ((lower, ranges.lower), (upper, ranges.upper)):
        place = ((end - offset) / slope).nan_to_num(0.0, 0.0, 0.0)
        # The float misses the place by a few roundings of what was divided, over the slope.
        missed = torch.where(slope == 0, 0.0, size * steep / slope.abs())
        heights.append(height(torch.minimum(torch.maximum(place, box.lower), box.upper), missed, True))
    unclipped = torch.maximum(height(box.lower, 0.0, False), height(box.upper, 0.0, False))
    highest = torch.minimum(torch.stack(heights).amax(dim=0), torch.minimum(unclipped, ranges.upper - ranges.lower))
    result: np.ndarray = next_up(highest).flatten().numpy()
    return result


def _parts(heights: np.ndarray, box: Box, segments: int) -> np.ndarray:
    """Return into how many parts each unit is cut, 1 to `segments`."""
    width = (box.upper - box.lower).numpy()[0]
    may_cut = np.isfinite(heights) & np.isfinite(width) & (width > 0) & (heights > NARROW)
    shares = np.where(may_cut, heights, 0.0)
    counts = np.ceil(segments * np.sqrt(shares / max(shares.max(initial=0.0), NARROW)))
    result: np.ndarray = np.clip(counts, 1, segments).astype(np.int64)
    return result


def _cuts(
    derivative: Callable[[Tensor], Tensor], box: Box, units: np.ndarray, counts: np.ndarray, segments: int
) -> np.ndarray:
    """Return the cuts `(len(units), segments + 1)` in rising order; those past a unit's last part repeat its end.

    A part of width w and bend f'' leaves a gap of about w^2 f'' / 8: all are equal where cuts share out the integral of
    the root of f''.
    """
    lower, upper = (end.numpy()[0, units, None] for end in (box.lower, box.upper))
    shares = np.linspace(0.0, 1.0, SAMPLES * segments + 1)
    middle = [np.clip(np.where(np.isfinite(end), end, 0.0), -BENT, BENT) for end in (lower, upper)]
    places = np.sort(np.concatenate([low + (high - low) * shares for low, high in ((lower, upper), middle)], axis=1))
    places = np.clip(places, lower, upper)
    slopes = derivative(torch.from_numpy(places)).numpy()
    bend = np.sqrt(np.abs(np.diff(slopes, axis=1)) * np.diff(places, axis=1))
    # A little of the width itself, so that straight curves are cut evenly.
    shares = np.diff(places, axis=1) / (upper - lower)
    bend += 1e-3 * (bend.sum(axis=1, keepdims=True) + tiny(torch.float64)) * shares
    if not len(units):
        return np.zeros((0, segments + 1))
    total = np.concatenate([np.zeros((len(units), 1)), bend.cumsum(axis=1)], axis=1)
    total /= total[:, -1:]
    # One interpolation for all units: unit k's integral is moved to [2 k, 2 k + 1].
    offsets = 2.0 * np.arange(len(units))[:, None]
    wanted = np.minimum(np.arange(segments + 1) / counts[:, None], 1.0)
    at = np.interp((wanted + offsets).reshape(-1), (total + offsets).reshape(-1), places.reshape(-1))
    cuts = np.asarray(at).reshape(wanted.shape)
    cuts = np.where(wanted == 0.0, lower, np.where(wanted == 1.0, upper, cuts))
    result: np.ndarray = np.clip(np.maximum.accumulate(cuts, axis=1), lower, upper)
    return result


def _single_rows(lines: ElementwiseEnvelope, ranges: Box, units: np.ndarray, count: int) -> list[Rows]:
    """Return the two lines and the range of units that are not cut."""
    at = np.arange(len(units))
    slopes, offsets = _ends(lines, units)
    y = (at, count + units, -1.0)
    return [
        Rows(len(at), [(at, units, slopes[0]), y], -np.inf, -offsets[0]),
        Rows(len(at), [(at, units, slopes[1]), y], -offsets[1], np.inf),
        Rows(len(at), [(at, count + units, 1.0)], ranges.lower.numpy()[0, units], ranges.upper.numpy()[0, units]),
    ]


def _strip_rows(
    lines: ElementwiseEnvelope, strips: Box, ranges: Box, unit: np.ndarray, cut: np.ndarray, count: int
) -> list[Rows]:
    """Return the rows of the module docstring; unit: of each strip, its place in `cut`, the units that are cut."""
    at, pairs = np.arange(len(cut)), np.arange(len(unit))
    a, b = 2 * count + pairs, 2 * count + len(unit) + pairs
    low, high = strips.lower.numpy()[0], strips.upper.numpy()[0]
    slopes, offsets = _ends(lines, pairs)
    minus = np.full(len(cut), -1.0)
    x, y = (at, cut, minus), (at, count + cut, minus)
    below, above = ([(unit, a, slopes[side]), (unit, b, offsets[side]), y] for side in (0, 1))
    return [
        Rows(len(at), [(unit, a, 1.0), x], 0.0, 0.0),
        Rows(len(at), [(unit, b, 1.0)], 1.0, 1.0),
        Rows(len(pairs), [(pairs, a, 1.0), (pairs, b, -low)], 0.0, np.inf),
        Rows(len(pairs), [(pairs, a, 1.0), (pairs, b, -high)], -np.inf, 0.0),
        Rows(len(at), below, -np.inf, 0.0),
        Rows(len(at), above, 0.0, np.inf),
        Rows(len(at), [(unit, b, ranges.lower.numpy()[0]), y], -np.inf, 0.0),
        Rows(len(at), [(unit, b, ranges.upper.numpy()[0]), y], 0.0, np.inf),
    ]


def _ends(lines: ElementwiseEnvelope, places: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return ([lower, upper slopes], [lower, upper offsets]) at some places."""
    slopes = [slope.numpy()[0, places] for slope in (lines.lower_slope, lines.upper_slope)]
    offsets = [offset.numpy()[0, places] for offset in (lines.lower_offset, lines.upper_offset)]
    return slopes, offsets
