"""Boxes of inputs that wait, the tree that they grow, and the halves of a box."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class InputBoxes:
    """Boxes side by side.

    lower, upper: `(boxes, inputs)`, float64. nodes: `(boxes,)`, their places in the tree. bounds: `(boxes,)`, lower
    bounds of the worst group. units: `(boxes, 2, units)`, what is known of units (`verifier.bounds.inputs.inherited`).
    """

    lower: Tensor
    upper: Tensor
    nodes: Tensor
    bounds: Tensor
    units: Tensor

    @classmethod
    def root(cls, lower: Tensor, upper: Tensor, units: Tensor | None = None) -> InputBoxes:
        """Return one box `(1, inputs)`, the whole; units: `(1, 2, units)`, None for none."""
        return cls(
            lower,
            upper,
            torch.zeros(1, dtype=torch.int64),
            torch.full((1,), -torch.inf, dtype=torch.float64),
            torch.zeros(1, 2, 0) if units is None else units,
        )

    def __len__(self) -> int:
        return len(self.nodes)

    def __getitem__(self, rows: Tensor | slice) -> InputBoxes:
        """Return the boxes of some rows."""
        return InputBoxes(*(getattr(self, field.name)[rows] for field in fields(self)))

    @property
    def least(self) -> float:
        """The least bound; infinite where there is no box."""
        known = self.bounds.nan_to_num(-math.inf, math.inf, -math.inf)
        return float(known.min()) if len(self) else math.inf

    @property
    def middles(self) -> Tensor:
        """Points `(boxes, inputs)` of the boxes, halfway between their sides but for rounding."""
        middle = self.lower / 2 + self.upper / 2
        return torch.minimum(torch.maximum(middle, self.lower), self.upper)


class BoxStore:
    """Boxes that wait; the last ones in are the first ones out, so that few wait."""

    def __init__(self) -> None:
        self._parts: list[InputBoxes] = []

    def __len__(self) -> int:
        return sum(len(part) for part in self._parts)

    @property
    def least(self) -> float:
        """The least bound of the boxes; infinite where there are none."""
        return min((part.least for part in self._parts), default=math.inf)

    def add(self, boxes: InputBoxes) -> None:
        """Add boxes."""
        self._parts.append(boxes)

    def take(self, count: int) -> InputBoxes:
        """Return up to so many boxes, which wait no longer."""
        taken: list[InputBoxes] = []
        while self._parts and count > 0:
            part = self._parts.pop()
            if len(part) > count:
                self._parts.append(part[:-count])
                part = part[-count:]
            taken.append(part)
            count -= len(part)
        return joined(taken)


def joined(parts: list[InputBoxes]) -> InputBoxes:
    """Return boxes side by side, of one part at least."""
    return InputBoxes(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(InputBoxes)))


def halves(boxes: InputBoxes, sides: Tensor) -> InputBoxes:
    """Return the two closed halves of each box, the lower one first; nodes: of the first half, the second is next."""
    rows, middles = torch.arange(len(boxes)), boxes.middles
    middle = middles[rows, sides]
    upper, lower = boxes.upper.clone(), boxes.lower.clone()
    upper[rows, sides], lower[rows, sides] = middle, middle
    both = [torch.stack(pair, dim=1).flatten(0, 1) for pair in ((boxes.lower, lower), (upper, boxes.upper))]
    nodes = torch.stack([boxes.nodes, boxes.nodes + 1], dim=1).flatten()
    inherited = (values.repeat_interleave(2, dim=0) for values in (boxes.bounds, boxes.units))
    return InputBoxes(both[0], both[1], nodes, *inherited)
