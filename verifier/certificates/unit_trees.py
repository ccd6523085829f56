"""Ends of the boxes of units, each proved by a small tree of splits of its own.

A bound of one unit over the triangles of the units before it is loose, and the splits that tighten it are not those
that tighten the output: so each end has its own (Tjeng et al. 2019, section 4, and Singh et al. 2019 bound units by
complete solvers). The leaves of a tree cover the ball by its form (`verifier.certificates.sign_tree`), and the least of
their bounds holds on all of it. The boxes that follow are those of the ball, for whatever uses them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from verifier.certificates.error import CertificateError
from verifier.certificates.planes import EndPlanes, UnitPlanes
from verifier.certificates.sign_tree import LEAF, leaf_signs
from verifier.certificates.split_program import SplitProgram

# Leaves that are evaluated side by side, where one tree has no more; and those that one tree may have.
PIECE, MOST_LEAVES = 512, 4096


@dataclass(frozen=True, eq=False)
class UnitTrees:
    """Trees that prove ends of the boxes of units of one node.

    name: of the node. places, ends: `(k,)`, the flattened unit that each tree is about, and 1 where it proves the lower
    end, -1 where it proves the upper. columns: `(c,)`, places among all hinge units before the node, of which numbers
    are. splits: of all trees one after the other, each in preorder, as `SplitTree` has them. slopes, multipliers:
    `(leaves, c)`, of the leaves in the order of the splits.
    """

    name: str
    places: np.ndarray
    ends: np.ndarray
    columns: np.ndarray
    splits: np.ndarray
    slopes: np.ndarray
    multipliers: np.ndarray

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return self.slopes.size + self.multipliers.size


def tightened_by_trees(program: SplitProgram, trees: UnitTrees, planes: UnitPlanes | None = None) -> None:
    """Meet the one box of the node just taken in with what trees prove; CertificateError if they are none.

    planes: of the same node, checked before; the leaves of an end that has some take them.
    """
    size = program.boxes[trees.name].lower.numel()
    _check(trees, size, program.units)
    program.condense(trees.name)
    lower, upper = np.full((1, size), -np.inf), np.full((1, size), np.inf)
    for tree, found in enumerate(_bounds(program, trees, size, planes).tolist()):
        place = trees.places[tree]
        if trees.ends[tree] > 0:
            lower[0, place] = max(lower[0, place], found)
        else:
            upper[0, place] = min(upper[0, place], -found)
    program.meet(trees.name, lower, upper)


def _bounds(program: SplitProgram, trees: UnitTrees, size: int, planes: UnitPlanes | None) -> np.ndarray:
    """Return what each tree proves of its unit, or of its negative, `(k,)`: the least over its leaves."""
    ends = _tree_ends(trees.splits)
    if len(ends) != len(trees.places):
        raise CertificateError(f"{trees.name!r}: {len(ends)} trees for {len(trees.places)} ends of boxes")
    starts = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
    counts = (ends - starts + 1) // 2
    if counts.max(initial=0) > MOST_LEAVES:
        raise CertificateError(f"{trees.name!r}: a tree of {counts.max():,} leaves is more than the {MOST_LEAVES:,}")
    if counts.sum() != len(trees.slopes):
        raise CertificateError(f"{trees.name!r}: numbers of {len(trees.slopes)} leaves where trees have {counts.sum()}")
    found, first = np.zeros(len(ends)), 0
    above = None if planes is None else EndPlanes(program, planes, trees.places, trees.ends)
    most = PIECE if above is None else min(PIECE, above.most)
    while first < len(ends):
        # As many trees as have so many leaves together, at least one.
        last = max(first + 1, int(np.searchsorted(counts[first:].cumsum(), PIECE, side="right")) + first)
        last = min(last, first + most)
        own = slice(first, last)
        signs = np.concatenate(
            [leaf_signs(trees.splits[a:b], program.units) for a, b in zip(starts[own], ends[own], strict=True)]
        )
        leaves = slice(int(counts[:first].sum()), int(counts[:last].sum()))
        which = np.repeat(np.arange(first, last), counts[own])
        rows = np.zeros((len(which), size))
        rows[np.arange(len(which)), trees.places[which]] = trees.ends[which]
        slopes, multipliers = np.zeros((2, len(which), program.units))
        slopes[:, trees.columns] = trees.slopes[leaves]
        multipliers[:, trees.columns] = trees.multipliers[leaves]
        own_planes = None if above is None else above.of(np.arange(first, last), which - first)
        bounds = program.bounds(trees.name, rows, signs, slopes, multipliers, planes=own_planes)
        found[own] = np.minimum.reduceat(bounds, np.concatenate([[0], counts[own].cumsum()[:-1]]))
        first = last
    return found


def _tree_ends(splits: np.ndarray) -> np.ndarray:
    """Return where each of several trees in preorder ends; CertificateError if the last one does not."""
    # A tree of n nodes takes the count down by one in all, and never before its last node.
    count = np.where(splits == LEAF, -1, 1).cumsum()
    least = np.minimum.accumulate(np.concatenate([[0], count]))
    ends = np.flatnonzero(np.diff(least)) + 1
    if len(splits) and (not len(ends) or ends[-1] != len(splits)):
        raise CertificateError("the last tree of a unit ends before its subproblems do")
    return ends


def _check(trees: UnitTrees, size: int, units: int) -> None:
    """Raise CertificateError unless numbers are of the kinds and shapes that the arithmetic takes."""
    name = repr(trees.name)
    for values in (trees.places, trees.ends, trees.columns, trees.splits):
        if values.ndim != 1 or values.dtype.kind not in "iu":
            raise CertificateError(f"trees of {name}: places, ends, columns and splits must be vectors of integers")
    if len(trees.places) and not 0 <= int(trees.places.min()) <= int(trees.places.max()) < size:
        raise CertificateError(f"trees of {name}: a unit does not exist")
    if len(trees.ends) != len(trees.places) or not np.isin(trees.ends, (-1, 1)).all():
        raise CertificateError(f"trees of {name}: its ends must be -1 or 1, one for each unit")
    columns = trees.columns
    if len(np.unique(columns)) != len(columns) or (len(columns) and not 0 <= columns.min() <= columns.max() < units):
        raise CertificateError(f"trees of {name}: a column is named twice, or does not exist")
    for values in (trees.slopes, trees.multipliers):
        if values.ndim != 2 or values.shape[1] != len(columns) or values.dtype.kind not in "uf":
            raise CertificateError(f"trees of {name}: numbers of type {values.dtype} and shape {values.shape}")
    if trees.slopes.shape != trees.multipliers.shape:
        raise CertificateError(f"trees of {name}: slopes and multipliers of different shapes")
