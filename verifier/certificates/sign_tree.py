"""A ball divided by the signs of hinge units, and the numbers that prove each part.

Both halves of a split are closed, so that the leaves cover the ball by the tree's form. Leaves that the same numbers
prove name one set of them: the multiplier of a split unit counts along its half, as the halves of a unit are best
proved by multipliers of opposite signs and of like size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from verifier.certificates.error import CertificateError
from verifier.certificates.plane_points import PlanePoints

LEAF = -1


@dataclass(frozen=True, eq=False)
class SplitTree:
    """The splits against one rival, first subproblem first: a unit's place among all hinge units, then the subproblem
    where it is at least zero, then the one where it is at most zero; -1 for a leaf.

    slopes, multipliers: `(sets, open units)`, where the multiplier of a unit that a leaf splits is counted times its
    sign there. sets: `(leaves,)`, the row of these that proves each leaf, in the order of the splits. boxes:
    `(leaves,)`, the boxes that each takes, 0 for those of the ball, else those of a subtree; None for all 0. points:
    that name planes above the first hinge, of each set; None where sets have none of their own.
    """

    rival: int
    splits: np.ndarray
    slopes: np.ndarray
    multipliers: np.ndarray
    sets: np.ndarray
    boxes: np.ndarray | None = None
    points: PlanePoints | None = None

    @property
    def leaves(self) -> int:
        """How many subproblems no split divides."""
        return len(self.sets)

    @classmethod
    def of_leaves(
        cls,
        rival: int,
        splits: np.ndarray,
        slopes: np.ndarray,
        multipliers: np.ndarray,
        open_units: np.ndarray,
        boxes: np.ndarray | None = None,
        points: PlanePoints | None = None,
    ) -> SplitTree:
        """Return the tree with numbers `(leaves, open units)` of every leaf's own, whose multipliers are as they stand.

        open_units: `(open units,)`, their places among all hinge units.
        """
        units = 1 + max(int(open_units.max(initial=LEAF)), int(splits.max(initial=LEAF)))
        signs = leaf_signs(splits, units)[:, open_units]
        sets = np.arange(len(slopes), dtype=np.int32)
        return cls(rival, splits, slopes, along_signs(multipliers, signs), sets, boxes, points)

    def numbers(self, leaves: slice | np.ndarray, signs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (slopes, multipliers) `(k, open units)` of some leaves as they stand; signs: theirs, of open units."""
        sets = self.sets[leaves]
        return self.slopes[sets], along_signs(self.multipliers[sets], signs)


def along_signs(multipliers: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """Return multipliers times the sign where there is one: from as they stand to as they are kept, and back."""
    return np.where(signs < 0, -multipliers, multipliers)


def leaf_signs(splits: np.ndarray, units: int) -> np.ndarray:
    """Return the signs `(leaves, units)` of the leaves of a tree; CertificateError if the splits are no tree."""
    ends = leaves_below(splits)
    signs = np.zeros((ends[0], units), dtype=np.int8)
    leaf = 0
    for place, split in enumerate(splits.tolist()):
        if split == LEAF:
            leaf += 1
            continue
        if not 0 <= split < units or signs[leaf, split]:
            raise CertificateError(f"unit {split} is split twice, or does not exist")
        middle = leaf + ends[place + 1]
        signs[leaf:middle, split] = 1
        signs[middle : leaf + ends[place], split] = -1
    return signs


def leaves_below(splits: np.ndarray) -> list[int]:
    """Return how many leaves lie below each node of a tree in preorder; CertificateError if the splits are no tree."""
    # How many subproblems still wait after each node.
    waiting = 1 + np.where(splits == LEAF, -1, 1).cumsum()
    if (waiting[:-1] == 0).any():
        raise CertificateError("there are splits after the end of the tree")
    if not len(splits) or waiting[-1] != 0:
        raise CertificateError("the tree ends before its subproblems do")
    counts, done = list[int](), list[int]()
    for split in reversed(splits.tolist()):
        counts.append(1 if split == LEAF else done.pop() + done.pop())
        done.append(counts[-1])
    return counts[::-1]
