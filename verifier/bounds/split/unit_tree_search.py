"""Trees of splits for the ends of units' boxes: proposals in float32, which `verifier.certificates.unit_trees` proves.

What is missing on a deep network lies in the boxes of its units, and no split of a subproblem mends these for others.
Each end grows a tree of its own: again and again the leaf of its least bound is split at the unit whose line above
costs that bound most (Bunel et al. 2020), all ends of a node side by side. An end is done once the sign of its unit is
known. Numbers of leaves are slopes and the multipliers of splits, as of any subproblem.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from verifier.bounds.split.dual_ascent import DualAscent, Lines
from verifier.bounds.split.subproblems import Forest
from verifier.budget import Budget
from verifier.certificates.shortened import short_multipliers
from verifier.certificates.unit_trees import UnitTrees

# Steps of ascent for both halves of a split.
HALF_STEPS = 5
# A sign counts as known from this share of the unit's size on, so that it still is once numbers are rounded.
GOAL = 1e-3
# Numbers that the leaves of all trees of one node may hold, slopes and multipliers: 128 MiB.
MOST_NUMBERS = 1 << 25
# Steps of a slope that is kept, and bits of a multiplier: a float32 without its lower half.
STEPS, BITS = 255, 8


def grown_trees(
    ascent: DualAscent, lines: Lines, slopes: Tensor, bounds: Tensor, splits: int, budget: Budget
) -> GrownTrees:
    """Return trees of at most so many splits for both ends of units, in the units of the network.

    ascent: its output is the units `(n,)`, and its hinges are the open ones before. lines: of these on the one box;
    their planes, if any, are of each end. slopes `(2 n, columns)`, bounds `(2 n,)`: of the units, then of their
    negatives, without splits.
    """
    grown = GrownTrees(ascent, lines, slopes, bounds, splits)
    for _ in range(splits):
        if budget.exhausted or not grown.split_once():
            break
    return grown


class GrownTrees:
    """The trees of both ends of `n` units, `2 n` of them, with the numbers of their leaves."""

    def __init__(self, ascent: DualAscent, lines: Lines, slopes: Tensor, bounds: Tensor, splits: int) -> None:
        trees, columns = slopes.shape
        self._ascent, self._lines = ascent, lines
        self._rows = torch.cat([torch.eye(trees // 2), -torch.eye(trees // 2)])
        self._most = min(trees * (splits + 1), trees + MOST_NUMBERS // max(1, 2 * columns))
        self.forest = Forest(trees)
        self.count = trees
        # By leaf: which tree it is of, and its node there.
        self.tree, self.node = (torch.zeros(self._most, dtype=torch.int64) for _ in range(2))
        self.tree[:trees] = self.node[:trees] = torch.arange(trees)
        self.bounds = torch.full((self._most,), torch.inf)
        self.bounds[:trees] = bounds
        self.signs = torch.zeros(self._most, columns, dtype=torch.int8)
        self.slopes, self.multipliers = torch.zeros(2, self._most, columns)
        self.slopes[:trees] = slopes

    @property
    def least(self) -> Tensor:
        """What the trees prove, `(2 n,)`: the least bound over the leaves of each."""
        worst = torch.full((len(self._rows),), math.inf)
        return worst.scatter_reduce(0, self.tree[: self.count], self.bounds[: self.count], "amin")

    def split_once(self) -> bool:
        """Split the worst leaf of each tree of a unit whose sign is not known; False where there is nothing to do."""
        least, count = self.least, self.count
        known = (least > GOAL).view(2, -1).any(dim=0).repeat(2)
        worst = (self.bounds[:count] <= least[self.tree[:count]]) & ~known[self.tree[:count]]
        leaves = torch.nonzero(worst).squeeze(1)
        _, first = np.unique(self.tree[leaves].numpy(), return_index=True)
        leaves = leaves[torch.from_numpy(first)][: self._most - count]
        if not len(leaves):
            return False
        rows, stage = self._rows[self.tree[leaves]], self._ascent.network.output
        lines = self._lines_of(leaves)
        ended = self._ascent.evaluate(stage, rows, lines, self.slopes[leaves], self.multipliers[leaves])
        cost, units = (ended.costs.clamp(max=0) * -lines.offset).max(dim=1)
        leaves, units, rows = leaves[cost > 0], units[cost > 0], rows[cost > 0]
        if not len(leaves):
            return False
        self._halve(leaves, units, rows)
        return True

    def _lines_of(self, leaves: Tensor) -> Lines:
        planes = None if self._lines.planes is None else self._lines.planes[self.tree[leaves]]
        return replace(self._lines.split(self.signs[leaves], self._ascent.left), planes=planes)

    def _halve(self, leaves: Tensor, units: Tensor, rows: Tensor) -> None:
        """Replace leaves by their halves at units: the first takes the place, the second a new one."""
        more = torch.arange(self.count, self.count + len(leaves))
        both = torch.cat([leaves, more])
        for values in (self.tree, self.bounds, self.signs, self.slopes, self.multipliers):
            values[more] = values[leaves]
        self.signs[leaves, units], self.signs[more, units] = 1, -1
        lines = self._lines_of(both)
        bounds, slopes, multipliers = self._ascent.ascend(
            self._ascent.network.output, rows.repeat(2, 1), lines, self.slopes[both], self.multipliers[both],
            HALF_STEPS, GOAL,
        )  # fmt: skip
        assert multipliers is not None
        bounds = bounds.nan_to_num(-torch.inf, torch.inf, -torch.inf)
        self.bounds[both] = torch.maximum(bounds, self.bounds[both])
        self.slopes[both], self.multipliers[both] = slopes, multipliers
        nodes = [self.forest.split(*pair) for pair in zip(self.node[leaves].tolist(), units.tolist(), strict=True)]
        self.node[leaves] = torch.tensor(nodes)
        self.node[more] = self.node[leaves] + 1
        self.count += len(leaves)

    def as_proved(
        self, name: str, places: np.ndarray, columns: np.ndarray, powers: np.ndarray, least: int
    ) -> UnitTrees | None:
        """Return the trees that have so many leaves at least as they are kept; None where there are none.

        places: `(n,)`, of the units in their node; columns: `(columns,)`, places among all hinge units; powers:
        `(n, columns)`, of two, with which multipliers count in the network's own units.
        """
        n, by_node = len(places), {node: leaf for leaf, node in enumerate(self.node[: self.count].tolist())}
        trees, splits, leaves = list[int](), list[np.ndarray](), list[int]()
        for tree in range(2 * n):
            own, nodes = self.forest.preorder(tree)
            if len(nodes) >= least:
                trees.append(tree)
                splits.append(np.where(own < 0, own, columns[own]))
                leaves += [by_node[node] for node in nodes]
        if not trees:
            return None
        own_powers = powers[self.tree[leaves].numpy() % n]
        exact = np.ldexp(self.multipliers[leaves].numpy().astype(np.float64), own_powers)
        slopes = torch.where(self.signs[leaves] != 0, 0.0, self.slopes[leaves])
        kept = short_multipliers(exact, BITS)
        which = np.array(trees)
        return UnitTrees(
            name, places[which % n].astype(np.int32), np.where(which < n, 1, -1).astype(np.int8),
            columns.astype(np.int32), np.concatenate(splits).astype(np.int32),
            np.round(slopes.numpy().astype(np.float64) * STEPS) / STEPS, np.where(np.isfinite(kept), kept, 0.0),
        )  # fmt: skip
