"""A ball divided until the arithmetic of certificates leaves no point where a rival is level, for chains of distances.

Splits are those of `contraction`: on a literal of the clause with the fewest literals nearest the output, a little
before its threshold, and on the threshold between the two classes only where no clause is left.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from encoders.network import Network
from encoders.region import BallRegion
from encoders.views.distances import DistanceLayer
from verifier.bounds.growing_tree import GrowingTree
from verifier.budget import Budget
from verifier.certificates.certificate import SLACK, Certificate
from verifier.certificates.distance_bounds import DistanceBounds, DistanceParts
from verifier.certificates.distance_chain import dense_layers
from verifier.certificates.distance_rules import DELTA, Clauses
from verifier.certificates.distance_tree import DistanceTree, distance_refusal
from verifier.certificates.error import CertificateError
from verifier.certificates.sign_tree import LEAF
from verifier.certificates.waiting_parts import taken

# Passes over a part, the last of which moves no end further than this.
PASSES, PROGRESS = 8, 1e-3
# A literal that holds up to so many times what splits stop before its threshold counts as holding.
SATISFIED = 2.0
# A range of tau this narrow, relative to 1 + |tau|, is not halved.
TAU_DELTA = 1e-14


def certificate_by_contraction(
    network: Network, ball: BallRegion, winner: int, budget: Budget, most_parts: int
) -> Certificate | str:
    """Return a certificate that a class wins on a ball (batch 1, on the processor); or why there is none."""
    refusal = distance_refusal(network)
    if refusal is not None:
        return f"certificates of MWD networks are of chains of their layers: {refusal}"
    box, layers = ball.enclosure(), dense_layers(network, "contraction")
    lower, upper, trees = box.lower.flatten(1), box.upper.flatten(1), list[DistanceTree]()
    try:
        for rival in range(network.output_shape[0]):
            if rival != winner:
                tree = _grown(layers, (winner, rival), (lower, upper), budget, most_parts)
                if isinstance(tree, str):
                    return tree
                trees.append(tree)
    except CertificateError as error:
        return f"no certificate: {error}"
    none = np.zeros(0, dtype=np.int32)
    return Certificate(
        network.digest, ball.centre[0].numpy(), float(ball.radius[0]), ball.domain, winner, (), none, (),
        distances=tuple(trees),
    )  # fmt: skip


def _grown(
    layers: list[DistanceLayer], classes: tuple[int, int], ends: tuple[Tensor, Tensor], budget: Budget, most_parts: int
) -> DistanceTree | str:
    """Return the tree against a rival; classes: (winner, rival)."""
    plain = DistanceBounds(layers, *classes)
    whole, _ = plain.contracted(plain.root(*ends))
    reach = whole.tau.abs().nan_to_num(0.0, 0.0, 0.0).max()
    bounds, tree = DistanceBounds(layers, *classes, slack=SLACK * float(reach)), _Tree()
    waiting, said = [bounds.root(*ends)], f"no certificate against class {classes[1]}"
    while waiting:
        if budget.exhausted or tree.nodes > most_parts:
            why = "time limit" if budget.exhausted else f"{most_parts} parts"
            return f"{said} within the {why}; {sum(map(len, waiting))} parts are open"
        parts = tree.contracted(bounds, taken(waiting, bounds.batch))
        if len(parts):
            sides, values = _splits(bounds, parts)
            if bool((sides < 0).any()):
                return f"{said}: contraction stands still on a part with nothing left to split"
            waiting.append(parts.halves(sides, values, tree.split(parts.nodes, sides, values)))
    return tree.finished(classes[1])


def _splits(bounds: DistanceBounds, parts: DistanceParts) -> tuple[Tensor, Tensor]:
    """Return for each part the value to split, -1 where there is none, and where."""
    count = len(parts)
    middle = (parts.tau[:, 0] + parts.tau[:, 1]) / 2.0
    wide = parts.tau[:, 1] - parts.tau[:, 0] > TAU_DELTA * (1.0 + parts.tau[:, 0].abs())
    sides = torch.where(wide & middle.isfinite(), bounds.values, LEAF)
    values, is_open = torch.where(middle.isfinite(), middle, 0.0), torch.ones(count, dtype=torch.bool)
    layers = [*zip(bounds.hidden, bounds.spans, bounds.spans[1:], strict=False), (bounds.pair, bounds.spans[-1], None)]
    for units, span, after in layers[::-1]:
        lower, upper = parts.lower[:, span], parts.upper[:, span]
        if after is None:
            at_least, _ = bounds.asked_of_pair(parts.tau)
        else:
            at_least, _ = units.distances_of(parts.lower[:, after], parts.upper[:, after])
        found, place, threshold = _literals(units.clauses(lower, upper, at_least), lower, upper)
        found &= is_open
        sides, values = torch.where(found, span.start + place, sides), torch.where(found, threshold, values)
        is_open &= ~found
    return sides, values


def _literals(clauses: Clauses, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return (whether a clause of two literals or more is left, the input of one in the shortest, where to split it).

    It is the literal with the most room in its box.
    """
    count, each = clauses.count, torch.arange(len(lower))
    left = ~clauses.satisfied(lower, upper, SATISFIED * DELTA) & (count >= 2)
    fewest = torch.where(left, count, 1 << 30).argmin(dim=1)
    above, below = clauses.above[each, fewest], clauses.below[each, fewest]
    rises = torch.where(clauses.can_rise[each, fewest], upper - above, -torch.inf)
    falls = torch.where(clauses.can_fall[each, fewest], below - lower, -torch.inf)
    room, literal = torch.cat([rises, falls], dim=1).max(dim=1)
    place, inputs = literal % lower.shape[1], lower.shape[1]
    is_rise = literal < inputs
    at = torch.where(is_rise, above[each, place], below[each, place])
    moved = DELTA * (1.0 + at.abs())
    at = torch.where(is_rise, at - moved, at + moved)
    return left.any(dim=1) & at.isfinite() & (room > -torch.inf), place, at


class _Tree(GrowingTree):
    """A tree, and how many passes each of its nodes takes."""

    def __init__(self) -> None:
        super().__init__()
        self._passes: dict[int, int] = {}

    def contracted(self, bounds: DistanceBounds, parts: DistanceParts) -> DistanceParts:
        """Return what is left of parts once passes move little, without those that are empty; keep how many it took."""
        done = list[DistanceParts]()
        for number in range(1, PASSES + 1):
            before = parts
            parts, empty = bounds.contracted(parts)
            moved = torch.maximum(parts.lower - before.lower, before.upper - parts.upper).amax(dim=1)
            stands = empty | ~(moved > PROGRESS) | (number == PASSES)
            self._passes |= dict.fromkeys(parts.nodes[stands].tolist(), number)
            done.append(parts[stands & ~empty])
            parts = parts[~stands]
            if not len(parts):
                break
        return DistanceParts.joined(done)

    def finished(self, rival: int) -> DistanceTree:
        """Return the tree against a rival, all of whose other nodes are leaves."""
        nodes, sides, values = self.preorder()
        return DistanceTree(rival, sides, values, np.array([self._passes[node] for node in nodes], dtype=np.uint8))
