"""k-winners-take-all (Xiao, Zhong, Zheng 2020, equation 1): the k greatest units of a sample pass, all others are zero.

    y_i = x_i if fewer than k others come before i, else 0;    j comes before i: x_j > x_i, or x_j = x_i and j < i

over all units of the sample, channels and places alike. Exactly k units pass, ties by the lowest index. The function is
piecewise linear and jumps where the k-th and the next unit tie, so a range holds both sides of every tie in its box.

Over a box, with a_i the k-th greatest lower end and b_i the k-th greatest upper end of the *other* units,

    i can win at x_i in [max(l_i, a_i), u_i],    i can lose at x_i in [l_i, min(u_i, b_i)],

each piece empty where its ends cross (or meet in a tie that the index decides otherwise). The others may stand anywhere
in their boxes, so the pieces are attained up to their closure, and the range of y_i is exact: a sure winner keeps its
box, a sure loser is 0, an open unit lies between 0 and [max(l_i, a_i), u_i].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from encoders.box import Box, Shape
from encoders.ops.base import Op
from encoders.rationals import Afford, Rationals
from encoders.views.envelope import ElementwiseEnvelope, reach_of, residual
from encoders.views.pseudogradient import replace_backward
from encoders.views.relaxation import Relaxation, line_relaxation

# Width of the gate of pseudogradients: descents broke more with it than with relus, a third of it, or the identity
# (benchmarks/RESULTS.md).
GATE = 1.0


@dataclass(frozen=True, eq=False)
class KWinners(Op):
    """Keeps the `count` greatest units of each sample, of any shape; needs at least as many units."""

    kind = "k-winners"
    has_pseudogradient = True
    jumps = True

    count: int

    def __post_init__(self) -> None:
        if isinstance(self.count, bool) or not isinstance(self.count, int) or self.count < 1:
            raise ValueError(f"k-winners keeps a whole number of units, 1 or more; got {self.count!r}")

    def output_shape(self, *shapes: Shape) -> Shape:
        units = int(np.prod(shapes[0], dtype=np.int64))
        if self.count > units:
            raise ValueError(f"k-winners keeps {self.count} units, got {units} of shape {shapes[0]}")
        return shapes[0]

    def evaluate(self, *x: Tensor) -> Tensor:
        (value,) = x
        # What is no number stays so: a zero in its place would hide it.
        return torch.where(winners(value, self.count) | value.isnan(), value, 0.0)

    def evaluate_pseudo(self, *x: Tensor, leak: float = 0.0) -> Tensor:
        """Return the value with the gradients of a soft gate, so that losers that a step could make win are seen.

        Unit i passes the share sigmoid((x_i - t) / (GATE s)), t the k-th greatest value and s the deviation of all.
        """
        return replace_backward(self.evaluate, self._gated)(*x)

    def _gated(self, x: Tensor) -> Tensor:
        flat = x.detach().unsqueeze(-1).flatten(1)
        threshold = flat.topk(self.count, dim=1, sorted=False).values.amin(dim=1, keepdim=True)
        width = GATE * flat.std(dim=1, keepdim=True, correction=0)
        gate = torch.sigmoid((flat - threshold) / width.clamp(min=torch.finfo(x.dtype).tiny))
        return x * gate.reshape(x.shape)

    def interval(self, *boxes: Box) -> Box:
        """Return the exact range (see the module docstring); nothing is rounded."""
        (box,) = boxes
        pieces = _Pieces.of(box, self.count)
        lower = torch.where(pieces.can_win, pieces.wins_from, torch.inf)
        upper = torch.where(pieces.can_win, box.upper, -torch.inf)
        lower = torch.where(pieces.can_lose, lower.clamp(max=0.0), lower)
        upper = torch.where(pieces.can_lose, upper.clamp(min=0.0), upper)
        return Box.unchecked(lower, upper)

    def envelope(self, *boxes: Box, slope: Tensor | None = None) -> ElementwiseEnvelope:
        """Return lines of each unit around its two pieces, x where it can win and 0 where it can lose.

        Of the six lines' slopes through two of the pieces' four ends the one whose line is nearest in the middle of
        the box: no line is nearer there. Any slope is sound, as its offset is taken over all ends, rounded outward.
        """
        (box,) = boxes
        pieces = _Pieces.of(box, self.count)
        ends = self.interval(box)
        ends_of_pieces = pieces.ends(box)
        middle = 0.5 * box.lower + 0.5 * box.upper
        lines = []
        for sign, end in ((-1.0, ends.lower), (1.0, ends.upper)):
            best_slope, best_offset = torch.zeros_like(end), end
            for candidate in pieces.slopes(box):
                offsets = [residual(y, candidate, x, sign) for x, y in ends_of_pieces]
                offset = sign * torch.stack([sign * part for part in offsets]).amax(dim=0)
                nearer = sign * (candidate * middle + offset) < sign * (best_slope * middle + best_offset)
                nearer &= candidate.isfinite() & offset.isfinite()
                best_slope, best_offset = best_slope.where(~nearer, candidate), best_offset.where(~nearer, offset)
            sure = pieces.can_win & ~pieces.can_lose
            lines += [torch.where(sure, 1.0, best_slope), torch.where(sure, 0.0, best_offset)]
        return ElementwiseEnvelope(lines[0], lines[1], lines[2], lines[3], reach_of(box))

    def relax(self, *boxes: Box, around: Box | None = None) -> Relaxation:
        return line_relaxation(self.envelope(boxes[0]))

    def open_units(self, box: Box) -> Tensor:
        """Return which units may win or lose; ends of sure winners and of sure losers change no other unit's pieces."""
        pieces = _Pieces.of(box, self.count)
        return pieces.can_win & pieces.can_lose & (box.lower < box.upper)

    def rational(self, *x: Rationals, afford: Afford) -> Rationals:
        (value,) = x
        numerators = value.numerators.reshape(value.shape[0], -1)
        order = np.argsort(-numerators, axis=1, kind="stable")
        kept = np.zeros_like(numerators)
        first = order[:, : self.count]
        np.put_along_axis(kept, first, np.take_along_axis(numerators, first, axis=1), axis=1)
        return Rationals(kept.reshape(value.shape), value.denominator)

    def fan_in(self) -> int:
        return 2


def winners(x: Tensor, count: int) -> Tensor:
    """Return a mask of x `(batch, *shape)`: the `count` greatest units of each sample, ties by the lowest index."""
    flat = x.detach().unsqueeze(-1).flatten(1)
    threshold = flat.topk(count, dim=1, sorted=False).values.amin(dim=1, keepdim=True)
    above, tied = flat > threshold, flat == threshold
    missing = count - above.sum(dim=1, keepdim=True)
    return (above | (tied & (tied.cumsum(dim=1) <= missing))).reshape(x.shape)


@dataclass(frozen=True, eq=False)
class _Pieces:
    """Where the units of a box can win and lose, `(batch, *shape)`: at x in [wins_from, upper], [lower, loses_to]."""

    can_win: Tensor
    can_lose: Tensor
    wins_from: Tensor
    loses_to: Tensor

    @classmethod
    def of(cls, box: Box, count: int) -> _Pieces:
        lower, upper = (end.unsqueeze(-1).flatten(1) for end in (box.lower, box.upper))
        if count == lower.shape[1]:
            yes = torch.ones_like(box.lower, dtype=torch.bool)
            return cls(yes, ~yes, box.lower, box.lower)
        place = torch.arange(lower.shape[1], device=lower.device)
        (least, least_place), (most, most_place) = _kth_of_others(lower, count), _kth_of_others(upper, count)
        can_win = (upper > least) | ((upper == least) & (place < least_place))
        can_lose = (most > lower) | ((most == lower) & (most_place < place))
        parts = (can_win, can_lose, torch.maximum(lower, least), torch.minimum(upper, most))
        return cls(*(part.reshape(box.lower.shape) for part in parts))

    def ends(self, box: Box) -> list[tuple[Tensor, ...]]:
        """Return the ends (x, y) of the pieces; those of an empty piece are the other one's."""
        zero = torch.zeros_like(box.lower)
        winning = [(self.wins_from, self.wins_from), (box.upper, box.upper)]
        losing = [(box.lower, zero), (self.loses_to, zero)]
        result = []
        for exists, own, others in ((self.can_win, winning, losing), (self.can_lose, losing, winning)):
            for pair in zip(own, others, strict=True):
                result.append(tuple(part.where(exists, other) for part, other in zip(*pair, strict=True)))
        return result

    def slopes(self, box: Box) -> list[Tensor]:
        """Return the slopes of the six lines through two ends; not finite where both ends lie above one another."""
        from_, to, low, high = self.wins_from, self.loses_to, box.lower, box.upper
        chords = [y / (y - x) for x in (low, to) for y in (from_, high)]
        return [torch.zeros_like(low), torch.ones_like(low), *chords]


def _kth_of_others(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return for each unit of x `(batch, n)`, n > count, the count-th of the others in order, and its index."""
    ordered = x.sort(dim=1, descending=True, stable=True)
    among_first = torch.zeros_like(x, dtype=torch.bool).scatter(1, ordered.indices[:, :count], True)
    values, places = (
        torch.where(among_first, part[:, count : count + 1], part[:, count - 1 : count])
        for part in (ordered.values, ordered.indices)
    )
    return values, places
