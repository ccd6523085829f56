"""What a relu changes by where its input changes: relu(z + d) - relu(z), as one op of d and z.

It has the sign of d and at most its size, so its lines are of d alone (ReluDiff: Paulsen, Wang, Wang 2020, whose cases
are those of the signs of z and z + d). For every d it rises or falls in z, away from zero: its greatest value over a
range of z is that at the number c of the range that is nearest to zero, u(d) = relu(d + c) - relu(c), which is convex
in d, so that its chord is the best line above. Below, min(0, d) and its chord; d itself where z is never negative, 0
where it is never positive.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from encoders.box import Box, Shape
from encoders.ops.base import Op
from encoders.rationals import Afford, Rationals
from encoders.rounding import add_down, add_up
from encoders.views.envelope import ElementwiseEnvelope, Envelope, offsets_at_ends, reach_of


@dataclass(frozen=True, eq=False)
class ReluDifference(Op):
    """y = relu(z + d) - relu(z), of two nodes d and z of one shape, in this order."""

    kind = "relu-difference"
    arity = 2

    def output_shape(self, *shapes: Shape) -> Shape:
        first, second = shapes
        if first != second:
            raise ValueError(f"relu-difference takes two inputs of one shape, got {first} and {second}")
        return first

    def evaluate(self, *x: Tensor) -> Tensor:
        d, z = x
        return torch.where(d >= 0, torch.minimum(d, functional.relu(z + d)), torch.maximum(d, -functional.relu(z)))

    def interval(self, *boxes: Box) -> Box:
        """Return the exact range, its ends rounded outward: it rises in d, and for every d it is monotone in z."""
        d, z = boxes
        # A sum of opposite infinities is no number: what bounds the op then is d.
        least, greatest = add_down(z.lower, d.lower).nan_to_num(0.0, torch.inf, -torch.inf), add_up(z.upper, d.upper)
        lower = torch.minimum(d.lower, functional.relu(least))
        upper = torch.minimum(d.upper, functional.relu(greatest).nan_to_num(torch.inf, torch.inf))
        return Box.unchecked(
            torch.where(d.lower >= 0, lower, torch.maximum(d.lower, -functional.relu(z.upper))),
            torch.where(d.upper >= 0, upper, torch.maximum(d.upper, -functional.relu(z.lower))),
        )

    def envelope(self, *boxes: Box, slope: Tensor | None = None) -> Envelope:
        d, z = boxes
        zero, one = torch.zeros_like(d.lower), torch.ones_like(d.lower)
        off = (z.upper <= 0) & (add_up(z.upper, d.upper) <= 0)
        # Above: the chord of u, which is straight where it does not bend between the ends.
        nearest = torch.minimum(torch.maximum(zero, z.lower), z.upper)
        right, left = add_down(d.lower, nearest) >= 0, add_up(d.upper, nearest) <= 0
        at = [self.interval(Box.unchecked(end, end), Box.unchecked(nearest, nearest)) for end in (d.lower, d.upper)]
        chord = ((at[1].upper - at[0].upper) / (d.upper - d.lower)).nan_to_num(0.0, 0.0, 0.0)
        _, above = offsets_at_ends(at[0], at[1], d, chord)
        straight = torch.where(right, torch.minimum(nearest, zero), -functional.relu(nearest))
        upper_slope = torch.where(right, one, torch.where(left, zero, chord))
        upper_offset = torch.where(right | left, straight, above)
        # Below: min(0, d), which is concave.
        ends = (Box.unchecked(d.lower, d.lower), Box.unchecked(zero, zero))
        fall = (-d.lower / (d.upper - d.lower)).nan_to_num(0.0, 0.0, 0.0)
        below, _ = offsets_at_ends(*ends, d, fall)
        flat, steep = (d.lower >= 0) | (z.upper <= 0), (d.upper <= 0) | (z.lower >= 0)
        lower_slope = torch.where(steep & ~off, one, torch.where(flat, zero, fall))
        lower_offset = torch.where(steep | flat, zero, below)
        return ElementwiseEnvelope(
            lower_slope, lower_offset, torch.where(off, zero, upper_slope), torch.where(off, zero, upper_offset),
            reach_of(d),
        )  # fmt: skip

    def open_units(self, box: Box) -> Tensor:
        return (box.lower < 0) & (box.upper > 0)

    def rational(self, *x: Rationals, afford: Afford) -> Rationals:
        d, z = x
        after, before = (
            Rationals(np.where(part.numerators < 0, 0, part.numerators), part.denominator) for part in (z + d, z)
        )
        return (after - before).reduced()
