"""Subproblems of a search over signs: their numbers, a store to take them from, and the trees they grow into."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from verifier.bounds.split.own_planes import OwnPlanes
from verifier.certificates.sign_tree import LEAF, SplitTree

# Rows of a block of the store.
BLOCK = 1024
# Of a leaf without points of its own.
NO_POINTS = np.zeros(0, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Subproblems:
    """Some subproblems side by side.

    bounds, nodes, rows: `(batch,)`, the best lower bound so far, the node of a tree, and which row is bounded. boxes:
    `(batch,)`, which boxes it takes, 0 for those of the ball. signs, slopes, multipliers: `(batch, open units)`, see
    `verifier.certificates.split_program`; signs are those of splits and those that the boxes imply. points:
    `(batch, inputs + p)`, each a point and thresholds that name planes (`own_planes`), `(batch, 0)` without any.
    """

    bounds: Tensor
    nodes: Tensor
    rows: Tensor
    boxes: Tensor
    signs: Tensor
    slopes: Tensor
    multipliers: Tensor
    points: Tensor

    def __len__(self) -> int:
        return len(self.nodes)

    def __getitem__(self, rows: Tensor | slice) -> Subproblems:
        return Subproblems(*(getattr(self, field.name)[rows] for field in fields(Subproblems)))

    def joined(self, other: Subproblems) -> Subproblems:
        """Return these subproblems, then others."""
        return Subproblems(*(torch.cat([getattr(each, at.name) for each in (self, other)]) for at in fields(self)))


class SubproblemStore:
    """Subproblems that wait, handed out in batches of least bounds.

    They lie in blocks of one size, so that what is added never needs more room than its own.
    """

    def __init__(self) -> None:
        self._queue: list[tuple[float, int]] = []
        self._free: list[int] = []
        self._blocks: list[Subproblems] = []

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def least(self) -> float:
        """The least bound; infinite where nothing waits."""
        return self._queue[0][0] if self._queue else math.inf

    def add(self, subproblems: Subproblems) -> None:
        """Take in subproblems."""
        while len(self._free) < len(subproblems):
            self._free += range((len(self._blocks) + 1) * BLOCK - 1, len(self._blocks) * BLOCK - 1, -1)
            self._blocks.append(_room_for(subproblems, BLOCK))
        places = [self._free.pop() for _ in range(len(subproblems))]
        for block, rows, which in self._by_block(places):
            for field in fields(Subproblems):
                getattr(block, field.name)[rows] = getattr(subproblems, field.name)[which]
        for bound, place in zip(subproblems.bounds.tolist(), places, strict=True):
            heapq.heappush(self._queue, (bound, place))

    def take(self, count: int) -> Subproblems:
        """Return the `count` subproblems of least bounds, or all there are, and forget them."""
        places = [heapq.heappop(self._queue)[1] for _ in range(min(count, len(self._queue)))]
        self._free += places
        taken = _room_for(self._blocks[0], len(places))
        for block, rows, which in self._by_block(places):
            for field in fields(Subproblems):
                getattr(taken, field.name)[which] = getattr(block, field.name)[rows]
        return taken

    def _by_block(self, places: list[int]) -> Iterator[tuple[Subproblems, Tensor, Tensor]]:
        """Yield (block, rows of it, which of the places these are) for each block that holds some of the places."""
        index = torch.tensor(places, dtype=torch.int64)
        numbers = index // BLOCK
        for number in numbers.unique().tolist():
            which = torch.nonzero(numbers == number).squeeze(1)
            yield self._blocks[number], index[which] % BLOCK, which


def _room_for(like: Subproblems, count: int) -> Subproblems:
    """Return so many subproblems of the same shapes and dtypes, whatever they hold."""
    parts = (getattr(like, field.name) for field in fields(Subproblems))
    return Subproblems(*(torch.empty(count, *part.shape[1:], dtype=part.dtype) for part in parts))


class Forest:
    """One tree of splits for each row; nodes 0 to rows - 1 are the roots."""

    def __init__(self, rows: int) -> None:
        # By node: the unit that is split, and the node of the subproblem where it is at least zero; the other half is
        # the next.
        self._splits: list[tuple[int, int]] = [(LEAF, LEAF)] * rows
        self._leaves: dict[int, tuple[np.ndarray, np.ndarray, int, np.ndarray]] = {}

    def split(self, node: int, unit: int) -> int:
        """Cut a node at a unit and return the node of its first half; that of the second is the next number."""
        first = len(self._splits)
        self._splits[node] = (unit, first)
        self._splits += [(LEAF, LEAF)] * 2
        return first

    def close(
        self, node: int, slopes: np.ndarray, multipliers: np.ndarray, boxes: int = 0, points: np.ndarray = NO_POINTS
    ) -> None:
        """Keep the numbers `(open units,)` that prove a leaf, which boxes it takes, and the points of its planes."""
        self._leaves[node] = (slopes, multipliers, boxes, points)

    def tree(self, row: int, rival: int, open_units: np.ndarray, own: OwnPlanes | None = None) -> SplitTree:
        """Return the tree of a row all of whose leaves are closed; open_units: their places among all hinge units.

        own: what points of leaves name, where these have some.
        """
        splits, nodes = self.preorder(row)
        leaves = [self._leaves[node] for node in nodes]
        slopes, multipliers, boxes, points = (np.stack(numbers) for numbers in zip(*leaves, strict=True))
        taken, kept = boxes.astype(np.int32) if boxes.any() else None, None if own is None else own.kept(points)
        return SplitTree.of_leaves(rival, splits, slopes, multipliers, open_units, taken, kept)

    def preorder(self, row: int) -> tuple[np.ndarray, list[int]]:
        """Return the splits of a row's tree as `SplitTree` has them, and its leaves' nodes in their order."""
        splits, leaves, stack = [], [], [row]
        while stack:
            node = stack.pop()
            unit, first = self._splits[node]
            splits.append(unit)
            if unit == LEAF:
                leaves.append(node)
            else:
                stack += [first + 1, first]
        return np.array(splits, dtype=np.int32), leaves
