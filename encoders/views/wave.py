"""Sine and cosine: f'' = -f, so the range of f on a box bounds how far f bends away from a chord there.

With f between lo and hi on a box of width w, f minus any line is at least the less of its ends minus
max(-lo, 0) w^2 / 8, and at most the greater plus max(hi, 0) w^2 / 8 (error of linear interpolation).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from encoders.box import Box
from encoders.rounding import ELEMENTARY_FUNCTION_ULPS, unit_roundoff
from encoders.views.curve import Function
from encoders.views.envelope import ElementwiseEnvelope, offsets_at_ends, reach_of

# Of larger arguments nothing is said but that values lie in [-1, 1].
LARGEST = 1e6
# A crest this near to a box, in periods, counts as inside: values differ from it by less than rounding.
NEAR = 1e-9


@dataclass(frozen=True, eq=False)
class Wave(Function):
    """A sine. slope: its derivative; crest: a place where it is 1."""

    slope: Callable[[Tensor], Tensor] = torch.cos
    crest: float = math.pi / 2.0

    def derivative(self, x: Tensor) -> Tensor:
        return self.slope(x)

    def interval(self, box: Box) -> Box:
        """Return the exact range, rounded outward."""
        error = 2.0 * (ELEMENTARY_FUNCTION_ULPS + 1) * unit_roundoff(box.dtype)
        ends = [self.value(end.clamp(-LARGEST, LARGEST)) for end in (box.lower, box.upper)]
        far = reach_of(box) > LARGEST
        high = torch.maximum(*ends) + error
        low = torch.minimum(*ends) - error
        high = torch.where(far | self._holds(box, self.crest), 1.0, high.clamp(max=1.0))
        low = torch.where(far | self._holds(box, self.crest + math.pi), -1.0, low.clamp(min=-1.0))
        return Box.unchecked(low, high)

    def _holds(self, box: Box, place: float) -> Tensor:
        """Return whether a box holds a place or one some whole periods away; it may say so a little beside it."""
        first, last = ((end - place) / (2.0 * math.pi) for end in (box.lower, box.upper))
        # Of the quotients a few roundings are wrong.
        margin = NEAR + torch.maximum(first.abs(), last.abs()) * (32.0 * unit_roundoff(box.dtype))
        holds: Tensor = (last + margin).floor() >= (first - margin).ceil()
        return holds

    def envelope(self, box: Box, thin: bool = False) -> ElementwiseEnvelope:
        """Return lines above and below on the box, rounded outward, of the slope of the chord or flat."""
        values = self.interval(box)
        width = box.upper - box.lower
        usable = (reach_of(box) <= LARGEST) & (width > 0)
        chord = (self.value(box.upper) - self.value(box.lower)) / width
        chord = torch.where(usable & chord.isfinite(), chord, 0.0)
        ends = [self.interval(Box.unchecked(end, end)) for end in (box.lower, box.upper)]
        least, greatest = offsets_at_ends(ends[0], ends[1], box, chord)
        bend = width * width * (0.125 * (1.0 + 16.0 * unit_roundoff(box.dtype)))
        below, above = least - bend * (-values.lower).clamp(min=0.0), greatest + bend * values.upper.clamp(min=0.0)
        # One rounding of the sum, and what the product loses where it is small.
        slack = (below.abs() + above.abs() + 1e-300) * (8.0 * unit_roundoff(box.dtype))
        middle = box.lower * 0.5 + box.upper * 0.5
        sides = []
        for offset, flat, sign in ((below - slack, values.lower, 1.0), (above + slack, values.upper, -1.0)):
            better = usable & (sign * (chord * middle + offset) > sign * flat)
            sides.append((torch.where(better, chord, 0.0), torch.where(better, offset, flat)))
        (lower, low), (upper, high) = sides
        return ElementwiseEnvelope(lower, low, upper, high, reach_of(box))
