"""Which side of a box of inputs is halved: the one whose halves take most from what linear bounds are loose by.

The functions below the open rows hold each unit by a line below or above it, which lie apart by its gap. A row is above
its function by at most the sum over units of |coefficient| gap; the gap of a unit shrinks with what its input moves on
the box, of which every side has a part:

    score_i = sum over units of |coefficient| gap |moved_i| / sum over sides k of |moved_k|

with moved_i the change of the unit's input between the middles of the two faces of side i, and the gap taken in the
middle of the unit's box. A guess, which proves nothing; ops other than functions of one number do not count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from encoders.rounding import tiny
from encoders.views.envelope import ElementwiseEnvelope
from verifier.bounds.inputs.boxes import InputBoxes
from verifier.bounds.linear.backward import BackwardPass, Seen


def best_sides(boxes: InputBoxes, scores: Tensor) -> Tensor:
    """Return the side `(boxes,)` with the greatest score `(boxes, inputs)`; -1 where no side has a middle inside."""
    middle = boxes.middles
    divides = (boxes.lower < middle) & (middle < boxes.upper)
    sides = torch.where(divides, scores.nan_to_num(0.0, 0.0, 0.0), -1.0).argmax(dim=1)
    return torch.where(divides.any(dim=1), sides, -1)


@dataclass(frozen=True, eq=False)
class OpenRows:
    """Rows that bounds leave open on boxes.

    passes: of the batch that was bounded. seen: the coefficients of the rows at each node (`BackwardPass.minimise`).
    places: `(boxes,)`, the regions of the batch that the boxes are, or are parts of. slopes: `(boxes, rows, inputs)` of
    the functions below the rows, 0 for rows that do not count.
    """

    passes: BackwardPass
    seen: Seen
    places: Tensor
    slopes: Tensor

    def scores(self, boxes: InputBoxes) -> Tensor:
        """Return the scores of sides `(boxes, inputs)`; without gaps what the sides move the functions by."""
        weights = {name: weight for name, weight in self._gaps().items() if bool((weight > 0).any())}
        scores = _shared(self.passes, weights, boxes.lower, boxes.upper) if weights else torch.zeros_like(boxes.lower)
        moved = self.slopes.abs().amax(dim=1) * (boxes.upper - boxes.lower)
        return torch.where(scores.sum(dim=1, keepdim=True) > 0.0, scores, moved)

    def _gaps(self) -> dict[str, Tensor]:
        """Return for each node that functions of one number read what its units `(boxes, units)` loosen rows by."""
        passes, weights = self.passes, dict[str, Tensor]()
        counts = (self.slopes != 0).any(dim=2).to(self.slopes.dtype)
        for node in passes.network.nodes:
            envelope = passes.envelope(node) if node.name in self.seen and not node.op.linear else None
            if not isinstance(envelope, ElementwiseEnvelope):
                continue
            box = passes.boxes[node.inputs[0]]
            gap = (envelope.upper_slope - envelope.lower_slope) * (box.lower / 2 + box.upper / 2)
            gap = (gap + envelope.upper_offset - envelope.lower_offset).flatten(1)[self.places]
            rows = self.seen[node.name].full(passes.network.shapes[node.name]).flatten(2)[self.places]
            weight = (torch.bmm(counts[:, None], rows.abs()).squeeze(1) * gap).nan_to_num(0.0, 0.0, 0.0)
            name = node.inputs[0]
            weights[name] = weights[name] + weight if name in weights else weight
        return weights


def _shared(passes: BackwardPass, weights: Mapping[str, Tensor], lower: Tensor, upper: Tensor) -> Tensor:
    """Return for each side its part of the weights of units, by node; the boxes: `(count, inputs)`."""
    count, inputs = lower.shape
    sides = torch.arange(inputs)
    points = (lower / 2 + upper / 2)[:, None, None].repeat(1, 2, inputs, 1)
    points[:, 0, sides, sides], points[:, 1, sides, sides] = lower, upper
    values = passes.network.fold(
        points.reshape(-1, *passes.network.input_shape), lambda op, x: op.evaluate(*x), list(weights)
    )
    scores = torch.zeros_like(lower)
    for weight, value in zip(weights.values(), values, strict=True):
        ends = value.reshape(count, 2, inputs, -1)
        moved = (ends[:, 1] - ends[:, 0]).abs().nan_to_num(0.0, 0.0, 0.0)
        share = moved / moved.sum(dim=1, keepdim=True).clamp(min=tiny(moved.dtype))
        scores += (share * weight[:, None]).sum(dim=2)
    return scores
