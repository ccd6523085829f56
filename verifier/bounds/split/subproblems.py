"""Parts of a ball in a search over signs: their numbers, a store to take them from, and the trees they grow into."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from verifier.certificates.certificate import LEAF, SplitTree


@dataclass(frozen=True, eq=False)
class Parts:
    """Some parts side by side.

    bounds, nodes, rows: `(parts,)`, the best lower bound so far, the node of a tree, and which row is bounded. signs,
    slopes, pulls: `(parts, open units)`, see `verifier.certificates.split_program`.
    """

    bounds: Tensor
    nodes: Tensor
    rows: Tensor
    signs: Tensor
    slopes: Tensor
    pulls: Tensor

    def __len__(self) -> int:
        return len(self.nodes)

    def __getitem__(self, chosen: Tensor | slice) -> Parts:
        return Parts(*(getattr(self, field.name)[chosen] for field in fields(Parts)))


class PartStore:
    """Parts that wait, handed out in batches of least bounds; their numbers lie in arrays that grow by doubling."""

    def __init__(self) -> None:
        self._queue: list[tuple[float, int]] = []
        self._free: list[int] = []
        self._held: Parts | None = None

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, parts: Parts) -> None:
        """Take in parts."""
        while len(self._free) < len(parts):
            self._grow(parts)
        places = [self._free.pop() for _ in range(len(parts))]
        index = torch.tensor(places, dtype=torch.int64)
        for field in fields(Parts):
            getattr(self._held, field.name)[index] = getattr(parts, field.name)
        for bound, place in zip(parts.bounds.tolist(), places, strict=True):
            heapq.heappush(self._queue, (bound, place))

    def take(self, count: int) -> Parts:
        """Return the `count` parts of least bounds, or all there are, and forget them."""
        assert self._held is not None
        places = [heapq.heappop(self._queue)[1] for _ in range(min(count, len(self._queue)))]
        self._free += places
        return self._held[torch.tensor(places, dtype=torch.int64)]

    def _grow(self, like: Parts) -> None:
        held = self._held
        before = 0 if held is None else len(held)
        more = max(1024, before)
        grown = []
        for field in fields(Parts):
            given: Tensor = getattr(like, field.name)
            fresh = torch.empty(more, *given.shape[1:], dtype=given.dtype)
            grown.append(fresh if held is None else torch.cat([getattr(held, field.name), fresh]))
        self._held = Parts(*grown)
        self._free += range(before + more - 1, before - 1, -1)


class Forest:
    """One tree of cuts for each row; nodes 0 to rows - 1 are the roots."""

    def __init__(self, rows: int) -> None:
        # By node: the unit that is cut, and the node of the part where it is at least zero; the other half is the next.
        self._cuts: list[tuple[int, int]] = [(LEAF, LEAF)] * rows
        self._leaves: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def cut(self, node: int, unit: int) -> int:
        """Cut a node at a unit and return the node of its first half; that of the second is the next number."""
        first = len(self._cuts)
        self._cuts[node] = (unit, first)
        self._cuts += [(LEAF, LEAF)] * 2
        return first

    def close(self, node: int, slopes: np.ndarray, pulls: np.ndarray) -> None:
        """Keep the numbers `(open units,)` that prove a leaf."""
        self._leaves[node] = (slopes, pulls)

    def tree(self, row: int, rival: int) -> SplitTree:
        """Return the tree of a row all of whose leaves are closed."""
        cuts, leaves, left = [], [], [row]
        while left:
            node = left.pop()
            unit, first = self._cuts[node]
            cuts.append(unit)
            if unit == LEAF:
                leaves.append(self._leaves[node])
            else:
                left += [first + 1, first]
        slopes, pulls = (np.stack(numbers) for numbers in zip(*leaves, strict=True))
        return SplitTree(rival, np.array(cuts, dtype=np.int32), slopes, pulls)
