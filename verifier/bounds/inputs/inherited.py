"""What is proved of the units of a box of inputs holds in its halves too: kept side by side, beside these boxes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from encoders.box import Box, Shape
from encoders.network import Network

# Networks of more units keep none: 64 kB for each box that waits.
MOST_UNITS = 4096


@dataclass(frozen=True, eq=False)
class UnitBoxes:
    """Boxes of the nodes that other than linear ops read, as one tensor `(boxes, 2, units)`: least and greatest values.

    shapes: of these nodes.
    """

    shapes: Mapping[str, Shape]

    @classmethod
    def of(cls, network: Network) -> UnitBoxes:
        """Return those of a network; of a large one none."""
        read = {name for node in network.nodes if not node.op.linear for name in node.inputs}
        shapes = {
            node.name: network.shapes[node.name] for node in network.nodes if node.op.linear and node.name in read
        }
        return cls(shapes if sum(math.prod(shape) for shape in shapes.values()) <= MOST_UNITS else {})

    def unknown(self) -> Tensor:
        """Return the boxes `(1, 2, units)` of which nothing is known."""
        count = sum(math.prod(shape) for shape in self.shapes.values())
        ends = torch.full((1, 2, count), torch.inf, dtype=torch.float64)
        ends[:, 0] = -torch.inf
        return ends

    def apart(self, units: Tensor) -> dict[str, Box]:
        """Return the boxes by node."""
        parts = units.split([math.prod(shape) for shape in self.shapes.values()], dim=2)
        return {
            name: Box.unchecked(part[:, 0].reshape(-1, *shape), part[:, 1].reshape(-1, *shape))
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    def together(self, boxes: Mapping[str, Box], like: Tensor) -> Tensor:
        """Return the boxes of nodes side by side; like: `(boxes, 2, units)`."""
        if not self.shapes:
            return like
        ends = [(boxes[name].lower.flatten(1), boxes[name].upper.flatten(1)) for name in self.shapes]
        return torch.stack([torch.cat(side, dim=1) for side in zip(*ends, strict=True)], dim=1)
