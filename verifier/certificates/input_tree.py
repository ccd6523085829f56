"""A box divided at coordinates, of inputs and of units, until linear bounds refute what is unsafe in every part.

A coordinate is an input, or a unit that an op reads which is not linear; a split at a value makes two parts, both
closed, so that these cover the box by the tree's form. Of a part more is known than of the whole: its own inputs, the
boxes of units that were proved of a part it lies in, and the ends at which units were split. Where the tree says so
units are bounded again. The linear functions below the rows on the part then refute what is unsafe there, or leave a
box of inputs where it may be (`verifier.certificates.halfspaces`), which is what is divided further. Nothing is stored
but splits and marks: what they lead to is computed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from encoders.box import Box
from encoders.network import INPUT, Network, Node
from encoders.rounding import check_gradual_underflow
from verifier.certificates.ball_minimum import BallMinimum
from verifier.certificates.conjunctions import Conjunctions
from verifier.certificates.error import CertificateError
from verifier.certificates.halfspaces import HalfspacesOfBox
from verifier.certificates.lines import BoxedNetwork, open_units, shapes_of, tightened_nodes
from verifier.certificates.waiting_parts import taken

LEAF = -1
# Parts bounded side by side, and bytes that one of their arrays may take.
BATCH, PART_BYTES = 128, 1 << 27


@dataclass(frozen=True, eq=False)
class InputTree:
    """The splits in preorder, the part below first.

    sides: `(nodes,)` integers, the coordinate that is split, inputs before units; -1 for a leaf. values: `(nodes,)`
    float64, where; of a leaf any number. tightened: `(nodes,)` booleans, where units are bounded again.
    """

    sides: np.ndarray
    values: np.ndarray
    tightened: np.ndarray

    @property
    def leaves(self) -> int:
        """How many parts no split divides."""
        return int((self.sides == LEAF).sum())

    def second_halves(self) -> np.ndarray:
        """Return for each node `(nodes,)` where the part above its split stands; CertificateError if it is no tree."""
        if not self.sides.shape == self.values.shape == self.tightened.shape or self.sides.ndim != 1:
            raise CertificateError("a tree has a side, a value and a mark for each node")
        waiting = 1 + np.where(self.sides == LEAF, -1, 1).cumsum()
        if not len(waiting) or (waiting[:-1] == 0).any():
            raise CertificateError("there are splits after the end of the tree")
        if waiting[-1] != 0:
            raise CertificateError("the tree ends before its parts do")
        second, done = np.zeros(len(self.sides), dtype=np.int64), list[int]()
        for place in range(len(self.sides) - 1, -1, -1):
            if self.sides[place] != LEAF:
                done.pop()
                second[place] = done.pop()
            done.append(place)
        return second


@dataclass(frozen=True, eq=False)
class Parts:
    """Parts side by side.

    lower, upper: `(parts, inputs)`. units: `(parts, 2, units)`, what is known of units: least and greatest values.
    is_open: `(parts, groups)`, which groups may be met. divided: `(parts,)`, whether a unit was split on the way.
    nodes: `(parts,)`, of the tree.
    """

    lower: Tensor
    upper: Tensor
    units: Tensor
    is_open: Tensor
    divided: Tensor
    nodes: Tensor

    def __len__(self) -> int:
        return len(self.nodes)

    def __getitem__(self, places: Tensor | slice) -> Parts:
        return Parts(*(getattr(self, part.name)[places] for part in fields(self)))

    @classmethod
    def joined(cls, parts: list[Parts]) -> Parts:
        """Return parts side by side."""
        return cls(*(torch.cat([getattr(part, each.name) for part in parts]) for each in fields(cls)))

    def halves(self, sides: Tensor, values: Tensor, nodes: Tensor) -> Parts:
        """Return the parts below and above splits, one after the other; nodes: theirs, `(parts, 2)`.

        A part in which nothing lies has crossed ends.
        """
        both = self.joined([self, self])
        count, inputs = len(self), self.lower.shape[1]
        ends = torch.cat([torch.stack([both.lower, both.upper], dim=1), both.units], dim=2)
        each = torch.arange(count)
        ends[each, 1, sides] = torch.minimum(ends[each, 1, sides], values)
        ends[each + count, 0, sides] = torch.maximum(ends[each + count, 0, sides], values)
        divided = (self.divided | (sides >= inputs)).repeat(2)
        lower, upper = ends[:, :, :inputs].unbind(1)
        return Parts(lower, upper, ends[:, :, inputs:], both.is_open, divided, nodes.T.flatten())


class PartBounds:
    """What linear bounds say of parts of a box: `step` is one way through the network.

    asked: what is unsafe, its network in float64 with envelopes. ball: that all points lie in beside their boxes.
    """

    def __init__(self, asked: Conjunctions, ball: BallMinimum | None = None) -> None:
        check_gradual_underflow()
        self.asked, self.network, self.ball = asked, asked.network, ball
        self.shapes = shapes_of(self.network)
        self._readers = {node.name: readers for node, readers in tightened_nodes(self.network)}
        widest = max(math.prod(shape) for shape in self.network.shapes.values())
        rows = len(asked.offsets)
        self.batch = max(1, min(BATCH, PART_BYTES // (8 * widest * max(1, rows))))

    def root(self, lower: Tensor, upper: Tensor) -> Parts:
        """Return the whole of a box `(1, inputs)`."""
        units = torch.full((1, 2, sum(map(math.prod, self.shapes.values()))), torch.inf, dtype=torch.float64)
        units[:, 0] = -torch.inf
        groups = torch.ones(1, len(self.asked.groups), dtype=torch.bool)
        return Parts(lower, upper, units, groups, torch.zeros(1, dtype=torch.bool), torch.zeros(1, dtype=torch.int64))

    def boxes(self, parts: Parts) -> dict[str, Box]:
        """Return the boxes of all nodes by intervals."""
        return self._boxed(parts.lower, parts.upper, parts.units, False)[0].boxes

    def step(self, parts: Parts, tighten: bool) -> tuple[Parts, Tensor]:
        """Return the parts with all that bounds say of them, and slopes `(parts, rows, inputs)` below rows.

        A part where no group is open is refuted. tighten: whether units are bounded again. The input box of others is
        the one that their open groups leave.
        """
        empty = parts.divided & (parts.units[:, 0] > parts.units[:, 1]).any(dim=1)
        empty |= (parts.lower > parts.upper).any(dim=1)
        if self.ball is not None:
            empty |= self.ball.misses(parts.lower, parts.upper)
        # An empty part is refuted, whatever is computed of the point that stands for it.
        upper = torch.maximum(parts.lower, parts.upper)
        known = torch.stack([parts.units[:, 0], torch.maximum(parts.units[:, 0], parts.units[:, 1])], dim=1)
        boxed, crossed = self._boxed(parts.lower, upper, known, tighten)
        # A part whose units were split may be empty, and so may one beside the root that the ball does not reach.
        may_be_empty = parts.divided | empty if self.ball is None else parts.divided | empty | (parts.nodes > 0)
        if bool((crossed & ~may_be_empty).any()):
            raise CertificateError("bounds of the same units contradict each other: please report this with the model")
        count, rows = len(parts), self.asked.coefficients
        lines = boxed.below(self.network.output.name, rows.expand(count, *rows.shape), on_the_way=True)
        is_open = parts.is_open & ~(empty | crossed)[:, None]
        is_open &= ~(self.asked.worst(lines.least - self.asked.offsets) > 0)
        halfspaces = HalfspacesOfBox.of(lines, self.asked.offsets, parts.lower, upper)
        is_open, least, greatest = halfspaces.of_groups(self.asked.groups, is_open)
        stays = is_open.any(dim=1, keepdim=True)
        lower, upper = torch.where(stays, least, halfspaces.lower), torch.where(stays, greatest, halfspaces.upper)
        ends = [boxed.boxes[name] for name in self.shapes]
        units = parts.units
        if ends:
            sides = ([getattr(box, side).flatten(1) for box in ends] for side in ("lower", "upper"))
            units = torch.stack([torch.cat(side, dim=1) for side in sides], dim=1)
        return Parts(lower, upper, units, is_open, parts.divided, parts.nodes), halfspaces.slopes

    def _boxed(self, lower: Tensor, upper: Tensor, units: Tensor, tighten: bool) -> tuple[BoxedNetwork, Tensor]:
        """Return the boxes of all nodes, and which parts `(parts,)` have contradicting ones: nothing lies in them."""
        count, shape = len(lower), self.network.input_shape
        inputs = Box.unchecked(lower.reshape(-1, *shape), upper.reshape(-1, *shape))
        boxed = BoxedNetwork(self.network, {INPUT: inputs}, self.ball)
        known = self.apart(units)
        crossed = torch.zeros(count, dtype=torch.bool)
        for node in self.network.nodes:
            boxed.take_in(node, known.get(node.name))
            if node.name in self._readers:
                crossed |= self._uncrossed(boxed, node)
                is_open = open_units(boxed.boxes[node.name], self._readers[node.name])
                if tighten and bool(is_open.any()):
                    boxed.tighten(node, is_open)
                    crossed |= self._uncrossed(boxed, node)
        return boxed, crossed

    def _uncrossed(self, boxed: BoxedNetwork, node: Node) -> Tensor:
        """Return which parts have crossed ends at a node, and give these some box there."""
        box = boxed.boxes[node.name]
        # Ends that are no numbers show nothing.
        crossed = box.lower > box.upper
        if bool(crossed.any()):
            lower, upper = torch.minimum(box.lower, box.upper), torch.maximum(box.lower, box.upper)
            boxed.boxes[node.name] = Box.unchecked(lower, upper)
        return crossed.flatten(1).any(dim=1)

    def apart(self, units: Tensor) -> dict[str, Box]:
        """Return what is known of units, `(parts, 2, units)`, as boxes by node."""
        parts = units.split([math.prod(shape) for shape in self.shapes.values()], dim=2) if self.shapes else ()
        return {
            name: Box.unchecked(part[:, 0].reshape(-1, *shape), part[:, 1].reshape(-1, *shape))
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }


def check_tree(
    tree: InputTree, asked: Conjunctions, lower: Tensor, upper: Tensor, ball: BallMinimum | None = None
) -> None:
    """Raise CertificateError unless every leaf over a box `(1, inputs)`, and in a ball if any, is refuted."""
    second, bounds = second_halves_within(tree, asked, lower.shape[1]), PartBounds(asked, ball)
    sides, values = torch.from_numpy(tree.sides.astype(np.int64)), torch.from_numpy(tree.values)
    waiting = [bounds.root(lower, upper)]
    while waiting:
        parts = taken(waiting, bounds.batch)
        for marked in (False, True):
            chosen = parts[torch.from_numpy(tree.tightened[parts.nodes.numpy()] == marked)]
            if len(chosen):
                found, _ = bounds.step(chosen, marked)
                found = found[found.is_open.any(dim=1)]
                leaf = sides[found.nodes] == LEAF
                if bool(leaf.any()):
                    number = int((tree.sides[: int(found.nodes[leaf][0])] == LEAF).sum())
                    raise CertificateError(f"leaf {number}: what is unsafe there is not refuted")
                if len(found):
                    nodes = torch.stack([found.nodes + 1, second[found.nodes]], dim=1)
                    waiting.append(found.halves(sides[found.nodes], values[found.nodes], nodes))


def second_halves_within(tree: InputTree, asked: Conjunctions, inputs: int) -> Tensor:
    """Return where the part above each split stands; CertificateError if the tree splits what is no coordinate."""
    second = tree.second_halves()
    count = inputs + sum(map(math.prod, shapes_of(asked.network).values()))
    split = tree.sides != LEAF
    if (tree.sides[split] < 0).any() or (tree.sides[split] >= count).any():
        raise CertificateError(f"a split is of none of {count} inputs and units")
    if not np.isfinite(tree.values[split]).all():
        raise CertificateError("a split is at no finite number")
    return torch.from_numpy(second)


def envelope_refusal(network: Network) -> Node | None:
    """Return the first node whose op has no linear functions below and above, or None where all have."""
    return next((node for node in network.nodes if "envelope" not in node.op.views()), None)
