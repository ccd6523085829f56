"""A box divided by its inputs until the arithmetic of certificates proves every part."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from encoders.network import Network
from encoders.region import BallRegion
from verifier.bounds.inputs.boxes import BoxStore, InputBoxes, chosen_sides, halves
from verifier.budget import Budget
from verifier.certificates.certificate import SLACK, Certificate
from verifier.certificates.input_tree import LEAF, InputTree, leaf_margins, piece_size


def certificate_by_inputs(
    network: Network, ball: BallRegion, winner: int, budget: Budget, most_boxes: int
) -> Certificate | str:
    """Return a certificate that a class wins on a ball (batch 1, on the processor); or the reason why there is none."""
    box = ball.enclosure()
    lower, upper = box.lower.flatten(1), box.upper.flatten(1)
    store, tree, size = BoxStore(), _Tree(), piece_size(network)
    store.add(InputBoxes.root(lower, upper))
    while len(store):
        if budget.exhausted or tree.nodes > most_boxes:
            why = "time limit" if budget.exhausted else f"{most_boxes} boxes"
            return f"no certificate within the {why}; {len(store)} boxes are open"
        boxes = store.take(size)
        bounds, costs, reach = leaf_margins(network, winner, boxes.lower.numpy(), boxes.upper.numpy())
        is_open = ~(bounds > SLACK * reach)
        rows = np.flatnonzero(is_open.any(axis=1))
        slopes = torch.from_numpy(costs[rows] * is_open[rows][:, :, None])
        boxes = boxes[torch.from_numpy(rows)]
        # Both rules for sides in turn.
        sides = chosen_sides(boxes, slopes, (upper - lower)[0])[torch.arange(len(rows)), boxes.nodes % 2]
        if bool((sides < 0).any()):
            return "no certificate: a single point, but for rounding, is not proved"
        if len(rows):
            store.add(halves(tree.split(boxes, sides), sides))
    region, none = ball, np.zeros(0, dtype=np.int32)
    return Certificate(
        network.digest, region.centre[0].numpy(), float(region.radius[0]), region.domain, winner, (), none, (),
        tree.finished(),
    )  # fmt: skip


class _Tree:
    """Splits by node; the nodes of both halves of one are numbered together."""

    def __init__(self) -> None:
        self.nodes = 1
        self._splits: dict[int, tuple[int, float, int]] = {}

    def split(self, boxes: InputBoxes, sides: torch.Tensor) -> InputBoxes:
        """Take in the splits of boxes; return these, each with the number of the first of its halves."""
        first = self.nodes + 2 * torch.arange(len(boxes))
        self.nodes += 2 * len(boxes)
        values = boxes.middles[torch.arange(len(boxes)), sides]
        made = zip(boxes.nodes.tolist(), sides.tolist(), values.tolist(), first.tolist(), strict=True)
        self._splits |= {node: (side, value, child) for node, side, value, child in made}
        return replace(boxes, nodes=first)

    def finished(self) -> InputTree:
        """Return the tree, all of whose other nodes are leaves."""
        sides, values, stack = [], [], [0]
        while stack:
            side, value, child = self._splits.get(stack.pop(), (LEAF, 0.0, 0))
            sides.append(side)
            values.append(value)
            if side != LEAF:
                stack += [child + 1, child]
        return InputTree(np.array(sides, dtype=np.int32), np.array(values, dtype=np.float64))
