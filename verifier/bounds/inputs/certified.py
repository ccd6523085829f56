"""A box divided by its inputs until the arithmetic of certificates refutes what is unsafe in every part."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from encoders.box import Box
from encoders.network import Network
from encoders.region import BallRegion
from encoders.views.envelope import reach_of
from verifier.bounds.growing_tree import GrowingTree
from verifier.bounds.inputs.boxes import InputBoxes
from verifier.bounds.inputs.sides import OpenRows, best_sides
from verifier.bounds.linear.backward import Seen
from verifier.bounds.linear.bounds import linear_bounds
from verifier.budget import Budget
from verifier.certificates.ball_minimum import BallMinimum
from verifier.certificates.certificate import SLACK, Certificate
from verifier.certificates.conjunctions import Conjunctions
from verifier.certificates.error import CertificateError
from verifier.certificates.input_tree import InputTree, PartBounds, Parts
from verifier.certificates.waiting_parts import taken


def certificate_by_inputs(
    network: Network, asked: Conjunctions, ball: BallRegion, winner: int, budget: Budget, most_parts: int
) -> Certificate | str:
    """Return a certificate that nothing unsafe lies in a ball (batch 1, on the processor); or why there is none.

    network: what `asked` is about, before it was cast.
    """
    box = ball.enclosure()
    lower, upper = box.lower.flatten(1), box.upper.flatten(1)
    try:
        tree = _grown(_PartsOfBox(asked, lower, upper, BallMinimum.of(ball)), budget, most_parts)
    except CertificateError as error:
        return f"no certificate: {error}"
    if isinstance(tree, str):
        return tree
    none = np.zeros(0, dtype=np.int32)
    return Certificate(
        network.digest, ball.centre[0].numpy(), float(ball.radius[0]), ball.domain, winner, (), none, (), tree,
        norm=ball.norm,
    )  # fmt: skip


class _PartsOfBox:
    """The whole box and what is bounded of its parts, with a little more asked for than is to be proved."""

    def __init__(self, asked: Conjunctions, lower: Tensor, upper: Tensor, ball: BallMinimum | None) -> None:
        plain = PartBounds(asked)
        outputs = plain.boxes(plain.root(lower, upper))[asked.network.output.name]
        reach = asked.coefficients.abs().flatten(1) @ reach_of(outputs).flatten()
        slack = SLACK * (reach.nan_to_num(0.0, 0.0, 0.0) + asked.offsets.abs())
        self.bounds = PartBounds(replace(asked, offsets=asked.offsets + slack), ball)
        self.root = self.bounds.root(lower, upper)

    def open_parts(self, parts: Parts, tighten: bool) -> tuple[Parts, Tensor]:
        """Return the parts that stay open, with slopes of functions below the rows on them."""
        found, slopes = self.bounds.step(parts, tighten)
        is_open = found.is_open.any(dim=1)
        return found[is_open], slopes[is_open]

    def sides(self, parts: Parts, slopes: Tensor) -> Tensor:
        """Return for each part the input `(parts,)` to halve, as the search does; -1 where none can be.

        slopes: of the functions below the rows.
        """
        asked, shape, count = self.bounds.asked, self.bounds.network.input_shape, len(parts)
        shown = torch.cat(
            [parts.is_open[:, k, None].expand(-1, g.stop - g.start) for k, g in enumerate(asked.groups)], dim=1
        )
        region = BallRegion.of_box(Box(parts.lower.reshape(-1, *shape), parts.upper.reshape(-1, *shape)))
        # Units are bounded already: this gives the coefficients on the way, which say what is loose.
        # What is known of them in a ball may contradict what follows from a box that the ball does not reach.
        known = {} if self.bounds.ball is not None else self.bounds.apart(parts.units)
        bounds = linear_bounds(asked.network, region, boxes=known, tighten=())
        seen: Seen = {}
        bounds.minimise(asked.coefficients.expand(count, *asked.coefficients.shape), seen=seen)
        rows = OpenRows(bounds.passes, seen, torch.arange(count), slopes * shown[:, :, None])
        boxes = replace(InputBoxes.root(parts.lower, parts.upper), nodes=parts.nodes)
        return best_sides(boxes, rows.scores(boxes))


def middles(parts: Parts) -> Tensor:
    """Return points `(parts, inputs)` of parts, halfway between their sides but for rounding."""
    return torch.minimum(torch.maximum(parts.lower / 2 + parts.upper / 2, parts.lower), parts.upper)


def _grown(whole: _PartsOfBox, budget: Budget, most_parts: int) -> InputTree | str:
    waiting, tree = [whole.root], _Tree()
    while waiting:
        if budget.exhausted or tree.nodes > most_parts:
            why = "time limit" if budget.exhausted else f"{most_parts} parts"
            return f"no certificate within the {why}; {sum(map(len, waiting))} parts are open"
        parts = taken(waiting, whole.bounds.batch)
        open_before, _ = whole.open_parts(parts, False)
        if not len(open_before):
            continue
        # Where what is known of units does not do, they are bounded again.
        tree.tighten(open_before.nodes)
        found, slopes = whole.open_parts(parts[torch.isin(parts.nodes, open_before.nodes)], True)
        if len(found):
            sides = whole.sides(found, slopes)
            if bool((sides < 0).any()):
                return "no certificate: a single point, but for rounding, is not proved"
            values = middles(found)[torch.arange(len(found)), sides]
            waiting.append(found.halves(sides, values, tree.split(found.nodes, sides, values)))
    return tree.finished()


class _Tree(GrowingTree):
    """A tree, and at which of its nodes units are bounded."""

    def __init__(self) -> None:
        super().__init__()
        self._tightened: set[int] = set()

    def tighten(self, nodes: Tensor) -> None:
        """Take in at which nodes units are bounded."""
        self._tightened.update(nodes.tolist())

    def finished(self) -> InputTree:
        """Return the tree, all of whose other nodes are leaves."""
        nodes, sides, values = self.preorder()
        return InputTree(sides, values, np.array([node in self._tightened for node in nodes]))
