"""Parts of a box contracted by a chain of max-of-weighted-distance layers and the order of two classes.

A part is a box of all values, the inputs first, then the outputs of all layers but the last, with a range of tau. tau
is d_low, one of two coordinates in which the classes are compared: a rival wins or ties where d_low <= d_high. Units of
one type compare by distance, less the bias of a linear link; of a plain and a negated unit the latter is *mirrored* to
the distance at which a plain one had its output. A pass meets ranges upward, then tau, then inputs downward, each layer
from what was known before it. Nothing that a part holds is lost: an empty one holds no point where the rival is level.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise

import torch
from torch import Tensor

from encoders.rounding import check_gradual_underflow
from encoders.views.distances import DistanceLayer
from verifier.certificates.distance_rules import Ends, Units, mirrored, sum_down, sum_up
from verifier.certificates.error import CertificateError

# Parts contracted side by side, and bytes that one of their arrays may take.
BATCH, PART_BYTES = 128, 1 << 25
# Values and weights up to here cannot overflow; in chains with a linear link a root of it, as values grow by layers.
LARGEST = 1e100


@dataclass(frozen=True, eq=False)
class DistanceParts:
    """Parts side by side: lower, upper `(parts, values)`, tau `(parts, 2)`, nodes `(parts,)` of the tree."""

    lower: Tensor
    upper: Tensor
    tau: Tensor
    nodes: Tensor

    def __len__(self) -> int:
        return len(self.nodes)

    def __getitem__(self, places: Tensor | slice) -> DistanceParts:
        return DistanceParts(*(getattr(self, each.name)[places] for each in fields(self)))

    @classmethod
    def joined(cls, parts: list[DistanceParts]) -> DistanceParts:
        """Return parts side by side."""
        return cls(*(torch.cat([getattr(part, each.name) for part in parts]) for each in fields(cls)))

    def halves(self, sides: Tensor, values: Tensor, nodes: Tensor) -> DistanceParts:
        """Return the parts below and above splits, one after the other, both closed; sides: a value, or tau behind all.

        nodes: theirs, `(parts, 2)`.
        """
        both = self.joined([self, self])
        count, each = len(self), torch.arange(len(self))
        lower = torch.cat([both.lower, both.tau[:, :1]], dim=1)
        upper = torch.cat([both.upper, both.tau[:, 1:]], dim=1)
        upper[each, sides] = torch.minimum(upper[each, sides], values)
        lower[each + count, sides] = torch.maximum(lower[each + count, sides], values)
        tau = torch.stack([lower[:, -1], upper[:, -1]], dim=1)
        return DistanceParts(lower[:, :-1], upper[:, :-1], tau, nodes.T.flatten())


class DistanceBounds:
    """What a chain of layers says of parts in which a rival is level with the winner.

    slack: how much further d_high may be than it is; whoever makes a certificate asks for a little more than is proved.
    """

    def __init__(self, layers: list[DistanceLayer], winner: int, rival: int, slack: float = 0.0) -> None:
        check_gradual_underflow()
        chain = [Units.of_layer(layer) for layer in layers]
        self.hidden, last, self.slack = chain[:-1], chain[-1], slack
        both_negated = bool(last.negated[winner] & last.negated[rival])
        low, high = (winner, rival) if both_negated else (rival, winner)
        self.pair = last[[low, high]]
        self.shifts = -self.pair.bias if both_negated else self.pair.bias
        self.is_mirrored = [False, False] if both_negated else self.pair.negated.tolist()
        sizes = [units.weight.shape[1] for units in chain]
        ends = torch.tensor([0, *sizes]).cumsum(0).tolist()
        self.spans = [slice(start, end) for start, end in pairwise(ends)]
        self.values = ends[-1]
        widest = max(units.weight.numel() for units in chain)
        self.batch = max(1, min(BATCH, PART_BYTES // (8 * widest)))
        linear = any(units.linear for units in chain)
        self.limit = LARGEST ** (1.0 / (len(chain) + 1)) if linear else LARGEST
        sizes_of = [part.abs().max() for units in chain for part in (units.weight, units.attractor, units.bias)]
        if not bool(torch.stack(sizes_of).max() < self.limit):
            raise CertificateError(f"a chain of distances takes weights below {self.limit:g}")

    def root(self, lower: Tensor, upper: Tensor) -> DistanceParts:
        """Return the whole of a box `(1, inputs)`; CertificateError where its numbers may overflow."""
        if not bool((lower.abs() < self.limit).all() and (upper.abs() < self.limit).all()):
            raise CertificateError(f"a chain of distances takes boxes within +-{self.limit:g}")
        hidden = torch.full((1, self.values - lower.shape[1]), torch.inf, dtype=torch.float64)
        tau = torch.tensor([[-torch.inf, torch.inf]], dtype=torch.float64)
        none = torch.zeros(1, dtype=torch.int64)
        return DistanceParts(torch.cat([lower, -hidden], dim=1), torch.cat([upper, hidden], dim=1), tau, none)

    def contracted(self, parts: DistanceParts) -> tuple[DistanceParts, Tensor]:
        """Return parts after one more pass, and which of them `(parts,)` are empty."""
        tau, now = parts.tau.clone(), _Pass(parts)
        for units, span, after in zip(self.hidden, self.spans, self.spans[1:], strict=False):
            now.meet(after, units.outputs(*units.distances(now.lower[:, span], now.upper[:, span])))
        last = self.spans[-1]
        least, greatest = self._coordinates(*self.pair.distances(now.lower[:, last], now.upper[:, last]))
        tau[:, 0] = torch.maximum(tau[:, 0], least[:, 0])
        tau[:, 1] = torch.minimum(torch.minimum(tau[:, 1], greatest[:, 0]), greatest[:, 1] + self.slack)
        now.empty |= tau[:, 0] > tau[:, 1]
        now.contract(self.pair, last, *self.asked_of_pair(tau))
        for units, span, after in zip(self.hidden[::-1], self.spans[-2::-1], self.spans[:0:-1], strict=True):
            now.contract(units, span, *units.distances_of(now.lower[:, after], now.upper[:, after]))
        return DistanceParts(now.lower, now.upper, tau, parts.nodes), now.empty

    def _coordinates(self, near: Tensor, far: Tensor) -> Ends:
        """Return the ranges `(parts, 2)` of d_low and d_high where the distances of the two lie in [near, far]."""
        lower, upper = sum_down(near, -self.shifts), sum_up(far, -self.shifts)
        turned = mirrored(near, far)
        if self.pair.linear:
            turned = sum_down(-far, -self.shifts), sum_up(-near, -self.shifts)
        is_turned = torch.tensor(self.is_mirrored)
        return torch.where(is_turned, turned[0], lower), torch.where(is_turned, turned[1], upper)

    def asked_of_pair(self, tau: Tensor) -> Ends:
        """Return (at least, at most) `(parts, 2)`: the distances of the two with d_low <= tau <= d_high + slack."""
        ends = torch.stack([tau[:, 1], tau[:, 0] - self.slack], dim=1)
        none, all_ = torch.zeros_like(ends), torch.full_like(ends, torch.inf)
        if self.pair.linear:
            turned = sum_down(-ends, -self.shifts), sum_up(-ends, -self.shifts)
        else:
            turned = mirrored(ends, ends)
        direct = sum_down(ends, self.shifts), sum_up(ends, self.shifts)
        is_turned, is_low = torch.tensor(self.is_mirrored), torch.tensor([True, False])
        # d_low <= tau: z at most, of a mirrored one at least; d_high >= tau the other way round.
        least = torch.where(is_turned & is_low, turned[0], torch.where(~is_turned & ~is_low, direct[0], none))
        most = torch.where(~is_turned & is_low, direct[1], torch.where(is_turned & ~is_low, turned[1], all_))
        return least.clamp(min=0.0), most


class _Pass:
    """Ends of parts that shrink. empty: `(parts,)`, in which nothing lies; what is computed of these does not count."""

    def __init__(self, parts: DistanceParts) -> None:
        self.lower, self.upper = parts.lower.clone(), parts.upper.clone()
        self.empty = (parts.lower > parts.upper).any(dim=1) | (parts.tau[:, 0] > parts.tau[:, 1])

    def meet(self, span: slice, ends: Ends) -> None:
        """Meet the ends of some values with others."""
        self.lower[:, span] = torch.maximum(self.lower[:, span], ends[0])
        self.upper[:, span] = torch.minimum(self.upper[:, span], ends[1])
        self.empty |= (self.lower[:, span] > self.upper[:, span]).any(dim=1)

    def contract(self, units: Units, span: slice, at_least: Tensor, at_most: Tensor) -> None:
        """Meet the inputs of units with what their distances, `(parts, units)`, ask of them."""
        self.meet(span, units.confined(self.lower[:, span], self.upper[:, span], at_most))
        lower, upper = self.lower[:, span], self.upper[:, span]
        least, greatest, without = units.clauses(lower, upper, at_least).forced(lower, upper)
        self.empty |= without
        self.meet(span, (least, greatest))
