"""Linear bound propagation, backward (CROWN: Zhang et al. 2018; on graphs: Xu et al. 2020).

A row of coefficients of a node's value is pushed back through the graph, at each op through the line below it (the line
above where a coefficient is negative), until it is a linear function of the input, whose least value over the region
is known. Rows of +1 and -1 for single units give boxes; rows of class differences give margins.
Every rounding is bounded and moved past (see `encoders.views.envelope`): in float64 a bound is a proof.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from encoders.box import Box
from encoders.network import INPUT, Network, Node
from encoders.rounding import unit_roundoff
from encoders.views.coefficients import BoxMinimum, Coefficients, inflated
from encoders.views.envelope import Envelope, reach_of
from verifier.bounds.linear.region_minimum import RegionMinimum
from verifier.certificates.rounded_sum import RoundedSum

# Lower slopes of the ops that let one choose, by (node whose units are bounded, node of the op).
Slopes = Mapping[tuple[str, str], Tensor]

# The coefficients of rows at each node on their way back.
Seen = dict[str, Coefficients]


@dataclass(frozen=True, eq=False)
class Minimum:
    """Least values of rows over the region: bound `(batch, rows)`, rounded down, and points that attain it nearly.

    width: the greatest number of coefficients that a row had on its way. below: the linear functions of the input below
    the rows on the region. points: `(batch, rows, *input_shape)`, the minimisers of these: proposals for an attack.
    Both are None where the rows do not depend on the input.
    """

    bound: Tensor
    width: int
    below: LinearFunctions | None = None
    points: Tensor | None = None


@dataclass(frozen=True, eq=False)
class LinearFunctions:
    """Functions slopes . x + constant: `(batch, rows, *input_shape)` and `(batch, rows)`, as real numbers."""

    slopes: Tensor
    constant: Tensor

    def at(self, places: Tensor) -> LinearFunctions:
        """Return those of some inputs of the batch."""
        return LinearFunctions(self.slopes[places], self.constant[places])


@dataclass(frozen=True, eq=False)
class BackwardPass:
    """The way of rows back through a network: its weights in the dtype of the pass, boxes of the nodes on the way.

    slopes: to use instead of each op's own choice; bounds are differentiable in them. Envelopes are made once, when the
    first pass comes by.
    """

    network: Network
    region_minimum: RegionMinimum
    boxes: Mapping[str, Box]
    slopes: Slopes
    _envelopes: dict[str, Envelope] = field(default_factory=dict)

    def minimise(
        self,
        start: str,
        rows: Coefficients,
        with_points: bool = False,
        target: str | None = None,
        seen: Seen | None = None,
    ) -> Minimum:
        """Return the least values of rows of functions of a node's value.

        target: the node whose units are bounded, None where the rows are of the output. seen: filled in.
        """
        pending = {start: rows}
        names = [node.name for node in self.network.nodes]
        before = self.network.nodes[: names.index(start) + 1 if start != INPUT else 0]
        total = self._sum_of_none(before, rows)
        best, width = torch.full_like(total.value, -torch.inf), 1
        for node in reversed(before):
            if node.name not in pending:
                continue
            rows = pending.pop(node.name)
            if seen is not None:
                seen[node.name] = rows
            width = max(width, math.prod(rows.values.shape[2:]))
            if target is None and not pending and not self.slopes:
                # All that is known so far is a function of this node: its box gives a bound too, so that the answer
                # is never looser than intervals through the layers behind it. It would hide the slopes' gradient.
                best = torch.maximum(best, total.rounded_down(BoxMinimum(self.boxes[node.name])(rows)))
            inputs, constant = self.envelope(node, target).below(rows)
            total.add(constant)
            for name, share in zip(node.inputs, inputs, strict=False):
                pending[name] = self._joined(name, pending[name], share, total) if name in pending else share
        last = pending.get(INPUT)
        least = torch.zeros_like(total.value) if last is None else self.region_minimum(last)
        bound = torch.maximum(best, total.rounded_down(least))
        if last is None or not with_points:
            return Minimum(bound, width)
        below = LinearFunctions(last.full(self.network.input_shape), total.rounded_down(torch.zeros_like(least)))
        return Minimum(bound, width, below, self.region_minimum.points(last, self.network.input_shape))

    def _sum_of_none(self, nodes: Sequence[Node], rows: Coefficients) -> RoundedSum:
        """Return the sums of rows before anything is added: minus infinity where a node may have no value."""
        total = RoundedSum(torch.zeros(*rows.rows, dtype=self.dtype, device=rows.values.device))
        for node in nodes:
            without_value = node.op.undefined(*(self.boxes[name] for name in node.inputs))
            if without_value is not None:
                total.add(torch.zeros_like(total.value).masked_fill(without_value[:, None], -torch.inf))
        return total

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the pass."""
        return self.region_minimum.dtype

    def _joined(self, name: str, first: Coefficients, second: Coefficients, total: RoundedSum) -> Coefficients:
        """Return the sum of the coefficients of two paths that meet at a node, each entry rounded once."""
        error = reach_of(self.boxes[name]) * (2.0 * unit_roundoff(self.dtype))
        shape = self.network.shapes[name]
        total.add(-abs(first).plus(abs(second), shape).dot(inflated(error)))
        return first.plus(second, shape)

    def envelope(self, node: Node, target: str | None = None) -> Envelope:
        """Return the envelope of a node; target: as in `minimise`."""
        slope = self.slopes.get((target or self.network.output.name, node.name))
        if slope is None and node.name in self._envelopes:
            return self._envelopes[node.name]
        envelope = node.op.envelope(*(self.boxes[name] for name in node.inputs), slope=slope)
        if slope is None:
            self._envelopes[node.name] = envelope
        return envelope
