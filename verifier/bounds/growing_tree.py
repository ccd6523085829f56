"""A tree of splits of a box while it grows: the nodes of both halves of a split are numbered together."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from verifier.certificates.sign_tree import LEAF


class GrowingTree:
    """Splits by node, of which 0 is the root; nodes: how many there are."""

    def __init__(self) -> None:
        self.nodes = 1
        self._splits: dict[int, tuple[int, float, int]] = {}

    def split(self, nodes: Tensor, sides: Tensor, values: Tensor) -> Tensor:
        """Take in splits of nodes; return the nodes `(splits, 2)` of their halves."""
        first = self.nodes + 2 * torch.arange(len(nodes))
        self.nodes += 2 * len(nodes)
        made = zip(nodes.tolist(), sides.tolist(), values.tolist(), first.tolist(), strict=True)
        self._splits |= {node: (side, value, child) for node, side, value, child in made}
        return torch.stack([first, first + 1], dim=1)

    def preorder(self) -> tuple[list[int], np.ndarray, np.ndarray]:
        """Return (nodes, the sides that they split, where), the first half before the second; LEAF for a leaf."""
        order, sides, values, stack = list[int](), list[int](), list[float](), [0]
        while stack:
            node = stack.pop()
            side, value, child = self._splits.get(node, (LEAF, 0.0, 0))
            order.append(node)
            sides.append(side)
            values.append(value)
            if side != LEAF:
                stack += [child + 1, child]
        return order, np.array(sides, dtype=np.int32), np.array(values, dtype=np.float64)
