"""Linear functions of the input below rows of a network's values on boxes, from the envelopes of its ops.

A row of coefficients goes back through the graph, at each op through the function below it that `envelope` gives (Zhang
et al. 2018). It is what the search by inputs does, written again in its plainest form, so that what is checked does not
rest on the code that searches. float64; every rounding is bounded and moved past.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from encoders.box import Box, Shape
from encoders.network import INPUT, Network, Node
from encoders.rounding import unit_roundoff
from encoders.views.coefficients import BoxMinimum, Coefficients, inflated
from encoders.views.envelope import Envelope, reach_of
from verifier.certificates.ball_minimum import BallMinimum
from verifier.certificates.rounded_sum import RoundedSum

# Bytes that the rows of units that are bounded side by side may take.
PIECE_BYTES = 1 << 22


@dataclass(frozen=True, eq=False)
class Lines:
    """Functions slopes . x + constant below rows: `(batch, rows, *input_shape)`, `(batch, rows)`; least: their least
    values on the boxes, `(batch, rows)`, rounded down.
    """

    slopes: Tensor
    constant: Tensor
    least: Tensor


@dataclass(frozen=True, eq=False)
class BoxedNetwork:
    """A network in float64 on a batch of boxes, with a box of every node so far.

    boxes: by node; of the ones that are taken in. An envelope is made once, when its node is read.
    ball: that inputs lie in beside their boxes, if any.
    """

    network: Network
    boxes: dict[str, Box]
    ball: BallMinimum | None = None
    _envelopes: dict[str, Envelope] = field(default_factory=dict)

    def take_in(self, node: Node, known: Box | None) -> None:
        """Give the next node the box that follows from those before it, met with what is known of it."""
        inputs = [self.boxes[name] for name in node.inputs]
        box = node.op.interval(*inputs)
        without_value = self._without_value(node)
        if known is not None:
            box = Box.unchecked(torch.maximum(box.lower, known.lower), torch.minimum(box.upper, known.upper))
        if without_value is not None:
            box = box.unbounded_at(without_value)
        self.boxes[node.name] = box

    def tighten(self, node: Node, is_open: Tensor) -> None:
        """Meet the boxes of the node that was just taken in with linear bounds of the units of a mask.

        is_open: `(batch, *shape)`. What a box gets does not depend on those beside it.
        """
        mask = is_open.unsqueeze(-1).flatten(1)
        units = mask.any(dim=0).nonzero().squeeze(1)
        box = self.boxes[node.name]
        batch, shape = box.batch, box.shape
        lower, upper = (end.unsqueeze(-1).flatten(1).clone() for end in (box.lower, box.upper))
        widest = max(math.prod(other) for other in self.network.shapes.values())
        for piece in units.split(max(1, PIECE_BYTES // (16 * batch * widest))):
            rows = torch.zeros(2 * len(piece), math.prod(shape), dtype=torch.float64)
            each = torch.arange(len(piece))
            rows[each, piece], rows[each + len(piece), piece] = 1.0, -1.0
            least = self.below(node.name, rows.reshape(1, -1, *shape).expand(batch, -1, *shape)).least
            own = mask[:, piece]
            lower[:, piece] = lower[:, piece].where(~own, torch.maximum(lower[:, piece], least[:, : len(piece)]))
            upper[:, piece] = upper[:, piece].where(~own, torch.minimum(upper[:, piece], -least[:, len(piece) :]))
        self.boxes[node.name] = Box.unchecked(lower.reshape(batch, *shape), upper.reshape(batch, *shape))

    def below(self, start: str, rows: Tensor, on_the_way: bool = False) -> Lines:
        """Return linear functions of the input below rows `(batch, rows, *shape)` of a node's value.

        on_the_way: whether their least values may also be those on the boxes of single nodes on the way back, as where
        intervals prove more than lines.
        """
        names = [node.name for node in self.network.nodes]
        nodes = self.network.nodes[: names.index(start) + 1] if start != INPUT else ()
        pending = {start: Coefficients(rows.contiguous())}
        total = RoundedSum(torch.zeros(rows.shape[:2], dtype=torch.float64))
        best = torch.full_like(total.value, -torch.inf)
        for node in nodes:
            without_value = self._without_value(node)
            if without_value is not None:
                total.add(torch.zeros_like(total.value).masked_fill(without_value[:, None], -torch.inf))
        for node in reversed(nodes):
            own = pending.pop(node.name, None)
            if own is None:
                continue
            shares, constant = self._envelope(node).below(own)
            total.add(constant)
            for name, share in zip(node.inputs, shares, strict=False):
                pending[name] = self._joined(name, pending[name], share, total) if name in pending else share
            if on_the_way and len(pending) == 1:
                ((name, left),) = pending.items()
                best = torch.maximum(best, total.rounded_down(BoxMinimum(self.boxes[name])(left)))
        shape = self.network.input_shape
        left = pending.get(INPUT, Coefficients(torch.zeros(*rows.shape[:2], *shape, dtype=torch.float64)))
        least, slopes = BoxMinimum(self.boxes[INPUT])(left), left.full(shape)
        if self.ball is not None:
            least = torch.maximum(least, self.ball(slopes.flatten(2)))
        constant = total.rounded_down(torch.zeros_like(least))
        return Lines(slopes, constant, torch.maximum(best, total.rounded_down(least)))

    def _without_value(self, node: Node) -> Tensor | None:
        return node.op.undefined(*(self.boxes[name] for name in node.inputs))

    def _joined(self, name: str, first: Coefficients, second: Coefficients, total: RoundedSum) -> Coefficients:
        """Return the sum of the coefficients of two paths that meet at a node, each entry rounded once."""
        error = reach_of(self.boxes[name]) * (2.0 * unit_roundoff(torch.float64))
        shape = self.network.shapes[name]
        total.add(-abs(first).plus(abs(second), shape).dot(inflated(error)))
        return first.plus(second, shape)

    def _envelope(self, node: Node) -> Envelope:
        if node.name not in self._envelopes:
            self._envelopes[node.name] = node.op.envelope(*(self.boxes[name] for name in node.inputs))
        return self._envelopes[node.name]


def tightened_nodes(network: Network) -> Iterator[tuple[Node, tuple[Node, ...]]]:
    """Yield the nodes whose units linear bounds tighten, each with those of its readers that are not linear."""
    for node in network.nodes:
        readers = tuple(other for other in network.nodes if node.name in other.inputs and not other.op.linear)
        if readers and node.op.linear:
            yield node, readers


def open_units(box: Box, readers: tuple[Node, ...]) -> Tensor:
    """Return a mask `(batch, *shape)` of the units whose box matters to a reader."""
    mask = torch.zeros_like(box.lower, dtype=torch.bool)
    for reader in readers:
        mask |= reader.op.open_units(box)
    return mask


def shapes_of(network: Network) -> Mapping[str, Shape]:
    """Return the shapes of the nodes whose units may be split and are kept, in the order of the network."""
    return {node.name: network.shapes[node.name] for node, _ in tightened_nodes(network)}
