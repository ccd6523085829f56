"""What max-of-weighted-distance units say about their inputs and outputs on many boxes side by side.

A unit has z = max_i u_i |y_i - w_i| and a monotone link of it as output. {z <= b} is a box of inputs, {z >= a} a clause
over them, some y_i >= w_i + a / u_i or y_i <= w_i - a / u_i. It is what `contraction` does unit by unit, written again
in its plainest form: float64, every bound moved outward by PAD and TINY, which cover the roundings of a few operations
and one elementary function. A number that is none refutes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from encoders.views.distances import DistanceLayer

# Relative outward move: 16 units in the last place, twice what is trusted of one elementary function.
PAD = 16 * 2.0**-52
# Absolute outward move, far above every underflow error.
TINY = 1e-300
# Above the mirror of every distance whose exponential underflows.
MIRROR_TINY = 1e-150
# What a literal is split before: far above rounding, far below what outputs differ by.
DELTA = 1e-12
# Largest float64 below 1.
BELOW_ONE = 1.0 - 2.0**-53

Ends = tuple[Tensor, Tensor]


def sum_down(a: Tensor, b: Tensor) -> Tensor:
    """Return lower bounds of a + b."""
    return a + b - (PAD * (a.abs() + b.abs()).nan_to_num(0.0, 0.0, 0.0) + TINY)


def sum_up(a: Tensor, b: Tensor) -> Tensor:
    """Return upper bounds of a + b."""
    return -sum_down(-a, -b)


@dataclass(frozen=True, eq=False)
class Units:
    """Some units of one layer. weight, attractor: `(units, inputs)`; negated, bias: `(units,)`; float64."""

    weight: Tensor
    attractor: Tensor
    negated: Tensor
    bias: Tensor
    linear: bool

    @classmethod
    def of_layer(cls, layer: DistanceLayer) -> Units:
        """Return all units of a layer."""
        weight, attractor = (part.detach().cpu().double() for part in (layer.weight, layer.attractor))
        bias = torch.zeros(len(weight)) if layer.bias is None else layer.bias.detach().cpu()
        return cls(weight, attractor, layer.negated.detach().cpu(), bias.double(), layer.has_linear_link)

    def __getitem__(self, rows: list[int]) -> Units:
        return Units(self.weight[rows], self.attractor[rows], self.negated[rows], self.bias[rows], self.linear)

    def distances(self, lower: Tensor, upper: Tensor) -> Ends:
        """Return the range of z, `(boxes, units)` each, over boxes of the inputs `(boxes, inputs)`."""
        above = self.weight * (lower[:, None] - self.attractor)
        below = self.weight * (self.attractor - upper[:, None])
        near = torch.maximum(above, below).amax(dim=2)
        far = torch.maximum(-above, -below).amax(dim=2)
        return (near * (1.0 - PAD) - TINY).clamp(min=0.0), far * (1.0 + PAD) + TINY

    def outputs(self, near: Tensor, far: Tensor) -> Ends:
        """Return the range of the outputs where z lies in [near, far]."""
        if self.linear:
            least, greatest = torch.where(self.negated, near, -far), torch.where(self.negated, far, -near)
            return sum_down(least, self.bias), sum_up(greatest, self.bias)
        least, greatest = near * near * (1.0 - PAD), far * far * (1.0 + PAD) + TINY
        lower = torch.where(self.negated, -torch.expm1(-least), torch.exp(-greatest))
        upper = torch.where(self.negated, -torch.expm1(-greatest), torch.exp(-least))
        return (lower * (1.0 - PAD) - TINY).clamp(min=0.0), (upper * (1.0 + PAD) + TINY).clamp(max=1.0)

    def distances_of(self, lower: Tensor, upper: Tensor) -> Ends:
        """Return (at least, at most): the range of z where the outputs lie in [lower, upper]."""
        if self.linear:
            least = torch.where(self.negated, sum_down(lower, -self.bias), sum_down(-upper, self.bias))
            greatest = torch.where(self.negated, sum_up(upper, -self.bias), sum_up(-lower, self.bias))
            return least.clamp(min=0.0), greatest
        far = torch.where(self.negated, -torch.log1p(-upper.clamp(max=BELOW_ONE)), -torch.log(lower.clamp(min=TINY)))
        none = torch.where(self.negated, upper >= 1.0, lower < TINY)
        near = torch.where(self.negated, -torch.log1p(-lower.clamp(0.0, BELOW_ONE)), -torch.log(upper.clamp(TINY, 1.0)))
        greatest = torch.where(none, torch.inf, far.clamp(min=0.0).sqrt() * (1.0 + PAD) + TINY)
        return (near.sqrt() * (1.0 - PAD) - TINY).clamp(min=0.0), greatest

    def confined(self, lower: Tensor, upper: Tensor, at_most: Tensor) -> Ends:
        """Return boxes of the inputs that hold all points of boxes where z <= at_most, `(boxes, units)`."""
        reach = at_most[:, :, None] / self.weight
        reach = reach + (PAD * (reach.abs() + self.attractor.abs()) + TINY)
        # A weight of zero asks for nothing, and neither does what is no number.
        reach = torch.where(self.weight > 0, reach, torch.inf).nan_to_num(torch.inf, torch.inf, -torch.inf)
        low, high = (self.attractor - reach).amax(dim=1), (self.attractor + reach).amin(dim=1)
        return torch.maximum(lower, low), torch.minimum(upper, high)

    def clauses(self, lower: Tensor, upper: Tensor, at_least: Tensor) -> Clauses:
        """Return what z >= at_least, `(boxes, units)`, asks of the inputs in boxes."""
        reach = at_least[:, :, None] / self.weight
        reach = reach - (PAD * (reach.abs() + self.attractor.abs()) + TINY)
        above, below = self.attractor + reach, self.attractor - reach
        has_weight, asked = self.weight > 0, (at_least > 0)[:, :, None]
        # What is no number may hold.
        can_rise = has_weight & asked & ~(upper[:, None] < above)
        can_fall = has_weight & asked & ~(lower[:, None] > below)
        return Clauses(above, below, can_rise, can_fall, at_least > 0)


@dataclass(frozen=True, eq=False)
class Clauses:
    """One clause a unit: some input is at least `above`, or at most `below`; all `(boxes, units, inputs)`.

    can_rise, can_fall: which of these literals can hold in the box; asked: `(boxes, units)`, of which units anything is
    asked. Thresholds are on the safe side.
    """

    above: Tensor
    below: Tensor
    can_rise: Tensor
    can_fall: Tensor
    asked: Tensor

    @property
    def count(self) -> Tensor:
        """How many literals can hold, `(boxes, units)`."""
        return self.can_rise.sum(dim=2) + self.can_fall.sum(dim=2)

    def forced(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the boxes with the literals that alone can hold made true, and in which boxes no literal can."""
        count = self.count
        one = (self.asked & (count == 1))[:, :, None]
        low = torch.where(one & self.can_rise, self.above, -torch.inf).amax(dim=1)
        high = torch.where(one & self.can_fall, self.below, torch.inf).amin(dim=1)
        return torch.maximum(lower, low), torch.minimum(upper, high), (self.asked & (count == 0)).any(dim=1)

    def satisfied(self, lower: Tensor, upper: Tensor, slack: float) -> Tensor:
        """Return for which units `(boxes, units)` a literal holds all over the box, up to slack (1 + |threshold|)."""
        rises = self.can_rise & (lower[:, None] >= self.above - slack * (1.0 + self.above.abs()))
        falls = self.can_fall & (upper[:, None] <= self.below + slack * (1.0 + self.below.abs()))
        return ~self.asked | (rises | falls).any(dim=2)


# ------------------------------------------------------------------------------------------------------- mirrors


def mirrored(near: Tensor, far: Tensor) -> Ends:
    """Return the range of sqrt(-ln(1 - exp(-z^2))), which falls, over z in [near, far]."""
    near, far = near.clamp(min=0.0), far.clamp(min=0.0)
    greatest, least = far * far * (1.0 + PAD) + TINY, near * near * (1.0 - PAD)
    low = (_mirror(greatest) * (1.0 - 4.0 * PAD) - MIRROR_TINY).clamp(min=0.0)
    high = torch.where(least < TINY, torch.inf, _mirror(least.clamp(min=TINY)) * (1.0 + 4.0 * PAD) + MIRROR_TINY)
    return low, high


def _mirror(s: Tensor) -> Tensor:
    """Return sqrt(-ln(1 - exp(-s))) for s > 0 to a few units in the last place, or 0 where exp underflows."""
    large = -torch.log1p(-torch.exp(-s.clamp(min=0.5)))
    small = -torch.log(-torch.expm1(-s.clamp(max=1.0)))
    return torch.where(s > 0.7, large, small).sqrt()
